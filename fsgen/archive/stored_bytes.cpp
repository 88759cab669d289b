// SPDX-License-Identifier: BSD-3-Clause
// tar, cpio, ar and ISO 9660 store bytes as they are, behind the header that libarchive has just
// read. Of zip and ISO 9660 their own directories say more than libarchive does: how a member is
// packed, and where its sections lie. All other formats must be unpacked.
#include "fsgen/archive/stored_bytes.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cassert>
#include <utility>

namespace mkvirtfs::archive {
namespace {

// tar's blocks: what is stored is padded to the next one. Other formats pad less.
constexpr std::uint64_t kMostPaddingBytes = 511;

enum class Storing : std::uint8_t { as_it_is, by_directory, packed };

Storing storing_of(int base_format) {
  switch (base_format) {
    case ARCHIVE_FORMAT_TAR:
    case ARCHIVE_FORMAT_CPIO:
    case ARCHIVE_FORMAT_AR:
    case ARCHIVE_FORMAT_ISO9660:
      return Storing::as_it_is;
    case ARCHIVE_FORMAT_ZIP:
      return Storing::by_directory;
    default:
      return Storing::packed;
  }
}

}  // namespace

Result<void> StoredBytes::begin(Formats formats) {
  if (!source_ || formats != Formats::all) return {};
  const Result<bool> is_iso = is_iso9660(*source_);
  if (!is_iso) return propagate(is_iso);
  if (!*is_iso) return {};
  // Before libarchive, which follows continuation areas that form a loop for ever.
  Result<IsoDirectory> read = IsoDirectory::read(*source_, limits_.most_members);
  if (!read) return propagate(read);
  iso_ = std::move(*read);
  return {};
}

Result<bool> StoredBytes::find(const ArchiveHandle& handle) {
  const int format = handle.base_format();
  const bool is_iso = format == ARCHIVE_FORMAT_ISO9660;
  const Storing storing = storing_of(format);
  if (storing == Storing::by_directory) return find_in_zip(handle);
  if (storing == Storing::packed) return false;
  if (is_iso) {
    const Result<bool> is_plain = is_plain_in_iso(handle);
    if (!is_plain || !*is_plain) return is_plain;
  }
  const Range stored{handle.data_offset(), member_.stored_bytes()};
  if (source_ && stored.length != 0 &&
      (stored.offset > source_->size_bytes() ||
       stored.length > source_->size_bytes() - stored.offset)) {
    return messages_.wrong(fmt::format("has {} bytes from {} on, but the archive ends at {}",
                                       stored.length, stored.offset, source_->size_bytes()));
  }
  if (stored.length != 0) {
    member_.place = MemberPlace::stored;
    member_.data_offset = stored.offset;
  }
  if (!is_iso) last_ = stored;
  return true;
}

Result<bool> StoredBytes::is_plain_in_iso(const ArchiveHandle& handle) const {
  if (member_.size_bytes == 0) return true;
  if (!iso_) return false;
  switch (iso_->storage(handle.data_offset(), member_.size_bytes)) {
    case IsoDirectory::Storage::plain:
      return true;
    case IsoDirectory::Storage::in_sections:
    case IsoDirectory::Storage::zisofs:
      return false;
    case IsoDirectory::Storage::unknown:
      break;
  }
  return messages_.wrong(
      "is stored in a way that cannot be read here (zisofs 2, sparse or interleaved)",
      Errc::unsupported);
}

Result<bool> StoredBytes::find_in_zip(const ArchiveHandle& handle) {
  assert(source_);
  if (!zip_) {
    auto read = ZipDirectory::read(*source_, limits_.most_members);
    if (!read) return propagate(read);
    zip_ = std::move(*read);
  }
  const ZipDirectory::Item* const where = zip_->find(handle.data_offset());
  if (where == nullptr || where->is_encrypted) return false;
  if (where->size_bytes != member_.size_bytes) {
    return messages_.wrong(fmt::format("has {} bytes, and {} in the archive's directory",
                                       member_.size_bytes, where->size_bytes));
  }
  if (where->method != ZipDirectory::kStored && where->method != ZipDirectory::kDeflated) {
    return false;
  }
  if (where->method == ZipDirectory::kStored && where->packed_bytes != where->size_bytes) {
    return messages_.wrong("is stored, but in another size than it has");
  }
  if (member_.size_bytes == 0) return true;
  member_.place =
      where->method == ZipDirectory::kStored ? MemberPlace::stored : MemberPlace::deflated;
  member_.data_offset = handle.data_offset();
  member_.packed_bytes = where->packed_bytes;
  member_.crc32 = where->crc32;
  return true;
}

Result<void> StoredBytes::check_end(const ArchiveHandle& handle) const {
  if (!last_) return {};
  const std::uint64_t end = handle.header_offset();
  if (end >= last_->end() && end - last_->end() <= kMostPaddingBytes) return {};
  return messages_.wrong("its bytes do not end where the next member begins");
}

}  // namespace mkvirtfs::archive
