// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/format.h"

#include <array>
#include <limits>

#include "fsgen/image/option_reader.h"
#include "fsgen/image/seed_preset.h"

namespace mkvirtfs::fat32 {
namespace {

constexpr std::array<FormatName, 4> kNames{
    {{"fat", "width by size"}, {"fat12", ""}, {"fat16", ""}, {"fat32", ""}}};
constexpr std::array<std::string_view, 3> kBadNameWords{"escape", "skip", "error"};
constexpr std::array<std::string_view, 3> kCaseClashWords{"error", "escape", "skip"};

constexpr std::string_view kManual =
    "`fat12`, `fat16` and `fat32` are FAT of that width; `fat` chooses one of them by the size: "
    "FAT12 below 16 MiB, FAT16 below 512 MiB, else FAT32, and another one where that cannot hold "
    "the source. Hard links become files of their own, and a file that nobody may write is "
    "read-only. What else is lost is counted in one line and listed by `inspect --differences`.";

std::span<const OptionRow> rows() {
  static const std::array<OptionRow, 17> rows{{
      size_option(),
      free_option(),
      label_option("11 (FAT)",
                   "In FAT up to 11 characters of ASCII; lower case becomes upper case."),
      uuid_option("1234-ABCD (FAT)", "In FAT it is the volume id, _1234-ABCD_."),
      defaults_option(),
      {.name = "cluster-size",
       .value_name = "BYTES",
       .help = "512 to 65536 (default: by size)",
       .manual =
           "A power of two from 512 to 65536. By default it goes by the size of the image, up "
           "to 32768."},
      {.name = "sector-size",
       .value_name = "BYTES",
       .help = "512 (default), 1024, 2048 or 4096",
       .note = "1024 or 2048 (FAT)",
       .manual =
           "A FAT image by itself may also have sectors of 1024 or 2048 bytes. With 512 an image "
           "ends at 2 TiB, with 4096 at "
           "8 TiB, or at 16 TiB with `--cluster-size=65536`. With another size than 512 the disk's "
           "logical block must have that size, too (QEMU: `logical_block_size=4096`), or firmware "
           "and Windows do not read the volume."},
      symlinks_option(
          "",
          "What becomes of symbolic links. In FAT `skip` (the default) leaves them out, `follow` "
          "puts a copy of what they point to in their place, `error` refuses. When they are "
          "followed, `/` is the source's root; what leads out of the source, to nothing, or in a "
          "circle does not fit."),
      {.name = "names",
       .kind = OptionKind::choice,
       .value_name = "WHAT",
       .help = "Names that are not UTF-8",
       .choices = kBadNameWords,
       .manual = "What becomes of names that are not UTF-8: `escape` (the default), `skip` or "
                 "`error`. Escaped, each byte that is not UTF-8 becomes the character U+F000 plus "
                 "the byte. The same becomes of all that FAT forbids: control characters, "
                 "`\" * : < > ? \\ |`, and a dot or a blank at the end."},
      {.name = "case-clashes",
       .kind = OptionKind::choice,
       .value_name = "WHAT",
       .help = "Names that differ only in case",
       .choices = kCaseClashWords,
       .manual = "What becomes of names that differ from another of their directory only in case, "
                 "and that FAT would take for the same: `error` (the default), `escape` or `skip`. "
                 "Escaped, the letters that differ become characters from U+F000 on."},
      {.name = "skip-unfit",
       .kind = OptionKind::flag,
       .help = "Leave out what FAT cannot hold",
       .manual =
           "Leave out what FAT cannot hold instead of failing: files of 4 GiB and more, names "
           "beyond the 65,536 slots of a directory, symlinks that cannot be followed, names "
           "that clash."},
      {.name = "time-zone",
       .value_name = "ZONE",
       .help = "utc (default), local, +HH:MM or -HH:MM",
       .manual = "FAT has no time zone: this is the one of its times, `utc` (the default), `local` "
                 "(the image then differs from host to host), `+HH:MM` or `-HH:MM`. Times before "
                 "1980 and after 2107 become the nearest that there is."},
      {.name = "hidden-sectors",
       .value_name = "N",
       .help = "Sectors before the volume",
       .manual = "Sectors before the volume on its disk, for an image that will stand in a "
                 "partition that another program makes. In a partition of `--partition` it is that "
                 "partition's start."},
      {.name = "fat-hidden",
       .kind = OptionKind::repeated,
       .value_name = "GLOB",
       .help = "Make files that match hidden",
       .manual = "Give what matches the attribute \"hidden\". A _GLOB_ is as with `--exclude`, and "
                 "paths are those of the image. One that nothing matches is named on standard "
                 "error. May be repeated."},
      {.name = "fat-system",
       .kind = OptionKind::repeated,
       .value_name = "GLOB",
       .help = "Make files that match system files",
       .manual = "Give what matches the attribute \"system\", as `--fat-hidden` does for hidden."},
      {.name = "fat-readonly",
       .kind = OptionKind::repeated,
       .value_name = "GLOB",
       .help = "Make files that match read-only",
       .manual =
           "Give what matches the attribute \"read-only\", as `--fat-hidden` does for hidden. "
           "Files that nobody may write have it without this option, directories only with "
           "it."},
      preset_option(),
  }};
  return rows;
}

/// "utc", "local", "+HH:MM" or "-HH:MM".
std::optional<TimeZone> parse_time_zone(std::string_view text) {
  if (text == "utc") return TimeZone{};
  if (text == "local") return TimeZone{.local = true};
  const auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '9'; };
  if (text.size() != 6 || (text[0] != '+' && text[0] != '-') || !digit(1) || !digit(2) ||
      text[3] != ':' || !digit(4) || !digit(5)) {
    return {};
  }
  const int hours = (text[1] - '0') * 10 + (text[2] - '0');
  const int minutes = (text[4] - '0') * 10 + (text[5] - '0');
  if (hours > 23 || minutes > 59) return {};
  const int offset_minutes = hours * 60 + minutes;
  return TimeZone{.offset_minutes = text[0] == '-' ? -offset_minutes : offset_minutes};
}

/// Of a volume that begins there; 0, as without a partition, where the field cannot say it.
std::uint32_t hidden_sectors(std::uint64_t disk_offset_bytes, std::uint32_t sector_bytes) noexcept {
  const std::uint64_t sectors = disk_offset_bytes / sector_bytes;
  return sectors <= std::numeric_limits<std::uint32_t>::max() ? static_cast<std::uint32_t>(sectors)
                                                              : 0;
}

Result<Planner> configure(std::string_view name, const OptionValues& values) {
  Result<Options> read = read_options(name, values);
  if (!read) return propagate(read);
  OptionReader reader(values);
  return [read = std::move(*read), preset = read_preset(reader)](
             const PlanRequest& request) -> Result<std::shared_ptr<const PlannedImage>> {
    if (preset != nullptr) {
      const bool follows = read.symlinks == Symlinks::follow;
      Result<void> good =
          check_seed(*preset, request, follows ? SeedLinks::followed : SeedLinks::lost);
      if (!good) return propagate(good);
    }
    Options options = read;
    options.made_at_s = request.made_at_s;
    if (request.disk_sector_bytes) options.sector_bytes = *request.disk_sector_bytes;
    if (options.hidden_sectors == 0) {
      options.hidden_sectors = hidden_sectors(request.disk_offset_bytes, options.sector_bytes);
    }
    return plan(request.tree, options);
  };
}

}  // namespace

const Format& format() {
  static const Format format{
      .family = "FAT",
      .names = kNames,
      .holds = {},
      .options = rows(),
      .manual = kManual,
      .configure = configure,
  };
  return format;
}

Result<Options> read_options(std::string_view name, const OptionValues& values) {
  Options options;
  if (name == "fat12") options.width = Width::fat12;
  if (name == "fat16") options.width = Width::fat16;
  if (name == "fat32") options.width = Width::fat32;
  if (const std::string* size = values.find("size"); size != nullptr && *size == "min") {
    return fail_option({"size", *size}, "FAT is as small as it can be when no room is left",
                       {{"free", "0"}});
  }
  OptionReader reader(values);
  reader.defaults(options.defaults);
  reader.size("size", options.size_bytes);
  reader.free_space("free", options.free);
  reader.text("label", options.label);
  // The planner takes 0 for "not given", so a 0 that was given ends here.
  reader.number("cluster-size", {.least = 1}, options.cluster_bytes);
  reader.number("sector-size", {}, options.sector_bytes);
  reader.number("hidden-sectors", {}, options.hidden_sectors);
  reader.choice<Symlinks>(
      "symlinks",
      {{"skip", Symlinks::skip}, {"follow", Symlinks::follow}, {"error", Symlinks::error}},
      options.symlinks);
  reader.choice<BadNames>(
      "names", {{"escape", BadNames::escape}, {"skip", BadNames::skip}, {"error", BadNames::error}},
      options.bad_names);
  reader.choice<CaseClashes>(
      "case-clashes",
      {{"error", CaseClashes::error}, {"escape", CaseClashes::escape}, {"skip", CaseClashes::skip}},
      options.case_clashes);
  options.skip_unfit = reader.flag("skip-unfit");
  const auto patterns = [&](std::string_view option) {
    const auto given = values.all(option);
    return std::vector<std::string>(given.begin(), given.end());
  };
  options.hidden = patterns("fat-hidden");
  options.system = patterns("fat-system");
  options.read_only = patterns("fat-readonly");
  if (const std::string* text = reader.find("time-zone")) {
    const std::optional<TimeZone> zone = parse_time_zone(*text);
    if (!zone) reader.refuse("time-zone", *text, "not utc, local, +HH:MM or -HH:MM");
    options.time_zone = zone.value_or(TimeZone{});
  }
  if (const std::string* text = reader.find("uuid")) {
    options.volume_id = parse_volume_id(*text);
    if (!options.volume_id) reader.refuse("uuid", *text, "not a FAT volume id (1234-ABCD)");
  }
  const SeedPreset* const preset = read_preset(reader);
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  if (preset == nullptr) return options;
  Result<std::string> label = preset_label(*preset, options.label, LabelCase::upper);
  if (!label) return propagate(label);
  options.label = std::move(*label);
  if (!values.has("symlinks")) options.symlinks = Symlinks::follow;
  return options;
}

}  // namespace mkvirtfs::fat32
