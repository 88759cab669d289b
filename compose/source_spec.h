// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "block/host_files.h"
#include "fsgen/archive/layer_tree.h"
#include "fsgen/archive/member_path.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/host/scan.h"
#include "fsgen/oci/document.h"
#include "fsgen/tree/layers_below.h"

// What a source of an image is, as plain data.

namespace mkvirtfs {

/// How an archive, or a container image, is read, and what that may cost.
struct ArchiveSpec {
  archive::DataOrder data_order = archive::DataOrder::archive;
  archive::UnsafeNames unsafe_names = archive::UnsafeNames::error;
  LayerSymlinks layer_symlinks = LayerSymlinks::follow;
  archive::PaxGlobals pax_globals = archive::PaxGlobals::apply;
  /// tar: blocks of zeroes end nothing; what is behind them is read, too.
  bool ignores_zeros = false;

  /// Of names in zip archives that do not say that they are UTF-8; "": they stay as they are.
  std::string charset{};

  /// For encrypted members of zip archives; tried in this order.
  std::vector<std::string> passphrases{};
  /// More of them, one a line; read when the source is. May be a pipe. "": none.
  std::string passphrase_file{};

  std::uint64_t most_members = 10'000'000;
  /// Of all members together, unpacked, holes included.
  std::uint64_t most_bytes = std::uint64_t{2} << 40;
  /// How many times its size a compressed archive may unpack to; the first 64 MiB are free.
  std::uint64_t most_ratio = 1000;
  /// For the helper process that reads 7z, ISO 9660 and the like.
  std::uint64_t reader_memory_bytes = std::uint64_t{1} << 30;
  /// For the index of one compressed stream.
  std::uint64_t index_memory_bytes = std::uint64_t{32} << 20;

  // Instead of what ResourceOptions says of all sources. Sources that ask for the same share it.
  std::optional<std::uint64_t> cache_memory_bytes{};
  std::optional<std::string> index_directory{};  ///< "": none
  std::optional<std::string> spool_directory{};  ///< "": none
  std::optional<std::uint64_t> spool_limit_bytes{};
};

/// What a source that is a file is taken for.
enum class SourceFormat : std::uint8_t {
  by_magic,  ///< an image of a file system where it has the magic numbers of one, else an archive
  archive,
  ext,  ///< an image of ext2, ext3 or ext4
  fat,  ///< an image of FAT12, FAT16 or FAT32
  erofs,
  iso,  ///< an image of ISO 9660
};

/// One source of an image, and where in the image it stands.
struct SourceSpec {
  /// A host directory, an archive ("-" is one on standard input), an image of a file system, a
  /// directory of either ("x.tar.gz//rootfs"), a partition of a disk image ("disk.img:2"), what an
  /// NBD server has ("nbd://host/name", "nbd://host/name#2"), or a container image
  /// ("oci:PATH[:REF]", "oci-archive:PATH[:REF]", "docker-archive:PATH[:REF]").
  std::string path{};
  /// The directory of the image at which its root stands; "" is the image's root.
  std::string at{};
  /// `path` is a file that stands at the path `at`, whatever it holds; "-", pipes and devices are
  /// read to their end first. Without this, so is a file that is no archive where `at` is set.
  bool is_file = false;
  SourceFormat format = SourceFormat::by_magic;

  std::vector<PathRule> rules{};             ///< the first one that matches decides
  std::optional<std::uint32_t> owner_uid{};  ///< wins over the mappings
  std::optional<std::uint32_t> owner_gid{};
  std::vector<IdMapping> uid_map{};
  std::vector<IdMapping> gid_map{};
  std::uint16_t mode_mask = 07777;  ///< permission bits that stay
  bool one_file_system = true;      ///< enter no mount point
  bool xattrs = true;
  bool skip_unreadable = false;  ///< leave out what cannot be read; else that is an error
  /// With skip_unreadable: files of a disk image whose bytes cannot be had stay, and reads of them
  /// are errors.
  bool keep_unreadable = false;
  /// Have the source's file systems written back first, and fail when one takes longer.
  std::optional<std::chrono::milliseconds> sync_within{};
  ChangeRules changes{OnChange::error, ChangeCheck::ctime};
  unsigned threads = 0;  ///< at most so many; 0: as ResourceOptions says

  ArchiveSpec archive{};
  std::optional<oci::Platform> platform{};  ///< of a container image; unset: this host's
  /// Also read the layers that are not compressed for their digests.
  bool verify_layers = true;
};

}  // namespace mkvirtfs
