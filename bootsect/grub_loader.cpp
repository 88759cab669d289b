// SPDX-License-Identifier: BSD-3-Clause
//
// GRUB for BIOS as a row of the loaders: nothing of it stands in the volume but grub.cfg. Its code
// is the disk's, in the MBR and behind it, or in a BIOS-boot partition.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "bootsect/boot_loader.h"
#include "bootsect/gpt.h"
#include "bootsect/grub.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::string_view kBoot = "boot.img";
constexpr std::string_view kCore = "core.img";
constexpr std::array<std::string_view, 1> kConfigPaths{"boot/grub/grub.cfg"};
constexpr std::string_view kBiosBoot = "bios-boot";

Result<void> check(const BootPlace& place) {
  if (!place.table) {
    return fail(Errc::unsupported, "GRUB for BIOS has no place on a disk without a partition table",
                {{"table", "mbr"}, {"table", "gpt"}});
  }
  const std::string_view format = place.format;
  if (!format.starts_with("fat") && !format.starts_with("ext") && format != "iso") {
    return fail(
        Errc::unsupported,
        fmt::format("GRUB boots from FAT, ext2, ext3, ext4 and ISO 9660, not from {}", format),
        {{"fs", "ext4"}});
  }
  if (place.sector_bytes == kUsualSectorBytes) return {};
  return fail(Errc::unsupported,
              fmt::format("GRUB for BIOS boots from disks with sectors of {} bytes, not {}",
                          kUsualSectorBytes, place.sector_bytes),
              {{"sector-size", fmt::format("{}", kUsualSectorBytes)}});
}

std::vector<PieceRequest> pieces_of(const BootPlace& place) {
  return {{kBoot, {}}, {kCore, grub_prefix(*place.table, place.partition)}};
}

Result<std::vector<BootFile>> files_of(const PieceBytes&, const BootPlace&) {
  return std::vector<BootFile>();
}

Result<std::vector<Patch>> volume_patches(const PieceBytes&, const BootPlace&,
                                          const PlannedImage&) {
  return std::vector<Patch>();
}

Result<std::vector<Patch>> disk_patches(const PieceBytes& pieces, const BootPlace& place,
                                        std::span<const PlacedPart> parts) {
  const Result<GrubTemplate> from = check_grub(piece(pieces, kBoot), piece(pieces, kCore));
  if (!from) return propagate(from);
  if (*place.table == TableKind::mbr) return grub_patches(*from, 1);
  const auto bios_boot = std::ranges::find(parts, kBiosBoot, &PlacedPart::type);
  if (bios_boot == parts.end()) {
    return fail(Errc::usage, "GRUB for BIOS needs a BIOS-boot partition in a GPT",
                {{"partition", "blank,size=1M,type=bios-boot"}});
  }
  return grub_patches(*from, bios_boot->range.offset / place.sector_bytes);
}

/// The kernel's parameters; blanks between double quotes part nothing.
std::vector<std::string> words_of(std::string_view append) {
  std::vector<std::string> words(1);
  bool is_quoted = false;
  for (const char each : append) {
    if (each == '"') is_quoted = !is_quoted;
    if (each == ' ' && !is_quoted) {
      words.emplace_back();
    } else {
      words.back() += each;
    }
  }
  std::erase(words, "");
  return words;
}

std::string parameters(std::string_view append) {
  std::string text;
  for (std::string& word : words_of(append)) {
    std::erase(word, '"');
    text += " " + grub_word(word);
  }
  return text;
}

/// What a BIOS shows is no serial port's; UEFI's console goes where the firmware has it.
std::string config(const BootEntry& entry) {
  return "if serial -u 0 -s 115200; then\n"
         "  terminal_input console serial\n"
         "  terminal_output console serial\n"
         "fi\n" +
         grub_menu(entry);
}

}  // namespace

/// Of a word and of its value, the kernel takes off the quotes around them. GRUB puts quotes of its
/// own around a word with blanks, and a backslash before each quote and backslash in a word: what
/// has others does not arrive.
Result<void> check_grub_append(std::string_view append) {
  for (const std::string& word : words_of(append)) {
    const auto quotes = std::ranges::count(word, '"');
    const std::size_t first = word.find('"');
    const bool is_around =
        quotes == 2 && word.back() == '"' && (first == 0 || first == word.find('=') + 1);
    if (word.find_first_of("'\\") == word.npos && (quotes == 0 || is_around)) continue;
    return fail(Errc::unsupported,
                fmt::format("GRUB would give the kernel {} with a backslash before each quote and "
                            "backslash: of these, it takes double quotes around a value",
                            word));
  }
  return {};
}

std::string grub_word(std::string_view word) {
  std::string text = "'";
  for (const char each : word) text += each == '\'' ? std::string("'\\''") : std::string(1, each);
  return text + "'";
}

std::string grub_menu(const BootEntry& entry) {
  std::string text = fmt::format("set default=0\nset timeout={}\n", entry.timeout_s.value_or(0));
  text += fmt::format("menuentry 'linux' {{\n  linux {}{}\n", grub_word("/" + entry.kernel),
                      parameters(entry.append));
  std::string initrds;
  for (const std::string& initrd : entry.initrds) initrds += " " + grub_word("/" + initrd);
  if (!initrds.empty()) text += fmt::format("  initrd{}\n", initrds);
  return text + "}\n";
}

BootLoader grub_loader() noexcept {
  return {.name = "grub",
          .title = "GRUB",
          .mbr_code = "GRUB",
          .check = check,
          .config_paths = kConfigPaths,
          .made_config = kConfigPaths.front(),
          .config = config,
          .check_append = check_grub_append,
          .quotes_paths = true,
          .pieces = pieces_of,
          .files = files_of,
          .wants_bios_boot = true,
          .volume_patches = volume_patches,
          .disk_patches = disk_patches};
}

}  // namespace mkvirtfs::bootsect
