// SPDX-License-Identifier: BSD-3-Clause
// The end of the central directory is searched from the end of the file, in its 64-bit form, too.
// Each entry's local header is then read and compared, so that a member's bytes lie where both
// agree, and members are checked for overlaps.
#include "fsgen/archive/zip_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::archive {
namespace {

using Bytes = std::span<const std::byte>;

// APPNOTE.TXT 4.3.7, 4.3.12, 4.3.14 to 4.3.16.
constexpr std::uint32_t kLocalSignature = 0x04034b50;
constexpr std::uint32_t kEntrySignature = 0x02014b50;
constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::uint32_t kLocatorSignature = 0x07064b50;
constexpr std::uint32_t kEnd64Signature = 0x06064b50;
constexpr std::size_t kLocalBytes = 30;
constexpr std::size_t kEntryBytes = 46;
constexpr std::size_t kEndBytes = 22;
constexpr std::size_t kLocatorBytes = 20;
constexpr std::size_t kEnd64Bytes = 56;
constexpr std::size_t kMostCommentBytes = 65535;
constexpr std::uint16_t kZip64Extra = 0x0001;
constexpr std::uint16_t kEncryptedFlag = 1;
constexpr std::uint16_t kSizesFollowFlag = 8;
constexpr std::uint32_t kIn64 = std::numeric_limits<std::uint32_t>::max();

std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The central directory's stretch of the archive.
struct DirectoryStretch {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t shift = 0;  ///< what stands before the archive and is in no offset
  std::uint64_t end = 0;    ///< of the archive
};

/// One entry of the central directory.
struct CentralEntry {
  ZipDirectory::Item member;
  std::uint64_t header_offset = 0;
  std::uint16_t flags = 0;
  std::string_view name;
};

class ZipDirectoryReader {
 public:
  ZipDirectoryReader(ByteSource& archive, std::uint64_t most_members)
      : archive_(archive), most_members_(most_members) {}

  Result<void> read(std::unordered_map<std::uint64_t, ZipDirectory::Item>& members);
  Result<DirectoryStretch> find_directory();

 private:
  std::unexpected<Error> wrong(std::string_view what) const {
    return fail(Errc::unreadable, fmt::format("{}: {}", archive_.name(), what));
  }
  bool holds(std::uint64_t offset, std::uint64_t length) const {
    return offset <= archive_.size_bytes() && length <= archive_.size_bytes() - offset;
  }
  Result<std::vector<std::byte>> bytes(std::uint64_t offset, std::size_t length);
  Result<DirectoryStretch> find_directory64(std::uint64_t end_at);
  std::optional<DirectoryStretch> stretch(std::uint64_t end, std::uint64_t length,
                                          std::uint64_t offset) const;
  /// False: its 64-bit sizes are not there.
  static bool take_zip64(Bytes extra, CentralEntry& entry);
  /// Where the member's bytes begin.
  Result<std::uint64_t> check_local(const CentralEntry& entry);

  ByteSource& archive_;
  const std::uint64_t most_members_;
};

Result<std::vector<std::byte>> ZipDirectoryReader::bytes(std::uint64_t offset, std::size_t length) {
  if (!holds(offset, length)) return wrong("its directory leads out of it");
  std::vector<std::byte> read(length);
  if (Result<void> good = archive_.read(offset, read); !good) return propagate(good);
  return read;
}

std::optional<DirectoryStretch> ZipDirectoryReader::stretch(std::uint64_t end, std::uint64_t length,
                                                            std::uint64_t offset) const {
  if (length > end || offset > end - length) return std::nullopt;
  return DirectoryStretch{end - length, length, end - length - offset, 0};
}

Result<DirectoryStretch> ZipDirectoryReader::find_directory() {
  const std::uint64_t size = archive_.size_bytes();
  // That of the record in the tail.
  const auto ending = [](Result<DirectoryStretch> found, std::uint64_t end) {
    if (found) found->end = end;
    return found;
  };
  const auto tail_bytes =
      static_cast<std::size_t>(std::min<std::uint64_t>(size, kEndBytes + kMostCommentBytes));
  const Result<std::vector<std::byte>> tail = bytes(size - tail_bytes, tail_bytes);
  if (!tail) return propagate(tail);
  for (std::size_t back = kEndBytes; back <= tail_bytes; ++back) {
    const Bytes end = Bytes(*tail).subspan(tail_bytes - back);
    if (load_le<std::uint32_t>(end) != kEndSignature) continue;
    const std::uint64_t end_at = size - back;
    const auto count = load_le<std::uint16_t>(end, 10);
    const auto length = load_le<std::uint32_t>(end, 12);
    const auto offset = load_le<std::uint32_t>(end, 16);
    const std::uint64_t archive_end = end_at + kEndBytes + load_le<std::uint16_t>(end, 20);
    if (count == 0xffff || length == kIn64 || offset == kIn64)
      return ending(find_directory64(end_at), archive_end);
    const std::optional<DirectoryStretch> found = stretch(end_at, length, offset);
    if (!found) return wrong("its directory leads out of it");
    return ending(*found, archive_end);
  }
  return wrong("has no directory at its end: it is cut off");
}

Result<DirectoryStretch> ZipDirectoryReader::find_directory64(std::uint64_t end_at) {
  if (end_at < kLocatorBytes) return wrong("its directory leads out of it");
  const Result<std::vector<std::byte>> locator = bytes(end_at - kLocatorBytes, kLocatorBytes);
  if (!locator) return propagate(locator);
  if (load_le<std::uint32_t>(*locator) != kLocatorSignature) {
    return wrong("has no 64-bit end of its directory");
  }
  // The record stands right before its locator, wherever that says it does; it may be longer than
  // we know, and then only that offset finds it.
  const auto located = load_le<std::uint64_t>(*locator, 8);
  for (const std::uint64_t at : {located, end_at - kLocatorBytes - kEnd64Bytes}) {
    if (at > end_at || !holds(at, kEnd64Bytes)) continue;
    const Result<std::vector<std::byte>> end = bytes(at, kEnd64Bytes);
    if (!end) return propagate(end);
    if (load_le<std::uint32_t>(*end) != kEnd64Signature) continue;
    const std::optional<DirectoryStretch> found =
        stretch(at, load_le<std::uint64_t>(*end, 40), load_le<std::uint64_t>(*end, 48));
    if (found) return *found;
  }
  return wrong("its directory leads out of it");
}

bool ZipDirectoryReader::take_zip64(Bytes extra, CentralEntry& entry) {
  constexpr std::size_t kFieldHeaderBytes = 4;
  const std::array<std::uint64_t*, 3> values = {&entry.member.size_bytes,
                                                &entry.member.packed_bytes, &entry.header_offset};
  const auto in64 = [](const std::uint64_t* value) { return *value == kIn64; };
  if (std::ranges::none_of(values, in64)) return true;
  while (extra.size() >= kFieldHeaderBytes) {
    const auto id = load_le<std::uint16_t>(extra);
    const std::size_t length = load_le<std::uint16_t>(extra, 2);
    extra = extra.subspan(kFieldHeaderBytes);
    if (length > extra.size()) return false;
    Bytes field = extra.first(length);
    extra = extra.subspan(length);
    if (id != kZip64Extra) continue;
    for (std::uint64_t* value : values) {
      if (!in64(value)) continue;
      if (field.size() < sizeof *value) return false;
      *value = load_le<std::uint64_t>(field);
      field = field.subspan(sizeof *value);
    }
    return true;
  }
  // An archive of just under 4 GiB may mean the number itself.
  return true;
}

Result<std::uint64_t> ZipDirectoryReader::check_local(const CentralEntry& entry) {
  const auto differs = [&](std::string_view what) {
    return wrong(
        fmt::format("member {}, byte {}: the {} its header and in the archive's directory "
                    "differ",
                    entry.name, entry.header_offset, what));
  };
  if (!holds(entry.header_offset, kLocalBytes + entry.name.size())) {
    return wrong(fmt::format("member {}: has its header at {}, behind the archive's end",
                             entry.name, entry.header_offset));
  }
  const Result<std::vector<std::byte>> local =
      bytes(entry.header_offset, kLocalBytes + entry.name.size());
  if (!local) return propagate(local);
  if (load_le<std::uint32_t>(*local) != kLocalSignature) {
    return wrong(
        fmt::format("member {}, byte {}: there is no header", entry.name, entry.header_offset));
  }
  const auto flags = load_le<std::uint16_t>(*local, 6);
  const auto packed = load_le<std::uint32_t>(*local, 18);
  const auto size = load_le<std::uint32_t>(*local, 22);
  const std::size_t name_bytes = load_le<std::uint16_t>(*local, 26);
  const std::size_t extra_bytes = load_le<std::uint16_t>(*local, 28);
  if (name_bytes != entry.name.size() ||
      text_of(Bytes(*local).subspan(kLocalBytes)) != entry.name) {
    return differs("names in");
  }
  if (load_le<std::uint16_t>(*local, 8) != entry.member.method ||
      ((flags ^ entry.flags) & kEncryptedFlag) != 0) {
    return differs("methods in");
  }
  if ((flags & kSizesFollowFlag) == 0) {
    if ((packed != kIn64 && packed != entry.member.packed_bytes) ||
        (size != kIn64 && size != entry.member.size_bytes)) {
      return differs("sizes in");
    }
    if (load_le<std::uint32_t>(*local, 14) != entry.member.crc32) return differs("checksums in");
  }
  const std::uint64_t data = entry.header_offset + kLocalBytes + name_bytes + extra_bytes;
  if (!holds(data, entry.member.packed_bytes)) {
    return wrong(fmt::format("member {}: has {} bytes from {} on, but the archive ends at {}",
                             entry.name, entry.member.packed_bytes, data, archive_.size_bytes()));
  }
  return data;
}

Result<void> ZipDirectoryReader::read(
    std::unordered_map<std::uint64_t, ZipDirectory::Item>& members) {
  // The directory of ten million members, each with the longest of names.
  constexpr std::uint64_t kMostDirectoryBytes = std::uint64_t{4} << 30;
  const Result<DirectoryStretch> where = find_directory();
  if (!where) return propagate(where);
  if (where->length > kMostDirectoryBytes) return wrong("its directory has more than 4 GiB");
  const Result<std::vector<std::byte>> directory =
      bytes(where->offset, static_cast<std::size_t>(where->length));
  if (!directory) return propagate(directory);

  std::vector<Range> taken;  // headers and bytes
  Bytes rest = *directory;
  while (rest.size() >= kEntryBytes && load_le<std::uint32_t>(rest) == kEntrySignature) {
    const std::size_t name_bytes = load_le<std::uint16_t>(rest, 28);
    const std::size_t extra_bytes = load_le<std::uint16_t>(rest, 30);
    const std::size_t comment_bytes = load_le<std::uint16_t>(rest, 32);
    if (rest.size() - kEntryBytes < name_bytes + extra_bytes + comment_bytes) {
      return wrong("its directory is cut off");
    }
    if (taken.size() == most_members_) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} has more than {} members", archive_.name(), most_members_),
                  {{"max-entries"}});
    }
    CentralEntry entry;
    entry.name = text_of(rest.subspan(kEntryBytes, name_bytes));
    entry.flags = load_le<std::uint16_t>(rest, 8);
    entry.member.method = load_le<std::uint16_t>(rest, 10);
    entry.member.crc32 = load_le<std::uint32_t>(rest, 16);
    entry.member.packed_bytes = load_le<std::uint32_t>(rest, 20);
    entry.member.size_bytes = load_le<std::uint32_t>(rest, 24);
    entry.member.is_encrypted = (entry.flags & kEncryptedFlag) != 0;
    entry.header_offset = load_le<std::uint32_t>(rest, 42);
    if (!take_zip64(rest.subspan(kEntryBytes + name_bytes, extra_bytes), entry)) {
      return wrong(fmt::format("member {}: its 64-bit sizes are cut off", entry.name));
    }
    const auto shifted = checked_add(entry.header_offset, where->shift);
    if (!shifted) return wrong("its directory leads out of it");
    entry.header_offset = *shifted;
    const Result<std::uint64_t> data = check_local(entry);
    if (!data) return propagate(data);
    const std::uint64_t end = *data + entry.member.packed_bytes;
    if (end > where->offset) {
      return wrong(fmt::format("member {}: lies over the archive's directory", entry.name));
    }
    taken.push_back({entry.header_offset, end - entry.header_offset});
    members.emplace(*data, entry.member);
    rest = rest.subspan(kEntryBytes + name_bytes + extra_bytes + comment_bytes);
  }
  std::ranges::sort(taken, {}, &Range::offset);
  for (std::size_t i = 1; i < taken.size(); ++i) {
    if (taken[i].offset < taken[i - 1].end()) {
      return wrong(fmt::format("byte {}: two members overlap", taken[i].offset));
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<const ZipDirectory>> ZipDirectory::read(ByteSource& archive,
                                                               std::uint64_t most_members) {
  auto directory = std::make_unique<ZipDirectory>();
  if (Result<void> good =
          ZipDirectoryReader(archive, most_members).read(directory->by_data_offset_);
      !good) {
    return propagate(good);
  }
  return directory;
}

std::uint64_t ZipDirectory::offset_of_archive(ByteSource& source) {
  const Result<DirectoryStretch> where = ZipDirectoryReader(source, 0).find_directory();
  return where ? where->shift : 0;
}

std::optional<std::uint64_t> ZipDirectory::end_of_archive(ByteSource& source) {
  const Result<DirectoryStretch> where = ZipDirectoryReader(source, 0).find_directory();
  if (!where) return std::nullopt;
  return where->end;
}

const ZipDirectory::Item* ZipDirectory::find(std::uint64_t data_offset) const {
  const auto found = by_data_offset_.find(data_offset);
  return found == by_data_offset_.end() ? nullptr : &found->second;
}

}  // namespace mkvirtfs::archive
