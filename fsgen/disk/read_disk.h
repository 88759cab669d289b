// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "fsgen/archive/member_log.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/stream/byte_source.h"
#include "support/error.h"
#include "support/log.h"

// Images of file systems as sources: what an image holds, as the members of an archive, whose bytes
// are ranges of the image. Nothing is ever written.

namespace mkvirtfs::disk {

enum class DiskFormat : std::uint8_t {
  ext,  ///< ext2, ext3 and ext4
  fat,  ///< FAT12, FAT16 and FAT32
  erofs,
  iso,  ///< ISO 9660
};
inline constexpr auto kLastDiskFormat = static_cast<std::uint64_t>(DiskFormat::iso);

/// The word for it in options: "ext".
std::string_view to_string(DiskFormat format) noexcept;

/// The file system that a disk begins with, by its magic numbers; nullopt: none that is known.
/// Errc::unreadable when there are several.
Result<std::optional<DiskFormat>> detect(ByteSource& disk);

/// A file system that was read.
struct ReadDisk {
  /// Each directory before what is in it; hard links behind the first name of their file. Files
  /// whose bytes cannot be had are MemberPlace::unreadable.
  archive::MemberLog members;
  std::string format;  ///< for people: "ext4"
  /// What is wrong with the file system, as far as it was noticed; not all of it need be seen in
  /// `members`. The first few were warnings in the log.
  std::uint64_t problem_count = 0;
  std::string first_problem;  ///< "disk.img: byte 12288: inode 12: ..."
};

/// Reads all directories and metadata, and no file's bytes, in this process. Whatever the bytes
/// are, this ends; what is wrong in one place is a problem, and all else is read.
///
/// Errors: Errc::unreadable when nothing can be read at all; Errc::unsupported for features that
/// are not known; Errc::does_not_fit beyond the limits. `log` takes problems and remarks.
Result<ReadDisk> read_disk_here(const std::shared_ptr<ByteSource>& disk, DiskFormat format,
                                const archive::ReadLimits& limits, LogSink& log);

}  // namespace mkvirtfs::disk
