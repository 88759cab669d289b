// SPDX-License-Identifier: BSD-3-Clause
#include "cli/image_options.h"

#include <fmt/format.h>

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Image";

/// Breaks `text` into lines that fit the column of --help for descriptions.
std::string wrapped(std::string_view text) {
  constexpr std::size_t kColumns = 48;
  std::string lines;
  while (text.size() > kColumns) {
    const std::size_t space = text.rfind(' ', kColumns);
    if (space == std::string_view::npos || space == 0) break;
    lines += fmt::format("{}\n", text.substr(0, space));
    text.remove_prefix(space + 1);
  }
  return lines.append(text);
}

/// "File system: ext2 (default), fat (width by size), iso"
std::string format_help(const FormatRegistry& formats) {
  std::string help = "File system:";
  for (const Format* format : formats.formats()) {
    for (const FormatName& each : format->names) {
      help += fmt::format(" {}", each.name);
      if (!each.remark.empty()) help += fmt::format(" ({})", each.remark);
      help += ',';
    }
  }
  help.pop_back();
  return help;
}

}  // namespace

void ImageOptions::add_to(OptionSet& options) {
  format_option_ = &options.add_value("--fs", format_, "FORMAT", wrapped(format_help(formats_)))
                        .one_of(formats_.names())
                        .group(kGroup);
  for (const FormatRegistry::Option& option : formats_.options()) declare(options, option);
  for (const FormatRegistry::Option& option : formats_.options()) {
    if (option.row.excludes.empty()) continue;
    const auto name = [](std::string_view bare) { return fmt::format("--{}", bare); };
    options.find(name(option.row.name))->excludes(*options.find(name(option.row.excludes)));
  }
}

void ImageOptions::declare(OptionSet& options, const FormatRegistry::Option& option) {
  Declared& declared = declared_.emplace_back();
  declared.row = &option.row;
  const std::string name = fmt::format("--{}", option.row.name);
  const std::string help = wrapped(option.help());
  const std::string meta(option.row.value_name);
  CommandOption* added = nullptr;
  switch (option.row.kind) {
    case OptionKind::flag:
      added = &options.add_flag(name, declared.flag, help);
      break;
    case OptionKind::value:
      added = &options.add_value(name, declared.value, meta, help);
      break;
    case OptionKind::choice:
      added = &options.add_value(name, declared.value, meta, help)
                   .one_of({option.row.choices.begin(), option.row.choices.end()});
      break;
    case OptionKind::repeated:
      added = &options.add_values(name, declared.list, meta, help).one_value_each();
      break;
    case OptionKind::list:
      added = &options.add_values(name, declared.list, meta, help).split_at(',').one_value_each();
      break;
  }
  added->group(option.formats.size() > 1
                   ? kGroup
                   : fmt::format("{}, {} only", kGroup, option.formats.front()->family));
  declared.option = added;
}

OptionValues ImageOptions::values() const {
  OptionValues values;
  for (const Declared& declared : declared_) {
    if (!declared.option->is_given()) continue;
    values.add(declared.row->name);
    if (declared.row->kind == OptionKind::flag) continue;
    for (const std::string& text : declared.option->values()) {
      values.add(declared.row->name, text);
    }
  }
  return values;
}

std::string_view ImageOptions::format() const {
  // An option that was cleared keeps the value in its place.
  const bool given = format_option_ != nullptr && format_option_->is_given();
  return formats_.resolve(given ? std::string_view(format_) : std::string_view(), values());
}

const FormatHolds& ImageOptions::holds() const { return formats_.find(format())->holds; }

Result<Planner> ImageOptions::planner() const { return formats_.configure(format(), values()); }

}  // namespace mkvirtfs::cli
