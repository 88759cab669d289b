// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/format.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "fsgen/image/duplicates.h"
#include "fsgen/image/option_reader.h"
#include "fsgen/image/seed_preset.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::array<FormatName, 1> kNames{{{"iso", ""}}};
constexpr std::array<std::string_view, 4> kJolietWords{"yes", "long", "utf16", "no"};
constexpr std::array<std::string_view, 2> kDeepWords{"keep", "relocate"};

constexpr std::string_view kManual =
    "`iso` is ISO 9660 with Rock Ridge and Joliet. The image is as large as its contents; `--size` "
    "and `--free` do not go with it. Times are in whole seconds from 1900 to 2155, and Joliet has "
    "directories and regular files alone.";

std::span<const OptionRow> rows() {
  static const std::array<OptionRow, 13> rows{{
      label_option("32 (ISO)",
                   "In ISO 9660 up to 32 characters of ASCII, of which Joliet shows 16."),
      uuid_option("a date (ISO)",
                  "In ISO 9660 it is the date of the volume, _2026-01-31-23-59-59-00_, which "
                  "readers take for a UUID."),
      defaults_option(),
      root_owner_option(),
      root_mode_option(),
      {.name = "iso-level",
       .value_name = "N",
       .help = "Level of interchange: 1, 2 or 3 (default)",
       .manual = "The level of interchange: 1 has names of 8 and 3 characters, 2 and 3 of 30 "
                 "together, and only 3, the default, has files of 4 GiB and more. Rock Ridge has "
                 "the names as they are, whatever the level."},
      {.name = "joliet",
       .kind = OptionKind::choice,
       .value_name = "WHAT",
       .help = "Names for Windows",
       .choices = kJolietWords,
       .manual = "For systems that do not know Rock Ridge: `yes` (the default: names of up to 64 "
                 "characters), `long` (103, which is more than the specification has), `utf16` (as "
                 "`yes`, but characters beyond 16 bits, such as emoji, stand there as pairs) or "
                 "`no`. With `yes` and `long` such characters become `_`, because Joliet is UCS-2, "
                 "and libcdio loses the whole directory with one that is not."},
      {.name = "deep-directories",
       .kind = OptionKind::choice,
       .value_name = "WHAT",
       .help = "Directories below 8 levels",
       .choices = kDeepWords,
       .manual = "What becomes of directories below 8 levels, or with paths of more than 255 "
                 "characters: `keep` (the default) leaves them where they are, as xorriso does; "
                 "`relocate` puts them, as ECMA-119 wants it, into a directory of their own that "
                 "readers of Rock Ridge do not show, and GRUB does not find."},
      symlinks_option(
          "in ISO keep (default) or follow",
          "In ISO 9660 `keep` (the default) has them in Rock Ridge alone, and `follow` puts what "
          "they point to in their place, for readers of Joliet, too: a file once more, without "
          "bytes of its own, or a copy of a directory."),
      {.name = "volume-field",
       .kind = OptionKind::repeated,
       .value_name = "FIELD",
       .help = "NAME=TEXT: publisher, application... (see the manual); may be repeated",
       .manual =
           "NAME=TEXT, a field of the volume descriptor: `system`, `volume-set`, `publisher`, "
           "`preparer` or `application`, or the name of a file in the root of the source as "
           "`copyright`, `abstract` or `bibliographic`. May be repeated."},
      {.name = "dedupe",
       .kind = OptionKind::flag,
       .help = "Store equal files once (reads all)",
       .manual = "Files with the same bytes share them. This reads all files of which the size is "
                 "not the only one; otherwise only hard links share."},
      {.name = "pad",
       .kind = OptionKind::flag,
       .help = "Pad the image to a multiple of 32 KiB",
       .manual = "Fill the image up to a multiple of 32 KiB."},
      preset_option(),
  }};
  return rows;
}

void read_volume_fields(const OptionValues& values, OptionReader& reader, Options& options) {
  for (const std::string& text : values.all("volume-field")) {
    const std::size_t equals = text.find('=');
    const std::optional<Field> field = parse_field(std::string_view(text).substr(0, equals));
    if (!field || equals == std::string::npos) {
      reader.refuse("volume-field", text,
                    "not system=TEXT, volume-set=, publisher=, preparer=, application=, "
                    "copyright=, abstract= or bibliographic=");
      return;
    }
    options.fields.push_back({*field, text.substr(equals + 1)});
  }
}

bool follows_symlinks(const OptionValues& values) {
  const std::string* const text = values.find("symlinks");
  return text != nullptr && *text == "follow";
}

Result<Planner> configure(std::string_view name, const OptionValues& values) {
  Result<Options> read = read_options(name, values);
  if (!read) return propagate(read);
  OptionReader reader(values);
  return [read = std::move(*read), dedupe = values.has("dedupe"), preset = read_preset(reader)](
             const PlanRequest& request) -> Result<std::shared_ptr<const PlannedImage>> {
    if (preset != nullptr) {
      Result<void> good = check_seed(*preset, request, SeedLinks::kept);
      if (!good) return propagate(good);
    }
    Options options = read;
    options.made_at_s = request.made_at_s;
    if (dedupe) {
      Result<std::vector<Duplicate>> duplicates = find_duplicates(*request.tree, *request.contents);
      if (!duplicates) return propagate(duplicates);
      options.duplicates = std::move(*duplicates);
    }
    options.followed = request.followed;
    if (!request.boot_file.empty()) {
      options.boot.files.push_back({.path = request.boot_file});
      options.boot.catalog = true;
    }
    if (!request.last_file.empty()) {
      constexpr std::uint32_t kPageBlocks = 2;  // so that whole pages of its files can be moved
      options.boot.files.push_back(
          {.path = request.last_file, .align_blocks = kPageBlocks, .is_last = true});
      options.boot.catalog = true;
    }
    if (request.align_bytes != 0) options.boot.align_bytes = request.align_bytes;
    options.boot.tail_bytes = request.tail_bytes;
    return plan(request.tree, options);
  };
}

}  // namespace

const Format& format() {
  static const Format format{
      .family = "ISO 9660",
      .names = kNames,
      .holds = {.owners = true, .symlinks = true, .hard_links = true, .devices = true},
      .read_only = true,
      .options = rows(),
      .manual = kManual,
      .configure = configure,
      .follows_symlinks = follows_symlinks,
  };
  return format;
}

Result<Options> read_options(std::string_view /*name*/, const OptionValues& values) {
  Options options;
  OptionReader reader(values);
  Defaults defaults = Defaults::current;
  reader.defaults(defaults);
  if (defaults == Defaults::v0_1) {
    options.joliet_characters = JolietCharacters::utf16;
    options.deep = DeepDirectories::relocate;
    options.application_use = std::byte{0};
  }
  reader.text("label", options.label);
  reader.number("iso-level", {.least = 1, .most = 3}, options.level);
  reader.choice<Joliet>("joliet",
                        {{"yes", Joliet::standard},
                         {"long", Joliet::longer},
                         {"utf16", Joliet::standard},
                         {"no", Joliet::none}},
                        options.joliet);
  const std::string* const joliet = reader.find("joliet");
  if (joliet != nullptr && *joliet == "utf16") options.joliet_characters = JolietCharacters::utf16;
  reader.choice<DeepDirectories>(
      "deep-directories",
      {{"keep", DeepDirectories::keep}, {"relocate", DeepDirectories::relocate}}, options.deep);
  const SeedPreset* const preset = read_preset(reader);
  read_volume_fields(values, reader, options);
  if (const std::string* text = reader.find("uuid")) {
    options.volume_time = parse_volume_time(*text);
    if (!options.volume_time) {
      reader.refuse("uuid", *text,
                    "not a date (2026-01-31-23-59-59-00), which ISO 9660 has for a UUID");
    }
  }
  options.pad = reader.flag("pad");
  // What is planned has no symlinks then: see Format::follows_symlinks.
  enum class Symlinks : std::uint8_t { keep, follow };
  Symlinks symlinks = Symlinks::keep;
  reader.choice<Symlinks>("symlinks", {{"keep", Symlinks::keep}, {"follow", Symlinks::follow}},
                          symlinks);
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  if (preset == nullptr) return options;
  if (preset->is_windows && options.joliet == Joliet::none) {
    return fail_option({"joliet", "no"}, "Windows reads names of Joliet");
  }
  Result<std::string> label = preset_label(*preset, options.label, LabelCase::kept);
  if (!label) return propagate(label);
  options.label = std::move(*label);
  return options;
}

}  // namespace mkvirtfs::iso9660
