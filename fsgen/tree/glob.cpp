// SPDX-License-Identifier: BSD-3-Clause
// One pass over pattern and text. A star is tried with nothing first and takes one more byte
// whenever the rest fails; only the last star of each kind is ever tried again, so the time is
// bounded by the product of the lengths.
#include "fsgen/tree/glob.h"

#include <cstddef>

namespace mkvirtfs {
namespace {

constexpr std::size_t kNone = std::string_view::npos;

/// Where the set that begins at `glob[at] == '['` ends (behind its ']'); kNone when it does not.
std::size_t end_of_set(std::string_view glob, std::size_t at) noexcept {
  ++at;
  if (at < glob.size() && (glob[at] == '!' || glob[at] == '^')) ++at;
  if (at < glob.size() && glob[at] == ']') ++at;  // a first ']' is a member
  for (; at < glob.size(); ++at) {
    if (glob[at] == '\\') {
      ++at;
    } else if (glob[at] == ']') {
      return at + 1;
    }
  }
  return kNone;
}

/// Whether `c` is in `set`, which is what stands between '[' and ']'.
bool in_set(std::string_view set, char c) noexcept {
  const bool negated = set.starts_with('!') || set.starts_with('^');
  std::size_t at = negated ? 1 : 0;
  const auto member = [&] {
    if (set[at] == '\\' && at + 1 < set.size()) ++at;
    return static_cast<unsigned char>(set[at++]);
  };
  const auto byte = static_cast<unsigned char>(c);
  bool found = false;
  while (at < set.size()) {
    const unsigned char low = member();
    unsigned char high = low;
    if (at + 1 < set.size() && set[at] == '-') {
      ++at;
      high = member();
    }
    found = found || (low <= byte && byte <= high);
  }
  return found != negated;
}

/// Matches one byte of text against the element of `glob` at `at`, which is no star; on success
/// `at` moves behind the element.
bool matches_one(std::string_view glob, std::size_t& at, char c) noexcept {
  switch (glob[at]) {
    case '?':
      if (c == '/') return false;
      ++at;
      return true;
    case '[': {
      const std::size_t end = end_of_set(glob, at);
      if (end == kNone) break;
      if (c == '/' || !in_set(glob.substr(at + 1, end - at - 2), c)) return false;
      at = end;
      return true;
    }
    case '\\':
      if (at + 1 == glob.size()) break;
      if (glob[at + 1] != c) return false;
      at += 2;
      return true;
    default:
      break;
  }
  if (glob[at] != c) return false;
  ++at;
  return true;
}

}  // namespace

bool glob_matches(std::string_view glob, std::string_view text) noexcept {
  // Only the last '*' and the last "**" ever need another try: a later star can take up whatever an
  // earlier one of its kind gave, and a '*' before a "**" likewise.
  struct Retry {
    std::size_t glob = kNone;  // behind the star
    std::size_t text = 0;      // what the star has taken so far ends here
  };
  Retry star;
  Retry double_star;
  bool whole_components = false;  // the "**" is a "**/": it takes up to a '/' or nothing
  std::size_t g = 0;
  std::size_t t = 0;
  while (true) {
    if (g < glob.size() && glob[g] == '*') {
      if (g + 1 < glob.size() && glob[g + 1] == '*') {
        while (g < glob.size() && glob[g] == '*') ++g;
        whole_components = g < glob.size() && glob[g] == '/' && (t == 0 || text[t - 1] == '/');
        if (whole_components) ++g;
        double_star = {g, t};
        star = {};
      } else {
        star = {++g, t};
      }
      continue;
    }
    if (g == glob.size() && t == text.size()) return true;
    if (g < glob.size() && t < text.size() && matches_one(glob, g, text[t])) {
      ++t;
      continue;
    }
    if (star.glob != kNone && star.text < text.size() && text[star.text] != '/') {
      g = star.glob;
      t = ++star.text;
      continue;
    }
    if (double_star.glob == kNone) return false;
    if (whole_components) {
      const std::size_t slash = text.find('/', double_star.text);
      if (slash == kNone) return false;
      double_star.text = slash + 1;
    } else {
      if (double_star.text == text.size()) return false;
      ++double_star.text;
    }
    g = double_star.glob;
    t = double_star.text;
    star = {};
  }
}

}  // namespace mkvirtfs
