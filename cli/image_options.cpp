// SPDX-License-Identifier: BSD-3-Clause
#include "cli/image_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

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

void ImageOptions::add_to(CLI::App& app) {
  format_option_ = app.add_option("--fs", format_, wrapped(format_help(formats_)))
                       ->option_text("FORMAT")
                       ->check(CLI::IsMember(formats_.names()))
                       ->group(kGroup);
  for (const FormatRegistry::Option& option : formats_.options()) declare(app, option);
  for (const FormatRegistry::Option& option : formats_.options()) {
    if (option.row.excludes.empty()) continue;
    const auto name = [](std::string_view bare) { return fmt::format("--{}", bare); };
    app.get_option(name(option.row.name))->excludes(app.get_option(name(option.row.excludes)));
  }
}

void ImageOptions::declare(CLI::App& app, const FormatRegistry::Option& option) {
  Declared& declared = declared_.emplace_back();
  declared.row = &option.row;
  const std::string name = fmt::format("--{}", option.row.name);
  const std::string help = wrapped(option.help());
  CLI::Option* added = nullptr;
  switch (option.row.kind) {
    case OptionKind::flag:
      added = app.add_flag(name, declared.flag, help);
      break;
    case OptionKind::value:
      added = app.add_option(name, declared.value, help);
      break;
    case OptionKind::choice:
      added = app.add_option(name, declared.value, help)
                  ->check(CLI::IsMember(std::vector<std::string>(option.row.choices.begin(),
                                                                 option.row.choices.end())));
      break;
    case OptionKind::repeated:
      added = app.add_option(name, declared.list, help)->allow_extra_args(false);
      break;
    case OptionKind::list:
      added = app.add_option(name, declared.list, help)->delimiter(',')->allow_extra_args(false);
      break;
  }
  if (option.row.kind != OptionKind::flag) added->option_text(std::string(option.row.value_name));
  added->group(option.formats.size() > 1
                   ? kGroup
                   : fmt::format("{}, {} only", kGroup, option.formats.front()->family));
  declared.option = added;
}

OptionValues ImageOptions::values() const {
  OptionValues values;
  for (const Declared& declared : declared_) {
    if (declared.option->count() == 0) continue;
    values.add(declared.row->name);
    if (declared.row->kind == OptionKind::flag) continue;
    for (const std::string& text : declared.option->results()) {
      values.add(declared.row->name, text);
    }
  }
  return values;
}

std::string_view ImageOptions::format() const {
  // An option that was cleared keeps the value in its place.
  const bool given = format_option_ != nullptr && format_option_->count() != 0;
  return formats_.resolve(given ? std::string_view(format_) : std::string_view(), values());
}

const FormatHolds& ImageOptions::holds() const { return formats_.find(format())->holds; }

Result<Planner> ImageOptions::planner() const { return formats_.configure(format(), values()); }

}  // namespace mkvirtfs::cli
