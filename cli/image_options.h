// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"
#include "fsgen/ext2/plan.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The options that say what image is made: the same for every subcommand.
class ImageOptions {
 public:
  void add_to(CLI::App& app);

  /// The values after parsing; Errc::usage for what is malformed.
  Result<ext2::Options> ext2_options() const;
  /// "ext2", "ext3", "ext4".
  const std::string& format() const noexcept { return format_; }

 private:
  std::string format_ = "ext2";
  std::string size_;
  std::string free_;
  std::string inodes_;
  std::string label_;
  std::string uuid_;
  std::string block_size_;
  std::string inode_size_;
  bool journal_ = false;
  bool no_journal_ = false;
  std::string reserved_;
  std::vector<std::string> features_;
};

}  // namespace mkvirtfs::cli
