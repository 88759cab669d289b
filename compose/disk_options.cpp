// SPDX-License-Identifier: BSD-3-Clause
#include "compose/disk_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <system_error>

#include "bootsect/gpt.h"
#include "fsgen/image/option_reader.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

constexpr std::array<std::string_view, 4> kTableWords{"none", "mbr", "gpt", "hybrid"};
constexpr std::array<std::string_view, 1> kOutsideWords{"no"};
constexpr std::array<std::string_view, 2> kConfigWords{"tree", "ours"};

constexpr std::array kDiskOptions = std::to_array<OptionRow>({
    {.name = "table",
     .kind = OptionKind::choice,
     .value_name = "KIND",
     .help = "Partition table",
     .choices = kTableWords,
     .manual =
         "Make a disk: a partition table, and the image as its one partition, or what "
         "`--partition` names. `mbr` is that of a PC, which ends at 2 TiB, `gpt` that of UEFI, "
         "with a protective MBR and a backup at the end. `none` is the default without "
         "`--partition`, and `gpt` with it. `hybrid` is a GPT whose MBR shows up to three of its "
         "partitions, too, for what knows no GPT: the first ones that an MBR has a type for, and "
         "the one that boots. An ISO image that boots has a table of its own: with `hybrid` it is "
         "isohybrid's MBR, and a GPT when UEFI starts the image. All ids derive from the "
         "sources and options. With `--table`, `--size` is the size of the disk, which by default "
         "is what its partitions need in whole MiB.\n"
         "`mkvirtfs dump rootfs --fs=ext4 --table=mbr -o disk.img`"},
    {.name = "partition",
     .kind = OptionKind::repeated,
     .value_name = "WHAT[,OPTION]...",
     .help = "A partition: SOURCE,fs=ext4,type=root,size=+1G; FILE,fs=raw; swap,size=1G; "
             "blank,size=1G (see the manual); may be repeated",
     .manual =
         "A partition of the disk, behind those before it. _WHAT_ is a _SOURCE_, which becomes a "
         "file system; a file, with `fs=raw`, which is an image already; `swap`, with a size, "
         "which is swap space; or `blank`, with a size, which is zeroes. A directory of that name "
         "is _./swap_. A comma in a path is doubled. The options of the whole that are about "
         "sources are those of every partition, too. There is no _SOURCE_ beside it. Options of a "
         "partition are those of sources and of formats without their dashes, and:\n"
         "`size=`_SIZE_: exactly so large. `size=+`_SIZE_: as large as what stands in it, with so "
         "much room.\n"
         "`type=`_TYPE_: what it holds, by its name in the Discoverable Partitions Specification "
         "(`esp`, `xbootldr`, `home`, `root-arm64`), by that of sfdisk(8) (`linux`, `swap`, "
         "`uefi`, `L`), as a GUID, or as the byte of an MBR (`0x83`). `root` and `usr` are those "
         "of the architecture that `platform=` names, or that the kernel in the source is for. By "
         "default it goes by what the partition holds.\n"
         "`name=`_NAME_: its name in a GPT, up to 36 units of UTF-16. `label=` is the label of the "
         "file system.\n"
         "`bootable`: what the code of an MBR boots; in a GPT, legacy BIOS bootable. "
         "`attribute=`_NAME_, may be repeated: in a GPT, `required`, `no-block-io`, "
         "`legacy-boot`, `grow`, `read-only` or `no-auto`.\n"
         "`partuuid=`_UUID_: its own GUID in a GPT.\n"
         "`offset=`_BYTES_: where it begins; by default at the next multiple of 1 MiB. "
         "`table=no`: outside the table, as firmware is that a board expects at a fixed place.\n"
         "`mkvirtfs serve --partition boot,fs=fat,type=esp,size=256M --partition "
         "rootfs,fs=ext4,type=root,name=root,size=+2G --partition swap,size=1G`"},
    {.name = "sector-size",
     .value_name = "BYTES",
     .help = "Sectors: 512 (default) or 4096",
     .manual =
         "The sectors of a disk with a table, and of FAT: 512, the default, or 4096. An image with "
         "a table and sectors of 4096 bytes is for a device that has such blocks (QEMU: "
         "`logical_block_size=4096`; `nbd-client -b 4096`): the export has a minimum block of "
         "4096."},
    {.name = "disk-id",
     .value_name = "ID",
     .help = "The disk's own id (default: derived)",
     .manual = "The disk's id: a UUID with a GPT, eight hexadecimal digits with an MBR. "
               "`PARTUUID` of a partition of an MBR is that and the partition's number."},
    {.name = "boot",
     .kind = OptionKind::list,
     .value_name = "LOADER[,LOADER]...",
     .help = "Make it boot: syslinux (FAT), extlinux (ext), isolinux (ISO), grub; by UEFI, from "
             "FAT and ISO: uefi, systemd-boot, uki, uefi-signed",
     .manual =
         "Make the image boot. On a PC with a BIOS, `syslinux` boots FAT, as a floppy, a stick or "
         "a "
         "disk; `extlinux` ext2, ext3 and ext4; `isolinux` an ISO image, as a CD and as a disk; "
         "`grub` any of them in a disk with a table. The loader's files are added to the file "
         "system, and with `--table` its code to the MBR. With `grub` and `gpt` a partition of 1 "
         "MiB for its code is made, unless one has the type `bios-boot`. Of several partitions the "
         "one that is `bootable` boots, or the first one that "
         "can. `syslinux` and `extlinux` go together, each in a partition of its own: the first "
         "one named boots, unless the other's is `bootable`. The loader is that of the installed "
         "packages; see `--boot-files`. "
         "`docs/booting.md` has what boots from what.\n"
         "UEFI starts what lies in _EFI/BOOT_ of a FAT volume, in a partition of the type `esp` or "
         "without a table: with `uefi` a loader or a unified kernel image that the source has "
         "there, or that `--loader` names; with `systemd-boot` that loader; with `uki` a unified "
         "kernel image, which is made of systemd's stub, the kernel, its initrds and its command "
         "line; with `uefi-signed` Debian's shim and GRUB, which Secure Boot starts, and a kernel "
         "that Debian has signed. One of these goes together with one for a BIOS. They are for "
         "x86-64; a given loader is for any machine. In an ISO image they are in _boot/efi.img_, a "
         "FAT "
         "image, from which it starts as a CD and as a disk.\n"
         "A configuration in the source counts. Where there is none, one is made for the newest "
         "kernel of the sources, which is _usr/lib/modules/VERSION/vmlinuz_, "
         "_boot/vmlinuz-VERSION_ or the link _vmlinuz_, and for its initrd."},
    {.name = "esp",
     .value_name = "SIZE",
     .help = "Add an EFI system partition of that size",
     .manual =
         "Add a FAT partition of that size, of the type `esp`, behind the others, for what UEFI "
         "starts. `--table` is `gpt` then, unless it says otherwise. Kernel and initrd of another "
         "partition are shown in it, too; nothing is copied.\n"
         "`mkvirtfs serve rootfs --fs=ext4 --esp=256M --boot=systemd-boot`"},
    {.name = "loader",
     .value_name = "FILE",
     .help = "What --boot=uefi starts: an executable of UEFI on this host",
     .manual =
         "With `--boot=uefi`: an executable of UEFI, a file of this host. It gets the name of its "
         "machine: _EFI/BOOT/BOOTX64.EFI_, _BOOTAA64.EFI_, _BOOTIA32.EFI_ or _BOOTRISCV64.EFI_. So "
         "an image can be dumped, its kernel signed with a key of one's own, and given back."},
    {.name = "kernel",
     .value_name = "PATH",
     .help = "The kernel to boot, a path in a source",
     .manual = "The kernel of the configuration that is made, a path in a source. By default the "
               "newest one."},
    {.name = "initrd",
     .kind = OptionKind::repeated,
     .value_name = "PATH",
     .help = "Its initrd, a path in a source; may be repeated",
     .manual = "An initrd for that kernel, a path in a source. May be repeated."},
    {.name = "append",
     .value_name = "WORDS",
     .help = "The kernel's command line",
     .manual =
         "Words for the kernel. Without `root=` among them, the root is the partition of the type "
         "`root`, or the one with the kernel, or the one that boots, by its `PARTUUID`; without a "
         "table it is the file system by its `UUID`, which takes an initrd. Without `console=`, "
         "the console is `console=tty0 console=ttyS0,115200`."},
    {.name = "boot-timeout",
     .value_name = "SECONDS",
     .help = "How long the loader waits for a key",
     .manual = "How long the loader of a made configuration waits for a key. By default it does "
               "not."},
    {.name = "boot-config",
     .kind = OptionKind::choice,
     .value_name = "WHOSE",
     .help = "Which configuration counts",
     .choices = kConfigWords,
     .manual = "Which configuration counts: `tree` (the default), that of the source if it has "
               "one; `ours`, the made one."},
    {.name = "boot-files",
     .value_name = "DIR",
     .help = "Directory of the loader's files (default: where the packages put them)",
     .manual =
         "The directory that has the files of the loader: for `syslinux` and "
         "`extlinux` the program of that name, 6.04, _ldlinux.c32_, and for a table _mbr.bin_ "
         "or _gptmbr.bin_; for `isolinux` _isolinux.bin_, _isohdpfx.bin_ and _ldlinux.c32_; "
         "for `grub` _boot.img_, _grub-mkimage_, _kernel.img_ and the modules; for `systemd-boot` "
         "_systemd-bootx64.efi_; for `uki` _linuxx64.efi.stub_; for `uefi-signed` "
         "_shimx64.efi.signed_, _grubx64.efi.signed_ and _mmx64.efi.signed_. By default "
         "they are looked for where Debian's packages put them."},
});

constexpr std::array kPartitionOptions = std::to_array<OptionRow>({
    {.name = "size", .value_name = "SIZE"},
    {.name = "offset", .value_name = "BYTES"},
    {.name = "table", .kind = OptionKind::choice, .value_name = "no", .choices = kOutsideWords},
    {.name = "type", .value_name = "TYPE"},
    {.name = "name", .value_name = "NAME"},
    {.name = "partuuid", .value_name = "UUID"},
    {.name = "bootable", .kind = OptionKind::flag},
    {.name = "attribute", .kind = OptionKind::repeated, .value_name = "NAME"},
});

/// Eight hexadecimal digits.
std::optional<std::uint32_t> parse_mbr_id(std::string_view text) noexcept {
  std::uint32_t id = 0;
  if (text.starts_with("0x")) text.remove_prefix(2);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id, 16);
  const bool is_whole =
      text.size() == 8 && error == std::errc() && end == text.data() + text.size();
  return is_whole ? std::optional(id) : std::nullopt;
}

Result<void> read_disk_id(const std::string& text, DiskSettings& settings) {
  if (!settings.table && !settings.is_hybrid) {
    return fail_option({"disk-id", text}, "without a partition table there is no such id",
                       {{"table"}});
  }
  if (settings.table != bootsect::TableKind::mbr) {
    settings.gpt_id = parse_uuid(text);
    if (settings.gpt_id) return {};
    return fail_option({"disk-id", text}, "not a UUID, as a GPT has it");
  }
  settings.mbr_id = parse_mbr_id(text);
  if (settings.mbr_id) return {};
  return fail_option({"disk-id", text}, "not eight hexadecimal digits, as an MBR has them");
}

}  // namespace

std::span<const OptionRow> disk_options() { return kDiskOptions; }
std::span<const OptionRow> partition_options() { return kPartitionOptions; }

Result<DiskSettings> read_disk_options(const OptionValues& values, std::string_view format) {
  enum class Table : std::uint8_t { none, mbr, gpt, hybrid };
  DiskSettings settings;
  OptionReader reader(values);
  const bool is_disk = format.empty() || values.has("esp");
  Table table = is_disk ? Table::gpt : Table::none;
  reader.choice<Table>(
      "table",
      {{"none", Table::none}, {"mbr", Table::mbr}, {"gpt", Table::gpt}, {"hybrid", Table::hybrid}},
      table);
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  if (is_disk && table == Table::none) {
    return fail_option({"table", "none"}, "partitions need a table",
                       {{"table", "gpt"}, {"table", "mbr"}});
  }
  if (table == Table::mbr) settings.table = bootsect::TableKind::mbr;
  if (table == Table::gpt) settings.table = bootsect::TableKind::gpt;
  settings.is_hybrid = table == Table::hybrid;
  const bool is_own = settings.is_hybrid && !is_disk && format == "iso";
  if (settings.is_hybrid && !is_own) settings.table = bootsect::TableKind::gpt;
  if (is_own && !values.has("boot")) {
    return fail_option({"table", "hybrid"},
                       "an ISO image has a partition table of its own for what boots from it",
                       {{"boot", "isolinux"}, {"table", "gpt"}});
  }
  if (settings.table) {
    constexpr std::uint32_t kLargeSectorBytes = 4096;
    reader.number("sector-size", {}, settings.sector_bytes);
    reader.size("size", settings.size_bytes);
    reader.size("esp", settings.esp_bytes);
    if (Result<void> good = reader.finish(); !good) return propagate(good);
    if (settings.sector_bytes != bootsect::kUsualSectorBytes &&
        settings.sector_bytes != kLargeSectorBytes) {
      return fail_option({"sector-size", *values.find("sector-size")},
                         "disks with a table have sectors of 512 or 4096 bytes");
    }
  }
  if (const std::string* id = values.find("disk-id")) {
    if (Result<void> good = read_disk_id(*id, settings); !good) return propagate(good);
  }
  return settings;
}

Result<std::optional<BootSettings>> read_boot_options(const OptionValues& values) {
  if (!values.has("boot")) {
    for (const std::string_view name :
         {"kernel", "initrd", "append", "boot-timeout", "boot-config", "boot-files", "loader"}) {
      const std::string* const value = values.find(name);
      if (value == nullptr) continue;
      return fail_option({std::string(name), *value}, "nothing boots without a loader", {{"boot"}});
    }
    return std::nullopt;
  }
  enum class Whose : std::uint8_t { tree, ours };
  constexpr std::uint32_t kLongestTimeoutSeconds = 3600;
  BootSettings settings;
  Whose whose = Whose::tree;
  OptionReader reader(values);
  settings.loaders.assign(values.all("boot").begin(), values.all("boot").end());
  reader.text("kernel", settings.kernel);
  settings.initrds.assign(values.all("initrd").begin(), values.all("initrd").end());
  reader.text("append", settings.append);
  reader.number("boot-timeout", {.most = kLongestTimeoutSeconds}, settings.timeout_s);
  reader.choice<Whose>("boot-config", {{"tree", Whose::tree}, {"ours", Whose::ours}}, whose);
  settings.replaces_config = whose == Whose::ours;
  reader.text("boot-files", settings.files_directory);
  reader.text("loader", settings.own_loader);
  if (!settings.own_loader.empty() &&
      std::ranges::find(settings.loaders, "uefi") == settings.loaders.end()) {
    reader.refuse("loader", settings.own_loader, "that is for UEFI to start");
  }
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  // A line of a configuration ends there.
  for (const auto& [name, text] :
       {std::pair("append", &settings.append), std::pair("kernel", &settings.kernel)}) {
    if (text->find_first_of("\r\n") != std::string::npos) {
      return fail_option({name, *text}, "it has a line end");
    }
  }
  return settings;
}

Result<void> read_partition_options(const OptionValues& values, PartitionSpec& partition) {
  OptionReader reader(values);
  if (const std::string* size = values.find("size")) {
    const bool is_room = size->starts_with('+');
    const auto bytes = parse_size(std::string_view(*size).substr(is_room ? 1 : 0));
    if (!bytes) reader.refuse("size", *size, "not a size (65536, 64M, 1GiB) or room (+1G)");
    (is_room ? partition.free_bytes : partition.size_bytes) = bytes;
  }
  reader.size("offset", partition.offset_bytes);
  if (const std::string* table = values.find("table"); table != nullptr && *table != "no") {
    reader.refuse("table", *table, "not no, which puts the part outside the table");
  }
  partition.in_table = !values.has("table");
  reader.text("type", partition.type);
  reader.text("name", partition.name);
  reader.text("partuuid", partition.id);
  partition.boots = reader.flag("bootable");
  for (const std::string& attribute : values.all("attribute")) {
    if (!bootsect::find_gpt_attribute(attribute)) {
      reader.refuse("attribute", attribute,
                    "not required, no-block-io, legacy-boot, grow, read-only or no-auto");
    }
    partition.attributes.push_back(attribute);
  }
  if (Result<void> good = reader.finish(); !good) return good;
  for (const std::string_view name : {"type", "name", "partuuid", "bootable", "attribute"}) {
    if (partition.in_table || !values.has(name)) continue;
    return fail(Errc::usage, fmt::format("what lies outside the table has no {} there", name));
  }
  return {};
}

}  // namespace mkvirtfs
