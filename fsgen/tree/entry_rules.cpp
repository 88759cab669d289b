// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/entry_rules.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <limits>

#include "fsgen/tree/glob.h"

namespace mkvirtfs {
namespace {

Result<void> check(const std::vector<IdMapping>& mappings) {
  constexpr std::uint32_t kLastId = std::numeric_limits<std::uint32_t>::max();
  for (const IdMapping& mapping : mappings) {
    if (mapping.count == 0 || mapping.count - 1 > kLastId - std::max(mapping.from, mapping.to)) {
      return fail(Errc::usage, fmt::format("the id mapping {}:{}:{} is empty or runs beyond {}",
                                           mapping.from, mapping.to, mapping.count, kLastId));
    }
  }
  return {};
}

}  // namespace

Result<EntryRules> EntryRules::make(const EntryOptions& options) {
  for (const PathRule& rule : options.rules) {
    if (rule.glob.find_first_not_of('/') == std::string::npos) {
      return fail(Errc::usage, fmt::format("the pattern \"{}\" names nothing", rule.glob));
    }
  }
  if (auto checked = check(options.uid_map); !checked) return propagate(checked);
  if (auto checked = check(options.gid_map); !checked) return propagate(checked);
  if ((options.mode_mask & ~07777) != 0) {
    return fail(Errc::usage, fmt::format("the mode mask {:o} is beyond 7777", options.mode_mask));
  }
  return EntryRules(options);
}

EntryRules::EntryRules(const EntryOptions& options)
    : matches_(options.matches),
      owner_uid_(options.owner_uid),
      owner_gid_(options.owner_gid),
      uids_(options.uid_map),
      gids_(options.gid_map),
      mode_mask_(options.mode_mask),
      newest_mtime_s_(options.newest_mtime_s),
      xattrs_(uids_, gids_, mode_mask_) {
  for (const PathRule& from : options.rules) {
    Rule rule{from.glob, from.include};
    rule.directories_only = rule.glob.ends_with('/');
    while (rule.glob.ends_with('/')) rule.glob.pop_back();
    rule.whole_path = rule.glob.contains('/');
    // "/tmp" is the root's tmp, and no other.
    rule.glob.erase(0, rule.glob.find_first_not_of('/'));
    need_types_ = need_types_ || rule.directories_only;
    rules_.push_back(std::move(rule));
  }
}

bool EntryRules::takes(std::string_view directory, std::string_view name, EntryKind kind) const {
  std::string path;
  std::optional<bool> decided;
  for (std::size_t no = 0; no < rules_.size(); ++no) {
    const Rule& rule = rules_[no];
    // The first that matches decides; those behind it are only asked whether they ever match.
    if (decided && matches_->has(no)) continue;
    if (rule.directories_only && kind != EntryKind::directory) continue;
    if (rule.whole_path && path.empty()) {
      path = directory;
      path += name;
    }
    if (!glob_matches(rule.glob, rule.whole_path ? path : name)) continue;
    if (!matches_) return rule.include;
    // Threads of a scan share it: it is written once.
    if (!matches_->has(no)) matches_->add(no);
    if (!decided) decided = rule.include;
  }
  return decided.value_or(true);
}

void EntryRules::apply(EntryAttributes& attributes) const noexcept {
  attributes.uid = owner_uid_ ? *owner_uid_ : uids_(attributes.uid);
  attributes.gid = owner_gid_ ? *owner_gid_ : gids_(attributes.gid);
  // A symlink's permissions mean nothing and are 0777 everywhere.
  if (!S_ISLNK(attributes.mode)) {
    attributes.mode &= static_cast<std::uint16_t>(S_IFMT | mode_mask_);
  }
  if (newest_mtime_s_ && attributes.mtime.seconds >= *newest_mtime_s_) {
    attributes.mtime = {*newest_mtime_s_, 0};
  }
}

}  // namespace mkvirtfs
