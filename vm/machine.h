// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vm/accelerator.h"

namespace mkvirtfs::vm {

/// A kernel that QEMU loads itself: files of this host, and the kernel's command line.
struct DirectKernel {
  std::string kernel;
  std::string initrd;  ///< "": none
  std::string command_line;
};

/// Firmware for UEFI, and the variables of one machine.
struct Flash {
  std::string code;
  std::string variables;  ///< written by the machine
  bool is_secure = false;
};

/// The name by which a guest mounts the directory: mount -t virtiofs share /mnt.
inline constexpr std::string_view kShareTag = "share";

/// A PC with one disk, a network of its own and a serial console, as QEMU is to make it.
struct Machine {
  Accelerator accelerator = Accelerator::tcg;
  std::uint64_t memory_bytes = std::uint64_t{1} << 30;
  unsigned cpus = 1;

  std::string disk_socket;               ///< the Unix socket of the NBD server; its default export
  std::uint32_t disk_block_bytes = 512;  ///< its sectors
  bool disk_is_read_only = false;        ///< the guest sees a disk that cannot be written

  /// A port of localhost that leads to port 22 of the guest; 0: none does.
  std::uint16_t ssh_port = 0;
  /// The Unix socket of the virtiofsd that shares a directory of the host, under the tag kShareTag;
  /// "": none does.
  std::string share_socket;
  /// The Unix socket at which a status of the guest is awaited (vm/initrd.h); "": none is.
  std::string status_socket;

  /// Otherwise the firmware starts what the disk has.
  std::optional<DirectKernel> direct;
  /// Otherwise the firmware is a BIOS.
  std::optional<Flash> flash;
};

/// QEMU's arguments, without its name. The console is its standard input and output.
std::vector<std::string> qemu_arguments(const Machine& machine);

/// Words as a shell takes them, on one line: those with anything but plain characters are quoted.
std::string shell_line(const std::vector<std::string>& words);

}  // namespace mkvirtfs::vm
