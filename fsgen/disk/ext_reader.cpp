// SPDX-License-Identifier: BSD-3-Clause
// The superblock says whether the journal must be looked at: then its copies of blocks are laid
// over the disk, and the file system is opened again. Then all directories are walked from the
// root. Their blocks are taken apart here, because libext2fs gives up a directory at its first
// damaged block; index blocks look like blocks without entries. A directory is entered once; the
// second name of any other inode is a hard link.
#include "fsgen/disk/ext_reader.h"

#include <ext2fs/ext2fs.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fsgen/disk/ext_device.h"
#include "fsgen/disk/ext_inode.h"
#include "fsgen/disk/member_list.h"
#include "fsgen/disk/number_set.h"
#include "fsgen/disk/problems.h"
#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

using archive::Member;
using archive::MemberPlace;

constexpr std::uint64_t kSuperblockAt = 1024;
constexpr std::size_t kEntryBytes = 8;
constexpr std::uint64_t kInlineParentBytes = 4;
/// What chattr(1) sets, and no image has: the same that scans of directories report.
constexpr std::uint32_t kChattrFlags =
    EXT2_IMMUTABLE_FL | EXT2_APPEND_FL | EXT2_NODUMP_FL | EXT2_COMPR_FL;
// A directory's rec_len of a whole block of 64 KiB does not fit its 16 bits.
constexpr std::size_t kMostRecordBytes = 65536;

struct Entry {
  std::string name;
  ext2_ino_t inode = 0;
  std::uint64_t offset = 0;  // of the entry on the disk
  std::size_t position = 0;  // in its directory
};

struct PendingDirectory {
  ext2_ino_t inode = 0;
  std::string path;
};

class ExtReader {
 public:
  ExtReader(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log)
      : device_(disk), problems_(disk.name(), log), members_(disk.name(), limits) {}
  ~ExtReader() { close(); }
  ExtReader(const ExtReader&) = delete;
  ExtReader& operator=(const ExtReader&) = delete;

  Result<ReadDisk> run();

 private:
  Result<void> open();
  void close() {
    if (file_system_ != nullptr) ext2fs_close_free(&file_system_);
    file_system_ = nullptr;
  }
  std::unexpected<Error> wrong_superblock(std::string_view what, Errc code) const;
  Result<void> replay_journal();
  std::string kind() const;

  Result<void> walk();
  Result<void> read_directory(const PendingDirectory& directory);
  /// The entries of the inode that is loaded; what is damaged among them is left out.
  void take_entries(std::vector<Entry>& entries);
  void take_blocks(const std::vector<BlockRun>& runs, std::vector<Entry>& entries);
  void take_inline(std::vector<Entry>& entries);
  void take_records(std::span<const std::byte> block, std::uint64_t offset,
                    std::vector<Entry>& entries);
  void check_block(std::span<std::byte> block, std::uint64_t offset);
  Result<void> take_entry(const Entry& entry, const std::string& path);
  Result<bool> take_link(const Entry& entry, const std::string& path);
  Result<void> add_inode(const std::string& path);
  bool take_attributes(ExtInode& inode);
  void take_content();
  void place_content(const std::vector<BlockRun>& runs);
  /// A problem of the inode that is loaded.
  void inode_problem(std::string_view what);
  void unreadable(std::string what);

  ExtDevice device_;
  Problems problems_;
  MemberList members_;
  ext2_filsys file_system_ = nullptr;
  std::unique_ptr<ExtInode> inode_;
  std::string path_;  // of inode_
  std::uint64_t directory_bytes_ = 0;
  std::uint64_t flagged_count_ = 0;  // inodes with kChattrFlags

  std::vector<PendingDirectory> pending_;
  NumberSet seen_;
  std::unordered_map<ext2_ino_t, archive::MemberLog::Position> linked_;  // those with several names

  Member member_;
  std::string target_;
  std::string why_unreadable_;
  std::vector<std::pair<std::string, std::string>> xattrs_;
};

std::unexpected<Error> ExtReader::wrong_superblock(std::string_view what, Errc code) const {
  return fail(code, fmt::format("{}: byte {}: its ext superblock: {}", problems_.disk(),
                                kSuperblockAt, what));
}

Result<void> ExtReader::open() {
  const errcode_t code = device_.open(&file_system_);
  if (std::optional<Error> error = device_.take_error(); error && code != 0) {
    return std::unexpected(std::move(*error));
  }
  if (code == EXT2_ET_UNSUPP_FEATURE || code == EXT2_ET_RO_UNSUPP_FEATURE) {
    return wrong_superblock(ext_message(code), Errc::unsupported);
  }
  if (code != 0) return wrong_superblock(ext_message(code), Errc::unreadable);
  const ext2_super_block& super = *file_system_->super;
  if (ext2fs_has_feature_journal_dev(file_system_->super)) {
    return wrong_superblock("it is the external journal of another disk", Errc::unsupported);
  }
  if (static_cast<unsigned>(EXT2_INODE_SIZE(&super)) > file_system_->blocksize ||
      super.s_inodes_per_group == 0) {
    return wrong_superblock("its numbers cannot be", Errc::unreadable);
  }
  inode_ = std::make_unique<ExtInode>(file_system_, device_);
  return {};
}

Result<void> ExtReader::replay_journal() {
  const ext2_super_block& super = *file_system_->super;
  if (!ext2fs_has_feature_journal_needs_recovery(file_system_->super)) return {};
  if (!ext2fs_has_feature_journal(file_system_->super) || super.s_journal_inum == 0) {
    return fail(Errc::unsupported,
                fmt::format("{}: it was not left clean, and its journal is on another disk",
                            problems_.disk()));
  }
  if (Result<void> good = inode_->load(super.s_journal_inum); !good) {
    return propagate(fmt::format("{}: its journal", problems_.disk()), good);
  }
  Result<std::vector<BlockRun>> runs = inode_->runs();
  if (!runs) return propagate(fmt::format("{}: its journal", problems_.disk()), runs);
  Result<JournalMap> map =
      JournalMap::read(device_.disk(), file_system_->blocksize,
                       ext2fs_blocks_count(file_system_->super), *runs, problems_);
  if (!map) return propagate(map);
  if (map->empty()) return {};
  const std::uint32_t block_bytes = file_system_->blocksize;
  inode_.reset();
  close();
  device_.lay_over(std::move(*map), block_bytes);
  if (Result<void> good = open(); !good) return good;
  if (file_system_->blocksize != block_bytes) {
    return wrong_superblock("its journal has another one with another block size",
                            Errc::unreadable);
  }
  return {};
}

std::string ExtReader::kind() const {
  auto* const super = file_system_->super;
  if (ext2fs_has_feature_extents(super) || ext2fs_has_feature_64bit(super) ||
      ext2fs_has_feature_flex_bg(super) || ext2fs_has_feature_metadata_csum(super) ||
      ext2fs_has_feature_inline_data(super)) {
    return "ext4";
  }
  return ext2fs_has_feature_journal(super) ? "ext3" : "ext2";
}

void ExtReader::inode_problem(std::string_view what) {
  problems_.add(inode_->offset(), fmt::format("inode {} (/{}): {}", inode_->number(), path_, what));
}

void ExtReader::unreadable(std::string what) {
  inode_problem(what);
  why_unreadable_ = fmt::format("byte {}: inode {}: {}", inode_->offset(), inode_->number(), what);
  member_.place = MemberPlace::unreadable;
  member_.contents = why_unreadable_;
  member_.pieces.clear();
  member_.is_sparse = false;
  member_.stored_runs.clear();
}

/// metadata_csum: of a leaf or an index block.
void ExtReader::check_block(std::span<std::byte> block, std::uint64_t offset) {
  auto* const entry = reinterpret_cast<ext2_dir_entry*>(block.data());
  if (ext2fs_dir_block_csum_verify(file_system_, inode_->number(), entry) == 0) {
    problems_.add(offset, fmt::format("inode {} (/{}): a directory block's checksum is wrong",
                                      inode_->number(), path_));
  }
}

void ExtReader::take_records(std::span<const std::byte> block, std::uint64_t offset,
                             std::vector<Entry>& entries) {
  const auto wrong = [&](std::size_t at, std::string_view what) {
    problems_.add(offset + at, fmt::format("inode {} (/{}): a directory entry {}", inode_->number(),
                                           path_, what));
  };
  for (std::size_t at = 0; at < block.size();) {
    if (block.size() - at < kEntryBytes) return wrong(at, "has no room");
    const auto inode = load_le<std::uint32_t>(block, at);
    std::size_t length = load_le<std::uint16_t>(block, at + 4);
    if (length == 0 || length == kMostRecordBytes - 1) length = kMostRecordBytes;
    if (block.size() < kMostRecordBytes && length == kMostRecordBytes) length = 0;
    const auto name_bytes = std::to_integer<std::size_t>(block[at + 6]);
    if (length < kEntryBytes || length % 4 != 0 || length > block.size() - at) {
      return wrong(at, fmt::format("is {} bytes long", length));
    }
    if (inode != 0) {
      const std::string_view name(reinterpret_cast<const char*>(block.data()) + at + kEntryBytes,
                                  std::min(name_bytes, length - kEntryBytes));
      if (name_bytes > length - kEntryBytes) {
        wrong(at, "is shorter than its name");
      } else if (name != "." && name != "..") {
        if (const char* objection = objection_to_name(name)) {
          wrong(at, fmt::format("has the name \"{}\", which {}", name, objection));
        } else {
          entries.push_back({std::string(name), inode, offset + at});
        }
      }
    }
    at += length;
  }
}

void ExtReader::take_blocks(const std::vector<BlockRun>& runs, std::vector<Entry>& entries) {
  const std::uint64_t block_bytes = file_system_->blocksize;
  const std::uint64_t most_blocks = inode_->size_bytes() / block_bytes;
  std::vector<std::byte> block(block_bytes);
  std::uint64_t expected = 0;
  for (const BlockRun& run : runs) {
    if (run.logical != expected && expected < most_blocks) {
      inode_problem(fmt::format("the directory has a hole at block {}", expected));
    }
    expected = run.logical + run.count;
    for (std::uint64_t i = 0; i < run.count && run.logical + i < most_blocks; ++i) {
      const std::uint64_t offset = (run.physical + i) * block_bytes;
      directory_bytes_ += block_bytes;
      if (directory_bytes_ > device_.disk().size_bytes()) {
        return inode_problem("directories lie in the same blocks, and are more than the disk has");
      }
      if (Result<void> good = device_.read(offset, block); !good) {
        inode_problem(good.error().what);
        continue;
      }
      check_block(block, offset);
      take_records(block, offset, entries);
    }
  }
  if (expected < most_blocks) {
    inode_problem(fmt::format("the directory has a hole at block {}", expected));
  }
}

/// Inline: the parent's number and entries, then more entries in the rest.
void ExtReader::take_inline(std::vector<Entry>& entries) {
  const Result<std::vector<Range>> ranges = inode_->inline_ranges();
  if (!ranges) return inode_problem(ranges.error().what);
  std::uint64_t skipped = kInlineParentBytes;
  for (const Range& range : *ranges) {
    if (range.length <= skipped) continue;
    std::vector<std::byte> bytes(range.length - skipped);
    if (Result<void> good = device_.read(range.offset + skipped, bytes); !good) {
      return inode_problem(good.error().what);
    }
    take_records(bytes, range.offset + skipped, entries);
    skipped = 0;
  }
}

void ExtReader::take_entries(std::vector<Entry>& entries) {
  if ((inode_->flags() & EXT4_ENCRYPT_FL) != 0) {
    return inode_problem("the directory is encrypted, and its entries cannot be read");
  }
  if (inode_->is_inline()) return take_inline(entries);
  const Result<std::vector<BlockRun>> runs = inode_->runs();
  if (!runs) return inode_problem(runs.error().what);
  take_blocks(*runs, entries);
}

Result<void> ExtReader::read_directory(const PendingDirectory& directory) {
  path_ = directory.path;
  if (Result<void> good = inode_->load(directory.inode); !good) {
    inode_problem(good.error().what);
    return {};
  }
  std::vector<Entry> entries;
  take_entries(entries);
  sort_by_name(entries);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    if (i != 0 && entries[i - 1].name == entry.name) {
      problems_.add(entry.offset, fmt::format("directory /{} has the name \"{}\" twice",
                                              directory.path, entry.name));
      continue;
    }
    if (Result<void> good = take_entry(entry, path_below(directory.path, entry.name)); !good) {
      return good;
    }
  }
  return {};
}

/// True: the entry is another name of what was seen before, or nothing.
Result<bool> ExtReader::take_link(const Entry& entry, const std::string& path) {
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

Result<void> ExtReader::take_entry(const Entry& entry, const std::string& path) {
  const auto note = [&](std::string_view what) {
    problems_.add(entry.offset,
                  fmt::format("the entry /{} names inode {}, {}", path, entry.inode, what));
  };
  const auto wrong = [&](std::string_view what) {
    note(what);
    return Result<void>();
  };
  const ext2_super_block& super = *file_system_->super;
  if (is_too_long(path)) return wrong("and its path is longer than 4095 bytes");
  if (entry.inode > super.s_inodes_count) return wrong("which there is not");
  if (entry.inode < EXT2_FIRST_INODE(&super)) return wrong("which is the file system's own");
  const Result<bool> is_link = take_link(entry, path);
  if (!is_link) return propagate(is_link);
  if (*is_link) return {};
  path_ = path;
  if (Result<void> good = inode_->load(entry.inode); !good) {
    inode_problem(good.error().what);
    return {};
  }
  if (inode_->link_count() == 0) return wrong("which is deleted");
  if ((inode_->flags() & EXT4_EA_INODE_FL) != 0) return wrong("which holds an extended attribute");
  const bool is_new = seen_.insert(entry.inode);
  if (S_ISDIR(inode_->mode())) {
    if (!is_new) return wrong("which is a directory with a name already");
    pending_.push_back({entry.inode, path});
  } else if (!is_new) {
    note("which has more names than it counts");
  }
  return add_inode(path);
}

/// False: it is left out.
bool ExtReader::take_attributes(ExtInode& inode) {
  const unsigned type = inode.mode() & S_IFMT;
  if (type != S_IFDIR && type != S_IFREG && type != S_IFLNK && type != S_IFCHR && type != S_IFBLK &&
      type != S_IFIFO && type != S_IFSOCK) {
    inode_problem(fmt::format("its mode {:06o} is of no type", inode.mode()));
    return false;
  }
  member_.mode = inode.mode();
  member_.uid = inode.uid();
  member_.gid = inode.gid();
  const std::optional<Timestamp> mtime = inode.mtime();
  if (!mtime) inode_problem("its modification time is none");
  member_.mtime = mtime.value_or(Timestamp{});
  if (S_ISCHR(member_.mode) || S_ISBLK(member_.mode)) member_.device = inode.device();
  if (S_ISLNK(member_.mode)) {
    if ((inode.flags() & EXT4_ENCRYPT_FL) != 0) {
      inode_problem("it is an encrypted symlink");
      return false;
    }
    Result<std::string> target = inode.symlink_target();
    if (!target) {
      inode_problem(target.error().what);
      return false;
    }
    target_ = std::move(*target);
    member_.link_target = target_;
  }
  auto xattrs = inode.xattrs();
  if (!xattrs) {
    inode_problem(xattrs.error().what);
    return true;
  }
  xattrs_ = std::move(*xattrs);
  for (const auto& [name, value] : xattrs_) member_.xattrs.emplace_back(name, value);
  return true;
}

/// Where the bytes of a file lie on the disk, and where it has none.
void ExtReader::place_content(const std::vector<BlockRun>& runs) {
  const std::uint64_t block_bytes = file_system_->blocksize;
  const std::uint64_t size = member_.size_bytes;
  for (const BlockRun& run : runs) {
    // 48 bits of blocks and 16 of bytes: no product overflows.
    const std::uint64_t from = run.logical * block_bytes;
    if (from >= size) break;  // what was allocated behind the end
    const std::uint64_t length = std::min(run.count * block_bytes, size - from);
    append_piece(member_.stored_runs, {from, length});
    device_.append_pieces({run.physical * block_bytes, length}, member_.pieces);
  }
  const bool is_dense =
      member_.stored_runs.size() == 1 && member_.stored_runs.front() == Range{0, size};
  member_.is_sparse = size != 0 && !is_dense;
  if (!member_.is_sparse) member_.stored_runs.clear();
  settle_place(member_);
}

void ExtReader::take_content() {
  member_.size_bytes = inode_->size_bytes();
  if (member_.size_bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    member_.size_bytes = 0;
    return unreadable("its size is more than a file can have");
  }
  if ((inode_->flags() & EXT4_ENCRYPT_FL) != 0) return unreadable("it is encrypted");
  if ((inode_->flags() & EXT2_COMPRBLK_FL) != 0) return unreadable("it is compressed");
  if (inode_->is_inline()) {
    const Result<std::vector<Range>> ranges = inode_->inline_ranges();
    if (!ranges) return unreadable(ranges.error().what);
    for (const Range& range : *ranges) device_.append_pieces(range, member_.pieces);
    return settle_place(member_);
  }
  const Result<std::vector<BlockRun>> runs = inode_->runs();
  if (!runs) return unreadable(runs.error().what);
  place_content(*runs);
}

/// The inode that is loaded, at this path.
Result<void> ExtReader::add_inode(const std::string& path) {
  member_ = Member();
  member_.path = path;
  if (!take_attributes(*inode_)) return {};
  if ((inode_->flags() & kChattrFlags) != 0) ++flagged_count_;
  if (S_ISREG(member_.mode)) take_content();
  const auto at = members_.add(member_);
  if (!at) return propagate(at);
  if (!S_ISDIR(member_.mode) && inode_->link_count() > 1) linked_.emplace(inode_->number(), *at);
  return {};
}

Result<void> ExtReader::walk() {
  path_.clear();
  if (Result<void> good = inode_->load(EXT2_ROOT_INO); !good) {
    return propagate(fmt::format("{}: its root directory", problems_.disk()), good);
  }
  if (!S_ISDIR(inode_->mode())) {
    return fail(Errc::unreadable, fmt::format("{}: byte {}: its root is no directory",
                                              problems_.disk(), inode_->offset()));
  }
  seen_.insert(EXT2_ROOT_INO);
  if (Result<void> good = add_inode("."); !good) return good;
  pending_.push_back({EXT2_ROOT_INO, ""});
  while (!pending_.empty()) {
    const PendingDirectory directory = std::move(pending_.back());
    pending_.pop_back();
    if (Result<void> good = read_directory(directory); !good) return good;
  }
  return {};
}

Result<ReadDisk> ExtReader::run() {
  if (Result<void> good = open(); !good) return propagate(good);
  if (Result<void> good = replay_journal(); !good) return propagate(good);
  if (Result<void> good = walk(); !good) return propagate(good);
  if (flagged_count_ != 0) {
    problems_.remark(fmt::format("chattr flags (i, a, d, c) of {} {} are left out", flagged_count_,
                                 flagged_count_ == 1 ? "entry" : "entries"));
  }
  ReadDisk made;
  made.format = kind();
  made.problem_count = problems_.count();
  made.first_problem = problems_.first();
  made.members = std::move(members_).take();
  return made;
}

}  // namespace

Result<ReadDisk> read_ext(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log) {
  return ExtReader(disk, limits, log).run();
}

}  // namespace mkvirtfs::disk
