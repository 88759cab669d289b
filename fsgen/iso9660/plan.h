// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/image.h"
#include "fsgen/image/duplicates.h"
#include "fsgen/image/planned_image.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::iso9660 {

/// The second hierarchy, for systems that do not know Rock Ridge: names of up to 64 characters, or
/// of 103, which every reader that is known takes but the specification does not have.
enum class Joliet : std::uint8_t { none, standard, longer };

/// What stands in Joliet for characters beyond 16 bits.
enum class JolietCharacters : std::uint8_t {
  ucs2,   ///< "_": the specification has UCS-2, and libcdio loses a directory with anything else
  utf16,  ///< pairs of units, as Windows and Linux read them
};

/// Where directories stand that lie deeper than the 8 levels of ECMA-119 (6.8.2.1), or whose
/// files' paths would have more than 255 characters: where they are, which all known readers take;
/// or in a directory of their own in the root, which readers of Rock Ridge show where they belong
/// (CL, PL, RE), but GRUB does not find.
enum class DeepDirectories : std::uint8_t { keep, relocate };

/// The fields of a volume descriptor that are for people (ECMA-119, 8.4). The last three name files
/// in the root.
enum class Field : std::uint8_t {
  system,
  volume_set,
  publisher,
  preparer,
  application,
  copyright,
  abstract,
  bibliographic,
};
inline constexpr std::size_t kFields = 8;
/// "volume-set"
std::string_view name_of(Field field) noexcept;
std::optional<Field> parse_field(std::string_view name) noexcept;

/// What ISO 9660 has of boot code's own: a boot record with a catalogue, files at low addresses,
/// room behind the volume. What they hold (the catalogue, boot information tables, the system area,
/// partition tables) is patched into the planned image: see fsgen/image/patched_image.h.
struct Boot {
  struct File {
    std::string path;  ///< of a regular file that is not empty, below the root
    std::uint32_t align_blocks = 1;
    bool is_last = false;  ///< it stands behind all others, not before
  };
  std::vector<File> files;       ///< stand before all others, in this order
  bool catalog = false;          ///< an El Torito boot record, and a block for its catalogue
  std::uint64_t tail_bytes = 0;  ///< behind the volume: appended partitions, a second GPT
  /// The image is a multiple of so many bytes, which is one of 2048: the tail is longer.
  std::uint64_t align_bytes = 2048;
};

struct Options {
  unsigned level = 3;  ///< of interchange, 1 to 3 (ECMA-119, 10)
  Joliet joliet = Joliet::standard;
  JolietCharacters joliet_characters = JolietCharacters::ucs2;
  DeepDirectories deep = DeepDirectories::keep;
  /// Of what the descriptors leave to applications; implantisomd5 takes no other for unused.
  std::byte application_use{' '};
  /// Up to 32 characters of ASCII; Joliet has the first 16.
  std::string label;
  struct FieldText {
    Field field;
    std::string text;
  };
  std::vector<FieldText> fields;
  /// The volume's dates as 16 digits, "YYYYMMDDHHMMSScc", which readers take for its UUID; unset:
  /// made_at_s, or the newest mtime of the tree.
  std::optional<std::string> volume_time;
  std::optional<std::int64_t> made_at_s;
  /// The image is as long as it is, or a multiple of 32 KiB.
  bool pad = false;
  /// Sorted by node; find_duplicates() makes them.
  std::vector<Duplicate> duplicates;
  Boot boot;
  /// What stands in the tree instead of symlinks, for differences().
  std::vector<Difference> followed;
};

/// "2023-11-14-22-13-20-00", as blkid shows a volume's date for a UUID, or the digits alone; the
/// digits, or nullopt when malformed.
std::optional<std::string> parse_volume_time(std::string_view text);

/// Sizes and places everything before a byte of a file is read; time and memory grow with the
/// number of names, not of bytes (law 3). The format is ECMA-119 with Rock Ridge (SUSP and RRIP
/// 1.10) and Joliet (revision 1).
///
/// Errors: Errc::usage for options that contradict each other or the format; Errc::does_not_fit
/// with the path and the limit for what the format cannot hold.
Result<std::shared_ptr<const PlannedImage>> plan(std::shared_ptr<const SourceTree> tree,
                                                 const Options& options);

}  // namespace mkvirtfs::iso9660
