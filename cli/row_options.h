// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "fsgen/image/option_row.h"

namespace mkvirtfs::cli {

/// Options of a command line that are declared from rows of a table.
class RowOptions {
 public:
  RowOptions() = default;
  RowOptions(const RowOptions&) = delete;
  RowOptions& operator=(const RowOptions&) = delete;

  /// `row` outlives this. All rows go to one set, which owns the result.
  CommandOption& declare(OptionSet& options, const OptionRow& row, const std::string& heading,
                         const std::string& help);
  /// Once all rows are declared: those that contradict each other cannot be given together.
  void exclude_contradictions(OptionSet& options) const;

  /// What was given, after parsing, values in the order of the command line.
  OptionValues values() const;

 private:
  /// The parser wants a place for each option; the values are read from `option`.
  struct Declared {
    const OptionRow* row = nullptr;
    const CommandOption* option = nullptr;
    bool flag = false;
    std::string value;
    std::vector<std::string> list;
  };

  const OptionSet* options_ = nullptr;
  std::deque<Declared> declared_;  // the parser keeps addresses of its elements
};

/// How an option of that name is written.
std::string dashed(std::string_view name);

}  // namespace mkvirtfs::cli
