// SPDX-License-Identifier: BSD-3-Clause
// All directories of all hierarchies are read once, from the root records of the volume
// descriptors. Each file's record goes into a list, sorted by where the bytes begin, with what
// its flags and its system use area say about how they are stored.
#include "fsgen/archive/iso_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "support/byte_order.h"

namespace mkvirtfs::archive {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kSectorBytes = 2048;
constexpr std::uint64_t kFirstDescriptor = 16;
// Images have four of them or fewer.
constexpr std::uint64_t kMostDescriptors = 64;
constexpr std::size_t kRecordBytes = 33;
constexpr std::size_t kRootRecordAt = 156;
// Linux gives up after 32.
constexpr std::size_t kMostContinuations = 256;

// SUSP 1.12, 5.3: "SP", whose own length is always this.
constexpr std::size_t kSharingBytes = 7;
// Blocks of 32, 64 or 128 KiB: what libarchive and Linux unpack.
constexpr unsigned kLeastZisofsShift = 15;
constexpr unsigned kMostZisofsShift = 17;

constexpr unsigned kDirectoryFlag = 0x02;
constexpr unsigned kMoreSectionsFlag = 0x80;

unsigned u8(Bytes bytes, std::size_t at) { return std::to_integer<unsigned>(bytes[at]); }

std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool is_descriptor(Bytes sector) { return text_of(sector.subspan(1, 5)) == "CD001"; }

/// A directory that is still to be read.
struct DirectoryExtent {
  std::uint64_t block = 0;
  std::uint32_t size_bytes = 0;
};

/// Where a system use area goes on.
struct Continuation {
  std::uint32_t block = 0;
  std::uint32_t offset = 0;
  std::uint32_t size_bytes = 0;

  friend auto operator<=>(const Continuation&, const Continuation&) = default;
};

}  // namespace

class IsoDirectoryReader {
 public:
  using Storage = IsoDirectory::Storage;

  IsoDirectoryReader(ByteSource& image, std::uint64_t most_members)
      : image_(image), most_members_(most_members) {}

  Result<IsoDirectory> run();

 private:
  std::unexpected<Error> wrong(std::uint64_t at, std::string_view what) const {
    return fail(Errc::unreadable, fmt::format("{}: byte {}: {}", image_.name(), at, what));
  }
  std::unexpected<Error> too_many_members(std::uint64_t at) const {
    return fail(
        Errc::does_not_fit,
        fmt::format("{}: byte {}: it has more than {} members", image_.name(), at, most_members_),
        {{"max-entries"}});
  }
  bool holds(std::uint64_t offset, std::uint64_t length) const {
    return offset <= image_.size_bytes() && length <= image_.size_bytes() - offset;
  }
  Result<void> take_descriptors();
  void add_root(Bytes descriptor);
  Result<void> take_directory(const DirectoryExtent& directory);
  Result<void> take_record(Bytes record, std::uint64_t at);
  /// What its system use area says of how the file is stored.
  Result<void> take_system_use(Bytes record, std::uint64_t at, IsoDirectory::Record& made);
  /// One part of it; returns where it goes on.
  Result<std::optional<Continuation>> take_fields(Bytes area, std::uint64_t at,
                                                  IsoDirectory::Record& made);

  ByteSource& image_;
  const std::uint64_t most_members_;
  std::uint64_t block_bytes_ = kSectorBytes;
  std::vector<DirectoryExtent> roots_;
  std::vector<DirectoryExtent> pending_;  // of one hierarchy
  std::set<std::uint64_t> seen_;          // where directories begin
  std::uint64_t directory_bytes_ = 0;
  bool has_susp_ = false;  // the hierarchy
  std::size_t skip_ = 0;   // of each system use area: SUSP, 5.3
  std::vector<std::byte> buffer_;
  std::vector<std::byte> area_;
  IsoDirectory made_;
};

Result<IsoDirectory> IsoDirectoryReader::run() {
  if (Result<void> good = take_descriptors(); !good) return propagate(good);
  for (const DirectoryExtent& root : roots_) {
    has_susp_ = false;
    skip_ = 0;
    pending_.assign({root});
    while (!pending_.empty()) {
      const DirectoryExtent directory = pending_.back();
      pending_.pop_back();
      if (Result<void> good = take_directory(directory); !good) {
        return propagate(good);
      }
    }
  }
  std::ranges::sort(made_.records_);
  return std::move(made_);
}

Result<void> IsoDirectoryReader::take_descriptors() {
  std::array<std::byte, kSectorBytes> sector{};
  for (std::uint64_t i = 0; i < kMostDescriptors; ++i) {
    const std::uint64_t at = (kFirstDescriptor + i) * kSectorBytes;
    if (!holds(at, sector.size())) break;
    if (Result<void> good = image_.read(at, sector); !good) return good;
    if (!is_descriptor(sector)) break;
    const unsigned type = u8(sector, 0);
    if (type == 255) break;
    // The primary one, and supplementary ones: Joliet, long names.
    if (type == 1 || type == 2) add_root(sector);
  }
  return {};
}

void IsoDirectoryReader::add_root(Bytes descriptor) {
  const auto block_bytes = load_le<std::uint16_t>(descriptor, 128);
  if (block_bytes != 0) block_bytes_ = block_bytes;
  const Bytes root = descriptor.subspan(kRootRecordAt, kRecordBytes);
  roots_.push_back({load_le<std::uint32_t>(root, 2), load_le<std::uint32_t>(root, 10)});
}

Result<void> IsoDirectoryReader::take_directory(const DirectoryExtent& directory) {
  const std::uint64_t start = directory.block * block_bytes_;
  if (!seen_.insert(start).second) return {};
  if (seen_.size() > most_members_) {
    return too_many_members(start);
  }
  if (!holds(start, directory.size_bytes))
    return wrong(start, "a directory leads out of the image");
  directory_bytes_ += directory.size_bytes;
  if (directory_bytes_ > image_.size_bytes()) return wrong(start, "directories overlap");
  for (std::uint64_t done = 0; done < directory.size_bytes; done += kSectorBytes) {
    const std::uint64_t at = start + done;
    buffer_.resize(static_cast<std::size_t>(
        std::min<std::uint64_t>(kSectorBytes, directory.size_bytes - done)));
    if (Result<void> good = image_.read(at, buffer_); !good) return good;
    for (std::size_t in = 0; in < buffer_.size();) {
      const std::size_t length = u8(buffer_, in);
      if (length == 0) break;  // the rest of the sector is padding
      if (length < kRecordBytes + 1 || length > buffer_.size() - in) {
        return wrong(at + in, "a directory record is damaged");
      }
      const Bytes record = Bytes(buffer_).subspan(in, length);
      if (Result<void> good = take_record(record, at + in); !good) return good;
      in += length;
    }
  }
  return {};
}

Result<void> IsoDirectoryReader::take_record(Bytes record, std::uint64_t at) {
  const std::size_t name_bytes = u8(record, 32);
  if (name_bytes > record.size() - kRecordBytes) return wrong(at, "a name leads out of its record");
  const std::uint64_t block = load_le<std::uint32_t>(record, 2);
  const unsigned flags = u8(record, 25);
  const bool is_itself_or_parent = name_bytes == 1 && u8(record, kRecordBytes) <= 1;
  IsoDirectory::Record made{block * block_bytes_, load_le<std::uint32_t>(record, 10)};
  if ((flags & kMoreSectionsFlag) != 0) made.storage = Storage::in_sections;
  // An extended attribute record before the bytes, or gaps between them: no known program writes
  // that.
  if (u8(record, 1) != 0 || u8(record, 26) != 0 || u8(record, 27) != 0) {
    made.storage = Storage::unknown;
  }
  if (Result<void> good = take_system_use(record, at, made); !good) return good;
  if (is_itself_or_parent) return {};
  if ((flags & kDirectoryFlag) != 0) {
    pending_.push_back({block, made.size_bytes});
    return {};
  }
  if (made_.records_.size() == most_members_) {
    return too_many_members(at);
  }
  made_.records_.push_back(made);
  return {};
}

Result<void> IsoDirectoryReader::take_system_use(Bytes record, std::uint64_t at,
                                                 IsoDirectory::Record& made) {
  const std::size_t name_bytes = u8(record, 32);
  // The name is padded to an even offset.
  const std::size_t name_end = kRecordBytes + name_bytes;
  Bytes area = record.subspan(std::min(record.size(), name_end + (name_end % 2)));
  // The first record of a hierarchy says whether its areas have such fields.
  if (area.size() >= kSharingBytes && text_of(area.first(2)) == "SP") {
    has_susp_ = true;
    skip_ = u8(area, 6);
    area = area.subspan(kSharingBytes);
  }
  if (!has_susp_) return {};
  area = area.subspan(std::min(skip_, area.size()));
  std::uint64_t area_offset = at + (record.size() - area.size());
  std::set<Continuation> seen;
  while (true) {
    const auto next = take_fields(area, area_offset, made);
    if (!next) return propagate(next);
    if (!*next) return {};
    if (!seen.insert(**next).second || seen.size() > kMostContinuations) {
      return wrong(at, "its Rock Ridge continuation areas form a loop");
    }
    area_offset = (*next)->block * block_bytes_ + (*next)->offset;
    if ((*next)->size_bytes > kSectorBytes || !holds(area_offset, (*next)->size_bytes)) {
      return wrong(at, "a Rock Ridge continuation area leads out of the image");
    }
    area_.resize((*next)->size_bytes);
    if (Result<void> good = image_.read(area_offset, area_); !good) return good;
    area = area_;
  }
}

Result<std::optional<Continuation>> IsoDirectoryReader::take_fields(Bytes area, std::uint64_t at,
                                                                    IsoDirectory::Record& made) {
  std::optional<Continuation> next;
  // A field: signature, length, version, data.
  for (std::size_t in = 0; area.size() - in >= 4;) {
    const std::size_t length = u8(area, in + 2);
    if (length < 4 || length > area.size() - in) break;  // padding
    const Bytes field = area.subspan(in, length);
    const std::string_view signature = text_of(field.first(2));
    if (signature == "ST") break;
    if (signature == "CE" && length == 28) {
      if (next) return wrong(at + in, "a system use area goes on in two places");
      next = Continuation{load_le<std::uint32_t>(field, 4), load_le<std::uint32_t>(field, 12),
                          load_le<std::uint32_t>(field, 20)};
    } else if (signature == "ZF") {
      made.storage = Storage::unknown;
      if (length == 16 && u8(field, 3) == 1 && text_of(field.subspan(4, 2)) == "pz" &&
          u8(field, 7) >= kLeastZisofsShift && u8(field, 7) <= kMostZisofsShift) {
        made.storage = Storage::zisofs;
        made.size_bytes = load_le<std::uint32_t>(field, 8);
      }
    } else if (signature == "SF") {
      made.storage = Storage::unknown;
    }
    in += length;
  }
  return next;
}

Result<bool> is_iso9660(ByteSource& source) {
  std::array<std::byte, 6> start{};
  constexpr std::uint64_t kAt = kFirstDescriptor * kSectorBytes;
  if (source.size_bytes() < kAt + kSectorBytes) return false;
  if (Result<void> good = source.read(kAt, start); !good) return propagate(good);
  return is_descriptor(start);
}

Result<IsoDirectory> IsoDirectory::read(ByteSource& image, std::uint64_t most_members) {
  return IsoDirectoryReader(image, most_members).run();
}

IsoDirectory::Storage IsoDirectory::storage(std::uint64_t data_offset,
                                            std::uint64_t size_bytes) const {
  Storage found = Storage::plain;
  bool is_told = false;
  for (const Record& record :
       std::ranges::equal_range(records_, data_offset, {}, &Record::data_offset)) {
    // Empty files may all name the same block.
    if (record.size_bytes == 0) continue;
    // What is compressed in one hierarchy may be plain bytes in another: the worst of them counts.
    if (record.storage > found) {
      found = record.storage;
      is_told = false;
    }
    if (record.storage == found && record.size_bytes == size_bytes) is_told = true;
  }
  if (found == Storage::plain && !is_told) return Storage::in_sections;
  // libarchive has not seen that it is compressed.
  if (found == Storage::zisofs && !is_told) return Storage::unknown;
  return found;
}

}  // namespace mkvirtfs::archive
