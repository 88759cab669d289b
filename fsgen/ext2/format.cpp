// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/ext2/format.h"

#include <array>

#include "fsgen/image/option_reader.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::array<FormatName, 3> kNames{{{"ext2", "default"}, {"ext3", ""}, {"ext4", ""}}};

constexpr std::string_view kManual =
    "`ext2`, `ext3` and `ext4` are Linux's file systems. They hold all that a Linux tree has, but "
    "for atime and ctime, which become the mtime.";

std::span<const OptionRow> rows() {
  static const std::array<OptionRow, 13> rows{{
      size_option(),
      free_option(),
      label_option("16 bytes (ext)", "The volume's label: in ext up to 16 bytes."),
      uuid_option("",
                  "The volume's UUID. By default it is made from the contents and the options."),
      defaults_option(),
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
       .help = "At least one inode for so many bytes (default 16K)",
       .manual = "Have at least one inode for so many bytes of the file system, 64M at most. A "
                 "block is the least."},
      {.name = "block-size",
       .value_name = "BYTES",
       .help = "1024, 2048 or 4096",
       .manual = "1024, 2048 or 4096, which is the default for all but small images."},
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
       .manual = "Features by the names that mke2fs(8) has for them, with commas between them; `^` "
                 "in front takes one away: `dir_index`, `sparse_super`, `metadata_csum`, `64bit`, "
                 "`large_dir`, `has_journal`, `resize_inode`."},
  }};
  return rows;
}

Result<Planner> configure(std::string_view name, const OptionValues& values) {
  Result<Options> read = read_options(name, values);
  if (!read) return propagate(read);
  return [read = std::move(*read)](const PlanRequest& request) {
    Options options = read;
    options.made_at_s = request.made_at_s;
    options.threads = request.threads;
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
  reader.size("size", options.size_bytes);
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
  const std::span<const std::string> features = values.all("features");
  options.features.assign(features.begin(), features.end());
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  return options;
}

}  // namespace mkvirtfs::ext2
