// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "block/extent.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// Where the bytes of a member lie.
enum class MemberPlace : std::uint8_t {
  nowhere,     ///< it has none: a directory, a link, an empty file
  stored,      ///< one behind the other in the archive's stream: the data runs, or all of it
  spooled,     ///< as stored, but in a spool beside the archive
  deflated,    ///< as one raw deflate stream (RFC 1951), in a zip archive
  host,        ///< in a file beside an mtree manifest: `contents` names it
  in_pieces,   ///< as stored, but in several ranges of the stream: `pieces`
  unreadable,  ///< it has some, and `contents` says why they cannot be had
};

/// One entry of an archive with all that its format keeps, before any option is applied. Texts
/// are raw bytes as the archive has them: a path may be absolute, have "..", empty components or no
/// end.
///
/// Views point into the log or into the archive's reader; the vectors are its own, so that reading
/// one member after another into the same object allocates nothing.
struct Member {
  std::string_view path;
  std::uint16_t mode = 0;  ///< as st_mode; type 0: a hard link, or an unknown type
  bool is_hard_link = false;
  bool is_sparse = false;     ///< only `stored_runs` are data
  bool stores_holes = false;  ///< and the bytes of the holes are stored, too
  /// Which attributes the format has; manifests may leave out any of them.
  bool has_permissions = true;
  bool has_uid = true;
  bool has_gid = true;
  bool has_mtime = true;
  /// Of manifests: brings nothing, but changes attributes of what the sources before have there.
  bool changes_only = false;
  bool is_optional = false;  ///< and there may be nothing
  bool has_all_attributes() const noexcept {
    return has_permissions && has_uid && has_gid && has_mtime;
  }

  std::string_view link_target;  ///< of a symlink; the path that a hard link names
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  Timestamp mtime;
  DeviceNumber device;
  std::uint64_t size_bytes = 0;
  std::vector<Range> stored_runs;  ///< sorted, disjoint, not touching, inside the size
  std::vector<std::pair<std::string_view, std::string_view>> xattrs;  ///< no name twice

  MemberPlace place = MemberPlace::nowhere;
  std::uint64_t data_offset = 0;   ///< in the archive's stream, or the spool
  std::uint64_t packed_bytes = 0;  ///< deflated
  std::uint32_t crc32 = 0;         ///< deflated: of the unpacked bytes
  std::string_view contents;       ///< host: the path below the manifest's directory
  /// in_pieces: ranges of the stream that, one behind the other, are what would be stored in one.
  /// None is empty, and they have stored_bytes() together.
  std::vector<Range> pieces;

  /// How many bytes of it lie in the archive as they are: all, or those of the data runs.
  std::uint64_t stored_bytes() const noexcept {
    if (!is_sparse || stores_holes) return size_bytes;
    std::uint64_t bytes = 0;
    for (const Range& run : stored_runs) bytes += run.length;
    return bytes;
  }
};

/// The entries of one archive in its order, packed into one buffer: some forty bytes and the texts
/// for a member. Says nothing of options, so that a kept log serves every later call.
///
/// Filled by one thread; then any thread may read.
class MemberLog {
 public:
  /// Where a member stands, to come back to it.
  using Position = std::uint32_t;

  /// Errc::does_not_fit beyond 4 GiB of log.
  Result<void> append(const Member& member);

  std::uint64_t member_count() const noexcept { return count_; }
  bool empty() const noexcept { return count_ == 0; }

  /// The member at `at` goes into `member`; returns the position of the next one. `at` is 0 or what
  /// read() returned, and less than end().
  Position read(Position at, Member& member) const;
  Position end() const noexcept { return static_cast<Position>(bytes_.size()); }
  /// The path alone.
  std::string_view path(Position at) const;

  /// For keeping it.
  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  /// A log from kept bytes, which may hold anything: every length and number is checked.
  static Result<MemberLog> open(std::vector<std::byte> bytes);

 private:
  std::vector<std::byte> bytes_;
  std::uint64_t count_ = 0;
};

}  // namespace mkvirtfs::archive
