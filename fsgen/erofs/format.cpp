// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/erofs/format.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "fsgen/image/option_reader.h"

namespace mkvirtfs::erofs {
namespace {

constexpr std::array<FormatName, 1> kNames{{{"erofs", "read-only"}}};
constexpr std::array<std::string_view, 2> kInodeTimes{"keep", "build"};

constexpr std::string_view kManual =
    "`erofs` is Linux's read-only file system for images of containers and virtual machines. It "
    "holds all that a Linux tree has, but for atime and ctime, which become the mtime, and it has "
    "no "
    "free space. Nothing is compressed. Linux reads it since 5.4; files with holes are stored in "
    "chunks, which it reads since 5.15. Linux never writes to it: where a guest must, use `ext4`, "
    "or "
    "lay an overlayfs over it in the guest.";

std::span<const OptionRow> rows() {
  static const std::array<OptionRow, 8> rows{{
      label_option("15 (EROFS)", "In EROFS up to 15 bytes."),
      uuid_option("",
                  "The volume's UUID. By default it is made from the contents and the options."),
      root_owner_option(),
      root_mode_option(),
      {.name = "block-size",
       .value_name = "BYTES",
       .help = "1024, 2048 or 4096",
       .note = "512 to 65536 (EROFS)",
       .manual =
           "In EROFS a power of two from 512 to 65536, 4096 by default. Linux mounts blocks of "
           "up to the size of its pages, which is 4096 bytes on most machines; before 6.4 only "
           "blocks of that size."},
      {.name = "tail-packing",
       .kind = OptionKind::flag,
       .help = "Store the ends of files behind their inodes",
       .manual = "Store the end of each file behind its inode where it fits there. The image is "
                 "smaller, but blocks of inodes are made of the bytes of many files: a client that "
                 "reads them waits for all of these."},
      {.name = "dedupe",
       .kind = OptionKind::flag,
       .help = "Store equal files once (reads all)",
       .manual = "In EROFS, files with holes share none."},
      {.name = "inode-times",
       .kind = OptionKind::choice,
       .value_name = "WHICH",
       .help = "Times of files",
       .choices = kInodeTimes,
       .manual =
           "`keep` the mtime of each file (the default), or give all files the volume's time, "
           "that of the `build`: their inodes are half as long then (mkfs.erofs "
           "--ignore-mtime)."},
  }};
  return rows;
}

Result<Planner> configure(std::string_view name, const OptionValues& values) {
  Result<Options> read = read_options(name, values);
  if (!read) return propagate(read);
  return [read = std::move(*read), dedupe = values.has("dedupe")](
             const PlanRequest& request) -> Result<std::shared_ptr<const PlannedImage>> {
    Options options = read;
    options.made_at_s = request.made_at_s;
    if (dedupe) {
      Result<std::vector<Duplicate>> duplicates = find_duplicates(*request.tree, *request.contents);
      if (!duplicates) return propagate(duplicates);
      options.duplicates = std::move(*duplicates);
    }
    return plan(request.tree, options);
  };
}

}  // namespace

const Format& format() {
  static const Format format{
      .family = "EROFS",
      .names = kNames,
      .holds =
          {.owners = true, .symlinks = true, .hard_links = true, .devices = true, .xattrs = true},
      .read_only = true,
      .options = rows(),
      .manual = kManual,
      .configure = configure,
  };
  return format;
}

Result<Options> read_options(std::string_view /*name*/, const OptionValues& values) {
  Options options;
  OptionReader reader(values);
  reader.text("label", options.label);
  reader.number("block-size", {.least = 1}, options.block_bytes);
  if (const std::string* text = reader.find("uuid")) {
    options.uuid = parse_uuid(*text);
    if (!options.uuid) reader.refuse("uuid", *text, "not a UUID");
  }
  options.tail_packing = reader.flag("tail-packing");
  reader.choice<InodeTimes>("inode-times",
                            {{"keep", InodeTimes::keep}, {"build", InodeTimes::build}},
                            options.inode_times);
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  return options;
}

}  // namespace mkvirtfs::erofs
