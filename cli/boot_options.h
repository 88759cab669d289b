// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/boot_kernel.h"
#include "cli/command_line.h"
#include "cli/image_options.h"
#include "cli/source_options.h"
#include "compose/image_spec.h"
#include "support/error.h"
#include "vm/accelerator.h"
#include "vm/firmware.h"

namespace mkvirtfs::cli {

/// What the command line of boot says, checked.
struct BootLine {
  ImageSpec image;
  bool is_read_only = false;  ///< no system writes to the format
  std::string mount_type;     ///< of one file system, as mount(8) has it
  /// What starts the disk; nullopt: QEMU loads the kernel itself.
  std::optional<vm::FirmwareKind> firmware;
  KernelWish kernel;
  std::string append;

  std::uint64_t memory_bytes = 0;
  unsigned cpus = 1;
  vm::AcceleratorWish accelerator = vm::AcceleratorWish::automatic;
  std::string keep;            ///< the overlay that stays; "": none
  bool has_ssh = false;        ///< a key of the user lies in the image
  std::uint16_t ssh_port = 0;  ///< of this host; 0: any
  std::string share;           ///< a directory of this host for the guest, absolute; "": none
  bool prints = false;
  /// What the guest runs; nothing: what the source says.
  std::vector<std::string> command;
};

/// The options of boot: those of sources and images, and its own.
class BootOptions {
 public:
  /// `formats` must outlive this.
  explicit BootOptions(const FormatRegistry& formats) : image_(formats) {}

  void add_to(OptionSet& options);
  /// After parsing. Errors: Errc::usage; Errc::unsupported for images that do not boot so.
  Result<BootLine> read() const;
  /// The words behind "--".
  void set_command(std::vector<std::string> words) { command_ = std::move(words); }
  const FormatRegistry& formats() const noexcept { return image_.formats(); }

 private:
  Result<ImageSpec> read_image() const;
  /// The image of a kernel that QEMU loads: one file system, which a system writes to.
  Result<void> complete_for_kernel(ImageSpec& spec) const;
  /// Whether anything in the image starts.
  Result<void> check_for_firmware(const ImageSpec& spec, vm::FirmwareKind firmware) const;
  std::optional<vm::FirmwareKind> firmware() const;
  /// Lays the user's key over the sources.
  Result<void> add_key(ImageSpec& spec) const;

  SourceOptions source_;
  ImageOptions image_;
  std::string memory_ = "1G";
  unsigned cpus_ = 1;
  std::string accelerator_ = "auto";
  std::string firmware_;
  std::string keep_;
  std::string ssh_;  // "true" without a port
  std::string share_;
  bool prints_ = false;
  std::vector<std::string> command_;
};

}  // namespace mkvirtfs::cli
