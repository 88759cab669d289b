// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "fsgen/archive/archive.h"
#include "fsgen/archive/layer_tree.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/stream/compressed.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// What is needed to read archives, as the command line has it.
struct ArchiveSettings {
  archive::ReadOptions read;
  StreamOptions stream;                                    ///< with the process's cache and spools
  archive::LayerOptions layer;                             ///< without `scan`
  std::shared_ptr<const archive::IndexCache> index_cache;  ///< none: --cache-dir=none
};

/// The options that say how archives are read, and what they may cost.
class ArchiveOptions {
 public:
  void add_to(OptionSet& options);

  /// The values after parsing; Errc::usage for what is malformed, Errc::unreadable for a file of
  /// passphrases that can not be read. What is remarked goes to `log`, which must outlive it all.
  /// `cancel`, when it becomes true, ends the wait for a pipe that passphrases come from.
  Result<ArchiveSettings> settings(LogSink& log, const std::atomic<bool>* cancel = nullptr) const;
  /// The same without looking at any file.
  Result<void> check() const;

 private:
  Result<ArchiveSettings> parse(LogSink& log) const;

  std::string layout_ = "archive";
  std::string unsafe_names_ = "error";
  std::string layer_symlinks_ = "follow";
  std::string pax_globals_ = "apply";
  bool ignores_zeros_ = false;
  std::string passphrase_file_;
  std::string most_entries_;
  std::string most_size_;
  std::string most_ratio_;
  std::string reader_memory_;
  std::string index_memory_;
  std::string cache_memory_;
  std::string cache_directory_;
  std::string spool_directory_;
  std::string spool_limit_;
};

}  // namespace mkvirtfs::cli
