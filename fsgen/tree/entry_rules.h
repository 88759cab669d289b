// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/tree/id_map.h"
#include "fsgen/tree/source_tree.h"
#include "fsgen/tree/xattr_rules.h"
#include "support/error.h"

namespace mkvirtfs {

/// One `--exclude` or `--include`. The first rule that matches a path decides; what none matches is
/// taken. `glob` is matched against the path below the root when it holds a '/' (so "/tmp" is the
/// root's tmp alone), else against the name alone. '*' and '?' stay inside one component, '**'
/// crosses them: see glob.h. With a '/' at its end it matches directories only. An excluded
/// directory is not entered.
struct PathRule {
  bool include = false;
  std::string glob;

  friend bool operator==(const PathRule&, const PathRule&) = default;
};

/// Which rules some entry has matched, of all that were asked about. Any thread.
class RuleMatches {
 public:
  explicit RuleMatches(std::size_t rule_count) : matched_(rule_count) {}
  bool has(std::size_t rule) const noexcept {
    return matched_[rule].load(std::memory_order_relaxed);
  }
  void add(std::size_t rule) noexcept { matched_[rule].store(true, std::memory_order_relaxed); }

 private:
  std::vector<std::atomic<bool>> matched_;
};

/// Which entries of any source are taken, and what becomes of their attributes.
struct EntryOptions {
  std::vector<PathRule> rules;
  /// Where it is kept which of `rules` match something; one element for each. Null: nowhere.
  std::shared_ptr<RuleMatches> matches{};
  std::optional<std::uint32_t> owner_uid;  ///< wins over the mappings
  std::optional<std::uint32_t> owner_gid;
  std::vector<IdMapping> uid_map;  ///< the first that holds an id; for the ids in ACLs too
  std::vector<IdMapping> gid_map;
  std::uint16_t mode_mask = 07777;  ///< permission bits that survive
  bool xattrs = true;               ///< which are kept: see XattrRules
  /// Those of an archive that no file system of Linux can have are counted and listed, whatever
  /// becomes of the others.
  bool lists_lost_xattrs = true;
  /// Later mtimes become this one (SOURCE_DATE_EPOCH).
  std::optional<std::int64_t> newest_mtime_s;
};

/// As what an entry is asked for.
enum class EntryKind : std::uint8_t { directory, other };

/// What EntryRules change.
struct EntryAttributes {
  std::uint16_t mode = 0;  ///< as in st_mode
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  Timestamp mtime;
};

/// EntryOptions, checked and made ready. Immutable: any thread.
class EntryRules {
 public:
  /// Errc::usage for an empty glob, a mapping beyond the last id, a mask beyond the permission
  /// bits.
  static Result<EntryRules> make(const EntryOptions& options);

  bool takes_all() const noexcept { return rules_.empty(); }
  /// Whether some rule looks at directories only, so that the type must be known.
  bool need_types() const noexcept { return need_types_; }
  /// `directory` is the path below the root, with a '/' at its end unless it is empty.
  bool takes(std::string_view directory, std::string_view name, EntryKind kind) const;

  /// Owner, permissions and time as the image shall have them.
  void apply(EntryAttributes& attributes) const noexcept;
  const XattrRules& xattrs() const noexcept { return xattrs_; }

 private:
  struct Rule {
    std::string glob;
    bool include = false;
    bool whole_path = false;
    bool directories_only = false;
  };

  explicit EntryRules(const EntryOptions& options);

  std::vector<Rule> rules_;
  std::shared_ptr<RuleMatches> matches_;
  bool need_types_ = false;
  std::optional<std::uint32_t> owner_uid_;
  std::optional<std::uint32_t> owner_gid_;
  IdMap uids_;
  IdMap gids_;
  std::uint16_t mode_mask_;
  std::optional<std::int64_t> newest_mtime_s_;
  XattrRules xattrs_;
};

}  // namespace mkvirtfs
