// SPDX-License-Identifier: BSD-3-Clause
// One hierarchy is walked: the primary one where its root's first record has Rock Ridge, else that
// of Joliet, if there is one. Records one behind the other that say "more follows" are the sections
// of one file. Directories that Rock Ridge has moved are entered where they belong (CL), and passed
// over where they stand (RE). A directory is entered once.
#include "fsgen/disk/iso_reader.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "fsgen/disk/iso_system_use.h"
#include "fsgen/disk/member_list.h"
#include "fsgen/disk/number_set.h"
#include "fsgen/disk/problems.h"
#include "fsgen/disk/utf16.h"
#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

using archive::Member;
using archive::MemberPlace;
using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kSectorBytes = 2048;
constexpr std::uint64_t kFirstDescriptor = 16;
// Images have four of them or fewer.
constexpr std::uint64_t kMostDescriptors = 64;
constexpr std::size_t kRecordBytes = 33;
constexpr std::size_t kRootRecordAt = 156;
constexpr std::uint64_t kMostTargetBytes = 4095;

// Of directory records (ECMA-119, 9.1.6).
constexpr unsigned kDirectoryFlag = 0x02;
constexpr unsigned kAssociatedFlag = 0x04;
constexpr unsigned kMoreFlag = 0x80;

// What libarchive gives where the volume says nothing.
constexpr std::uint16_t kDirectoryMode = S_IFDIR | 0700;
constexpr std::uint16_t kFileMode = S_IFREG | 0400;

unsigned u8(Bytes bytes, std::size_t at) { return std::to_integer<unsigned>(bytes[at]); }

std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Entry {
  std::string name;
  std::uint64_t offset = 0;  // of its first record on the disk
  unsigned flags = 0;
  bool is_interleaved = false;
  std::vector<Range> sections;  // of the disk
  std::uint64_t size_bytes = 0;
  std::optional<Timestamp> recorded;
  RockRidge ridge;
  std::size_t position = 0;  // in its directory

  bool is_directory() const noexcept { return (flags & kDirectoryFlag) != 0; }
};

struct PendingDirectory {
  std::vector<Range> sections;
  std::string path;
  /// What is added only if more stands in it than directories that belong elsewhere.
  std::optional<Entry> held_back;
};

class IsoReader {
 public:
  IsoReader(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log)
      : disk_(disk), problems_(disk.name(), log), members_(disk.name(), limits) {}

  Result<ReadDisk> run();

 private:
  struct Root {
    std::uint64_t block_bytes = 0;
    Range extent;
  };
  /// What makes two names those of one file.
  using LinkKey = std::tuple<bool, std::uint64_t, std::uint32_t, std::uint64_t, std::uint64_t>;

  Result<void> take_descriptors();
  Result<void> take_descriptor(Bytes sector, std::uint64_t at);
  Result<RockRidge> start(const Root& root);
  Result<void> walk(const Root& root, const RockRidge& of_root);
  Result<void> read_directory(PendingDirectory directory);
  Result<void> take_records(const std::vector<Range>& sections, std::vector<Entry>& entries);
  Result<void> take_sector(Bytes sector, std::uint64_t at, std::vector<Entry>& entries);
  Result<void> take_record(Bytes record, std::uint64_t at, std::vector<Entry>& entries);
  std::string name_of(Bytes identifier, std::uint64_t at);
  Result<bool> find_child(Entry& entry);
  Result<void> take_entry(Entry& entry, const std::string& path);
  Result<bool> take_link(const Entry& entry, const std::string& path);
  Result<void> add(const Entry& entry, const std::string& path);
  bool take_attributes(const Entry& entry);
  void take_content(const Entry& entry);
  std::optional<LinkKey> link_key(const Entry& entry) const;
  void problem(const Entry& entry, std::string_view what) {
    problems_.add(entry.offset, fmt::format("the record of /{}: {}", path_, what));
  }

  CachedSource& disk_;
  Problems problems_;
  MemberList members_;
  std::optional<Root> primary_;
  std::optional<Root> joliet_;
  std::uint64_t block_bytes_ = 0;  // of the hierarchy that is walked
  bool has_ridge_ = false;
  bool is_joliet_ = false;
  std::optional<SystemUseReader> system_use_;
  std::string path_;  // of what is read
  bool more_follows_ = false;
  std::uint64_t directory_bytes_ = 0;
  std::uint64_t associated_count_ = 0;
  std::vector<PendingDirectory> pending_;
  NumberSet entered_;  // first blocks of directories
  std::map<LinkKey, archive::MemberLog::Position> linked_;
  std::vector<std::byte> sector_;

  Member member_;
  std::string why_unreadable_;
};

Result<void> IsoReader::take_descriptor(Bytes sector, std::uint64_t at) {
  const unsigned type = u8(sector, 0);
  // Level 1 to 3 of UCS-2, as escape sequences.
  const std::string_view escapes = text_of(sector.subspan(88, 3));
  const bool is_joliet = escapes == "%/@" || escapes == "%/C" || escapes == "%/E";
  if (type != 1 && (type != 2 || !is_joliet)) return {};
  std::optional<Root>& root = type == 1 ? primary_ : joliet_;
  if (root) return {};
  const std::uint64_t block_bytes = load_le<std::uint16_t>(sector, 128);
  if (!std::has_single_bit(block_bytes) || block_bytes < 512 || block_bytes > kSectorBytes) {
    return fail(Errc::unreadable, fmt::format("{}: byte {}: its volume descriptor has blocks of {} "
                                              "bytes",
                                              problems_.disk(), at, block_bytes));
  }
  const Bytes record = sector.subspan(kRootRecordAt, kRecordBytes);
  root = {block_bytes,
          {load_le<std::uint32_t>(record, 2) * block_bytes, load_le<std::uint32_t>(record, 10)}};
  return {};
}

Result<void> IsoReader::take_descriptors() {
  sector_.resize(kSectorBytes);
  for (std::uint64_t i = 0; i < kMostDescriptors; ++i) {
    const std::uint64_t at = (kFirstDescriptor + i) * kSectorBytes;
    if (!disk_.holds(at, kSectorBytes)) break;
    if (Result<void> good = disk_.read(at, sector_); !good) return good;
    if (text_of(Bytes(sector_).subspan(1, 5)) != "CD001" || u8(sector_, 0) == 255) break;
    if (Result<void> good = take_descriptor(sector_, at); !good) return good;
  }
  if (primary_) return {};
  return fail(Errc::unreadable, fmt::format("{}: byte {}: it has no primary volume descriptor",
                                            problems_.disk(), kFirstDescriptor * kSectorBytes));
}

/// What the root's own record says, which is the first in it.
Result<RockRidge> IsoReader::start(const Root& root) {
  block_bytes_ = root.block_bytes;
  system_use_.emplace(disk_, block_bytes_);
  const std::uint64_t at = root.extent.offset;
  if (root.extent.length < kSectorBytes || !disk_.holds(at, kSectorBytes)) {
    return fail(Errc::unreadable,
                fmt::format("{}: byte {}: its root directory goes on behind the end of the disk",
                            problems_.disk(), at));
  }
  sector_.resize(kSectorBytes);
  if (Result<void> good = disk_.read(at, sector_); !good) return propagate(good);
  const std::size_t length = u8(sector_, 0);
  if (length <= kRecordBytes || u8(sector_, 32) != 1) return RockRidge();
  return system_use_->start(Bytes(sector_).subspan(kRecordBytes + 1, length - kRecordBytes - 1));
}

std::string IsoReader::name_of(Bytes identifier, std::uint64_t at) {
  std::string name;
  if (!is_joliet_) {
    name = text_of(identifier);
    if (name.ends_with(";1")) name.resize(name.size() - 2);
    // The separator of an extension that there is not.
    if (name.size() > 1 && name.ends_with('.')) name.pop_back();
    return name;
  }
  std::u16string units;
  for (std::size_t i = 0; i + 2 <= identifier.size(); i += 2) {
    units += static_cast<char16_t>(load_be<std::uint16_t>(identifier, i));
  }
  if (units.ends_with(u";1")) units.resize(units.size() - 2);
  for (std::size_t i = 0; i < units.size();) {
    const std::optional<char32_t> character = next_character(units, i);
    if (!character) problems_.add(at, fmt::format("directory /{}: a name is no UTF-16", path_));
    append_utf8(name, character.value_or(U'\ufffd'));
  }
  return name;
}

Result<void> IsoReader::take_record(Bytes record, std::uint64_t at, std::vector<Entry>& entries) {
  const auto wrong = [&](std::string_view what) {
    problems_.add(at, fmt::format("directory /{}: a record {}", path_, what));
    return Result<void>();
  };
  const std::size_t name_bytes = u8(record, 32);
  if (name_bytes == 0 || name_bytes > record.size() - kRecordBytes) {
    return wrong("is shorter than its name");
  }
  const Bytes identifier = record.subspan(kRecordBytes, name_bytes);
  // Itself and its parent.
  if (name_bytes == 1 && u8(identifier, 0) <= 1) return {};
  const std::uint64_t block = std::uint64_t{load_le<std::uint32_t>(record, 2)} + u8(record, 1);
  const Range section{block * block_bytes_, load_le<std::uint32_t>(record, 10)};
  const unsigned flags = u8(record, 25);
  const bool goes_on = more_follows_;
  more_follows_ = (flags & kMoreFlag) != 0;
  if (goes_on && !entries.empty()) {
    entries.back().sections.push_back(section);
    entries.back().size_bytes += section.length;
    return {};
  }
  if ((flags & kAssociatedFlag) != 0) {
    ++associated_count_;
    more_follows_ = false;
    return {};
  }
  Entry entry;
  entry.offset = at;
  entry.flags = flags;
  entry.is_interleaved = u8(record, 26) != 0 || u8(record, 27) != 0;
  entry.sections.push_back(section);
  entry.size_bytes = section.length;
  entry.recorded = iso_time(record.subspan(18, 7));
  const std::size_t name_end = kRecordBytes + name_bytes;
  const std::size_t area_at = std::min(record.size(), name_end + name_end % 2);
  Result<RockRidge> ridge = system_use_->read(record.subspan(area_at));
  if (!ridge) return propagate(ridge);
  entry.ridge = std::move(*ridge);
  entry.name = entry.ridge.name ? *entry.ridge.name : name_of(identifier, at);
  if (!entry.ridge.wrong.empty()) {
    problems_.add(
        at, fmt::format("the record of /{}: {}", path_below(path_, entry.name), entry.ridge.wrong));
  }
  if (const char* objection = objection_to_name(entry.name)) {
    return wrong(fmt::format("has the name \"{}\", which {}", entry.name, objection));
  }
  entries.push_back(std::move(entry));
  return {};
}

Result<void> IsoReader::take_sector(Bytes sector, std::uint64_t at, std::vector<Entry>& entries) {
  for (std::size_t in = 0; in < sector.size();) {
    const std::size_t length = u8(sector, in);
    if (length == 0) return {};  // the rest of the sector is padding
    if (length <= kRecordBytes || length > sector.size() - in) {
      problems_.add(at + in,
                    fmt::format("directory /{}: a record is {} bytes long", path_, length));
      return {};
    }
    if (Result<void> good = take_record(sector.subspan(in, length), at + in, entries); !good) {
      return good;
    }
    in += length;
  }
  return {};
}

Result<void> IsoReader::take_records(const std::vector<Range>& sections,
                                     std::vector<Entry>& entries) {
  more_follows_ = false;
  for (const Range& section : sections) {
    for (std::uint64_t done = 0; done < section.length; done += sector_.size()) {
      const std::uint64_t at = section.offset + done;
      sector_.resize(std::min(kSectorBytes, section.length - done));
      directory_bytes_ += sector_.size();
      const char* const wrong =
          !disk_.holds(at, sector_.size())        ? "it goes on behind the end of the disk"
          : directory_bytes_ > disk_.size_bytes() ? "it lies in the same blocks as others"
                                                  : nullptr;
      if (wrong != nullptr) {
        problems_.add(at, fmt::format("directory /{}: {}", path_, wrong));
        return {};
      }
      if (Result<void> good = disk_.read(at, sector_); !good) return good;
      if (Result<void> good = take_sector(sector_, at, entries); !good) return good;
    }
  }
  if (more_follows_) {
    problems_.add(sections.front().offset,
                  fmt::format("directory /{}: its last file has no last section", path_));
  }
  return {};
}

Result<void> IsoReader::read_directory(PendingDirectory directory) {
  path_ = directory.path;
  std::vector<Entry> entries;
  if (Result<void> good = take_records(directory.sections, entries); !good) return good;
  const std::size_t relocated =
      std::erase_if(entries, [](const Entry& each) { return each.ridge.is_relocated; });
  if (directory.held_back) {
    if (entries.empty() && relocated != 0) return {};
    if (Result<void> good = add(*directory.held_back, directory.path); !good) return good;
  }
  sort_by_name(entries);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (i != 0 && entries[i - 1].name == entries[i].name) {
      problems_.add(entries[i].offset, fmt::format("directory /{} has the name \"{}\" twice",
                                                   directory.path, entries[i].name));
      continue;
    }
    const std::string path = path_below(directory.path, entries[i].name);
    if (Result<void> good = take_entry(entries[i], path); !good) return good;
  }
  return {};
}

/// A directory that stands elsewhere: its first record, which is its own, has what it is. False: it
/// is not there.
Result<bool> IsoReader::find_child(Entry& entry) {
  const std::uint64_t at = *entry.ridge.child_block * block_bytes_;
  std::vector<std::byte> record(255);
  if (!disk_.holds(at, kSectorBytes)) return false;
  if (Result<void> good = disk_.read(at, record); !good) return propagate(good);
  const std::size_t length = u8(record, 0);
  if (length <= kRecordBytes || u8(record, 32) != 1 || u8(record, kRecordBytes) != 0) return false;
  Result<RockRidge> ridge =
      system_use_->read(Bytes(record).first(length).subspan(kRecordBytes + 1));
  if (!ridge) return propagate(ridge);
  entry.flags |= kDirectoryFlag;
  entry.recorded = iso_time(Bytes(record).subspan(18, 7));
  entry.sections = {{at, load_le<std::uint32_t>(record, 10)}};
  entry.ridge = std::move(*ridge);
  entry.ridge.child_block.reset();
  return true;
}

/// By the number that Rock Ridge gives a file, or by where its bytes begin. A volume without Rock
/// Ridge does not know links: there files in one place are one where nothing but the name differs.
std::optional<IsoReader::LinkKey> IsoReader::link_key(const Entry& entry) const {
  if (entry.is_directory()) return std::nullopt;
  const std::uint64_t start = entry.sections.front().offset;
  if (!has_ridge_) {
    if (entry.size_bytes == 0) return std::nullopt;
    const std::int64_t time = entry.recorded.value_or(Timestamp{}).seconds;
    return LinkKey{false, start, 0, entry.size_bytes, static_cast<std::uint64_t>(time)};
  }
  const auto& attributes = entry.ridge.attributes;
  if (!attributes || attributes->link_count < 2) return std::nullopt;
  const std::uint64_t size = S_ISREG(attributes->mode) ? entry.size_bytes : 0;
  if (attributes->serial != 0) {
    return LinkKey{true, attributes->serial, attributes->mode, size, size != 0 ? start : 0};
  }
  if (size == 0) return std::nullopt;
  return LinkKey{false, start, attributes->mode, size, 0};
}

/// True: the entry is another name of what was seen before.
Result<bool> IsoReader::take_link(const Entry& entry, const std::string& path) {
  const std::optional<LinkKey> key = link_key(entry);
  if (!key) return false;
  const auto known = linked_.find(*key);
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

Result<void> IsoReader::take_entry(Entry& entry, const std::string& path) {
  path_ = path;
  if (is_too_long(path)) {
    problem(entry, "its path is longer than 4095 bytes");
    return {};
  }
  if (entry.ridge.child_block) {
    const Result<bool> found = find_child(entry);
    if (!found) return propagate(found);
    if (!*found) {
      problem(entry, "the directory that belongs there is not where it says");
      return {};
    }
  }
  const Result<bool> is_link = take_link(entry, path);
  if (!is_link) return propagate(is_link);
  if (*is_link) return {};
  if (!entry.is_directory()) return add(entry, path);
  if (!entered_.insert(entry.sections.front().offset / block_bytes_)) {
    problem(entry, "it is a directory with a name already");
    return {};
  }
  PendingDirectory directory{entry.sections, path, std::nullopt};
  // What genisoimage makes for directories that are moved; it has no RE itself.
  if (has_ridge_ && (path == "rr_moved" || path == ".rr_moved")) {
    directory.held_back = std::move(entry);
    pending_.push_back(std::move(directory));
    return {};
  }
  pending_.push_back(std::move(directory));
  return add(entry, path);
}

/// False: it is left out.
bool IsoReader::take_attributes(const Entry& entry) {
  member_.mode = entry.is_directory() ? kDirectoryMode : kFileMode;
  const RockRidge& ridge = entry.ridge;
  if (!ridge.mtime && !entry.recorded) problem(entry, "its time is none");
  member_.mtime = ridge.mtime.value_or(entry.recorded.value_or(Timestamp{}));
  if (!ridge.attributes) return true;
  const std::uint32_t mode = ridge.attributes->mode;
  const unsigned type = mode & S_IFMT;
  if (mode > 0xffff || (type != S_IFDIR && type != S_IFREG && type != S_IFLNK && type != S_IFCHR &&
                        type != S_IFBLK && type != S_IFIFO && type != S_IFSOCK)) {
    problem(entry, fmt::format("its mode {:06o} is of no type", mode));
    return false;
  }
  if ((type == S_IFDIR) != entry.is_directory()) {
    problem(entry, fmt::format("its mode {:06o} is of another type than it", mode));
    return false;
  }
  member_.mode = static_cast<std::uint16_t>(mode);
  member_.uid = ridge.attributes->uid;
  member_.gid = ridge.attributes->gid;
  if (type == S_IFCHR || type == S_IFBLK) {
    if (!ridge.device) problem(entry, "it is a device without a number");
    member_.device = ridge.device.value_or(DeviceNumber{});
  }
  if (type == S_IFLNK) {
    if (!ridge.target || ridge.target->empty() || ridge.target->size() > kMostTargetBytes ||
        ridge.target->find('\0') != std::string::npos) {
      problem(entry, "it is a symlink without a target that there could be");
      return false;
    }
    member_.link_target = *ridge.target;
  }
  return true;
}

void IsoReader::take_content(const Entry& entry) {
  member_.size_bytes = entry.size_bytes;
  std::string wrong;
  if (entry.ridge.packed_as != nullptr) wrong = entry.ridge.packed_as;
  if (entry.is_interleaved) wrong = "its bytes are interleaved with others";
  for (const Range& section : entry.sections) {
    if (section.length != 0 && !disk_.holds(section.offset, section.length)) {
      wrong = "it goes on behind the end of the disk";
    }
    append_piece(member_.pieces, section);
  }
  if (wrong.empty() || entry.size_bytes == 0) return settle_place(member_);
  problem(entry, wrong);
  why_unreadable_ = fmt::format("byte {}: {}", entry.offset, wrong);
  member_.place = MemberPlace::unreadable;
  member_.contents = why_unreadable_;
  member_.pieces.clear();
}

Result<void> IsoReader::add(const Entry& entry, const std::string& path) {
  path_ = path;
  member_ = Member();
  member_.path = path.empty() ? std::string_view(".") : std::string_view(path);
  if (!take_attributes(entry)) return {};
  if (S_ISREG(member_.mode)) take_content(entry);
  const auto at = members_.add(member_);
  if (!at) return propagate(at);
  if (const std::optional<LinkKey> key = link_key(entry)) linked_.emplace(*key, *at);
  return {};
}

Result<void> IsoReader::walk(const Root& root, const RockRidge& of_root) {
  Entry entry;
  entry.offset = root.extent.offset;
  entry.flags = kDirectoryFlag;
  entry.recorded = iso_time(Bytes(sector_).subspan(18, 7));
  entry.ridge = of_root;
  entered_.insert(root.extent.offset / block_bytes_);
  if (Result<void> good = add(entry, ""); !good) return good;
  pending_.push_back({{root.extent}, "", std::nullopt});
  while (!pending_.empty()) {
    PendingDirectory directory = std::move(pending_.back());
    pending_.pop_back();
    if (Result<void> good = read_directory(std::move(directory)); !good) return good;
  }
  return {};
}

Result<ReadDisk> IsoReader::run() {
  if (Result<void> good = take_descriptors(); !good) return propagate(good);
  Result<RockRidge> of_root = start(*primary_);
  if (!of_root) return propagate(of_root);
  has_ridge_ = of_root->is_rock_ridge;
  is_joliet_ = !has_ridge_ && joliet_.has_value();
  const Root& root = is_joliet_ ? *joliet_ : *primary_;
  if (is_joliet_) {
    of_root = start(root);
    if (!of_root) return propagate(of_root);
  }
  if (Result<void> good = walk(root, *of_root); !good) return propagate(good);
  if (associated_count_ != 0) {
    problems_.remark(fmt::format("{} associated {} left out", associated_count_,
                                 associated_count_ == 1 ? "file is" : "files are"));
  }
  ReadDisk made;
  made.format = has_ridge_   ? "ISO 9660 with Rock Ridge"
                : is_joliet_ ? "ISO 9660 with Joliet"
                             : "ISO 9660";
  made.problem_count = problems_.count();
  made.first_problem = problems_.first();
  made.members = std::move(members_).take();
  return made;
}

}  // namespace

Result<ReadDisk> read_iso(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log) {
  return IsoReader(disk, limits, log).run();
}

}  // namespace mkvirtfs::disk
