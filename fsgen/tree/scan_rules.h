// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/tree/id_map.h"
#include "fsgen/tree/scan.h"
#include "fsgen/tree/scan_records.h"
#include "fsgen/tree/xattr_rules.h"
#include "support/error.h"

namespace mkvirtfs {

/// The part of ScanOptions that decides which entries are taken and how their attributes are
/// changed, checked and made ready. Immutable: any thread.
class ScanRules {
 public:
  /// Errc::usage for an empty glob, a mapping beyond the last id, a mask beyond the permission
  /// bits.
  static Result<ScanRules> make(const ScanOptions& options);

  bool takes_all() const noexcept { return rules_.empty(); }
  /// Whether some rule looks at directories only, so that the type must be known.
  bool need_types() const noexcept { return need_types_; }
  /// `directory` is the path below the root, with a '/' at its end unless it is empty.
  bool takes(std::string_view directory, std::string_view name, bool is_directory) const;

  /// Owner, permissions and time as the image shall have them.
  void apply(RecordHead& head) const noexcept;
  const XattrRules& xattrs() const noexcept { return xattrs_; }

 private:
  struct Rule {
    std::string glob;
    bool include = false;
    bool whole_path = false;
    bool directories_only = false;
  };

  explicit ScanRules(const ScanOptions& options);

  std::vector<Rule> rules_;
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
