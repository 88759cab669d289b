// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>

namespace mkvirtfs::vm {

/// What keys mean at the console of a machine: Ctrl-A X leaves it, Ctrl-A Ctrl-A (or Ctrl-A A) is
/// Ctrl-A, anything else is the guest's. These are QEMU's own keys. One thread.
class EscapeKey {
 public:
  struct Typed {
    std::string for_guest;
    bool leaves = false;  ///< what was typed behind it is dropped
  };
  Typed type(std::string_view keys);

 private:
  bool is_pending_ = false;  // Ctrl-A was the last key
};

}  // namespace mkvirtfs::vm
