// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "block/host_files.h"
#include "cli/command.h"
#include "fsgen/tree/scan.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The options that say what is read and as whose: the same for every subcommand.
class SourceOptions {
 public:
  /// The options, and SOURCE itself.
  void add_to(CLI::App& app);
  void add_options_to(CLI::App& app);

  /// The values after parsing; Errc::usage for what is malformed or contradictory.
  Result<ScanOptions> scan_options() const;
  OnChange on_change() const;
  /// 0: not given.
  unsigned threads() const noexcept { return threads_; }

  std::string source;

 private:
  /// --exclude and --include in the order in which they were given.
  std::vector<PathRule> rules() const;

  CLI::App* app_ = nullptr;
  CLI::Option* exclude_option_ = nullptr;
  CLI::Option* include_option_ = nullptr;
  std::vector<std::string> excludes_;
  std::vector<std::string> includes_;
  std::string owner_;
  std::vector<std::string> uid_map_;
  std::vector<std::string> gid_map_;
  std::string mode_mask_;
  bool one_file_system_ = false;
  bool no_one_file_system_ = false;
  bool no_xattrs_ = false;
  bool skip_unreadable_ = false;
  std::string on_change_ = "error";
  unsigned threads_ = 0;
};

/// SOURCE_DATE_EPOCH, or nullopt; Errc::usage when it is no number of seconds.
Result<std::optional<std::int64_t>> source_date_epoch();

}  // namespace mkvirtfs::cli
