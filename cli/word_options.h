// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compose/source_options.h"
#include "fsgen/image/format_registry.h"
#include "fsgen/image/option_row.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The parts of a word, which commas divide; ",," is a comma. At least one.
std::vector<std::string> split_word(std::string_view word);

/// Options with their values: of a word, or of all words.
struct GivenOptions {
  OptionValues source;
  std::string format;  ///< "" when none is named
  OptionValues image;
  OptionValues own;  ///< of WordScope::own
};

/// Which options a word may have beside those of a source.
struct WordScope {
  std::string_view what = "a source";  ///< for messages
  bool image = true;                   ///< those of formats, and --fs
  bool disk = true;                    ///< of these, those that are about a disk
  std::span<const OptionRow> own{};    ///< its own, which come before all others
  std::string advice{};                ///< what is said behind an option that there is not
};

/// The options of one word, "fs=ext2", "no-journal", over those that all share.
class WordOptions {
 public:
  /// What they refer to outlives it.
  WordOptions(const GivenOptions& shared, const FormatRegistry& formats, const WordScope& scope)
      : shared_(shared), formats_(formats), scope_(scope) {}

  /// Once. Errc::usage for what there is not, and for what contradicts itself.
  Result<GivenOptions> parse(std::span<const std::string> texts);

 private:
  Result<void> add(const std::string& text);
  Result<void> check_contradictions() const;
  void add_shared(const OptionValues& shared, OptionValues& own) const;
  /// The row of a format's option, or that of --fs; nullptr when there is none.
  const OptionRow* find_of_image(std::string_view name) const;
  const OptionRow* find_own(std::string_view name) const;
  bool is_in_scope(const FormatRegistry::Option& option) const;
  /// Of all options that the word may have.
  std::vector<std::string> names() const;

  const GivenOptions& shared_;
  const FormatRegistry& formats_;
  const WordScope scope_;
  GivenOptions own_;
  std::vector<const OptionRow*> given_;  // in the order of the word
  std::set<std::string_view> replaced_;  // shared ones that do not count
};

}  // namespace mkvirtfs::cli
