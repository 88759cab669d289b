// SPDX-License-Identifier: BSD-3-Clause
// Typing errors are counted as people make them: a character too many, one too few, another one,
// and two neighbours the wrong way round (the optimal string alignment distance). A third of a
// word may be wrong. What is longer than any word is not compared at all.
#include "cli/near_words.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "support/ascii_case.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::size_t kLongestWord = 64;

std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before;  // the row before the last one
  std::vector<std::size_t> last(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::vector<std::size_t> row(b.size() + 1, i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t other = a[i - 1] == b[j - 1] ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + other});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = std::move(last);
    last = std::move(row);
  }
  return last[b.size()];
}

/// The only word that begins so, or "".
std::string only_one_that_begins(std::string_view typed, const std::vector<std::string>& words) {
  constexpr std::size_t kFewest = 3;
  if (typed.size() < kFewest) return {};
  std::string found;
  for (const std::string& word : words) {
    if (!ascii_lower(word).starts_with(typed)) continue;
    if (!found.empty()) return {};
    found = word;
  }
  return found;
}

}  // namespace

std::string nearest_word(std::string_view typed, const std::vector<std::string>& words) {
  if (typed.empty() || typed.size() > kLongestWord) return {};
  const std::string given = ascii_lower(typed);
  std::string best;
  std::size_t least = std::max<std::size_t>(given.size() / 3, 1) + 1;
  for (const std::string& word : words) {
    const std::size_t errors = distance(given, ascii_lower(word));
    // With a single character in common, or none, it is another word.
    if (errors == least) best.clear();  // two are as near
    if (errors >= least || errors + 1 >= std::max(word.size(), given.size())) continue;
    least = errors;
    best = word;
  }
  return best.empty() ? only_one_that_begins(given, words) : best;
}

std::string did_you_mean(std::string_view word) {
  return word.empty() ? "" : fmt::format(" (did you mean {}?)", word);
}

std::string joined_with_or(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t at = 0; at < words.size(); ++at) {
    if (at != 0) text += at + 1 == words.size() ? " or " : ", ";
    text += words[at];
  }
  return text;
}

}  // namespace mkvirtfs::cli
