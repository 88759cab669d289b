// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/attribute_rules.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace mkvirtfs::fat32 {

Result<AttributeRules> AttributeRules::make(const Options& options) {
  AttributeRules made;
  const auto add = [&](std::uint8_t bit, std::string_view option,
                       const std::vector<std::string>& patterns) -> Result<void> {
    if (patterns.empty()) return {};
    EntryOptions entries;
    for (const std::string& pattern : patterns) entries.rules.push_back({.glob = pattern});
    entries.matches = std::make_shared<RuleMatches>(patterns.size());
    Result<EntryRules> rules = EntryRules::make(entries);
    if (!rules) return fail_option({std::string(option)}, rules.error().what);
    made.attributes_.push_back({bit, option, patterns, std::move(*rules), entries.matches});
    return {};
  };
  if (Result<void> good = add(kHidden, "fat-hidden", options.hidden); !good) return propagate(good);
  if (Result<void> good = add(kSystem, "fat-system", options.system); !good) return propagate(good);
  if (Result<void> good = add(kReadOnly, "fat-readonly", options.read_only); !good) {
    return propagate(good);
  }
  return made;
}

std::uint8_t AttributeRules::attributes_of(std::string_view directory, std::string_view name,
                                           EntryKind kind) const {
  std::uint8_t bits = 0;
  for (const Attribute& attribute : attributes_) {
    if (!attribute.rules.takes(directory, name, kind)) bits |= attribute.bit;
  }
  return bits;
}

std::vector<Setting> AttributeRules::unmatched() const {
  std::vector<Setting> settings;
  for (const Attribute& attribute : attributes_) {
    for (std::size_t no = 0; no < attribute.patterns.size(); ++no) {
      const std::string& pattern = attribute.patterns[no];
      const bool is_first = std::ranges::find(attribute.patterns, pattern) ==
                            attribute.patterns.begin() + static_cast<std::ptrdiff_t>(no);
      // Equal patterns match the same, and the first of them says so.
      if (is_first && !attribute.matches->has(no)) {
        settings.push_back({std::string(attribute.option), pattern});
      }
    }
  }
  return settings;
}

}  // namespace mkvirtfs::fat32
