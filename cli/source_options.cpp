// SPDX-License-Identifier: BSD-3-Clause
#include "cli/source_options.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

#include "cli/parse_number.h"
#include "fsgen/tree/merge.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Source";
constexpr const char* kSourceWord = "SOURCE";

/// An id as a number or as a name that this host knows. 2^32 - 1 means "nobody asked" to the
/// kernel, so it is no id.
std::optional<std::uint32_t> parse_id(const std::string& text, bool group) {
  if (const auto number = parse_number<std::uint32_t>(text)) {
    if (*number == std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
    return number;
  }
  std::vector<char> room(1 << 16);
  if (group) {
    ::group entry{};
    ::group* found = nullptr;
    ::getgrnam_r(text.c_str(), &entry, room.data(), room.size(), &found);
    if (found != nullptr) return found->gr_gid;
  } else {
    passwd entry{};
    passwd* found = nullptr;
    ::getpwnam_r(text.c_str(), &entry, room.data(), room.size(), &found);
    if (found != nullptr) return found->pw_uid;
  }
  return std::nullopt;
}

/// "UID:GID", "UID" or ":GID".
Result<void> parse_owner(const std::string& text, ScanOptions& options) {
  const std::size_t colon = text.find(':');
  const std::string user = text.substr(0, colon);
  const std::string group = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (user.empty() && group.empty()) {
    return fail(Errc::usage, fmt::format("--owner={} names neither user nor group", text));
  }
  if (!user.empty()) {
    options.entries.owner_uid = parse_id(user, false);
    if (!options.entries.owner_uid) {
      return fail(Errc::usage, fmt::format("--owner={}: there is no user {} here", text, user));
    }
  }
  if (!group.empty()) {
    options.entries.owner_gid = parse_id(group, true);
    if (!options.entries.owner_gid) {
      return fail(Errc::usage, fmt::format("--owner={}: there is no group {} here", text, group));
    }
  }
  return {};
}

/// "FROM:TO" or "FROM:TO:COUNT".
Result<IdMapping> parse_mapping(const char* option, const std::string& text) {
  std::array<std::uint64_t, 3> numbers = {0, 0, 1};
  std::size_t count = 0;
  std::string_view rest = text;
  bool good = true;
  while (good) {
    const std::size_t colon = rest.find(':');
    const auto number = parse_number<std::uint32_t>(rest.substr(0, colon));
    good = number && count < numbers.size();
    if (good) numbers[count++] = *number;
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  constexpr std::uint64_t kIds = std::numeric_limits<std::uint32_t>::max();
  const auto [from, to, length] = numbers;
  // The last number is no id to map to, but what a foreign archive may have.
  if (!good || count < 2 || length == 0 || from + length > kIds + 1 || to + length > kIds) {
    return fail(Errc::usage, fmt::format("{}={} is not FROM:TO or FROM:TO:COUNT", option, text));
  }
  return IdMapping{static_cast<std::uint32_t>(from), static_cast<std::uint32_t>(to),
                   static_cast<std::uint32_t>(length)};
}

Result<std::vector<IdMapping>> parse_mappings(const char* option,
                                              const std::vector<std::string>& texts) {
  std::vector<IdMapping> mappings;
  for (const std::string& text : texts) {
    Result<IdMapping> mapping = parse_mapping(option, text);
    if (!mapping) return propagate(mapping);
    for (std::size_t i = 0; i < mappings.size(); ++i) {
      const IdMapping& other = mappings[i];
      if (mapping->from < std::uint64_t{other.from} + other.count &&
          other.from < std::uint64_t{mapping->from} + mapping->count) {
        return fail(Errc::usage, fmt::format("{}={} and {}={} map the same id twice", option,
                                             texts[i], option, text));
      }
    }
    mappings.push_back(*mapping);
  }
  return mappings;
}

}  // namespace

std::string to_string(const std::vector<PlacedSource>& sources) {
  std::string text;
  for (const PlacedSource& placed : sources) {
    if (!text.empty()) text += " + ";
    text += placed.source;
    if (placed.at.empty()) continue;
    text += placed.at.starts_with('/') ? " at " : " at /";
    text += placed.at;
  }
  return text;
}

void SourceOptions::add_to(OptionSet& options) {
  options
      .add_values(kSourceWord, words_, "...",
                  "The directory to show; of several, the later\nlie over the "
                  "earlier")
      .required();
  add_options_to(options);
}

Result<void> check_place(const std::string& place) {
  if (is_valid_place(place)) return {};
  return fail(Errc::usage, fmt::format("--at={} is no path in the image: it must have no . and no "
                                       ".., and names of up to 255 bytes",
                                       place));
}

Result<std::vector<PlacedSource>> SourceOptions::words() const {
  std::vector<PlacedSource> all;
  const CommandOption* source_option = command_line_->find(kSourceWord);
  std::size_t places = 0;
  std::optional<std::string> place;
  for (const CommandOption* option : command_line_->given_order()) {
    if (option == place_option_) {
      if (place) break;
      place = places_.at(places++);
      if (Result<void> good = check_place(*place); !good) {
        return propagate(good);
      }
    } else if (option == source_option) {
      all.push_back({source_option->values().at(all.size()), place.value_or("")});
      place.reset();
    }
  }
  if (place) {
    return fail(Errc::usage,
                fmt::format("--at={} says where the next source stands, and none follows", *place));
  }
  return all;
}

Result<void> SourceOptions::take_sources() {
  if (!sources.empty()) return {};
  Result<std::vector<PlacedSource>> given = words();
  if (!given) return propagate(given);
  sources = std::move(*given);
  return {};
}

void SourceOptions::add_options_to(OptionSet& options) {
  command_line_ = &options;
  place_option_ =
      &options.add_values("--at", places_, "PATH", "The next SOURCE stands there in the image")
           .one_value_each()
           .group(kGroup);
  exclude_option_ = &options.add_values("--exclude", excludes_, "GLOB", "Leave out what matches")
                         .one_value_each()
                         .group(kGroup);
  include_option_ =
      &options.add_values("--include", includes_, "GLOB", "Take it: the first that matches decides")
           .one_value_each()
           .group(kGroup);
  CommandOption& owner =
      options
          .add_value("--owner", owner_, "UID:GID", "Everything belongs to them (numbers or names)")
          .group(kGroup);
  for (const auto& [name, map, help] :
       {std::tuple("--map-uid", &uid_map_, "Show user FROM as TO"),
        std::tuple("--map-gid", &gid_map_, "Show group FROM as TO")}) {
    owner.excludes(
        options.add_values(name, *map, "FROM:TO[:COUNT]", help).one_value_each().group(kGroup));
  }
  options.add_value("--mode-mask", mode_mask_, "OCTAL", "Permission bits that stay (default 7777)")
      .group(kGroup);
  CommandOption& one = options
                           .add_flag("--one-file-system", one_file_system_,
                                     "Do not enter mounted file systems (default)")
                           .group(kGroup);
  options.add_flag("--no-one-file-system", no_one_file_system_, "Enter them")
      .group(kGroup)
      .excludes(one);
  options.add_flag("--no-xattrs", no_xattrs_, "Leave out extended attributes and ACLs")
      .group(kGroup);
  options.add_flag("--skip-unreadable", skip_unreadable_, "Leave out what cannot be read")
      .group(kGroup);
  options
      .add_flag(
          "--sync-source", sync_source_,
          "Write the source's file systems back first, so\nthat later writes through mappings "
          "are seen")
      .group(kGroup);
  options.add_value("--sync-timeout", sync_timeout_, "SECONDS", "That may take so long (60)")
      .group(kGroup);
  options
      .add_value("--on-change", on_change_, "WHAT",
                 "What a file that changed reads as:\nerror (default), zero, stale")
      .one_of({"error", "zero", "stale"})
      .group(kGroup);
  options
      .add_value(
          "--change-check", change_check_, "mtime|ctime",
          "A file changed when its mtime, size or inode\ndid, or its ctime, too (the default)")
      .one_of({"mtime", "ctime"})
      .group(kGroup);
  options.add_value("--threads", threads_, "N", "Work on so many processors")
      .in_range(1U, 256U)
      .group(kGroup);
  container_.add_to(options);
  archive_.add_to(options);
}

std::vector<PathRule> SourceOptions::rules() const {
  std::vector<PathRule> rules;
  std::size_t exclude_count = 0;
  std::size_t include_count = 0;
  for (const CommandOption* option : command_line_->given_order()) {
    if (option == exclude_option_) rules.push_back({false, excludes_.at(exclude_count++)});
    if (option == include_option_) rules.push_back({true, includes_.at(include_count++)});
  }
  return rules;
}

Result<ScanOptions> SourceOptions::scan_options() const {
  if (Result<void> good = archive_.check(); !good) return propagate(good);
  ScanOptions options;
  options.entries.rules = rules();
  options.one_file_system = !no_one_file_system_;
  options.entries.xattrs = !no_xattrs_;
  options.skip_unreadable = skip_unreadable_;
  options.threads = threads_;
  if (!owner_.empty()) {
    if (Result<void> parsed = parse_owner(owner_, options); !parsed) {
      return propagate(parsed);
    }
  }
  Result<std::vector<IdMapping>> uid_map = parse_mappings("--map-uid", uid_map_);
  if (!uid_map) return propagate(uid_map);
  Result<std::vector<IdMapping>> gid_map = parse_mappings("--map-gid", gid_map_);
  if (!gid_map) return propagate(gid_map);
  options.entries.uid_map = std::move(*uid_map);
  options.entries.gid_map = std::move(*gid_map);
  if (!mode_mask_.empty()) {
    const auto mask = parse_number<std::uint16_t>(mode_mask_, 8);
    if (!mask || *mask > 07777) {
      return fail(Errc::usage,
                  fmt::format("--mode-mask={} is not an octal number up to 7777", mode_mask_));
    }
    options.entries.mode_mask = *mask;
  }
  if (const auto platform = container_.platform(); !platform) {
    return propagate(platform);
  }
  const Result<std::optional<std::int64_t>> epoch = source_date_epoch();
  if (!epoch) return propagate(epoch);
  options.entries.newest_mtime_s = *epoch;
  const auto sync = sync_within();
  if (!sync) return propagate(sync);
  options.sync_within = *sync;
  if (outputs) options.outputs = outputs->find();
  options.keep_facts = keep_base;
  return options;
}

Result<std::optional<std::chrono::seconds>> SourceOptions::sync_within() const {
  constexpr std::chrono::seconds kUsual{60};
  constexpr unsigned kMostSeconds = 1'000'000;
  if (sync_timeout_.empty()) {
    return sync_source_ ? std::optional(kUsual) : std::nullopt;
  }
  const auto seconds = parse_number<unsigned>(sync_timeout_);
  if (!seconds || *seconds == 0 || *seconds > kMostSeconds) {
    return fail(Errc::usage,
                fmt::format("--sync-timeout={} is not a number of seconds from 1 to {}",
                            sync_timeout_, kMostSeconds));
  }
  if (!sync_source_) return fail(Errc::usage, "--sync-timeout is the deadline of --sync-source");
  return std::optional(std::chrono::seconds(*seconds));
}

std::vector<std::string> SourceOptions::given() const {
  // How something is read, and what that may cost, is no part of the image.
  constexpr std::array<std::string_view, 17> kNoPartOfImage = {
      "--sync-source",     "--sync-timeout", "--change-check", "--help",         "--at",
      "--on-change",       "--threads",      "--cache-dir",    "--cache-memory", "--index-memory",
      "--spool-dir",       "--spool-limit",  "--max-entries",  "--max-size",     "--max-ratio",
      "--passphrase-file", "--no-verify"};
  OptionSet known;
  SourceOptions().add_options_to(known);
  std::vector<std::string> all;
  for (const CommandOption* option : command_line_->options()) {
    const std::string name = option->name();
    if (!option->is_given()) continue;
    if (std::ranges::find(kNoPartOfImage, name) != kNoPartOfImage.end()) continue;
    const bool is_of_image = option->heading().starts_with("Image");
    if (!is_of_image && known.find(name) == nullptr) continue;
    if (!option->takes_value()) {
      all.push_back(name);
      continue;
    }
    for (const std::string& value : option->values()) {
      all.push_back(fmt::format("{}={}", name, value));
    }
  }
  if (const auto epoch = environment("SOURCE_DATE_EPOCH"); epoch && !epoch->empty()) {
    all.push_back(fmt::format("SOURCE_DATE_EPOCH={}", *epoch));
  }
  return all;
}

ChangeRules SourceOptions::change_rules() const {
  const OnChange what = on_change_ == "zero"    ? OnChange::zero
                        : on_change_ == "stale" ? OnChange::stale
                                                : OnChange::error;
  return {what, change_check_ == "mtime" ? ChangeCheck::mtime : ChangeCheck::ctime};
}

Result<std::optional<std::int64_t>> source_date_epoch() {
  const std::optional<std::string> text = environment("SOURCE_DATE_EPOCH");
  if (!text || text->empty()) return std::nullopt;
  const auto seconds = parse_number<std::int64_t>(*text);
  if (!seconds || *seconds < 0) {
    return fail(Errc::usage,
                fmt::format("SOURCE_DATE_EPOCH={} is not a number of seconds since 1970", *text));
  }
  return *seconds;
}

}  // namespace mkvirtfs::cli
