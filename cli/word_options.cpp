// SPDX-License-Identifier: BSD-3-Clause
// A word's values are its own ones and, of those that the command line gives for all, what its own
// neither replace nor contradict.
#include "cli/word_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "cli/near_words.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::string_view kFormat = "fs";
constexpr std::string_view kPartition = "partition";  // no word has other words in it

const OptionRow& format_row() {
  static constexpr OptionRow row{.name = kFormat, .value_name = "FORMAT"};
  return row;
}

/// Calls `visit` for each value of a list: what stands between two commas and is not empty.
template <class Visit>
void for_each_of_list(std::string_view list, const Visit& visit) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    if (comma != 0) visit(list.substr(0, comma));
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  }
}

}  // namespace

std::vector<std::string> split_word(std::string_view word) {
  std::vector<std::string> parts(1);
  for (std::size_t at = 0; at < word.size(); ++at) {
    if (word[at] != ',') {
      parts.back() += word[at];
    } else if (at + 1 < word.size() && word[at + 1] == ',') {
      parts.back() += word[++at];
    } else {
      parts.emplace_back();
    }
  }
  return parts;
}

const OptionRow* WordOptions::find_of_image(std::string_view name) const {
  if (!scope_.image) return nullptr;
  if (name == kFormat) return &format_row();
  const auto found =
      std::ranges::find(formats_.options(), name,
                        [](const FormatRegistry::Option& option) { return option.row.name; });
  return found == formats_.options().end() || !is_in_scope(*found) ? nullptr : &found->row;
}

bool WordOptions::is_in_scope(const FormatRegistry::Option& option) const {
  return option.row.name != kPartition && (scope_.disk || !formats_.is_of_disk(option.row.name));
}

const OptionRow* WordOptions::find_own(std::string_view name) const {
  const auto found = std::ranges::find(scope_.own, name, &OptionRow::name);
  return found == scope_.own.end() ? nullptr : &*found;
}

std::vector<std::string> WordOptions::names() const {
  std::vector<std::string> all;
  for (const SourceOption& option : source_options()) all.emplace_back(option.row.name);
  for (const OptionRow& row : scope_.own) all.emplace_back(row.name);
  if (!scope_.image) return all;
  all.emplace_back(kFormat);
  for (const FormatRegistry::Option& option : formats_.options()) {
    if (is_in_scope(option)) all.emplace_back(option.row.name);
  }
  return all;
}

Result<void> WordOptions::add(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  const OptionRow* const own_row = find_own(name);
  const SourceOption* const of_source = own_row != nullptr ? nullptr : find_source_option(name);
  const OptionRow* const row = own_row != nullptr     ? own_row
                               : of_source != nullptr ? &of_source->row
                                                      : find_of_image(name);
  if (row == nullptr) {
    const std::string near = nearest_word(name, names());
    return fail(Errc::usage,
                fmt::format("{} has no option {}{}{}", scope_.what, name,
                            near.empty() ? " (a comma in a path is ,,)" : did_you_mean(near),
                            scope_.advice));
  }
  const bool has_value = equals != std::string::npos;
  if (has_value != (row->kind != OptionKind::flag)) {
    return fail(Errc::usage,
                has_value ? fmt::format("{} takes no value", name)
                          : fmt::format("{} needs a value: {}={}", name, name, row->value_name));
  }
  const bool is_single =
      row->kind == OptionKind::value || row->kind == OptionKind::choice || row->name == "at";
  if (is_single && std::ranges::find(given_, row) != given_.end()) {
    return fail(Errc::usage, fmt::format("{} is given twice", name));
  }
  given_.push_back(row);
  if (of_source == nullptr || !of_source->comes_before_shared) replaced_.insert(row->name);

  OptionValues& values = own_row != nullptr     ? own_.own
                         : of_source != nullptr ? own_.source
                                                : own_.image;
  const std::string value = has_value ? text.substr(equals + 1) : std::string();
  const bool is_list = row->kind == OptionKind::list;
  if (has_value && !row->may_be_empty &&
      (is_list ? value.find_first_not_of(',') == std::string::npos : value.empty())) {
    return fail(Errc::usage, fmt::format("--{}: the value is empty", name));
  }
  if (row == &format_row()) {
    own_.format = value;
  } else if (is_list) {
    for_each_of_list(value, [&](std::string_view each) { values.add(name, std::string(each)); });
  } else if (has_value) {
    values.add(name, value);
  } else {
    values.add(name);
  }
  return {};
}

/// Its own options that contradict each other cannot be given together; a shared one that they
/// contradict is replaced.
Result<void> WordOptions::check_contradictions() const {
  const auto is_given = [&](std::string_view name) {
    return own_.source.has(name) || own_.image.has(name) || own_.own.has(name);
  };
  for (const OptionRow* row : given_) {
    if (row->excludes.empty() || !is_given(row->excludes)) continue;
    return fail(Errc::usage,
                fmt::format("--{} and --{} cannot be given together", row->excludes, row->name));
  }
  return {};
}

void WordOptions::add_shared(const OptionValues& shared, OptionValues& own) const {
  std::map<std::string_view, std::size_t> seen;
  for (const std::string& name : shared.order()) {
    const std::string& value = shared.all(name)[seen[name]++];
    if (!replaced_.contains(name)) own.add(name, value);
  }
  for (const auto& [name, values] : shared) {
    if (values.empty() && !replaced_.contains(name)) own.add(name);
  }
}

Result<GivenOptions> WordOptions::parse(std::span<const std::string> texts) {
  for (const std::string& text : texts) {
    if (Result<void> good = add(text); !good) return propagate(good);
  }
  if (Result<void> good = check_contradictions(); !good) {
    return propagate(good);
  }
  // A shared option that excludes one of its own, or is excluded by it, is no default for it.
  const auto replace_contradicting = [&](const OptionRow& row) {
    if (row.excludes.empty()) return;
    if (own_.source.has(row.name) || own_.image.has(row.name)) replaced_.insert(row.excludes);
    if (own_.source.has(row.excludes) || own_.image.has(row.excludes)) replaced_.insert(row.name);
  };
  for (const SourceOption& option : source_options()) replace_contradicting(option.row);
  for (const FormatRegistry::Option& option : formats_.options()) replace_contradicting(option.row);
  add_shared(shared_.source, own_.source);
  if (scope_.image) {
    add_shared(shared_.image, own_.image);
    if (own_.format.empty()) own_.format = shared_.format;
  }
  return std::move(own_);
}

}  // namespace mkvirtfs::cli
