// SPDX-License-Identifier: BSD-3-Clause
#include "cli/image_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <optional>

#include "cli/source_options.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Image";
constexpr const char* kExtGroup = "Image, ext2/3/4 only";
constexpr const char* kFatGroup = "Image, FAT only";
constexpr const char* kIsoGroup = "Image, ISO 9660 only";

Result<std::uint64_t> size_value(const char* option, const std::string& text) {
  const std::optional<std::uint64_t> size = parse_size(text);
  if (!size) {
    return fail(Errc::usage, fmt::format("{}={} is not a size (1536, 64M, 4GiB)", option, text));
  }
  return *size;
}

Result<std::uint32_t> number_value(const char* option, const std::string& text,
                                   std::uint32_t most) {
  const std::optional<std::uint64_t> number = parse_size(text);
  if (!number || *number > most) {
    return fail(Errc::usage, fmt::format("{}={} is not a number up to {}", option, text, most));
  }
  return static_cast<std::uint32_t>(*number);
}

/// The planners have types of their own for it, which are alike.
template <class Bytes, class Percent>
Result<std::variant<Bytes, Percent>> free_value(const std::string& text) {
  if (!text.ends_with('%')) {
    const Result<std::uint64_t> size = size_value("--free", text);
    if (!size) return std::unexpected(size.error());
    return Bytes{*size};
  }
  constexpr std::uint64_t kMostPercent = 100'000;
  const std::optional<std::uint64_t> percent =
      parse_size(std::string_view(text).substr(0, text.size() - 1));
  if (!percent || *percent > kMostPercent) {
    return fail(Errc::usage, fmt::format("--free={} is neither a size nor N%", text));
  }
  return Percent{static_cast<std::uint32_t>(*percent)};
}

/// "utc", "local", "+HH:MM" or "-HH:MM".
Result<fat32::TimeZone> time_zone_value(const std::string& text) {
  if (text == "utc") return fat32::TimeZone{};
  if (text == "local") return fat32::TimeZone{.local = true};
  const auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '9'; };
  if (text.size() == 6 && (text[0] == '+' || text[0] == '-') && digit(1) && digit(2) &&
      text[3] == ':' && digit(4) && digit(5)) {
    const int hours = (text[1] - '0') * 10 + (text[2] - '0');
    const int minutes = (text[4] - '0') * 10 + (text[5] - '0');
    if (hours <= 23 && minutes <= 59) {
      const int offset = hours * 60 + minutes;
      return fat32::TimeZone{.offset_minutes = text[0] == '-' ? -offset : offset};
    }
  }
  return fail(Errc::usage, fmt::format("--time-zone={} is not utc, local, +HH:MM or -HH:MM", text));
}

/// "NAME=TEXT".
Result<iso9660::Options::FieldText> volume_field_value(const std::string& text) {
  const std::size_t equals = text.find('=');
  const auto field = iso9660::parse_field(std::string_view(text).substr(0, equals));
  if (!field || equals == std::string::npos) {
    return fail(Errc::usage, fmt::format("--volume-field={} is not system=TEXT, volume-set=, "
                                         "publisher=, preparer=, application=, copyright=, "
                                         "abstract= or bibliographic=",
                                         text));
  }
  return iso9660::Options::FieldText{*field, text.substr(equals + 1)};
}

/// Puts the value of `parsed` into `place`, or its error into `failure` if there is none yet.
template <class Value, class Place>
void take(Result<Value> parsed, Place& place, std::optional<Error>& failure) {
  if (parsed) {
    place = std::move(*parsed);
  } else if (!failure) {
    failure = std::move(parsed.error());
  }
}

}  // namespace

void ImageOptions::add_to(CLI::App& app) {
  app.add_option(
         "--fs", format_,
         "File system: ext2 (default), ext3, ext4, iso,\nfat (width by size), fat12, fat16, fat32")
      ->option_text("FORMAT")
      ->check(CLI::IsMember({"ext2", "ext3", "ext4", "fat", "fat12", "fat16", "fat32", "iso"}))
      ->group(kGroup);
  CLI::Option* size = add_value(app, "--size", size_, "SIZE", "Exactly this large")->group(kGroup);
  CLI::Option* free =
      add_value(app, "--free", free_, "SIZE|%", "Room to leave (default: 10%, at least 64M)")
          ->excludes(size)
          ->group(kGroup);
  not_iso_ = {size, free};
  add_value(app, "--label", label_, "TEXT", "Volume label: 16 bytes (ext), 11 (FAT),\n32 (ISO)")
      ->group(kGroup);
  add_value(app, "--uuid", uuid_, "UUID",
            "Volume UUID, for FAT 1234-ABCD, for ISO a\ndate (default: from the contents)")
      ->group(kGroup);
  const auto ext = [&](CLI::Option* option) {
    only_ext_.push_back(option->group(kExtGroup));
    return option;
  };
  const auto fat = [&](CLI::Option* option) {
    only_fat_.push_back(option->group(kFatGroup));
    return option;
  };
  ext(add_value(app, "--inodes", inodes_, "N", "At least so many inodes"));
  ext(add_value(app, "--block-size", block_size_, "BYTES", "1024, 2048 or 4096"));
  ext(add_value(app, "--inode-size", inode_size_, "BYTES", "128 or 256"));
  CLI::Option* journal =
      ext(app.add_flag("--journal", journal_, "Have a journal (ext3 always has)"));
  ext(app.add_flag("--no-journal", no_journal_, "Have none"))->excludes(journal);
  ext(add_value(app, "--reserved", reserved_, "PERCENT", "Blocks kept for root (default 0)"));
  ext(app.add_option("--features", features_, "As mke2fs -O: dir_index,^metadata_csum..."))
      ->option_text("LIST")
      ->delimiter(',')
      ->allow_extra_args(false);

  const auto one_of = [&](const char* name, std::string& value, const char* help,
                          const std::vector<std::string>& words) {
    fat(app.add_option(name, value, help))->option_text("WHAT")->check(CLI::IsMember(words));
  };
  fat(add_value(app, "--cluster-size", cluster_size_, "BYTES", "512 to 65536 (default: by size)"));
  fat(add_value(app, "--sector-size", sector_size_, "BYTES", "512 (default), 1024, 2048 or 4096"));
  one_of("--symlinks", symlinks_, "skip (default), follow, error", {"skip", "follow", "error"});
  one_of("--names", names_, "That are not UTF-8:\nescape (default), skip, error",
         {"escape", "skip", "error"});
  one_of("--case-clashes", case_clashes_,
         "Names that differ only in case:\nerror (default), escape, skip",
         {"error", "escape", "skip"});
  fat(app.add_flag("--skip-unfit", skip_unfit_, "Leave out what FAT can not hold"));
  fat(add_value(app, "--time-zone", time_zone_, "ZONE", "utc (default), local, +HH:MM or -HH:MM"));
  fat(add_value(app, "--hidden-sectors", hidden_sectors_, "N", "Sectors before the volume"));

  const auto iso = [&](CLI::Option* option) {
    only_iso_.push_back(option->group(kIsoGroup));
    return option;
  };
  iso(add_value(app, "--iso-level", iso_level_, "N", "Of interchange: 1, 2 or 3 (default)"));
  iso(app.add_option("--joliet", joliet_, "yes (default), long (103 characters), no"))
      ->option_text("WHAT")
      ->check(CLI::IsMember({"yes", "long", "no"}));
  iso(app.add_option("--deep-directories", deep_, "Below 8 levels: relocate (default), keep"))
      ->option_text("WHAT")
      ->check(CLI::IsMember({"relocate", "keep"}));
  iso(app.add_option("--volume-field", volume_fields_,
                     "NAME=TEXT: publisher, application... (see\nthe manual); may be repeated"))
      ->option_text("FIELD")
      ->allow_extra_args(false);
  iso(app.add_flag("--dedupe", dedupe_, "Files of the same bytes share them (reads all)"));
  iso(app.add_flag("--pad", pad_, "Fill up to a multiple of 32 KiB"));
  iso(app.add_option("--preset", preset_, "cidata: for cloud-init (implies --fs=iso)"))
      ->option_text("WHAT")
      ->check(CLI::IsMember({"cidata"}));
}

const std::string& ImageOptions::format() const noexcept {
  static const std::string usual = "ext2";
  static const std::string iso = "iso";
  if (!format_.empty()) return format_;
  return preset_.empty() ? usual : iso;
}

Result<void> ImageOptions::check_format() const {
  std::vector<const CLI::Option*> others;
  const auto add = [&](const std::vector<const CLI::Option*>& more) {
    others.insert(others.end(), more.begin(), more.end());
  };
  if (is_fat() || is_iso()) add(only_ext_);
  if (!is_fat()) add(only_fat_);
  add(is_iso() ? not_iso_ : only_iso_);
  for (const CLI::Option* option : others) {
    if (option->count() == 0) continue;
    return fail(Errc::usage,
                fmt::format("{} does not go with --fs={}", option->get_name(), format()));
  }
  return {};
}

Result<PlanOptions> ImageOptions::plan_options() const {
  if (Result<void> good = check_format(); !good) return std::unexpected(std::move(good.error()));
  const Result<std::optional<std::int64_t>> epoch = source_date_epoch();
  if (!epoch) return std::unexpected(epoch.error());
  if (is_fat()) {
    Result<fat32::Options> options = fat_options();
    if (!options) return std::unexpected(std::move(options.error()));
    options->made_at_s = *epoch;
    return std::move(*options);
  }
  if (is_iso()) {
    Result<iso9660::Options> options = iso_options();
    if (!options) return std::unexpected(std::move(options.error()));
    options->made_at_s = *epoch;
    return std::move(*options);
  }
  Result<ext2::Options> options = ext2_options();
  if (!options) return std::unexpected(std::move(options.error()));
  options->made_at_s = *epoch;
  return std::move(*options);
}

Result<fat32::Options> ImageOptions::fat_options() const {
  fat32::Options options;
  std::optional<Error> failure;
  if (format_ == "fat12") options.width = fat32::Width::fat12;
  if (format_ == "fat16") options.width = fat32::Width::fat16;
  if (format_ == "fat32") options.width = fat32::Width::fat32;
  constexpr std::uint32_t kAny = std::numeric_limits<std::uint32_t>::max();
  if (!size_.empty()) take(size_value("--size", size_), options.size_bytes, failure);
  if (!free_.empty()) {
    take(free_value<fat32::FreeBytes, fat32::FreePercent>(free_), options.free, failure);
  }
  if (!cluster_size_.empty()) {
    take(number_value("--cluster-size", cluster_size_, kAny), options.cluster_bytes, failure);
  }
  if (!sector_size_.empty()) {
    take(number_value("--sector-size", sector_size_, kAny), options.sector_bytes, failure);
  }
  if (!hidden_sectors_.empty()) {
    take(number_value("--hidden-sectors", hidden_sectors_, kAny), options.hidden_sectors, failure);
  }
  if (!time_zone_.empty()) take(time_zone_value(time_zone_), options.time_zone, failure);
  if (!uuid_.empty()) {
    options.volume_id = fat32::parse_volume_id(uuid_);
    if (!options.volume_id && !failure) {
      failure =
          Error{Errc::usage, 0, fmt::format("--uuid={} is not a FAT volume id (1234-ABCD)", uuid_)};
    }
  }
  if (failure) return std::unexpected(std::move(*failure));
  // 0 is the planner's word for "not given".
  if (!cluster_size_.empty() && options.cluster_bytes == 0) {
    return fail(Errc::usage, "--cluster-size=0 is not a power of two from 512 to 65536");
  }
  options.label = label_;
  if (symlinks_ == "follow") options.symlinks = fat32::Symlinks::follow;
  if (symlinks_ == "error") options.symlinks = fat32::Symlinks::error;
  if (names_ == "skip") options.bad_names = fat32::BadNames::skip;
  if (names_ == "error") options.bad_names = fat32::BadNames::error;
  if (case_clashes_ == "escape") options.case_clashes = fat32::CaseClashes::escape;
  if (case_clashes_ == "skip") options.case_clashes = fat32::CaseClashes::skip;
  options.skip_unfit = skip_unfit_;
  return options;
}

Result<iso9660::Options> ImageOptions::iso_options() const {
  iso9660::Options options;
  std::optional<Error> failure;
  if (!iso_level_.empty()) {
    take(number_value("--iso-level", iso_level_, 3), options.level, failure);
  }
  for (const std::string& text : volume_fields_) {
    iso9660::Options::FieldText field{};
    take(volume_field_value(text), field, failure);
    options.fields.push_back(std::move(field));
  }
  if (!uuid_.empty()) {
    options.volume_time = iso9660::parse_volume_time(uuid_);
    if (!options.volume_time && !failure) {
      failure =
          Error{Errc::usage, 0,
                fmt::format("--uuid={} is not a date (2026-01-31-23-59-59-00), which ISO 9660 "
                            "has for a UUID",
                            uuid_)};
    }
  }
  if (failure) return std::unexpected(std::move(*failure));
  options.label = label_;
  if (joliet_ == "long") options.joliet = iso9660::Joliet::longer;
  if (joliet_ == "no") options.joliet = iso9660::Joliet::none;
  if (deep_ == "keep") options.deep = iso9660::DeepDirectories::keep;
  options.pad = pad_;
  options.cidata = preset_ == "cidata";
  return options;
}

Result<ext2::Options> ImageOptions::ext2_options() const {
  ext2::Options options;
  std::optional<Error> failure;
  options.variant = format() == "ext4"   ? ext2::Variant::ext4
                    : format() == "ext3" ? ext2::Variant::ext3
                                         : ext2::Variant::ext2;
  constexpr std::uint32_t kAny = std::numeric_limits<std::uint32_t>::max();
  if (!size_.empty()) take(size_value("--size", size_), options.size_bytes, failure);
  if (!free_.empty())
    take(free_value<ext2::FreeBytes, ext2::FreePercent>(free_), options.free, failure);
  if (!inodes_.empty()) take(number_value("--inodes", inodes_, kAny), options.inodes, failure);
  if (!block_size_.empty()) {
    take(number_value("--block-size", block_size_, kAny), options.block_bytes, failure);
  }
  if (!inode_size_.empty()) {
    take(number_value("--inode-size", inode_size_, kAny), options.inode_bytes, failure);
  }
  if (!reserved_.empty()) {
    take(number_value("--reserved", reserved_, 50), options.reserved_percent, failure);
  }
  if (!uuid_.empty()) {
    options.uuid = ext2::parse_uuid(uuid_);
    if (!options.uuid && !failure) {
      failure = Error{Errc::usage, 0, fmt::format("--uuid={} is not a UUID", uuid_)};
    }
  }
  if (failure) return std::unexpected(std::move(*failure));
  // 0 is the planner's word for "not given".
  if (!block_size_.empty() && options.block_bytes == 0) {
    return fail(Errc::usage, "--block-size=0 is not 1024, 2048 or 4096");
  }
  if (!inode_size_.empty() && options.inode_bytes == 0) {
    return fail(Errc::usage, "--inode-size=0 is not 128 or 256");
  }
  options.label = label_;
  if (journal_) options.journal = true;
  if (no_journal_) options.journal = false;
  options.features = features_;
  return options;
}

}  // namespace mkvirtfs::cli
