// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <termios.h>

#include <optional>

namespace mkvirtfs::cli {

/// A terminal whose keys go through one by one, and mean nothing to it, while this lives. Nothing
/// happens to a descriptor that is no terminal.
class RawTerminal {
 public:
  /// `fd` is not owned, and outlives this.
  explicit RawTerminal(int fd) noexcept;
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  bool is_terminal() const noexcept { return before_.has_value(); }

 private:
  const int fd_;
  std::optional<termios> before_;
};

}  // namespace mkvirtfs::cli
