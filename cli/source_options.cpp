// SPDX-License-Identifier: BSD-3-Clause
#include "cli/source_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <optional>
#include <system_error>
#include <utility>

#include "cli/served_sources.h"
#include "cli/streams.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kSourceWord = "SOURCE";
constexpr std::string_view kPlace = "at";
constexpr std::string_view kFile = "file";

const char* heading_of(SourceOptionGroup group) {
  switch (group) {
    case SourceOptionGroup::source:
      return "Source";
    case SourceOptionGroup::container_image:
      return "Container images";
    case SourceOptionGroup::archive:
      return "Archives";
  }
  __builtin_unreachable();
}

/// Refuses what looks like a word of serve, where no source of that name is there.
Result<void> check_word(const std::string& source) {
  std::error_code error;
  const auto is_there = [&](const std::string& path) {
    return !path.empty() && std::filesystem::exists(path, error);
  };
  if (source.empty()) {
    return fail(Errc::usage, "a source is empty (is a variable of the shell not set?)");
  }
  if (is_there(source)) return {};
  const SourceWord word = parse_source_word(source);
  if (!word.name.empty() && is_there(word.directory)) {
    return fail(Errc::usage, fmt::format("{} does not exist (NAME=DIR is for serve; here it is {})",
                                         source, word.directory));
  }
  const std::string before = source.substr(0, source.find(','));
  if (before != source && is_there(before)) {
    return fail(
        Errc::usage,
        fmt::format("{} does not exist (options behind a comma are for serve's NAME={},...)",
                    source, before));
  }
  return {};
}

/// A row's option as it was given.
void add_given(const OptionRow& row, const OptionValues& values, std::vector<std::string>& all) {
  if (!values.has(row.name)) return;
  if (row.kind == OptionKind::flag) all.push_back(dashed(row.name));
  for (const std::string& value : values.all(row.name)) {
    all.push_back(fmt::format("--{}={}", row.name, value));
  }
}

}  // namespace

std::string to_string(const std::vector<SourceSpec>& sources) {
  std::string text;
  for (const SourceSpec& source : sources) {
    if (!text.empty()) text += " + ";
    text += source.path;
    if (source.at.empty()) continue;
    text += source.at.starts_with('/') ? " at " : " at /";
    text += source.at;
  }
  return text;
}

void SourceOptions::add_to(OptionSet& options) {
  options.add_values(
      kSourceWord, words_, "...",
      "A directory, an archive (- is standard input) or\noci:PATH to show; later ones "
      "lie over\nearlier ones");
  add_options_to(options);
}

void SourceOptions::add_reading_options_to(OptionSet& options) {
  command_line_ = &options;
  for (const SourceOption& option : source_options()) {
    const OptionRow& row = option.row;
    if (row.name == kPlace || row.name == kFile) continue;
    rows_.declare(options, row, heading_of(option.group), std::string(row.help));
  }
  rows_.exclude_contradictions(options);
}

void SourceOptions::add_options_to(OptionSet& options) {
  command_line_ = &options;
  for (const SourceOption& option : source_options()) {
    const OptionRow& row = option.row;
    CommandOption& added =
        rows_.declare(options, row, heading_of(option.group), std::string(row.help));
    if (row.name == kPlace) place_option_ = &added;
  }
  rows_.exclude_contradictions(options);
}

Result<std::vector<PlacedSource>> SourceOptions::words() const {
  std::vector<PlacedSource> all;
  const CommandOption* source_option = command_line_->find(kSourceWord);
  std::size_t places = 0;
  std::optional<std::string> place;
  for (const CommandOption* option : command_line_->given_order()) {
    if (option == place_option_) {
      if (place) break;
      place = place_option_->values().at(places++);
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

OptionValues SourceOptions::values() const {
  OptionValues values = rows_.values();
  values.remove(kPlace);
  return values;
}

Error SourceOptions::missing() const {
  return {Errc::usage, 0,
          fmt::format("SOURCE is missing: {} (see mkvirtfs {} --help)",
                      command_line_->find(kSourceWord)->description(), command_line_->name())};
}

Result<std::vector<SourceSpec>> SourceOptions::specs() const {
  const Result<std::vector<PlacedSource>> placed = words();
  if (!placed) return propagate(placed);
  Result<std::vector<SourceSpec>> specs = specs_of(*placed, values());
  if (specs && specs->empty()) return std::unexpected(missing());
  return specs;
}

Result<std::vector<SourceSpec>> specs_of(const std::vector<PlacedSource>& placed,
                                         const OptionValues& values) {
  const Result<SourceSpec> common = read_source_options(values);
  if (!common) return propagate(common);
  std::vector<SourceSpec> specs;
  for (const PlacedSource& each : placed) {
    if (Result<void> good = check_word(each.source); !good) return propagate(good);
    SourceSpec& spec = specs.emplace_back(*common);
    spec.path = each.source;
    spec.at = each.at;
  }
  Result<std::vector<SourceSpec>> files = read_files(values, *common);
  if (!files) return propagate(files);
  std::ranges::move(*files, std::back_inserter(specs));
  return specs;
}

std::vector<std::string> given_options(const OptionValues& source, std::string_view format,
                                       const OptionValues& image, const FormatRegistry& formats) {
  std::vector<std::string> all;
  for (const SourceOption& option : source_options()) {
    if (option.makes_image) add_given(option.row, source, all);
  }
  if (!format.empty()) all.push_back(fmt::format("--fs={}", format));
  for (const FormatRegistry::Option& option : formats.options()) {
    add_given(option.row, image, all);
  }
  if (const auto epoch = environment("SOURCE_DATE_EPOCH"); epoch && !epoch->empty()) {
    all.push_back(fmt::format("SOURCE_DATE_EPOCH={}", *epoch));
  }
  return all;
}

}  // namespace mkvirtfs::cli
