// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "block/content.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs {

struct ExtractProgress {
  std::uint64_t done_bytes = 0;
  std::uint64_t data_bytes = 0;  ///< of all files, without holes
};

struct ExtractOptions {
  /// Called after each piece of a file.
  std::function<void(const ExtractProgress&)> progress{};
  /// A line for each of the first things that could not be restored.
  LogSink* log = &null_log();
};

struct ExtractSummary {
  std::uint64_t entry_count = 0;  ///< that were made, directories that were there included
  std::uint64_t data_bytes = 0;
  /// Entries, and attributes of entries, that could not be restored.
  std::uint64_t failure_count = 0;
  /// Entries that belong to this user instead of their owner: only root can give files away.
  std::uint64_t other_owner_count = 0;
};

/// Writes what is below the directory `from` into `directory`, which is made when it is not there;
/// or, where `from` is no directory, that entry under its own name.
///
/// Nothing outside `directory` is touched, whatever it holds and whoever changes it meanwhile: no
/// symlink in it is followed. What is there stays: a directory is added to, anything else in the
/// place of an entry is a failure. Modes, times, hard links, holes, devices and extended attributes
/// are restored where this user may; owners where it is root. Where an owner is not restored,
/// neither are set-user-ID and set-group-ID bits. A file that cannot be read to its end is not
/// left there.
///
/// `directory` itself gets the attributes of `from` when it is made. Errors: Errc::io when it
/// cannot be made or opened; all else is counted in the summary.
Result<ExtractSummary> extract(const SourceTree& tree, ContentStore& contents, NodeNo from,
                               const std::string& directory, const ExtractOptions& options);

}  // namespace mkvirtfs
