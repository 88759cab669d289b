// SPDX-License-Identifier: BSD-3-Clause
//
// The initrd has /init, the modules in the order of their loading, and one file of settings:
// records "key=value", each ended by NUL (guest-init/guest_settings.h).
#include "vm/initrd.h"

#include <fmt/format.h>

#include <utility>

#include "vm/cpio.h"
#include "vm/kernel_modules.h"

namespace mkvirtfs::vm {
namespace {

constexpr std::string_view kSettingsFile = "mkvirtfs.settings";
constexpr std::string_view kRootDevice = "/dev/vda";
constexpr std::uint32_t kConsoleMajor = 5;
constexpr std::uint32_t kConsoleMinor = 1;

/// The records, collected.
class Records {
 public:
  void add(std::string_view key, std::string_view value) {
    has_nul_ = has_nul_ || value.find('\0') != std::string_view::npos;
    text_ += key;
    text_ += '=';
    text_ += value;
    text_ += '\0';
  }
  void add_if(bool is_set, std::string_view key) {
    if (is_set) add(key, "");
  }
  bool has_nul() const noexcept { return has_nul_; }
  const std::string& text() const noexcept { return text_; }

 private:
  std::string text_;
  bool has_nul_ = false;
};

std::vector<std::string_view> wanted_modules(const GuestSetup& setup) {
  std::vector<std::string_view> wanted{"virtio_pci", "virtio_blk", "virtio_net", "virtio_console",
                                       "virtio_rng"};
  const auto add = [&](std::initializer_list<std::string_view> names) {
    wanted.insert(wanted.end(), names);
  };
  // What a file system asks the kernel for by an alias is loaded before: there is no modprobe.
  if (setup.root_type == "ext4") add({"crc32c_generic", "ext4"});
  if (setup.root_type == "vfat") add({"nls_cp437", "nls_ascii", "nls_utf8", "vfat"});
  if (setup.root_type == "iso9660") add({"nls_utf8", "isofs"});
  if (setup.root_type == "erofs") add({"crc32c_generic", "erofs"});
  if (setup.has_overlay) add({"overlay"});
  if (!setup.share_at.empty()) add({"virtiofs"});
  return wanted;
}

void add_setup(const GuestSetup& setup, Records& records) {
  records.add("root", kRootDevice);
  records.add("type", setup.root_type);
  records.add_if(setup.has_overlay, "overlay");
  records.add_if(setup.has_overlay, "read-only");
  records.add("port", kStatusPort);
  if (!setup.share_at.empty()) records.add("share", setup.share_at);
  // The init of a system brings its network up itself.
  records.add_if(!setup.arguments.empty(), "network");
  for (const std::string& word : setup.arguments) records.add("argument", word);
  for (const std::string& variable : setup.environment) records.add("variable", variable);
  if (!setup.user.empty()) records.add("user", setup.user);
  if (!setup.directory.empty()) records.add("directory", setup.directory);
  records.add_if(setup.has_terminal, "terminal");
  records.add("rows", std::to_string(setup.rows));
  records.add("columns", std::to_string(setup.columns));
}

Result<std::string> read_text(const KernelModules& modules, const std::string& path) {
  const auto bytes = modules.read(path);
  if (!bytes) return propagate(bytes);
  if (!*bytes) return std::string();
  return std::string(reinterpret_cast<const char*>((*bytes)->data()), (*bytes)->size());
}

}  // namespace

Result<Initrd> make_initrd(std::span<const std::byte> init, const GuestSetup& setup,
                           const KernelModules& modules) {
  const Result<std::string> dependencies = read_text(modules, "modules.dep");
  if (!dependencies) return propagate(dependencies);
  const Result<std::string> built_in = read_text(modules, "modules.builtin");
  if (!built_in) return propagate(built_in);
  ModuleChoice choice = choose_modules(wanted_modules(setup), *dependencies, *built_in);

  CpioWriter archive;
  archive.add_directory("dev", 0755);
  archive.add_character_device("dev/console", 0600, kConsoleMajor, kConsoleMinor);
  archive.add_file("init", 0755, init);
  archive.add_directory("modules", 0755);
  Records records;
  for (const std::string& file : choice.files) {
    const auto bytes = modules.read(file);
    if (!bytes) return propagate(bytes);
    if (!*bytes)
      return fail(Errc::unreadable, fmt::format("modules.dep names {}, which is not there", file));
    const std::string name = "modules/" + file.substr(file.rfind('/') + 1);
    archive.add_file(name, 0644, **bytes);
    records.add("module", "/" + name);
  }
  add_setup(setup, records);
  if (records.has_nul())
    return fail(Errc::usage, "a word of the command, or a variable, has a NUL in it");
  archive.add_file(kSettingsFile, 0600, std::as_bytes(std::span(records.text())));
  return Initrd{std::move(archive).finish(), std::move(choice.missing)};
}

}  // namespace mkvirtfs::vm
