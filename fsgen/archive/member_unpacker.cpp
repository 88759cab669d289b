// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/member_unpacker.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <utility>

#include "fsgen/archive/rar_checksums.h"

namespace mkvirtfs::archive {

Result<void> MemberUnpacker::next_entry(const ArchiveHandle& handle) {
  checksum_.reset();
  const int format = handle.base_format();
  if (!source_ || (format != ARCHIVE_FORMAT_RAR && format != ARCHIVE_FORMAT_RAR_V5)) return {};
  if (!checksums_) {
    auto read = read_rar_checksums(*source_, options_.limits.most_members);
    if (!read) return propagate(read);
    checksums_ = std::move(*read);
  }
  if (entries_ >= checksums_->size()) return messages_.wrong("stands behind the archive's end");
  checksum_ = (*checksums_)[entries_++];
  return {};
}

Result<void> MemberUnpacker::check_checksum(unsigned long found) const {
  if (!checksum_ || *checksum_ == found) return {};
  return messages_.wrong("cannot be unpacked: its checksum is wrong");
}

Result<void> MemberUnpacker::check_symlink() const {
  const std::string_view target = member_.link_target;
  return check_checksum(::crc32_z(0, reinterpret_cast<const Bytef*>(target.data()), target.size()));
}

Result<void> MemberUnpacker::unpack(ArchiveHandle& handle, MemberBudget& budget) {
  ::archive_entry* const entry = handle.entry();
  Progress progress;
  if (archive_entry_size_is_set(entry) != 0) progress.announced = member_.size_bytes;
  if (member_.is_hard_link && member_.size_bytes == 0) return {};
  if (progress.announced == 0) return {};
  if (archive_entry_is_data_encrypted(entry) == 1 && options_.passphrases.empty()) {
    return messages_.wrong("is encrypted", Errc::unsupported, {{"passphrase-file"}});
  }
  if (sink_ == nullptr) {
    return messages_.wrong("can only be unpacked into a spool, and there is none",
                           Errc::unsupported);
  }
  member_.is_sparse = false;
  member_.stored_runs.clear();
  while (true) {
    const void* bytes = nullptr;
    std::size_t count = 0;
    la_int64_t offset = 0;
    const int status = archive_read_data_block(handle.get(), &bytes, &count, &offset);
    if (status == ARCHIVE_EOF) break;
    // A checksum that is wrong is a mere warning to libarchive, with some formats.
    if (status != ARCHIVE_OK) {
      return messages_.wrong(with_context("cannot be unpacked", handle.error()));
    }
    // rar 5 hands out blocks of nothing while it unpacks: no address, no offset.
    if (count == 0) continue;
    if (offset < 0) return messages_.wrong("unpacks to more bytes than its header says");
    const std::span<const std::byte> block(static_cast<const std::byte*>(bytes), count);
    Result<void> taken = take_block(static_cast<std::uint64_t>(offset), block, budget, progress);
    if (!taken) return taken;
  }
  if (Result<void> good = check_checksum(progress.crc); !good) return good;
  if (progress.announced && *progress.announced != progress.size_bytes) {
    return messages_.wrong(fmt::format("has {} bytes, but only {} are there", *progress.announced,
                                       progress.size_bytes));
  }
  if (!progress.announced) budget.take(progress.size_bytes);
  member_.size_bytes = progress.size_bytes;
  if (member_.size_bytes != 0) {
    member_.place = MemberPlace::spooled;
    member_.data_offset = unpacked_bytes_;
  }
  unpacked_bytes_ += progress.size_bytes;
  return {};
}

Result<void> MemberUnpacker::take_block(std::uint64_t offset, std::span<const std::byte> bytes,
                                        const MemberBudget& budget, Progress& progress) {
  const std::uint64_t most = progress.announced.value_or(options_.limits.most_bytes);
  const bool is_beyond = offset < progress.size_bytes || offset > options_.limits.most_bytes ||
                         (progress.announced && (offset > most || bytes.size() > most - offset));
  if (is_beyond) return messages_.wrong("unpacks to more bytes than its header says");
  if (Result<void> good = fill_hole(offset, progress); !good) return good;
  if (!progress.announced && !budget.has(progress.size_bytes + bytes.size())) {
    return messages_.wrong(fmt::format("unpacks to more than {} bytes", options_.limits.most_bytes),
                           Errc::does_not_fit, {{"max-size"}});
  }
  if (Result<void> good = sink_->append(bytes); !good) return good;
  if (checksum_) {
    progress.crc =
        ::crc32_z(progress.crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  }
  progress.size_bytes += bytes.size();
  return {};
}

Result<void> MemberUnpacker::fill_hole(std::uint64_t until, Progress& progress) {
  static constexpr std::array<std::byte, 4096> kZeroes{};
  while (progress.size_bytes < until) {
    const std::size_t count = std::min<std::uint64_t>(kZeroes.size(), until - progress.size_bytes);
    if (Result<void> good = sink_->append(std::span(kZeroes).first(count)); !good) return good;
    progress.size_bytes += count;
  }
  return {};
}

}  // namespace mkvirtfs::archive
