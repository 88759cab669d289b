// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/content.h"
#include "block/image.h"
#include "bootsect/partition_type.h"
#include "fsgen/image/patched_image.h"
#include "fsgen/image/planned_image.h"
#include "support/error.h"
#include "support/uuid.h"

namespace mkvirtfs::bootsect {

/// What stands in a part of a disk: an image, and the store that has the contents which its map
/// names.
struct PartContents {
  std::shared_ptr<const Image> image;
  std::shared_ptr<ContentStore> store;
  std::uint32_t content_count = 0;  ///< the map names contents below this
  /// What it is to a table where Part::type says nothing.
  PartitionType type{};
  bool is_blank = false;  ///< zeroes: boot code may stand there
};

PartContents planned_contents(std::shared_ptr<const PlannedImage> image,
                              std::shared_ptr<ContentStore> store);
/// A file as it is: the first `size_bytes`, more than 0, of a content.
PartContents raw_contents(std::shared_ptr<ContentStore> store, ContentNo content,
                          std::uint64_t size_bytes, std::string name);
/// Zeroes; more than 0.
PartContents blank_contents(std::uint64_t size_bytes);
/// Zeroes with boot code among them, whose offset is that in the part.
PartContents code_contents(std::uint64_t size_bytes, const Patch& code);
/// Swap space with a header as mkswap(8) makes it, in pages of 4096 bytes. Errors: Errc::usage for
/// a label of more than 16 bytes, Errc::does_not_fit for less than ten pages.
Result<PartContents> swap_contents(std::uint64_t size_bytes, const Uuid& uuid,
                                   std::string_view label);

/// A partition that is wanted, or a blob outside the table.
struct Part {
  /// Makes what stands in it, once it is known at which byte of the disk it begins: FAT's hidden
  /// sectors depend on that.
  std::function<Result<PartContents>(std::uint64_t start_bytes)> make;
  std::string source;  ///< for messages, raw bytes; may be empty
  /// Says an error of this part, whose options are `type`, `name`, `size` and `offset`, in the
  /// words in which the part was asked for; null: as it is.
  std::function<Error(Error)> in_words;
  bool in_table = true;
  /// As all that follows up to `attributes`, of what is in the table. Without a name: that of the
  /// contents.
  PartitionType type{};
  std::string name;              ///< GPT only
  bool active = false;           ///< MBR: what its code boots
  std::uint64_t attributes = 0;  ///< GPT: bits of gpt_attributes
  /// Exactly so long; unset: as long as its contents and `free_bytes` behind them.
  std::optional<std::uint64_t> size_bytes;
  std::uint64_t free_bytes = 0;
  /// Unset: at the next multiple of 1 MiB behind the part before it in the list.
  std::optional<std::uint64_t> offset_bytes;
};

enum class TableKind : std::uint8_t { mbr, gpt };

/// The identities of a disk and of its partitions.
struct DiskIds {
  Uuid disk{};
  std::uint32_t mbr = 0;
  std::vector<Uuid> partitions{};  ///< in the order of those in the table

  /// Derived from what the disk is made of, sources and options, before anything is planned: a file
  /// of a partition may name the partition (law 1).
  static DiskIds derived(std::span<const std::byte> seed, std::size_t partition_count);
};

/// The number of partition `index` of `count` in a table, both counted from 0: logical ones of an
/// MBR are numbered from 5 on.
std::uint32_t partition_number(TableKind table, std::size_t index, std::size_t count) noexcept;
/// A partition's PARTUUID by its number, as /dev/disk/by-partuuid has it.
std::string partuuid(TableKind table, const DiskIds& ids, std::uint32_t number);

inline constexpr std::uint32_t kUsualSectorBytes = 512;

/// Where a part came to lie.
struct PlacedPart {
  Range range{};             ///< in the disk; the image at its start may be shorter
  std::uint32_t number = 0;  ///< as the kernel counts: logical ones of an MBR from 5 on; 0: not in
                             ///< the table
  std::string type;          ///< PartitionType::name; empty outside the table
  std::string partuuid;      ///< as /dev/disk/by-partuuid has it; empty outside the table
};

struct DiskOptions {
  TableKind table = TableKind::gpt;
  /// GPT: its MBR shows up to three partitions, too, that which is active before others.
  bool is_hybrid = false;
  std::uint32_t sector_bytes = kUsualSectorBytes;  ///< or 4096
  /// Exactly this size; unset: what is needed, in whole MiB.
  std::optional<std::uint64_t> size_bytes;
  DiskIds ids;
  /// Boot code: patches in the first 440 bytes of the disk, between the table and the first part,
  /// or one in a blank part. Called once everything is placed; may be unset.
  std::function<Result<std::vector<Patch>>(std::span<const PlacedPart> parts)> boot_code{};
};

struct Disk {
  std::shared_ptr<const Image> image;
  std::shared_ptr<ContentStore> store;
  std::vector<PlacedPart> parts;  ///< in the order in which they were given
};

/// Places parts on a disk and makes its table. The disk's map is theirs, shifted.
///
/// Errors: those of `make`; Errc::usage for parts that overlap each other or the table, a name in
/// an MBR, a type that the table does not have, sizes and offsets that are no whole sectors, and
/// when an MBR could show no partition of a hybrid;
/// Errc::does_not_fit for a part or a disk that is too small, with the size that would do, and for
/// what a table cannot say, boot code outside its place among that.
Result<Disk> plan_disk(std::span<const Part> parts, const DiskOptions& options);

}  // namespace mkvirtfs::bootsect
