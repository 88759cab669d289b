// SPDX-License-Identifier: BSD-3-Clause
#include "cli/row_options.h"

#include <algorithm>
#include <map>

namespace mkvirtfs::cli {

std::string dashed(std::string_view name) { return std::string("--").append(name); }

CommandOption& RowOptions::declare(OptionSet& options, const OptionRow& row,
                                   const std::string& heading, const std::string& help) {
  options_ = &options;
  Declared& declared = declared_.emplace_back();
  declared.row = &row;
  const std::string name = dashed(row.name);
  const std::string meta(row.value_name);
  CommandOption* added = nullptr;
  switch (row.kind) {
    case OptionKind::flag:
      added = &options.add_flag(name, declared.flag, help);
      break;
    case OptionKind::value:
      added = &options.add_value(name, declared.value, meta, help);
      break;
    case OptionKind::choice:
      added = &options.add_value(name, declared.value, meta, help)
                   .one_of({row.choices.begin(), row.choices.end()});
      break;
    case OptionKind::repeated:
      added = &options.add_values(name, declared.list, meta, help).one_value_each();
      break;
    case OptionKind::list:
      added = &options.add_values(name, declared.list, meta, help).split_at(',').one_value_each();
      break;
  }
  if (row.may_be_empty) added->may_be_empty();
  added->group(heading);
  declared.option = added;
  return *added;
}

void RowOptions::exclude_contradictions(OptionSet& options) const {
  for (const Declared& declared : declared_) {
    const OptionRow& row = *declared.row;
    if (row.excludes.empty()) continue;
    options.find(dashed(row.name))->excludes(*options.find(dashed(row.excludes)));
  }
}

OptionValues RowOptions::values() const {
  OptionValues values;
  if (options_ == nullptr) return values;
  std::map<const CommandOption*, std::size_t> seen;
  for (const CommandOption* given : options_->given_order()) {
    const auto declared = std::ranges::find(declared_, given, &Declared::option);
    if (declared == declared_.end()) continue;
    const OptionRow& row = *declared->row;
    const std::size_t nth = seen[given]++;
    if (row.kind == OptionKind::repeated) {
      values.add(row.name, given->values().at(nth));
    } else if (nth == 0) {
      values.add(row.name);
      if (row.kind == OptionKind::flag) continue;
      for (const std::string& text : given->values()) values.add(row.name, text);
    }
  }
  return values;
}

}  // namespace mkvirtfs::cli
