// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <dirent.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "fsgen/host/entry_reader.h"
#include "fsgen/host/scan_records.h"
#include "fsgen/host/scan_walk.h"
#include "fsgen/host/walk.h"
#include "fsgen/tree/xattr_pool.h"

namespace mkvirtfs {

/// Whether a worker has a thread of its own.
enum class WorkerThread : std::uint8_t { own, callers };

/// Works at tasks until there are none.
class WalkWorker {
 public:
  WalkWorker(Walk& walk, std::uint32_t number)
      : walk_(walk),
        number_(number),
        reader_({walk.rules, walk.opener, walk.access, walk.options.entries.xattrs,
                 !walk.options.one_file_system, walk.root_device, walk.options.outputs,
                 walk.sync.get(), walk.options.keep_facts}),
        listing_(kListingBytes) {}

  /// On a thread of its own it changes the working directory.
  void run(WorkerThread thread) noexcept;

  // What it leaves behind.
  std::deque<ScannedDirectory>& directories() noexcept { return directories_; }
  XattrPool& xattrs() noexcept { return reader_.xattrs(); }
  bool has_own_directory() const noexcept { return reader_.has_own_directory(); }
  const std::vector<bool>& outputs_met() const noexcept { return reader_.outputs_met(); }
  std::uint64_t vanished = 0;
  std::uint64_t mount_points = 0;
  std::uint64_t excluded = 0;

 private:
  static constexpr std::size_t kListingBytes = std::size_t{128} << 10;

  void look_at_root();
  void list(ScannedDirectory& directory, const DirectoryHandle& parent);
  /// Opens a directory to list it; failures are counted or end the walk.
  DirectoryHandle open(ScannedDirectory& directory, const DirectoryHandle& parent);
  void take_name(ScannedDirectory& directory, const DirectoryHandle& handle, const dirent64& found);
  bool excludes(const DirectoryHandle& handle, const dirent64& found);
  void look(ScannedDirectory& directory, const DirectoryHandle& handle, NameList& names);
  void look_at(ScannedDirectory& directory, const char* name);
  /// `os_errno` is why something could not be looked at; `path` is made when it is needed.
  template <class Path>
  void failed(int os_errno, Path path);
  /// Ends the walk when that is why.
  bool sync_failed(int os_errno);

  Walk& walk_;
  const std::uint32_t number_;
  EntryReader reader_;
  ScanSegmentBuilder builder_;
  WalkCounts counts_;                       // of the segment that is being built
  std::vector<ScannedDirectory*> to_list_;  // found in it
  std::vector<std::byte> listing_;
  NameList names_;
  std::string path_;  // of the directory that is being listed, when the rules need it
  std::deque<ScannedDirectory> directories_;
};

}  // namespace mkvirtfs
