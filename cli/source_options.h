// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/host_files.h"
#include "cli/archive_options.h"
#include "cli/command.h"
#include "cli/container_options.h"
#include "cli/run_outputs.h"
#include "fsgen/host/scan.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// A source as the command line names it, and where in the whole its root stands; "" is the root.
struct PlacedSource {
  std::string source;
  std::string at;

  friend bool operator==(const PlacedSource&, const PlacedSource&) = default;
};
/// For people: "base + etc-extra at /etc".
std::string to_string(const std::vector<PlacedSource>& sources);

/// Errc::usage for what can be no value of --at.
Result<void> check_place(const std::string& place);

/// The options that say what is read and as whose: the same for every subcommand.
class SourceOptions {
 public:
  /// The options, and SOURCE... itself; take_sources() must follow the parsing.
  void add_to(OptionSet& options);
  void add_options_to(OptionSet& options);

  /// The words of the command line that are sources, in their order, each with the --at that stood
  /// before it. Errc::usage for an --at that no source follows.
  Result<std::vector<PlacedSource>> words() const;
  /// Fills `sources` with them, when it is empty.
  Result<void> take_sources();
  /// The values of --at by themselves.
  const std::vector<std::string>& places() const noexcept { return places_; }

  /// The values after parsing; Errc::usage for what is malformed or contradictory.
  Result<ScanOptions> scan_options() const;
  ChangeRules change_rules() const;
  const ArchiveOptions& archive() const noexcept { return archive_; }
  const ContainerOptions& container() const noexcept { return container_; }
  /// 0: not given.
  unsigned threads() const noexcept { return threads_; }

  /// The options of its command line that say what image it is, as "--name=value", in the order of
  /// the help: for people to compare.
  std::vector<std::string> given() const;

  /// What is read, one laid over the other.
  std::vector<PlacedSource> sources;
  /// What the run writes, which is left out of directories; may be null.
  std::shared_ptr<const RunOutputs> outputs;
  /// An overlay that outlives the server lies over the image: what its files are is to be kept.
  bool keep_base = false;

 private:
  /// --exclude and --include in the order in which they were given.
  std::vector<PathRule> rules() const;
  /// How long --sync-source may take; nullopt without it.
  Result<std::optional<std::chrono::seconds>> sync_within() const;

  const OptionSet* command_line_ = nullptr;
  ContainerOptions container_;
  const CommandOption* place_option_ = nullptr;
  const CommandOption* exclude_option_ = nullptr;
  const CommandOption* include_option_ = nullptr;
  std::vector<std::string> words_;
  std::vector<std::string> places_;
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
  bool sync_source_ = false;
  std::string sync_timeout_;
  std::string on_change_ = "error";
  std::string change_check_ = "ctime";
  unsigned threads_ = 0;
  ArchiveOptions archive_;
};

/// SOURCE_DATE_EPOCH, or nullopt; Errc::usage when it is no number of seconds.
Result<std::optional<std::int64_t>> source_date_epoch();

}  // namespace mkvirtfs::cli
