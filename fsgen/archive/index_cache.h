// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fsgen/archive/member_log.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/compressed.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::archive {

/// A warning that came with an archive, to be repeated.
struct KeptRemark {
  std::string text;
  std::vector<Setting> hints;
};

/// The part of a compressed archive that is kept between two runs, so that the second one unpacks
/// nothing: the index of its stream and the log of its members.
struct KeptIndex {
  Compression compression = Compression::none;
  std::string format;
  std::vector<std::byte> stream_index;
  MemberLog members;
  /// Of all that the stream unpacks to, "sha256:..."; empty: that pass did not make it.
  std::string unpacked_digest;
  std::vector<KeptRemark> remarks;
};

/// The same, as it is given away.
struct IndexToKeep {
  Compression compression = Compression::none;
  std::string_view format;
  std::span<const std::byte> stream_index;
  const MemberLog& members;
  std::string_view unpacked_digest;
  std::span<const KeptRemark> remarks;
};

/// A directory of kept indexes, one file an archive, under a name made of the archive's identity:
/// device, inode, size, mtime and ctime, and of how it was read. Several processes may use it at
/// once. Files are written under another name and renamed; what is read back is believed only when
/// its checksum, version, identity and every length hold. Never an error: without a cache
/// everything just takes longer. The directory is not used when it belongs to another user or other
/// users may write to it.
///
/// Immutable; any thread.
class IndexCache {
 public:
  static constexpr std::size_t kMostFiles = 64;
  static constexpr std::uint64_t kMostBytes = std::uint64_t{512} << 20;

  /// Makes nothing before keep(). `log` must outlive it.
  IndexCache(std::string directory, LogSink& log);

  /// Of the archive that `packed` is, read in that way (ReadOptions::reading()); nullopt when there
  /// is none that can be believed.
  std::optional<KeptIndex> find(ByteSource& packed, std::uint64_t reading) const;

  /// Keeps an index and gives up the longest unused ones, until those that stay are few enough.
  void keep(ByteSource& packed, std::uint64_t reading, const IndexToKeep& index) const;

 private:
  void give_up_the_oldest() const;

  const std::string directory_;
  LogSink& log_;
};

}  // namespace mkvirtfs::archive
