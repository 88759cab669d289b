// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "fsgen/host/scan.h"
#include "fsgen/host/scan_records.h"
#include "fsgen/tree/entry_rules.h"
#include "fsgen/tree/xattr_pool.h"
#include "support/confined_open.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs {

/// Settings for tests.
struct ScanTuning {
  std::uint64_t most_nodes = std::numeric_limits<std::uint32_t>::max() - 1;
  std::size_t most_open_directories = 0;  ///< 0: from RLIMIT_NOFILE
  /// A directory with more names is looked at by several threads.
  std::size_t names_a_task = 4096;
  bool use_openat2 = true;
  /// Give each thread a working directory of its own; else xattrs are asked for through /proc.
  bool use_own_directory = true;
};

/// How much there is, so that the tree can be made in one piece.
struct WalkCounts {
  std::uint64_t entries = 0;  ///< without the root
  std::uint64_t directories = 0;
  std::uint64_t linked = 0;  ///< entries of files that have other names
  std::uint64_t name_bytes = 0;
  std::uint64_t symlinks = 0;
  std::uint64_t target_bytes = 0;
  std::uint64_t data_runs = 0;

  WalkCounts& operator+=(const WalkCounts& more) noexcept;
};

/// Everything below a root, as records that wait to be numbered.
struct WalkResult {
  std::unique_ptr<ScannedDirectory> root;
  ScanSegment root_record;  ///< one record, named "."
  WalkCounts counts;
  ScanReport report;
  bool own_directories = true;  ///< each worker had a working directory of its own

  std::vector<std::deque<ScannedDirectory>> directories;  ///< owns them; one deque a worker
  std::vector<XattrPool> xattrs;                          ///< one a worker
};

/// Looks at everything below `root`, a descriptor that can be listed, in parallel. `name` is what
/// messages call it. Fails as scan_directory() does.
Result<WalkResult> walk_directory(UniqueFd root, const std::string& name,
                                  const ScanOptions& options, const EntryRules& rules,
                                  const ConfinedOpener& opener, const ScanTuning& tuning);

/// scan_directory() for tests.
Result<Scan> scan_directory(const std::string& path, const ScanOptions& options, LogSink& log,
                            const ScanTuning& tuning);

}  // namespace mkvirtfs
