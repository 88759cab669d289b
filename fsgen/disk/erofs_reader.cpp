// SPDX-License-Identifier: BSD-3-Clause
// All directories are walked from the root. Entries of a block stand in the order of their names,
// and so do blocks: Linux looks a name up by halves, so one out of order is damage, though it is
// read here. A directory is entered once; the second name of any other inode is a hard link.
#include "fsgen/disk/erofs_reader.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fsgen/disk/erofs_volume.h"
#include "fsgen/disk/member_list.h"
#include "fsgen/disk/number_set.h"
#include "fsgen/disk/problems.h"
#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

using archive::Member;
using archive::MemberPlace;
using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kMagicAt = 1024;
constexpr std::uint32_t kMagic = 0xe0f5e1e2;
constexpr std::size_t kDirentBytes = 12;
// The kernel takes symlinks of a page at most, and no path is longer.
constexpr std::uint64_t kMostTargetBytes = 4095;
constexpr std::array<unsigned, 8> kTypes{0,       S_IFREG, S_IFDIR,  S_IFCHR,
                                         S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK};

struct Entry {
  std::string name;
  std::uint64_t inode = 0;
  unsigned type = 0;
  std::uint64_t offset = 0;  // on the disk
  std::size_t position = 0;  // in its directory
};

struct PendingDirectory {
  ErofsInode inode;
  std::string path;
};

class ErofsReader {
 public:
  ErofsReader(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log)
      : disk_(disk), problems_(disk.name(), log), members_(disk.name(), limits) {}

  Result<ReadDisk> run();

 private:
  Result<void> walk(ErofsVolume& volume);
  Result<void> read_directory(ErofsVolume& volume, const PendingDirectory& directory);
  /// The entries of a directory; what is damaged among them is left out.
  void take_entries(ErofsVolume& volume, const ErofsInode& inode, std::vector<Entry>& entries);
  void take_block(const ErofsInode& inode, Bytes block, std::uint64_t offset,
                  std::vector<Entry>& entries);
  Result<void> take_entry(ErofsVolume& volume, const Entry& entry, const std::string& path);
  Result<bool> take_link(const Entry& entry, const std::string& path);
  Result<void> add_inode(ErofsVolume& volume, const ErofsInode& inode, const std::string& path);
  /// False: it is left out.
  bool take_attributes(ErofsVolume& volume, const ErofsInode& inode);
  bool take_target(ErofsVolume& volume, const ErofsInode& inode);
  void take_content(ErofsVolume& volume, const ErofsInode& inode);
  void problem(const ErofsInode& inode, std::string_view what) {
    problems_.add(inode.offset, fmt::format("inode {} (/{}): {}", inode.number, path_, what));
  }

  CachedSource& disk_;
  Problems problems_;
  MemberList members_;
  std::string path_;       // of what is read
  std::string last_name_;  // of the directory that is read
  std::uint64_t directory_bytes_ = 0;
  std::vector<PendingDirectory> pending_;
  NumberSet seen_;
  // Those with several names.
  std::unordered_map<std::uint64_t, archive::MemberLog::Position> linked_;

  Member member_;
  std::string target_;
  std::string why_unreadable_;
  ErofsVolume::Xattrs xattrs_;
};

void ErofsReader::take_block(const ErofsInode& inode, Bytes block, std::uint64_t offset,
                             std::vector<Entry>& entries) {
  const auto wrong = [&](std::size_t at, std::string_view what) {
    problems_.add(offset + at,
                  fmt::format("inode {} (/{}): a directory entry {}", inode.number, path_, what));
  };
  const auto name_at = [&](std::size_t i) -> std::size_t {
    return load_le<std::uint16_t>(block, i * kDirentBytes + 8);
  };
  if (block.size() < kDirentBytes) return wrong(0, "has no room");
  const std::size_t names_at = name_at(0);
  if (names_at < kDirentBytes || names_at % kDirentBytes != 0 || names_at > block.size()) {
    return wrong(0, fmt::format("has its name at byte {} of the block", names_at));
  }
  const std::size_t count = names_at / kDirentBytes;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = i * kDirentBytes;
    const std::size_t from = name_at(i);
    const std::size_t to = i + 1 < count ? name_at(i + 1) : block.size();
    if (from < names_at || from > to || to > block.size()) {
      wrong(at, fmt::format("has its name from byte {} to {} of the block", from, to));
      continue;
    }
    std::string_view name(reinterpret_cast<const char*>(block.data()) + from, to - from);
    // The last name of a block ends with a zero, where the block does not end there.
    if (i + 1 == count) name = name.substr(0, name.find('\0'));
    if (!last_name_.empty() && name <= last_name_) {
      wrong(at, fmt::format("with the name \"{}\" stands behind \"{}\"", name, last_name_));
    }
    last_name_ = name;
    if (name == "." || name == "..") continue;
    if (const char* objection = objection_to_name(name)) {
      wrong(at, fmt::format("has the name \"{}\", which {}", name, objection));
      continue;
    }
    entries.push_back({std::string(name), load_le<std::uint64_t>(block, at),
                       std::to_integer<unsigned>(block[at + 10]), offset + at});
  }
}

void ErofsReader::take_entries(ErofsVolume& volume, const ErofsInode& inode,
                               std::vector<Entry>& entries) {
  const Result<ErofsData> data = volume.data(inode);
  if (!data) return problem(inode, data.error().what);
  if (data->runs.size() > 1 ||
      (data->runs.empty() ? inode.size_bytes != 0
                          : data->runs.front() != Range{0, inode.size_bytes})) {
    return problem(inode, "the directory has a hole");
  }
  std::vector<std::byte> block;
  for (const Range& piece : data->pieces) {
    for (std::uint64_t done = 0; done < piece.length; done += block.size()) {
      block.resize(std::min(volume.block_bytes(), piece.length - done));
      directory_bytes_ += block.size();
      if (directory_bytes_ > disk_.size_bytes()) {
        return problem(inode, "directories lie in the same blocks, and are more than the disk has");
      }
      if (Result<void> good = disk_.read(piece.offset + done, block); !good) {
        return problem(inode, good.error().what);
      }
      take_block(inode, block, piece.offset + done, entries);
    }
  }
}

Result<void> ErofsReader::read_directory(ErofsVolume& volume, const PendingDirectory& directory) {
  path_ = directory.path;
  last_name_.clear();
  std::vector<Entry> entries;
  take_entries(volume, directory.inode, entries);
  sort_by_name(entries);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    // That it stands there twice was a problem of the order.
    if (i != 0 && entries[i - 1].name == entries[i].name) continue;
    const std::string path = path_below(directory.path, entries[i].name);
    if (Result<void> good = take_entry(volume, entries[i], path); !good) return good;
  }
  return {};
}

/// True: the entry is another name of what was seen before.
Result<bool> ErofsReader::take_link(const Entry& entry, const std::string& path) {
  const auto known = linked_.find(entry.inode);
  if (known == linked_.end()) return false;
  const std::string first(members_.log().path(known->second));
  Member link;
  link.path = path;
  link.is_hard_link = true;
  link.link_target = first;
  const auto added = members_.add(link);
  if (!added) return propagate(added);
  return true;
}

Result<void> ErofsReader::take_entry(ErofsVolume& volume, const Entry& entry,
                                     const std::string& path) {
  const auto note = [&](std::string_view what) {
    problems_.add(entry.offset,
                  fmt::format("the entry /{} names inode {}, which {}", path, entry.inode, what));
  };
  if (is_too_long(path)) {
    note("has a path that is longer than 4095 bytes");
    return {};
  }
  const Result<bool> is_link = take_link(entry, path);
  if (!is_link) return propagate(is_link);
  if (*is_link) return {};
  path_ = path;
  const Result<ErofsInode> inode = volume.inode(entry.inode);
  if (!inode) {
    note(inode.error().what);
    return {};
  }
  if (entry.type >= kTypes.size() || kTypes[entry.type] != (inode->mode & S_IFMT)) {
    note(fmt::format("is no entry of type {}", entry.type));
  }
  const bool is_new = seen_.insert(entry.inode);
  if (S_ISDIR(inode->mode)) {
    if (!is_new) {
      note("is a directory with a name already");
      return {};
    }
    pending_.push_back({*inode, path});
  } else if (!is_new) {
    note("has more names than it counts");
  }
  return add_inode(volume, *inode, path);
}

bool ErofsReader::take_target(ErofsVolume& volume, const ErofsInode& inode) {
  const auto wrong = [&](std::string_view what) {
    problem(inode, what);
    return false;
  };
  if (inode.size_bytes == 0 || inode.size_bytes > kMostTargetBytes) {
    return wrong(fmt::format("it is a symlink of {} bytes", inode.size_bytes));
  }
  const Result<ErofsData> data = volume.data(inode);
  if (!data) return wrong(data.error().what);
  target_.assign(inode.size_bytes, '\0');
  std::size_t done = 0;
  for (const Range& piece : data->pieces) {
    const auto part = std::as_writable_bytes(std::span(target_)).subspan(done, piece.length);
    if (Result<void> good = disk_.read(piece.offset, part); !good) {
      return wrong(good.error().what);
    }
    done += part.size();
  }
  if (done != target_.size() || target_.find('\0') != std::string::npos) {
    return wrong("its target has a NUL byte");
  }
  member_.link_target = target_;
  return true;
}

bool ErofsReader::take_attributes(ErofsVolume& volume, const ErofsInode& inode) {
  if (std::ranges::find(kTypes, inode.mode & S_IFMT) == kTypes.end() ||
      (inode.mode & S_IFMT) == 0) {
    problem(inode, fmt::format("its mode {:06o} is of no type", inode.mode));
    return false;
  }
  member_.mode = inode.mode;
  member_.uid = inode.uid;
  member_.gid = inode.gid;
  if (inode.mtime.nanoseconds > 999'999'999) {
    problem(inode, "its modification time is none");
  } else {
    member_.mtime = inode.mtime;
  }
  if (S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) member_.device = inode.device();
  if (S_ISLNK(inode.mode) && !take_target(volume, inode)) return false;
  auto xattrs = volume.xattrs(inode);
  if (!xattrs) {
    problem(inode, xattrs.error().what);
    return true;
  }
  xattrs_ = std::move(*xattrs);
  for (const auto& [name, value] : xattrs_) member_.xattrs.emplace_back(name, value);
  return true;
}

void ErofsReader::take_content(ErofsVolume& volume, const ErofsInode& inode) {
  Result<ErofsData> data = volume.data(inode);
  member_.size_bytes = inode.size_bytes;
  if (!data) {
    problem(inode, data.error().what);
    why_unreadable_ =
        fmt::format("byte {}: inode {}: {}", inode.offset, inode.number, data.error().what);
    member_.place = MemberPlace::unreadable;
    member_.contents = why_unreadable_;
    const auto signed_size = static_cast<std::int64_t>(inode.size_bytes);
    if (signed_size < 0) member_.size_bytes = 0;
    return;
  }
  member_.pieces = std::move(data->pieces);
  const bool is_dense = data->runs.size() == 1 && data->runs.front() == Range{0, inode.size_bytes};
  member_.is_sparse = inode.size_bytes != 0 && !is_dense;
  if (member_.is_sparse) member_.stored_runs = std::move(data->runs);
  settle_place(member_);
}

Result<void> ErofsReader::add_inode(ErofsVolume& volume, const ErofsInode& inode,
                                    const std::string& path) {
  member_ = Member();
  member_.path = path;
  if (!take_attributes(volume, inode)) return {};
  if (S_ISREG(inode.mode)) take_content(volume, inode);
  const auto at = members_.add(member_);
  if (!at) return propagate(at);
  if (!S_ISDIR(inode.mode) && inode.link_count > 1) linked_.emplace(inode.number, *at);
  return {};
}

Result<void> ErofsReader::walk(ErofsVolume& volume) {
  const Result<ErofsInode> root = volume.inode(volume.root_number());
  const auto wrong = [&](std::string_view what) {
    return fail(Errc::unreadable,
                fmt::format("{}: byte {}: its root directory {}", problems_.disk(),
                            volume.offset_of(volume.root_number()), what));
  };
  if (!root) return wrong(root.error().what);
  if (!S_ISDIR(root->mode)) return wrong("is no directory");
  seen_.insert(root->number);
  if (Result<void> good = add_inode(volume, *root, "."); !good) return good;
  pending_.push_back({*root, ""});
  while (!pending_.empty()) {
    const PendingDirectory directory = std::move(pending_.back());
    pending_.pop_back();
    if (Result<void> good = read_directory(volume, directory); !good) return good;
  }
  return {};
}

Result<ReadDisk> ErofsReader::run() {
  Result<ErofsVolume> volume = ErofsVolume::open(disk_, problems_);
  if (!volume) return propagate(volume);
  if (Result<void> good = walk(*volume); !good) return propagate(good);
  ReadDisk made;
  made.format = "EROFS";
  made.problem_count = problems_.count();
  made.first_problem = problems_.first();
  made.members = std::move(members_).take();
  return made;
}

}  // namespace

Result<bool> is_erofs(ByteSource& disk) {
  std::array<std::byte, 4> magic{};
  if (disk.size_bytes() < kMagicAt + magic.size()) return false;
  if (Result<void> good = disk.read(kMagicAt, magic); !good) return propagate(good);
  return load_le<std::uint32_t>(magic) == kMagic;
}

Result<ReadDisk> read_erofs(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log) {
  return ErofsReader(disk, limits, log).run();
}

}  // namespace mkvirtfs::disk
