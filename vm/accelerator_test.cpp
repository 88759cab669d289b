// SPDX-License-Identifier: BSD-3-Clause
#include "vm/accelerator.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/temp_dir.h"

namespace mkvirtfs::vm {

TEST_CASE("KVM is taken where it works, and TCG is the way out") {
  const KvmFacts good{.can_open = true};
  const AcceleratorChoice choice = choose_accelerator(AcceleratorWish::automatic, good);
  CHECK(choice.accelerator == Accelerator::kvm);
  CHECK(choice.may_fall_back);
  CHECK(choice.reason.empty());

  KvmFacts other = good;
  SECTION("another processor") { other.is_this_architecture = false; }
  SECTION("kvm_pvm") { other.is_pvm = true; }
  SECTION("no device") { other.can_open = false; }
  SECTION("it has failed before") { other.has_failed = true; }
  const AcceleratorChoice emulated = choose_accelerator(AcceleratorWish::automatic, other);
  if (other.can_open && other.is_this_architecture && !other.is_pvm && !other.has_failed) return;
  CHECK(emulated.accelerator == Accelerator::tcg);
  CHECK_FALSE(emulated.may_fall_back);
  CHECK_FALSE(emulated.reason.empty());
}

TEST_CASE("what is asked for is what runs, and nothing takes its place") {
  const KvmFacts none{};
  CHECK(choose_accelerator(AcceleratorWish::kvm, none).accelerator == Accelerator::kvm);
  CHECK_FALSE(choose_accelerator(AcceleratorWish::kvm, none).may_fall_back);
  CHECK(choose_accelerator(AcceleratorWish::tcg, {.can_open = true}).accelerator ==
        Accelerator::tcg);
}

TEST_CASE("a guest without any sign of life after ten seconds has not started") {
  using namespace std::chrono_literals;
  CHECK_FALSE(has_not_started({.age = 9s}));
  CHECK(has_not_started({.age = 10s}));
  CHECK(has_not_started({.age = 10s, .disk_reads = 1}));
  CHECK_FALSE(has_not_started({.age = 10s, .disk_reads = 2}));
  CHECK_FALSE(has_not_started({.age = 10s, .has_console_output = true}));
  CHECK(is_internal_error("KVM internal error. Suberror: 1"));
  CHECK_FALSE(is_internal_error("qemu-system-x86_64: warning: host doesn't support it"));
}

TEST_CASE("a failure of KVM is remembered until the host boots again") {
  const TempDir directory;
  const std::string file = directory / "below/kvm-failed";
  CHECK_FALSE(look_at_kvm(file).has_failed);
  CHECK_FALSE(look_at_kvm("").has_failed);
  remember_failure(file);
  CHECK(look_at_kvm(file).has_failed);
  std::ofstream(file) << "00000000-0000-0000-0000-000000000000\n";
  CHECK_FALSE(look_at_kvm(file).has_failed);
}

}  // namespace mkvirtfs::vm
