// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/ext2/format.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fsgen/image/option_reader.h"
#include "support/text.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint32_t kSmallestBlockBytes = 1024;

constexpr std::array<FormatName, 3> kNames{{{"ext2", "default"}, {"ext3", ""}, {"ext4", ""}}};

constexpr std::string_view kManual =
    "`ext2`, `ext3` and `ext4` are Linux's file systems. They hold all that a Linux tree has, but "
    "for atime and ctime, which become the mtime.";

std::span<const OptionRow> rows() {
  static const std::array<OptionRow, 17> rows{{
      size_or_min_option("also min (ext)"),
      free_option(),
      label_option("16 bytes (ext)", "The volume's label: in ext up to 16 bytes."),
      uuid_option("",
                  "The volume's UUID. By default it is made from the contents and the options."),
      defaults_option(),
      root_owner_option(),
      root_mode_option(),
      {.name = "inodes",
       .value_name = "N",
       .help = "At least this many inodes",
       .manual =
           "Have at least this many inodes. By default there is room for those of the "
           "source, 10% and 1024 more, and there is one for 16 KiB of the file system (32 KiB "
           "from 4 TiB on, 64 KiB from 16 TiB on). What `--size` has no room for is left out, "
           "and a line says so. Inodes that are not in use cost nothing."},
      {.name = "bytes-per-inode",
       .value_name = "SIZE",
       .help = "At least one inode for each SIZE bytes (default 16K)",
       .manual = "Have at least one inode for so many bytes of the file system, 64M at most. A "
                 "block is the least."},
      {.name = "block-size",
       .value_name = "BYTES",
       .help = "1024, 2048 or 4096",
       .manual = "In ext 1024, 2048 or 4096, which is the default for all but small images."},
      {.name = "inode-size",
       .value_name = "BYTES",
       .help = "128 or 256",
       .manual = "128 or 256, the default. Inodes of 128 bytes hold times in whole seconds, until "
                 "2038."},
      {.name = "journal",
       .kind = OptionKind::flag,
       .help = "Have a journal (ext3 always has one)",
       .manual = "Have a journal. ext3 always has one, and ext4 by default, where the file system "
                 "has 2048 blocks and `--size` leaves room for it; with this option, a size that "
                 "has no room for it is refused. What a client writes to a journal makes a "
                 "temporary overlay grow by up to the journal's size."},
      {.name = "no-journal",
       .kind = OptionKind::flag,
       .help = "Have no journal",
       .manual = "Have no journal.",
       .excludes = "journal"},
      {.name = "reserved",
       .value_name = "PERCENT",
       .help = "Blocks kept for root (default 0)",
       .manual = "Blocks that are kept for root, 0 by default."},
      {.name = "features",
       .kind = OptionKind::list,
       .value_name = "LIST",
       .help = "As mke2fs -O: dir_index,^metadata_csum...",
       .manual =
           "Features by the names that mke2fs(8) has for them, with commas between them; `^` "
           "in front takes one away: `dir_index`, `sparse_super`, `metadata_csum`, "
           "`metadata_csum_seed`, `64bit`, `extent` (`^extent` needs `^64bit`), `flex_bg`, "
           "`large_dir`, `ea_inode`, `orphan_file`, `quota`, `project`, `has_journal`, "
           "`resize_inode`. A name of what an image always or never has is taken where it says "
           "so. `ea_inode` comes by itself in ext4 where extended attributes do not fit "
           "a block, and a line says so, because GRUB cannot read such a volume; `^ea_inode` "
           "refuses them."},
      {.name = "extended",
       .kind = OptionKind::list,
       .value_name = "LIST",
       .help = "As mke2fs -E: stride=8,hash_seed=UUID...",
       .manual = "Settings by the names that mke2fs(8) has for them, with commas between them: "
                 "`hash_seed=`_UUID_, of the indexes of directories; `stride=`_BLOCKS_ and "
                 "`stripe_width=`_BLOCKS_, of the RAID that the image will lie on; "
                 "`errors=continue`, `remount-ro` or `panic`, what the kernel does when it finds "
                 "the file system damaged (mke2fs -e)."},
      {.name = "no-lost-found",
       .kind = OptionKind::flag,
       .help = "Make no lost+found",
       .manual = "Make no lost+found where the source has none. e2fsck makes it when it repairs "
                 "something."},
  }};
  return rows;
}

/// "NAME=VALUE" of mke2fs -E.
void read_extended(const std::string& text, OptionReader& reader, Options& options) {
  const std::size_t equals = text.find('=');
  const std::string_view name = std::string_view(text).substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
  const auto blocks = [&](std::uint64_t most) -> std::uint32_t {
    const std::optional<std::uint64_t> number = parse_size(value);
    if (number && *number > 0 && *number <= most) return static_cast<std::uint32_t>(*number);
    reader.refuse("extended", text, fmt::format("not a number of blocks from 1 to {}", most));
    return 0;
  };
  if (name == "hash_seed") {
    options.hash_seed = parse_uuid(value);
    if (!options.hash_seed) reader.refuse("extended", text, "not a UUID");
  } else if (name == "stride") {
    options.stride_blocks = static_cast<std::uint16_t>(blocks(0xFFFF));
  } else if (name == "stripe_width" || name == "stripe-width") {
    options.stripe_width_blocks = blocks(0xFFFFFFFF);
  } else if (name == "errors" && value == "continue") {
    options.on_errors = OnErrors::go_on;
  } else if (name == "errors" && value == "remount-ro") {
    options.on_errors = OnErrors::remount_read_only;
  } else if (name == "errors" && value == "panic") {
    options.on_errors = OnErrors::panic;
  } else if (name == "errors") {
    reader.refuse("extended", text, "not continue, remount-ro or panic");
  } else {
    reader.refuse("extended", text,
                  "not one of hash_seed=UUID, stride=BLOCKS, stripe_width=BLOCKS, errors=WORD");
  }
}

Result<Planner> configure(std::string_view name, const OptionValues& values) {
  Result<Options> read = read_options(name, values);
  if (!read) return propagate(read);
  return [read = std::move(*read)](
             const PlanRequest& request) -> Result<std::shared_ptr<const PlannedImage>> {
    Options options = read;
    options.made_at_s = request.made_at_s;
    options.threads = request.threads;
    const std::uint32_t sector_bytes = request.disk_sector_bytes.value_or(kSmallestBlockBytes);
    if (options.block_bytes == 0 && sector_bytes > kSmallestBlockBytes) {
      options.block_bytes = sector_bytes;
    }
    if (options.block_bytes != 0 && options.block_bytes < sector_bytes) {
      return fail_option({"block-size", fmt::format("{}", options.block_bytes)},
                         fmt::format("Linux mounts no blocks that are smaller than the disk's "
                                     "sectors of {} bytes",
                                     sector_bytes));
    }
    return plan(request.tree, options);
  };
}

}  // namespace

const Format& format() {
  static const Format format{
      .family = "ext2/3/4",
      .names = kNames,
      .holds =
          {.owners = true, .symlinks = true, .hard_links = true, .devices = true, .xattrs = true},
      .options = rows(),
      .manual = kManual,
      .configure = configure,
  };
  return format;
}

Result<Options> read_options(std::string_view name, const OptionValues& values) {
  Options options;
  options.variant = name == "ext4" ? Variant::ext4 : name == "ext3" ? Variant::ext3 : Variant::ext2;
  OptionReader reader(values);
  reader.defaults(options.defaults);
  const std::string* size = reader.find("size");
  options.smallest = size != nullptr && *size == "min";
  if (!options.smallest) reader.size("size", options.size_bytes);
  reader.free_space("free", options.free);
  reader.text("label", options.label);
  reader.number("inodes", {}, options.inodes);
  reader.number("bytes-per-inode", {.least = 1024, .most = 64u << 20}, options.bytes_per_inode);
  // The planner takes 0 for "not given", so a 0 that was given ends here.
  reader.number("block-size", {.least = 1}, options.block_bytes);
  reader.number("inode-size", {.least = 1}, options.inode_bytes);
  reader.number("reserved", {.most = 50}, options.reserved_percent);
  if (const std::string* text = reader.find("uuid")) {
    options.uuid = parse_uuid(*text);
    if (!options.uuid) reader.refuse("uuid", *text, "not a UUID");
  }
  if (reader.flag("journal")) options.journal = true;
  if (reader.flag("no-journal")) options.journal = false;
  options.lost_found = !reader.flag("no-lost-found");
  for (const std::string& text : values.all("extended")) read_extended(text, reader, options);
  const std::span<const std::string> features = values.all("features");
  options.features.assign(features.begin(), features.end());
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  return options;
}

}  // namespace mkvirtfs::ext2
