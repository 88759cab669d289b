// SPDX-License-Identifier: BSD-3-Clause
#include "cli/boot_options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <string_view>
#include <utility>

#include "cli/command_image.h"
#include "cli/kept_places.h"
#include "cli/streams.h"
#include "support/parse_number.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Machine";
constexpr std::string_view kDefaultFormat = "ext4";
constexpr std::string_view kDefaultFree = "1G";
constexpr const char* kAuthorizedKeys = "root/.ssh/authorized_keys";
constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

/// The format of an image of one file system; nullptr for a name that there is not, and for a disk
/// of partitions.
const Format* format_of(const FormatRegistry& formats, const ImageSpec& spec) {
  if (!spec.partitions.empty()) return nullptr;
  return formats.find(formats.resolve(spec.format, spec.options));
}

bool has_option(const FormatRegistry& formats, const ImageSpec& spec, std::string_view name) {
  const Format* const format = format_of(formats, spec);
  return std::ranges::any_of(formats.options(), [&](const FormatRegistry::Option& option) {
    return option.row.name == name &&
           std::ranges::find(option.formats, format) != option.formats.end();
  });
}

/// The name that Linux has for the format. Its driver of ext4 mounts ext2 and ext3, too.
std::string mount_type(const FormatRegistry& formats, const ImageSpec& spec) {
  const std::string_view name = formats.resolve(spec.format, spec.options);
  if (name.starts_with("ext")) return "ext4";
  if (name.starts_with("fat")) return "vfat";
  return std::string(name == "iso" ? "iso9660" : name);
}

}  // namespace

void BootOptions::add_to(OptionSet& options) {
  source_.add_to(options);
  options.add_value("-m,--memory", memory_, "SIZE", "Its memory (default: 1G)").group(kGroup);
  options.add_value("--cpus", cpus_, "N", "Its processors (default: 1)")
      .in_range(1, 255)
      .group(kGroup);
  options
      .add_value("--accel", accelerator_, "HOW",
                 "kvm, tcg (QEMU's translator), or auto (default):\nkvm where it works")
      .one_of({"auto", "kvm", "tcg"})
      .group(kGroup);
  options
      .add_value("--firmware", firmware_, "KIND",
                 "Let firmware start the disk: bios, uefi or\nuefi-secure (default: QEMU loads the "
                 "kernel)")
      .one_of({"bios", "uefi", "uefi-secure"})
      .group(kGroup);
  options
      .add_value("--keep", keep_, "OVERLAY",
                 "Keep what the guest writes in this file, and go\non with it the next time "
                 "(default: forget it)")
      .group(kGroup);
  options
      .add_flag("--ssh", ssh_,
                "Let root log in by ssh with your key, at a\nfree port of localhost, or at =PORT")
      .group(kGroup);
  options
      .add_value("--share", share_, "DIR",
                 "A directory of this host for the guest, which\nmounts it as virtiofs, tag share; "
                 "a command\n"
                 "finds it in /mnt/share")
      .group(kGroup);
  options.add_flag("--print", prints_, "Print QEMU's command line, and stop").group(kGroup);
  image_.add_to(options);
}

std::optional<vm::FirmwareKind> BootOptions::firmware() const {
  if (firmware_ == "bios") return vm::FirmwareKind::bios;
  if (firmware_ == "uefi") return vm::FirmwareKind::uefi;
  if (firmware_ == "uefi-secure") return vm::FirmwareKind::uefi_secure;
  return std::nullopt;
}

Result<void> BootOptions::complete_for_kernel(ImageSpec& spec) const {
  for (const char* option : {"table", "partition", "esp", "boot"}) {
    if (!image_.values().has(option)) continue;
    return std::unexpected(Error{
        Errc::usage,
        0,
        fmt::format("--{}: QEMU loads the kernel itself, and the disk is one file system", option),
        {},
        {{"firmware"}}});
  }
  for (const char* option : {"kernel", "initrd", "append"}) spec.options.remove(option);
  const FormatRegistry& formats = image_.formats();
  if (has_option(formats, spec, "free") && !spec.options.has("size") && !spec.options.has("free")) {
    spec.options.add("free", std::string(kDefaultFree));
  }
  return {};
}

Result<void> BootOptions::check_for_firmware(const ImageSpec& spec,
                                             vm::FirmwareKind firmware) const {
  if (spec.options.has("boot") || !spec.partitions.empty()) return {};
  const bool is_bios = firmware == vm::FirmwareKind::bios;
  // A FAT volume may have a loader for UEFI by its name.
  if (!is_bios && !has_option(image_.formats(), spec, "cluster-size")) {
    return fail(
        Errc::usage,
        "--firmware starts a loader, and the image has none: UEFI starts what lies on FAT",
        {{"boot", firmware == vm::FirmwareKind::uefi ? "uki" : "uefi-signed"}, {"esp", "256M"}});
  }
  if (!is_bios) return {};
  return fail(Errc::usage, "--firmware=bios starts a loader, and the image has none",
              {{"boot", "extlinux"}});
}

Result<void> BootOptions::add_key(ImageSpec& spec) const {
  if (!spec.partitions.empty()) {
    return fail(Errc::usage,
                "--ssh: with --partition, a key is a file of the root's partition (file=)");
  }
  const std::string home = environment("HOME").value_or("");
  for (const char* name : {"id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"}) {
    const std::string path = fmt::format("{}/.ssh/{}", home, name);
    if (::access(path.c_str(), R_OK) != 0) continue;
    SourceSpec key;
    key.path = path;
    key.at = kAuthorizedKeys;
    key.is_file = true;
    key.owner_uid = 0;
    key.owner_gid = 0;
    spec.sources.push_back(std::move(key));
    return {};
  }
  return fail(Errc::usage,
              fmt::format("--ssh: {}/.ssh has no key that could be placed in the guest "
                          "(ssh-keygen makes one)",
                          home));
}

Result<ImageSpec> BootOptions::read_image() const {
  const Result<std::vector<PlacedSource>> words = source_.words();
  if (!words) return propagate(words);
  Result<ImageSpec> spec = command_image(source_, *words, image_);
  if (!spec) return spec;
  const FormatRegistry& formats = image_.formats();
  // What a system writes to.
  const bool is_named = !spec->format.empty() || !spec->partitions.empty() ||
                        formats.resolve("", spec->options) != formats.default_name();
  if (!is_named) spec->format = kDefaultFormat;
  const std::optional<vm::FirmwareKind> kind = firmware();
  Result<void> good = kind ? check_for_firmware(*spec, *kind) : complete_for_kernel(*spec);
  if (good && !ssh_.empty()) good = add_key(*spec);
  if (!good) return propagate(good);
  if (keep_.empty()) return spec;
  spec->keep_base = true;
  spec->given_options = given_options(source_.values(), spec->format, spec->options, formats);
  const std::vector<KeptPlace> places = {{"--keep", keep_}};
  good = check_outside_source(all_sources(*spec), places);
  if (!good) return propagate(good);
  return spec;
}

Result<BootLine> BootOptions::read() const {
  BootLine line;
  const std::optional<std::uint64_t> memory_bytes = parse_size(memory_);
  if (!memory_bytes || *memory_bytes < kMebibyte || *memory_bytes % kMebibyte != 0) {
    return fail(Errc::usage, fmt::format("--memory={} is not a size in whole MiB (1G)", memory_));
  }
  line.memory_bytes = *memory_bytes;
  line.cpus = cpus_;
  boost::system::error_code ignored;
  if (keep_.ends_with('/') || boost::filesystem::is_directory(keep_, ignored)) {
    return fail(Errc::usage, fmt::format("--keep={} is a directory, not a file", keep_));
  }
  Result<ImageSpec> image = read_image();
  if (!image) return propagate(image);
  line.image = *std::move(image);
  const OptionValues values = image_.values();
  if (const std::string* kernel = values.find("kernel")) line.kernel.kernel = *kernel;
  for (const std::string& initrd : values.all("initrd")) line.kernel.initrds.push_back(initrd);
  if (const std::string* append = values.find("append")) line.append = *append;
  const Format* const format = format_of(image_.formats(), line.image);
  line.is_read_only = format != nullptr && format->read_only;
  if (line.is_read_only && !keep_.empty()) {
    return fail(Errc::usage,
                fmt::format("--keep={}: no system writes to {}", keep_, line.image.format));
  }
  line.firmware = firmware();
  if (accelerator_ == "kvm") line.accelerator = vm::AcceleratorWish::kvm;
  if (accelerator_ == "tcg") line.accelerator = vm::AcceleratorWish::tcg;
  line.keep = keep_;
  line.command = command_;
  line.has_ssh = !ssh_.empty();
  if (line.has_ssh && ssh_ != "true") {
    const auto port = parse_number<std::uint16_t>(ssh_);
    if (!port || *port == 0) return fail(Errc::usage, fmt::format("--ssh={} is not a port", ssh_));
    line.ssh_port = *port;
  }
  if (!share_.empty()) {
    if (!boost::filesystem::is_directory(share_, ignored)) {
      return fail(Errc::usage, fmt::format("--share={} is not a directory", share_));
    }
    line.share = boost::filesystem::absolute(share_).string();
  }
  if (line.firmware && !command_.empty()) {
    return fail(Errc::usage, "--firmware starts what the disk has, and no command");
  }
  if (!line.kernel.initrds.empty() && (!command_.empty() || line.is_read_only)) {
    return fail(Errc::usage,
                "--initrd: a command, or a root that cannot be written, needs an initrd of ours");
  }
  line.kernel.wants_own_initrd = !command_.empty() || line.is_read_only;
  line.mount_type = mount_type(image_.formats(), line.image);
  line.prints = prints_;
  return line;
}

}  // namespace mkvirtfs::cli
