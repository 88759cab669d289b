// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <span>

#include "support/error.h"

namespace mkvirtfs {

/// Bytes that come one after the other and cannot be read again. For one thread at a time.
///
/// An error is final: a later call returns it again.
class ForwardReader {
 public:
  virtual ~ForwardReader() = default;

  /// The next bytes, as many as are there; they stay until the next call. Empty at the end.
  Result<std::span<const std::byte>> next();

  /// The last `count` bytes that next() gave come again, in the same span: only right after it.
  void give_back(std::size_t count) noexcept;

  /// Copies the next bytes: at least one, unless it is the end (0) or `out` is empty.
  Result<std::size_t> read(std::span<std::byte> out);

  /// Leaves out `count` bytes, or fewer when it ends before: how many.
  Result<std::uint64_t> skip(std::uint64_t count);

 protected:
  /// next(), by the class that makes the bytes.
  virtual Result<std::span<const std::byte>> make_more() = 0;

 private:
  std::span<const std::byte> rest_;   // of what make_more() gave
  std::span<const std::byte> given_;  // by next(), last
};

}  // namespace mkvirtfs
