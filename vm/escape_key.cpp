// SPDX-License-Identifier: BSD-3-Clause
#include "vm/escape_key.h"

namespace mkvirtfs::vm {
namespace {

constexpr char kControlA = '\x01';

}  // namespace

EscapeKey::Typed EscapeKey::type(std::string_view keys) {
  Typed typed;
  for (const char key : keys) {
    if (!is_pending_) {
      is_pending_ = key == kControlA;
      if (!is_pending_) typed.for_guest += key;
      continue;
    }
    is_pending_ = false;
    if (key == 'x' || key == 'X') {
      typed.leaves = true;
      return typed;
    }
    typed.for_guest += kControlA;
    if (key != kControlA && key != 'a' && key != 'A') typed.for_guest += key;
  }
  return typed;
}

}  // namespace mkvirtfs::vm
