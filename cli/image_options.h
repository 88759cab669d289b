// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "cli/command.h"
#include "fsgen/ext2/plan.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/iso9660/plan.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// What a planner is asked for: which of the formats, and how.
using PlanOptions = std::variant<ext2::Options, fat32::Options, iso9660::Options>;

/// The options that say what image is made: the same for every subcommand.
class ImageOptions {
 public:
  void add_to(CLI::App& app);

  /// The values after parsing; Errc::usage for what is malformed, or does not go with the format.
  Result<PlanOptions> plan_options() const;
  /// "ext4", "fat32" and so on, as it was asked for.
  const std::string& format() const noexcept;
  /// Whether the format can show extended attributes; if not, nobody needs to read them.
  bool has_xattrs() const noexcept { return !is_fat() && !is_iso(); }
  /// Whether files with the same bytes are to be found before the plan is made (ISO 9660).
  bool dedupe() const noexcept { return dedupe_; }

 private:
  bool is_fat() const noexcept { return format().starts_with("fat"); }
  bool is_iso() const noexcept { return format() == "iso"; }
  Result<void> check_format() const;
  Result<ext2::Options> ext2_options() const;
  Result<fat32::Options> fat_options() const;
  Result<iso9660::Options> iso_options() const;

  std::string format_;
  std::string size_;
  std::string free_;
  std::string label_;
  std::string uuid_;

  std::string inodes_;
  std::string block_size_;
  std::string inode_size_;
  bool journal_ = false;
  bool no_journal_ = false;
  std::string reserved_;
  std::vector<std::string> features_;

  std::string cluster_size_;
  std::string sector_size_;
  std::string names_;
  std::string case_clashes_;
  std::string symlinks_;
  bool skip_unfit_ = false;
  std::string time_zone_;
  std::string hidden_sectors_;

  std::string iso_level_;
  std::string joliet_;
  std::string deep_;
  std::vector<std::string> volume_fields_;
  bool dedupe_ = false;
  bool pad_ = false;
  std::string preset_;

  std::vector<const CLI::Option*> only_ext_;
  std::vector<const CLI::Option*> only_fat_;
  std::vector<const CLI::Option*> only_iso_;
  std::vector<const CLI::Option*> not_iso_;
};

}  // namespace mkvirtfs::cli
