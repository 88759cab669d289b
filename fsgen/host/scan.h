// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/host_files.h"
#include "fsgen/tree/entry_rules.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs {

/// A file that this run itself writes: it is no part of the tree. It is named by identities,
/// because the scan can come to it by another path.
struct RunOutput {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;  ///< 0: it does not exist yet
  /// The only name under which it is left out, in the directory below. Empty: it is left out under
  /// all its names, because it is written in place.
  std::string name;
  std::uint64_t directory_device = 0;
  std::uint64_t directory_inode = 0;
};

struct ScanOptions {
  /// Enter no mount point, neither of another file system nor of the same: a directory stays as an
  /// empty one, a file is left out. The report counts them.
  bool one_file_system = true;
  EntryOptions entries;
  /// Take what can be read, count the rest in the report, instead of failing. A directory that
  /// cannot be listed stays as an empty one, everything else is left out.
  bool skip_unreadable = false;
  std::vector<RunOutput> outputs;  ///< left out
  /// Have each file system of the source written back before its files are looked at, so that later
  /// writes through mappings are seen; the scan fails when one takes longer.
  std::optional<std::chrono::milliseconds> sync_within;
  unsigned threads = 0;  ///< 0: one a processor
  /// Keep what ContentStore::host_file() reports, which costs 48 bytes a node.
  bool keep_facts = false;
};

/// What a scan passed over. Counts are complete.
struct ScanReport {
  std::uint64_t unreadable_count = 0;
  /// The first by name, at most a hundred: "etc/shadow: Permission denied", as raw bytes.
  std::vector<std::string> unreadable_paths;
  std::uint64_t vanished_count = 0;  ///< gone between the listing and the look
  std::uint64_t mount_points_not_entered = 0;
  std::uint64_t excluded_count = 0;
  /// For each of ScanOptions::outputs, whether the scan came to it or to its directory.
  std::vector<bool> outputs_met;
  /// Messages about file systems for which ScanOptions::sync_within can do nothing.
  std::vector<std::string> unsynced;
};

/// A host directory, frozen: its tree, and the way back to its files.
struct Scan {
  std::shared_ptr<const SourceTree> tree;
  std::shared_ptr<const HostFileTable> files;
  ScanReport report;
};

/// Reads names and metadata of everything below `path`, in parallel, and no file's bytes. Never
/// follows a symlink, never leaves the root, never writes. The result depends on the content alone,
/// not on threads, inode numbers or the order of the host's directories (law 1).
///
/// Errors: Errc::unreadable, naming the entries that could not be read (the first hundred of them
/// and the count), or a root that is no directory or not there; Errc::does_not_fit beyond 2^32 - 2
/// nodes; Errc::usage for invalid rules or mappings.
Result<Scan> scan_directory(const std::string& path, const ScanOptions& options, LogSink& log);

}  // namespace mkvirtfs
