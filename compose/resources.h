// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "bootsect/made_pieces.h"
#include "compose/formats.h"
#include "compose/remark.h"
#include "compose/run_outputs.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/chunk_cache.h"
#include "fsgen/stream/spool.h"
#include "support/error.h"
#include "support/log.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// Where the installation put `mkvirtfs-reader`.
std::string installed_reader_path();

/// What making images may use. Nothing else is looked at: no environment variable, no file of
/// settings, no global.
struct ResourceOptions {
  /// Where messages go. Outlives every device that is made with it.
  LogSink* log = &null_log();
  /// Called with each remark of prepare(), on its thread; unset: it is written to the log.
  std::function<void(const Remark& remark)> on_remark{};
  /// Called when an export of make_exports() cannot be prepared for a client, on any thread; may
  /// change the text that the client receives. Unset: it is written to the log.
  std::function<void(std::string_view name, Error& error)> on_export_failure{};
  /// Becomes true, on any thread: what waits for a pipe, or has not yet read all its sources, ends
  /// with ECANCELED. Outlives every device; may be null.
  const std::atomic<bool>* cancel = nullptr;
  /// At most so many for one image; 0: one a processor. The image does not depend on it.
  unsigned threads = 0;

  /// For what was unpacked lately, of all archives together.
  std::uint64_t cache_memory_bytes = ChunkCache::kDefaultBytes;
  /// Where the indexes of compressed archives are kept for the next time; "": nowhere. Made when
  /// it is not there.
  std::string index_directory{};
  /// Opens a source that is named by an NBD URI; unset: such sources are refused. Any thread.
  std::function<Result<std::shared_ptr<ByteSource>>(const std::string& uri)> open_address{};
  /// Where what can only be unpacked from its beginning lies, in files without a name; "": such
  /// archives are refused.
  std::string spool_directory = "/var/tmp";
  std::uint64_t spool_limit_bytes = std::uint64_t{8} << 30;
  /// The program that reads 7z, ISO 9660 and the like in a process of its own; "": they are
  /// refused.
  std::string reader_path = installed_reader_path();

  /// The formats that there are; outlives the Resources. Not null.
  const FormatRegistry* formats = &all_formats();
};

/// What the images of one owner share. Two of these have nothing in common, so a process may have
/// several. Any thread. Devices keep what they need of it, and may outlive it.
class Resources {
 public:
  explicit Resources(ResourceOptions options = {});
  Resources(const Resources&) = delete;
  Resources& operator=(const Resources&) = delete;

  const ResourceOptions& options() const noexcept { return options_; }
  LogSink& log() const noexcept { return *options_.log; }
  bool is_canceled() const noexcept;

  /// What the run itself writes, which is left out of directories.
  RunOutputs& outputs() noexcept { return outputs_; }
  const RunOutputs& outputs() const noexcept { return outputs_; }

  /// Pieces of boot loaders that take a program to be made; kept beside the indexes.
  bootsect::MadePieces& made_pieces() noexcept { return made_pieces_; }

  /// One for each capacity, as long as something uses it.
  std::shared_ptr<ChunkCache> cache(std::uint64_t capacity_bytes) EXCLUDES(mutex_);
  /// One for each directory and limit, as long as something uses it.
  std::shared_ptr<SpoolSpace> spool_space(const std::string& directory, std::uint64_t limit_bytes)
      EXCLUDES(mutex_);

 private:
  const ResourceOptions options_;
  RunOutputs outputs_;
  bootsect::MadePieces made_pieces_;
  Mutex mutex_;
  std::map<std::uint64_t, std::weak_ptr<ChunkCache>> caches_ GUARDED_BY(mutex_);
  std::map<std::pair<std::string, std::uint64_t>, std::weak_ptr<SpoolSpace>> spools_
      GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs
