// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "block/extent.h"
#include "block/file_facts.h"
#include "fsgen/tree/source_tree.h"

// The host's entries as a scan has them before they can be numbered. One record an entry, packed
// end to end in memory that is given back to the system piece by piece while the tree is assembled,
// so that a scan never holds everything twice.

namespace mkvirtfs {

struct ScannedDirectory;

/// The fixed part of a record; the rest follows it: see ScanRecord.
struct ScanRecordHead {
  std::uint64_t size_bytes = 0;  ///< regular files
  std::int64_t mtime_s = 0;
  std::uint64_t inode = 0;         ///< these three: as in FileIdentity
  std::int64_t file_mtime_ns = 0;  ///< the host's, whatever the image shows
  std::int64_t file_ctime_ns = 0;
  std::uint32_t mtime_ns = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t xattrs = 0;       ///< set number in the pool of the worker that wrote it
  std::uint32_t extra_count = 0;  ///< symlink: bytes of the target; sparse file: data runs
  std::uint16_t mode = 0;
  std::uint8_t name_bytes = 0;
  bool linked : 1 = false;       ///< has other names: its device follows
  bool sparse : 1 = false;       ///< its data runs follow
  std::uint8_t unshown : 4 = 0;  ///< chattr flags, as in Node::unshown
  bool has_facts : 1 = false;    ///< what the host says of it follows
};
static_assert(sizeof(ScanRecordHead) == 64);

/// What follows a head, as far as its head says so.
struct ScanRecordTail {
  std::string_view name;
  std::uint64_t device = 0;               ///< of the file system, for linked ones
  DeviceNumber device_number;             ///< devices
  ScannedDirectory* directory = nullptr;  ///< directories
  std::span<const Range> data_runs;       ///< sparse files
  std::string_view target;                ///< symlinks
  FileFacts facts;                        ///< when they are kept
};

/// One record where it lies.
class ScanRecord {
 public:
  explicit ScanRecord(const std::byte* at) : at_(at) {}

  const ScanRecordHead& head() const noexcept {
    return *reinterpret_cast<const ScanRecordHead*>(at_);
  }
  std::string_view name() const noexcept;
  std::uint64_t device() const noexcept;
  DeviceNumber device_number() const noexcept;
  ScannedDirectory* directory() const noexcept;
  std::span<const Range> data_runs() const noexcept;
  std::string_view target() const noexcept;
  /// Nothing when they were not kept.
  std::optional<FileFacts> facts() const noexcept;

  const std::byte* data() const noexcept { return at_; }
  std::size_t size_bytes() const noexcept;
  ScanRecord next() const noexcept { return ScanRecord(at_ + size_bytes()); }

 private:
  friend class ScanSegmentBuilder;
  template <class T>
  T load(std::size_t at) const noexcept;
  std::size_t words_before_text() const noexcept;

  const std::byte* at_;
};

/// Memory straight from the system, so that freeing it lowers the process's size at once.
class ScanRecordMemory {
 public:
  explicit ScanRecordMemory(std::size_t size_bytes);
  ~ScanRecordMemory();
  ScanRecordMemory(const ScanRecordMemory&) = delete;
  ScanRecordMemory& operator=(const ScanRecordMemory&) = delete;

  std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

/// Some entries of one directory, sorted by name, end to end.
struct ScanSegment {
  std::shared_ptr<const ScanRecordMemory>
      chunk;  ///< keeps `first` alive, shared with its neighbours
  const std::byte* first = nullptr;
  std::uint32_t count = 0;
  std::uint32_t worker = 0;  ///< whose pool the xattr numbers mean
};

/// A directory from when its name was found until its entries are in the tree.
struct ScannedDirectory {
  ScannedDirectory* parent = nullptr;  ///< nullptr: this is the root
  const std::byte* record = nullptr;   ///< its own, in its parent's segment
  std::vector<ScanSegment> segments;
  bool vanished = false;  ///< gone before it could be listed: to be left out

  std::string_view name() const noexcept { return ScanRecord(record).name(); }
};

/// Collects the records of one segment, in any order; one a worker. Not thread-safe.
class ScanSegmentBuilder {
 public:
  void add(ScanRecordHead head, const ScanRecordTail& tail);
  bool empty() const noexcept { return offsets_.empty(); }
  /// Sorts what was added into a segment, sets each directory's record, and begins anew.
  ScanSegment finish(std::uint32_t worker);

 private:
  struct Place {
    std::uint64_t prefix;  // the name's first eight bytes, big-endian: most comparisons end here
    std::size_t offset;
  };
  template <class T>
  void append(const T& value);
  void append_text(std::string_view text);

  std::vector<std::byte> records_;
  std::vector<Place> offsets_;
  std::shared_ptr<const ScanRecordMemory> chunk_;
  std::size_t chunk_used_ = 0;
};

}  // namespace mkvirtfs
