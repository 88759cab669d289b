// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "fsgen/image/defaults.h"
#include "fsgen/image/free_space.h"
#include "fsgen/image/option_row.h"
#include "support/error.h"

namespace mkvirtfs {

/// Turns the text of options into values, for Format::configure(). An option that was not given
/// leaves its place as it is. The first failure is kept, and finish() returns it.
class OptionReader {
 public:
  explicit OptionReader(const OptionValues& values) : values_(values) {}

  bool flag(std::string_view name) const { return values_.has(name); }
  void text(std::string_view name, std::string& place) const;
  /// "1536", "64M", "4GiB".
  void size(std::string_view name, std::optional<std::uint64_t>& place);
  /// A size, or "25%".
  void free_space(std::string_view name, std::optional<FreeSpace>& place);

  /// The row defaults_option().
  void defaults(Defaults& place);

  struct Limits {
    std::uint32_t least = 0;
    std::uint32_t most = std::numeric_limits<std::uint32_t>::max();
  };
  void number(std::string_view name, Limits limits, std::uint32_t& place);
  void number(std::string_view name, Limits limits, std::optional<std::uint32_t>& place);

  template <class Enum>
  void choice(std::string_view name,
              std::initializer_list<std::pair<std::string_view, Enum>> meanings, Enum& place) {
    const std::string* text = values_.find(name);
    if (text == nullptr) return;
    for (const auto& [word, meaning] : meanings) {
      if (word == *text) {
        place = meaning;
        return;
      }
    }
    std::string words;
    for (const auto& [word, meaning] : meanings) {
      words += (words.empty() ? "" : ", ") + std::string(word);
    }
    refuse(name, *text, "none of " + words);
  }

  /// The option's text for what has a parser of its own; nullptr when it was not given.
  const std::string* find(std::string_view name) const { return values_.find(name); }
  /// The first one counts. That a value is empty is said in the words, too.
  void refuse(std::string_view name, std::string_view text, std::string_view why);

  Result<void> finish();

 private:
  std::optional<std::uint32_t> parse_number(std::string_view name, Limits limits);

  const OptionValues& values_;
  std::optional<Error> failure_;
};

}  // namespace mkvirtfs
