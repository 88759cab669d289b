// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace mkvirtfs::vm {

/// What runs a guest's instructions: the processor, or QEMU's own translator.
enum class Accelerator : std::uint8_t { kvm, tcg };

/// What the user asks for.
enum class AcceleratorWish : std::uint8_t { automatic, kvm, tcg };

/// What this host says of KVM.
struct KvmFacts {
  bool is_this_architecture = true;  ///< its processor runs the guest's instructions
  bool can_open = false;             ///< /dev/kvm, for reading and writing
  /// The module kvm_pvm is loaded: a KVM without the processor's own virtualization, which starts
  /// many kernels and never runs them.
  bool is_pvm = false;
  bool has_failed = false;  ///< a guest did not start since this host's last boot
};
/// Of this host. `failure_file` is what remember_failure() wrote.
KvmFacts look_at_kvm(const std::string& failure_file);

struct AcceleratorChoice {
  Accelerator accelerator = Accelerator::tcg;
  /// When the guest does not start, it is started again with TCG.
  bool may_fall_back = false;
  std::string reason;  ///< why it is TCG although nobody asked for it; "" otherwise
};
AcceleratorChoice choose_accelerator(AcceleratorWish wish, const KvmFacts& facts);

/// A guest that works has said something, or read its disk, in this time.
inline constexpr std::chrono::seconds kStartLimit{10};

/// What a machine has done since its start.
struct StartSigns {
  std::chrono::milliseconds age{};
  bool has_console_output = false;
  std::uint64_t disk_reads = 0;  ///< requests that its disk has answered
};
/// Whether it is as good as certain that the guest never ran.
bool has_not_started(const StartSigns& signs) noexcept;

/// Whether a line of QEMU's standard error says that KVM gave up.
bool is_internal_error(std::string_view line) noexcept;

/// Remembers in `failure_file` until the next boot of this host that KVM runs no guests; without a
/// word when that cannot be written.
void remember_failure(const std::string& failure_file);

}  // namespace mkvirtfs::vm
