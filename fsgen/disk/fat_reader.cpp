// SPDX-License-Identifier: BSD-3-Clause
// The directories are walked twice. The first walk follows all chains and marks their clusters; one
// that is met again is crossed. The second walk, which knows them, makes the members: files with a
// crossed cluster are unreadable, because nobody knows whose bytes are in it. Then the FAT is
// looked through once for clusters that are in use and in no chain.
#include "fsgen/disk/fat_reader.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/disk/fat_names.h"
#include "fsgen/disk/fat_volume.h"
#include "fsgen/disk/member_list.h"
#include "fsgen/disk/problems.h"
#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

using archive::Member;
using archive::MemberPlace;
using Bytes = std::span<const std::byte>;

constexpr std::size_t kEntryBytes = 32;
constexpr std::size_t kBootSectorBytes = 512;
// fatgen103: a directory has at most 65,536 entries.
constexpr std::uint64_t kMostDirectoryBytes = std::uint64_t{65536} * kEntryBytes;

constexpr unsigned kReadOnly = 0x01;
constexpr unsigned kHidden = 0x02;
constexpr unsigned kSystem = 0x04;
constexpr unsigned kVolumeLabel = 0x08;
constexpr unsigned kDirectory = 0x10;
constexpr unsigned kLongName = 0x0f;
constexpr unsigned kLongNameMask = 0x3f;

constexpr std::uint16_t kDirectoryMode = S_IFDIR | 0755;
constexpr std::uint16_t kFileMode = S_IFREG | 0644;
constexpr std::uint16_t kReadOnlyMode = S_IFREG | 0444;

struct Entry {
  std::string name;
  unsigned attributes = 0;
  std::uint32_t first_cluster = 0;
  std::uint32_t size_bytes = 0;
  std::uint16_t date = 0;
  std::uint16_t time = 0;
  std::uint64_t offset = 0;  // on the disk
  std::size_t position = 0;  // in its directory

  bool is_directory() const noexcept { return (attributes & kDirectory) != 0; }
};

struct PendingDirectory {
  std::uint32_t first_cluster = 0;  // 0: the root of FAT12 and FAT16
  std::string path;
};

/// fatgen103, "Date and Time Formats"; there is no zone, so UTC. nullopt: it is none.
std::optional<Timestamp> time_of(std::uint16_t date, std::uint16_t time) {
  using namespace std::chrono;
  if (date == 0 && time == 0) return Timestamp{};
  const year_month_day day{year{1980 + (date >> 9)}, month{(date >> 5) & 15u},
                           std::chrono::day{date & 31u}};
  const int hour = time >> 11;
  const int minute = (time >> 5) & 63;
  const int second = (time & 31) * 2;
  if (!day.ok() || hour > 23 || minute > 59 || second > 59) return std::nullopt;
  const auto since = sys_days(day).time_since_epoch() + hours(hour) + minutes(minute);
  return Timestamp{duration_cast<seconds>(since).count() + second, 0};
}

class FatReader {
 public:
  FatReader(CachedSource& disk, const FatVolume& volume, const archive::ReadLimits& limits,
            LogSink& log)
      : disk_(disk),
        volume_(volume),
        problems_(disk.name(), log),
        members_(disk.name(), limits),
        most_entries_(limits.most_members),
        used_(std::size_t{volume.cluster_count()} + 2),
        crossed_(used_.size()) {}

  Result<ReadDisk> run();

 private:
  Result<void> walk();
  Result<void> read_directory(const PendingDirectory& directory);
  Result<std::vector<Range>> directory_ranges(const PendingDirectory& directory);
  void take_entries(Bytes bytes, std::uint64_t offset, std::vector<Entry>& entries, bool& ended);
  void take_short(Bytes bytes, std::uint64_t offset, std::vector<Entry>& entries);
  Result<void> take_entry(const Entry& entry, const std::string& path);
  Result<void> take_file(const Entry& entry);
  void unreadable(const Entry& entry, std::string what);
  /// First walk: false for a cluster that is in a chain already.
  bool claim(std::uint32_t cluster);
  Result<void> look_for_lost();
  /// Problems are reported once, on the second walk.
  void problem(std::uint64_t offset, std::string_view what) {
    if (is_second_) problems_.add(offset, what);
  }

  CachedSource& disk_;
  const FatVolume& volume_;
  Problems problems_;
  MemberList members_;
  const std::uint64_t most_entries_;
  std::uint64_t entries_ = 0;
  bool is_second_ = false;
  std::vector<bool> used_;
  std::vector<bool> crossed_;
  std::uint64_t crossed_count_ = 0;
  std::vector<PendingDirectory> pending_;
  std::set<std::uint32_t> entered_;  // first clusters of directories
  std::string path_;                 // of the directory that is read
  LongName long_name_;
  std::string why_unreadable_;
  std::uint64_t long_chains_ = 0;
  std::uint64_t hidden_count_ = 0;  // entries that are hidden or the system's
  Member member_;
};

bool FatReader::claim(std::uint32_t cluster) {
  if (!used_[cluster]) {
    used_[cluster] = true;
    return true;
  }
  if (!crossed_[cluster]) ++crossed_count_;
  crossed_[cluster] = true;
  return false;
}

Result<std::vector<Range>> FatReader::directory_ranges(const PendingDirectory& directory) {
  if (directory.first_cluster == 0) return std::vector<Range>{volume_.root()};
  bool is_crossed = false;
  const std::uint64_t most = kMostDirectoryBytes / volume_.cluster_bytes() + 1;
  Result<FatVolume::Chain> chain =
      volume_.chain(disk_, directory.first_cluster, most, [&](std::uint32_t cluster) {
        if (!is_second_) return claim(cluster);
        if (crossed_[cluster]) is_crossed = true;
        return !is_crossed;
      });
  if (!chain) return propagate(chain);
  const std::uint64_t at = volume_.entry_offset(directory.first_cluster);
  if (!chain->wrong.empty()) problem(at, fmt::format("directory /{}: {}", path_, chain->wrong));
  if (is_crossed)
    problem(at, fmt::format("directory /{} lies in clusters of another chain", path_));
  if (chain->clusters == most) problem(at, fmt::format("directory /{} has no end", path_));
  return std::move(chain->ranges);
}

void FatReader::take_short(Bytes bytes, std::uint64_t offset, std::vector<Entry>& entries) {
  Entry entry;
  entry.offset = offset;
  entry.attributes = std::to_integer<unsigned>(bytes[11]);
  const std::optional<std::string> name = long_name_.name(bytes);
  if (!name && !long_name_.empty()) {
    problem(offset,
            fmt::format("directory /{}: a long name is damaged, so the short one counts", path_));
  }
  entry.name = name ? *name : short_name(bytes);
  long_name_.clear();
  if ((entry.attributes & kVolumeLabel) != 0) return;
  if (entry.name == "." || entry.name == "..") return;
  if (const char* objection = objection_to_name(entry.name)) {
    return problem(offset,
                   fmt::format("directory /{}: the name \"{}\" {}", path_, entry.name, objection));
  }
  entry.first_cluster = load_le<std::uint16_t>(bytes, 26);
  if (volume_.width() == 32) {
    entry.first_cluster |= std::uint32_t{load_le<std::uint16_t>(bytes, 20)} << 16;
  }
  entry.size_bytes = load_le<std::uint32_t>(bytes, 28);
  entry.time = load_le<std::uint16_t>(bytes, 22);
  entry.date = load_le<std::uint16_t>(bytes, 24);
  entries.push_back(std::move(entry));
}

void FatReader::take_entries(Bytes bytes, std::uint64_t offset, std::vector<Entry>& entries,
                             bool& ended) {
  constexpr unsigned kDeleted = 0xe5;
  for (std::size_t at = 0; at + kEntryBytes <= bytes.size() && !ended; at += kEntryBytes) {
    const Bytes entry = bytes.subspan(at, kEntryBytes);
    const auto first = std::to_integer<unsigned>(entry[0]);
    if (first == 0) {
      ended = true;
    } else if (first == kDeleted) {
      long_name_.clear();
    } else if ((std::to_integer<unsigned>(entry[11]) & kLongNameMask) == kLongName) {
      long_name_.take(entry);
    } else {
      take_short(entry, offset + at, entries);
    }
  }
}

Result<void> FatReader::read_directory(const PendingDirectory& directory) {
  path_ = directory.path;
  const Result<std::vector<Range>> ranges = directory_ranges(directory);
  if (!ranges) return propagate(ranges);
  std::vector<Entry> entries;
  std::vector<std::byte> bytes;
  bool ended = false;
  long_name_.clear();
  for (const Range& range : *ranges) {
    for (std::uint64_t done = 0; done < range.length && !ended; done += bytes.size()) {
      const std::uint64_t at = range.offset + done;
      bytes.resize(static_cast<std::size_t>(std::min<std::uint64_t>(range.length - done, 65536)));
      if (!disk_.holds(at, bytes.size())) {
        problem(at, fmt::format("directory /{} goes on behind the end of the disk", path_));
        ended = true;
        break;
      }
      if (Result<void> good = disk_.read(at, bytes); !good) return good;
      take_entries(bytes, at, entries, ended);
    }
  }
  sort_by_name(entries);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (i != 0 && entries[i - 1].name == entries[i].name) {
      problem(entries[i].offset,
              fmt::format("directory /{} has the name \"{}\" twice", path_, entries[i].name));
      continue;
    }
    const std::string path = path_below(directory.path, entries[i].name);
    if (Result<void> good = take_entry(entries[i], path); !good) return good;
  }
  return {};
}

Result<void> FatReader::take_entry(const Entry& entry, const std::string& path) {
  if (++entries_ > most_entries_) {
    return fail(Errc::does_not_fit,
                fmt::format("{} has more than {} entries", problems_.disk(), most_entries_),
                {{"max-entries"}});
  }
  const auto note = [&](std::string_view what) {
    problem(entry.offset, fmt::format("the entry /{} {}", path, what));
  };
  const auto wrong = [&](std::string_view what) {
    note(what);
    return Result<void>();
  };
  if (is_too_long(path)) return wrong("has a path that is longer than 4095 bytes");
  member_ = Member();
  member_.path = path;
  member_.mode = entry.is_directory()                  ? kDirectoryMode
                 : (entry.attributes & kReadOnly) != 0 ? kReadOnlyMode
                                                       : kFileMode;
  if (is_second_ && (entry.attributes & (kHidden | kSystem)) != 0) ++hidden_count_;
  const std::optional<Timestamp> mtime = time_of(entry.date, entry.time);
  if (!mtime) note("has a time of change that is none");
  member_.mtime = mtime.value_or(Timestamp{});
  if (entry.is_directory()) {
    if (entry.first_cluster == 0) return wrong("is a directory without a cluster");
    if (!entered_.insert(entry.first_cluster).second) {
      return wrong("is a directory with a name already");
    }
    pending_.push_back({entry.first_cluster, path});
  } else if (Result<void> good = take_file(entry); !good) {
    return good;
  }
  if (!is_second_) return {};
  const auto added = members_.add(member_);
  if (!added) return propagate(added);
  return {};
}

void FatReader::unreadable(const Entry& entry, std::string what) {
  problem(entry.offset, fmt::format("the file /{}: {}", member_.path, what));
  why_unreadable_ = fmt::format("byte {}: {}", entry.offset, what);
  member_.place = MemberPlace::unreadable;
  member_.contents = why_unreadable_;
  member_.pieces.clear();
}

Result<void> FatReader::take_file(const Entry& entry) {
  member_.size_bytes = entry.size_bytes;
  const std::uint64_t cluster_bytes = volume_.cluster_bytes();
  if (entry.first_cluster == 0) {
    if (entry.size_bytes != 0) unreadable(entry, "it has a size, and no cluster");
    return {};
  }
  bool is_crossed = false;
  // One more cluster than it takes shows a chain that is too long.
  const std::uint64_t wanted = (entry.size_bytes + cluster_bytes - 1) / cluster_bytes;
  const std::uint64_t most = is_second_ ? wanted + 1 : std::uint64_t{volume_.cluster_count()} + 1;
  const Result<FatVolume::Chain> chain =
      volume_.chain(disk_, entry.first_cluster, most, [&](std::uint32_t cluster) {
        if (!is_second_) return claim(cluster);
        if (crossed_[cluster]) is_crossed = true;
        return !is_crossed;
      });
  if (!chain) return propagate(chain);
  if (!is_second_) return {};
  if (is_crossed) {
    unreadable(entry, "its chain of clusters crosses another one");
    return {};
  }
  if (chain->clusters < wanted) {
    unreadable(entry, chain->wrong.empty() ? fmt::format("its chain ends after {} of {} clusters",
                                                         chain->clusters, wanted)
                                           : chain->wrong);
    return {};
  }
  if (chain->clusters > wanted || !chain->wrong.empty()) ++long_chains_;
  std::uint64_t left = entry.size_bytes;
  for (const Range& range : chain->ranges) {
    const std::uint64_t length = std::min(left, range.length);
    if (!disk_.holds(range.offset, length)) {
      unreadable(entry, "it goes on behind the end of the disk");
      return {};
    }
    append_piece(member_.pieces, {range.offset, length});
    left -= length;
  }
  settle_place(member_);
  return {};
}

Result<void> FatReader::walk() {
  entered_.clear();
  entries_ = 0;
  pending_.push_back({volume_.width() == 32 ? volume_.root_cluster() : 0, ""});
  entered_.insert(pending_.front().first_cluster);
  while (!pending_.empty()) {
    const PendingDirectory directory = std::move(pending_.back());
    pending_.pop_back();
    if (Result<void> good = read_directory(directory); !good) return good;
  }
  return {};
}

Result<void> FatReader::look_for_lost() {
  std::uint64_t lost = 0;
  for (std::uint32_t cluster = 2; cluster < used_.size(); ++cluster) {
    if (used_[cluster]) continue;
    const Result<std::uint32_t> entry = volume_.entry(disk_, cluster);
    if (!entry) return propagate(entry);
    if (*entry != 0 && !volume_.is_bad(*entry)) ++lost;
  }
  if (lost != 0) {
    problems_.remark(
        fmt::format("{} clusters are in use and in no file: what was in them is lost", lost));
  }
  if (long_chains_ != 0) {
    problems_.remark(
        fmt::format("{} files have more clusters than their size takes", long_chains_));
  }
  return {};
}

Result<ReadDisk> FatReader::run() {
  if (volume_.width() == 32 && !volume_.is_cluster(volume_.root_cluster())) {
    return fail(Errc::unreadable, fmt::format("{}: byte 44: its root directory is cluster {}",
                                              problems_.disk(), volume_.root_cluster()));
  }
  const Result<bool> dirty = volume_.is_dirty(disk_);
  if (!dirty) return propagate(dirty);
  if (*dirty) problems_.remark("it was not left clean, or had errors");
  if (Result<void> good = walk(); !good) return propagate(good);
  if (crossed_count_ != 0) {
    problems_.remark(fmt::format("{} clusters are in several chains", crossed_count_));
  }
  is_second_ = true;
  member_ = Member();
  member_.path = ".";
  member_.mode = kDirectoryMode;
  if (const auto added = members_.add(member_); !added) return propagate(added);
  if (Result<void> good = walk(); !good) return propagate(good);
  if (Result<void> good = look_for_lost(); !good) return propagate(good);
  if (hidden_count_ != 0) {
    problems_.remark(fmt::format("hidden and system attributes of {} {} are left out",
                                 hidden_count_, hidden_count_ == 1 ? "entry" : "entries"));
  }
  ReadDisk made;
  made.format = fmt::format("FAT{}", volume_.width());
  made.problem_count = problems_.count();
  made.first_problem = problems_.first();
  made.members = std::move(members_).take();
  return made;
}

Result<std::optional<FatVolume>> volume_of(ByteSource& disk) {
  std::array<std::byte, kBootSectorBytes> boot;
  if (disk.size_bytes() < boot.size()) return std::nullopt;
  if (Result<void> good = disk.read(0, boot); !good) return propagate(good);
  return FatVolume::parse(boot);
}

}  // namespace

Result<bool> is_fat(ByteSource& disk) {
  const Result<std::optional<FatVolume>> volume = volume_of(disk);
  if (!volume) return propagate(volume);
  return volume->has_value();
}

Result<ReadDisk> read_fat(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log) {
  std::array<std::byte, kBootSectorBytes> boot{};
  if (!disk.holds(0, boot.size())) {
    return fail(Errc::unreadable, fmt::format("{} is too short for a boot sector", disk.name()));
  }
  if (Result<void> good = disk.read(0, boot); !good) return propagate(good);
  const std::optional<FatVolume> volume = FatVolume::parse(boot);
  if (!volume) {
    return fail(Errc::unreadable,
                fmt::format("{}: byte 0: it is no boot sector of a FAT file system", disk.name()));
  }
  return FatReader(disk, *volume, limits, log).run();
}

}  // namespace mkvirtfs::disk
