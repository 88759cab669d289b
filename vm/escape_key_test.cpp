// SPDX-License-Identifier: BSD-3-Clause
#include "vm/escape_key.h"

#include <catch2/catch.hpp>

namespace mkvirtfs::vm {

TEST_CASE("keys go to the guest, but for those that leave it") {
  EscapeKey key;
  CHECK(key.type("ls\r\x03").for_guest == "ls\r\x03");
  CHECK(key.type("\x01\x01").for_guest == "\x01");
  CHECK(key.type("\x01"
                 "a")
            .for_guest == "\x01");
  CHECK(key.type("\x01q").for_guest == "\x01q");
  // The two keys come one by one.
  CHECK(key.type("a\x01").for_guest == "a");
  const EscapeKey::Typed typed = key.type("xb");
  CHECK(typed.leaves);
  CHECK(typed.for_guest.empty());
}

}  // namespace mkvirtfs::vm
