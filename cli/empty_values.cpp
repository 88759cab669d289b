// SPDX-License-Identifier: BSD-3-Clause
#include "cli/empty_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

namespace mkvirtfs::cli {
namespace {

/// CLI11 drops what is empty between two delimiters.
bool is_empty_value(const CommandOption& option, std::string_view value) {
  const char delimiter = option.delimiter();
  if (delimiter == '\0') return value.empty();
  return value.find_first_not_of(delimiter) == std::string_view::npos;
}

/// Walks over the words as CLI11 does, to distinguish options from values.
class Separator {
 public:
  explicit Separator(const OptionSet& options) : options_(&options) {}

  Result<std::vector<std::string>> separate(const std::vector<std::string>& words) {
    for (at_ = 0; at_ < words.size(); ++at_) {
      const std::string& word = words[at_];
      if (word == "--") {
        out_.insert(out_.end(), words.begin() + static_cast<std::ptrdiff_t>(at_), words.end());
        break;
      }
      if (word.starts_with("--")) {
        if (Result<void> good = take_long(words); !good) {
          return propagate(good);
        }
      } else if (word.size() > 1 && word.starts_with('-')) {
        take_short(words);
      } else {
        take_bare(word);
      }
    }
    return std::move(out_);
  }

 private:
  Result<void> take_long(const std::vector<std::string>& words) {
    const std::string& word = words[at_];
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const CommandOption* option = options_->find(name);
    if (option == nullptr || equals == std::string::npos) {
      out_.push_back(word);
      if (option != nullptr && option->needs_value()) take_value(*option, words);
      return {};
    }
    if (!is_empty_value(*option, std::string_view(word).substr(equals + 1))) {
      out_.push_back(word);
      return {};
    }
    if (!option->needs_value()) {
      return fail(Errc::usage, fmt::format("{} has an empty value (leave out the '=')", word));
    }
    out_.push_back(name);
    out_.emplace_back();
    return {};
  }

  /// "-v", "-rv", "-ofile" or "-o" and a word.
  void take_short(const std::vector<std::string>& words) {
    const std::string& word = words[at_];
    out_.push_back(word);
    for (std::size_t letter = 1; letter < word.size(); ++letter) {
      const CommandOption* option = options_->find({'-', word[letter]});
      if (option == nullptr) return;
      if (!option->takes_value()) continue;
      if (letter + 1 == word.size() && option->needs_value()) take_value(*option, words);
      return;
    }
  }

  void take_value(const CommandOption& option, const std::vector<std::string>& words) {
    if (at_ + 1 == words.size()) return;
    const std::string& value = words[++at_];
    out_.push_back(is_empty_value(option, value) ? std::string() : value);
  }

  void take_bare(const std::string& word) {
    // To CLI11 "[a,b]" is the list of "a" and "b".
    const bool looks_like_list = word.starts_with('[') && word.ends_with(']');
    const bool is_source = options_->find("SOURCE") != nullptr;
    out_.push_back(looks_like_list && is_source ? "./" + word : word);
    const auto& subcommands = options_->subcommands();
    const auto named =
        std::ranges::find(subcommands, word, [](const auto& each) { return each->name(); });
    if (named != subcommands.end()) options_ = named->get();
  }

  const OptionSet* options_;
  std::size_t at_ = 0;
  std::vector<std::string> out_;
};

std::string empty_value_error(const std::string& value) {
  return value.empty() ? "the value is empty" : "";
}

}  // namespace

Result<std::vector<std::string>> separate_empty_values(const OptionSet& options,
                                                       const std::vector<std::string>& words) {
  return Separator(options).separate(words);
}

void refuse_empty_values(OptionSet& options) {
  for (CommandOption* option : options.options()) {
    if (option->is_positional() || !option->needs_value()) continue;
    if (!option->takes_empty_value()) option->check(empty_value_error);
  }
  for (const auto& subcommand : options.subcommands()) refuse_empty_values(*subcommand);
}

}  // namespace mkvirtfs::cli
