// SPDX-License-Identifier: BSD-3-Clause
#include "net/eager_wait.h"

#include <catch2/catch.hpp>

namespace mkvirtfs::net {
namespace {

void sleep_shortly(EagerWait& wait) {
  wait.sleep_begins();
  wait.sleep_ended();
}

EagerWait trusting() {
  EagerWait wait;
  for (int i = 0; i < 32; ++i) sleep_shortly(wait);
  return wait;
}

}  // namespace

TEST_CASE("a client is not looked out for before it came back soon several times") {
  EagerWait wait;
  int tried = 0;
  const auto try_once = [&] {
    ++tried;
    return true;
  };
  CHECK_FALSE(wait.look_out(try_once));
  sleep_shortly(wait);
  CHECK_FALSE(wait.look_out(try_once));
  CHECK(tried == 0);
}

TEST_CASE("a client that comes back soon is looked out for, where there are processors to spare") {
  EagerWait wait = trusting();
  int tried = 0;
  const bool found = wait.look_out([&] { return ++tried > 0; });
  CHECK(found == (EagerWait::most_at_once() > 0));
}

TEST_CASE("looking out in vain ends, and is given up") {
  EagerWait wait = trusting();
  int tried = 0;
  for (int i = 0; i < 100; ++i) {
    CHECK_FALSE(wait.look_out([&] {
      ++tried;
      return false;
    }));
  }
  const int tried_before = tried;
  CHECK_FALSE(wait.look_out([&] {
    ++tried;
    return true;
  }));
  CHECK(tried == tried_before);
}

TEST_CASE("only a part of the processors is spent on looking out") {
  // Each looks out within the one before: as many at once as there may be, and one more.
  const int most = EagerWait::most_at_once();
  int inside = 0;
  const auto go_deeper = [&](const auto& self) -> bool {
    EagerWait wait = trusting();
    return wait.look_out([&] {
      ++inside;
      self(self);
      return true;
    });
  };
  go_deeper(go_deeper);
  CHECK(inside == most);
}

}  // namespace mkvirtfs::net
