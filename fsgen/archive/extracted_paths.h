// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/archive/member_log.h"
#include "support/strong_integer.h"

namespace mkvirtfs::archive {

/// A path that some member names or implies; 0 is the root.
struct PathNoTag;
using PathNo = StrongInteger<PathNoTag>;
inline constexpr PathNo kRootPath{0};
inline constexpr PathNo kNoPath{std::numeric_limits<std::uint32_t>::max()};

/// What is no directory, under all its names: files, symlinks, devices.
struct ExtractedFileNoTag;
using ExtractedFileNo = StrongInteger<ExtractedFileNoTag>;

enum class PathKind : std::uint8_t {
  implied,    ///< a directory that no member names so far
  directory,  ///< one that is named: by member()
  file,       ///< file()
  link,       ///< a hard link that is not resolved: member()
  resolving,  ///< the same, while the way to its target is walked
  outward,    ///< a hard link to what is not here: member()
};

/// A path that some member named or implied. It stays, whatever replaces what.
class ExtractedPath {
 public:
  /// An implied directory. `name` outlives it.
  ExtractedPath(std::string_view name, PathNo parent);
  ExtractedPath() = default;

  std::string_view name() const noexcept { return {name_, name_bytes_}; }
  PathNo parent() const noexcept { return parent_; }
  PathKind kind() const noexcept { return kind_; }
  bool is_directory() const noexcept {
    return kind_ == PathKind::implied || kind_ == PathKind::directory;
  }
  MemberLog::Position member() const noexcept { return target_; }
  ExtractedFileNo file() const noexcept { return ExtractedFileNo{target_}; }
  /// Directly below it.
  std::uint32_t entry_count() const noexcept { return entry_count_; }

  /// A directory or an unresolved link, by this member.
  void become(PathKind kind, MemberLog::Position member) noexcept {
    kind_ = kind;
    target_ = member;
  }
  void become(ExtractedFileNo file) noexcept {
    kind_ = PathKind::file;
    target_ = file;
  }
  /// A link, resolving or outward: the member stays.
  void set_link_state(PathKind kind) noexcept { kind_ = kind; }
  void count_entry() noexcept { ++entry_count_; }

 private:
  const char* name_ = nullptr;  // into the log
  PathNo parent_ = kRootPath;
  std::uint32_t target_ = std::numeric_limits<std::uint32_t>::max();
  std::uint32_t entry_count_ = 0;
  std::uint8_t name_bytes_ = 0;
  PathKind kind_ = PathKind::implied;
};
static_assert(sizeof(ExtractedPath) == 24);

/// All paths, found by their parent and name: an open hash of numbers, so that a path costs 24
/// bytes and the eight of its place here.
class ExtractedPaths {
 public:
  ExtractedPaths() : paths_(1), table_(kFirstSize, kNoPath) {}

  ExtractedPath& operator[](PathNo no) noexcept { return paths_[no]; }
  const ExtractedPath& operator[](PathNo no) const noexcept { return paths_[no]; }
  std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(paths_.size()); }

  /// kNoPath when there is none.
  PathNo find(PathNo parent, std::string_view name) const noexcept {
    return table_[place_of(parent, name)];
  }
  /// The path, made as an implied directory if it is new.
  PathNo find_or_add(PathNo parent, std::string_view name);
  /// From the root, '/' between the names.
  std::string text(PathNo no) const;

 private:
  static constexpr std::size_t kFirstSize = 1024;  // a power of two

  std::size_t place_of(PathNo parent, std::string_view name) const noexcept;
  void grow();

  std::vector<ExtractedPath> paths_;
  std::vector<PathNo> table_;
};

}  // namespace mkvirtfs::archive
