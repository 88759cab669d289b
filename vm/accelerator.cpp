// SPDX-License-Identifier: BSD-3-Clause
#include "vm/accelerator.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <system_error>
#include <vector>

#include "support/file_bytes.h"
#include "support/unique_fd.h"

namespace mkvirtfs::vm {
namespace {

constexpr const char* kDevice = "/dev/kvm";
constexpr const char* kPvmModule = "/sys/module/kvm_pvm";
constexpr const char* kBootId = "/proc/sys/kernel/random/boot_id";
constexpr std::size_t kMostIdBytes = 64;

/// The first bytes of a small file, which may be one of /proc, whose size is 0; "" without any.
std::string small_text(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::string text(kMostIdBytes, '\0');
  const ssize_t length = file ? ::read(file.get(), text.data(), text.size()) : -1;
  text.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
  return text;
}

}  // namespace

KvmFacts look_at_kvm(const std::string& failure_file) {
  KvmFacts facts;
#ifndef __x86_64__
  facts.is_this_architecture = false;
#endif
  facts.can_open = ::access(kDevice, R_OK | W_OK) == 0;
  facts.is_pvm = ::access(kPvmModule, F_OK) == 0;
  const std::string remembered = failure_file.empty() ? "" : small_text(failure_file);
  facts.has_failed = !remembered.empty() && remembered == small_text(kBootId);
  return facts;
}

AcceleratorChoice choose_accelerator(AcceleratorWish wish, const KvmFacts& facts) {
  if (wish == AcceleratorWish::kvm) return {Accelerator::kvm, false, ""};
  if (wish == AcceleratorWish::tcg) return {Accelerator::tcg, false, ""};
  const char* reason = nullptr;
  if (!facts.is_this_architecture) {
    reason = "this host has another processor than the guest";
  } else if (facts.is_pvm) {
    reason = "this host has kvm_pvm, which does not run every kernel";
  } else if (!facts.can_open) {
    reason = "/dev/kvm cannot be opened";
  } else if (facts.has_failed) {
    reason = "KVM has failed since this host was booted";
  }
  if (reason != nullptr) return {Accelerator::tcg, false, reason};
  return {Accelerator::kvm, true, ""};
}

bool has_not_started(const StartSigns& signs) noexcept {
  // QEMU itself reads the first sector, to guess a geometry.
  constexpr std::uint64_t kReadsOfQemu = 1;
  return signs.age >= kStartLimit && !signs.has_console_output && signs.disk_reads <= kReadsOfQemu;
}

bool is_internal_error(std::string_view line) noexcept {
  return line.find("KVM internal error") != std::string_view::npos;
}

void remember_failure(const std::string& failure_file) {
  if (failure_file.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(failure_file).parent_path(), ignored);
  const UniqueFd file(
      ::open(failure_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  const std::string id = small_text(kBootId);
  if (file) static_cast<void>(write_all(file.get(), std::as_bytes(std::span(id))));
}

}  // namespace mkvirtfs::vm
