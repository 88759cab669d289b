// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/format_registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cassert>
#include <iterator>
#include <utility>

namespace mkvirtfs {

std::string FormatRegistry::Option::help() const {
  std::vector<std::string> details;
  for (const std::string_view choice : row.choices) {
    details.push_back(fmt::format("{}{}", choice, details.empty() ? " (default)" : ""));
  }
  // A choice of one word has no default: it is given or not.
  if (row.choices.size() == 1) details.front() = row.choices.front();
  for (const Format* format : formats) {
    const auto own = std::ranges::find(format->options, row.name, &OptionRow::name);
    if (!own->note.empty()) details.emplace_back(own->note);
  }
  if (details.empty()) return std::string(row.help);
  return fmt::format("{}: {}", row.help, fmt::join(details, ", "));
}

FormatRegistry::FormatRegistry(std::span<const Format* const> formats,
                               std::span<const OptionRow> disk_options)
    : formats_(formats.begin(), formats.end()), disk_options_(disk_options) {
  assert(!formats_.empty());
  for (const OptionRow& row : disk_options_) options_.push_back({row, {}});
  for (const Format* format : formats_) {
    for (const OptionRow& row : format->options) {
      const auto known = std::ranges::find(options_, row.name,
                                           [](const Option& option) { return option.row.name; });
      if (known == options_.end()) {
        options_.push_back({row, {format}});
      } else {
        assert(known->row.kind == row.kind);
        known->formats.push_back(format);
      }
    }
  }
  // Shared options come first, those of disks last; each kind keeps its order.
  const auto kind = [&](const Option& option) {
    return is_of_disk(option.row.name) ? 2 : option.formats.size() > 1 ? 0 : 1;
  };
  std::vector<Option> ordered;
  ordered.reserve(options_.size());
  for (const int wanted : {0, 1, 2}) {
    std::ranges::copy_if(options_, std::back_inserter(ordered),
                         [&](const Option& option) { return kind(option) == wanted; });
  }
  options_ = std::move(ordered);
}

bool FormatRegistry::is_of_disk(std::string_view name) const {
  return std::ranges::find(disk_options_, name, &OptionRow::name) != disk_options_.end();
}

OptionValues FormatRegistry::without_disk(const OptionValues& values) const {
  OptionValues rest = values;
  for (const Option& option : options_) {
    if (option.formats.empty()) rest.remove(option.row.name);
  }
  return rest;
}

const Format* FormatRegistry::find(std::string_view name) const {
  const auto at = std::ranges::find_if(formats_, [&](const Format* format) {
    return std::ranges::find(format->names, name, &FormatName::name) != format->names.end();
  });
  return at == formats_.end() ? nullptr : *at;
}

std::vector<std::string> FormatRegistry::names() const {
  std::vector<std::string> names;
  for (const Format* format : formats_) {
    for (const FormatName& each : format->names) names.emplace_back(each.name);
  }
  return names;
}

std::string_view FormatRegistry::resolve(std::string_view named, const OptionValues& values) const {
  if (!named.empty()) return named;
  for (const Option& option : options_) {
    if (!option.row.implies_format.empty() && values.has(option.row.name)) {
      return option.row.implies_format;
    }
  }
  return default_name();
}

Result<Planner> FormatRegistry::configure(std::string_view name, const OptionValues& values) const {
  const Format* format = find(name);
  if (format == nullptr) {
    return fail_option({"fs", std::string(name)},
                       fmt::format("none of {}", fmt::join(names(), ", ")));
  }
  for (const auto& [option, texts] : values) {
    if (std::ranges::find(format->options, option, &OptionRow::name) == format->options.end()) {
      return fail_option({option}, fmt::format("{} has no such option", name));
    }
  }
  return format->configure(name, values);
}

}  // namespace mkvirtfs
