// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/fat32/plan.h"
#include "fsgen/tree/entry_rules.h"
#include "support/error.h"

namespace mkvirtfs::fat32 {

// Attributes of a directory entry that patterns can give, as the entry has them.
inline constexpr std::uint8_t kReadOnly = 0x01;
inline constexpr std::uint8_t kHidden = 0x02;
inline constexpr std::uint8_t kSystem = 0x04;

/// Which entries get attributes that the source cannot say, by Options::hidden, system and
/// read_only. Remembers which patterns have matched something; one thread.
class AttributeRules {
 public:
  /// Errc::usage for a pattern that names nothing.
  static Result<AttributeRules> make(const Options& options);

  bool empty() const noexcept { return attributes_.empty(); }
  /// The bits of an entry. `directory` is its path in the image, with a '/' at its end unless it is
  /// empty.
  std::uint8_t attributes_of(std::string_view directory, std::string_view name,
                             EntryKind kind) const;
  /// The options whose patterns have matched nothing so far, each once.
  std::vector<Setting> unmatched() const;

 private:
  struct Attribute {
    std::uint8_t bit;
    std::string_view option;
    std::vector<std::string> patterns;
    EntryRules rules;  // "takes" means that no pattern matches
    std::shared_ptr<const RuleMatches> matches;
  };

  std::vector<Attribute> attributes_;
};

}  // namespace mkvirtfs::fat32
