// SPDX-License-Identifier: BSD-3-Clause
//
// A DOS header leads to "PE\0\0", the COFF header, the optional header with its directories, and
// the table of sections (Microsoft's PE Format). Everything is checked against the file's length
// before it is believed.
#include "bootsect/pe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::size_t kDosBytes = 64;
constexpr std::size_t kCoffBytes = 20;
constexpr std::size_t kSectionBytes = 40;
constexpr std::size_t kNameBytes = 8;
constexpr std::uint32_t kMostAlignment = 1u << 16;

constexpr std::uint16_t kSubsystemEfiApplication = 10;
constexpr std::uint32_t kCertificateDirectory = 4;
constexpr std::size_t kDirectoryBytes = 8;

constexpr std::array kMachines = std::to_array<EfiMachine>({
    {0x8664, "x86-64", "BOOTX64.EFI"},
    {0xAA64, "arm64", "BOOTAA64.EFI"},
    {0x014C, "x86", "BOOTIA32.EFI"},
    {0x5064, "riscv64", "BOOTRISCV64.EFI"},
});

std::unexpected<Error> refuse(std::string_view why) {
  return fail(Errc::unsupported, fmt::format("not an executable of UEFI: {}", why));
}

bool is_alignment(std::uint32_t value) noexcept {
  return std::has_single_bit(value) && value <= kMostAlignment;
}

class PeReader {
 public:
  PeReader(std::span<const std::byte> head, std::uint64_t file_bytes)
      : head_(head), file_bytes_(file_bytes) {}

  Result<PeImage> run() {
    if (Result<void> good = read_headers(); !good) return propagate(good);
    if (Result<void> good = read_optional(); !good) return propagate(good);
    if (Result<void> good = read_sections(); !good) return propagate(good);
    return std::move(image_);
  }

 private:
  /// Whether the headers go so far.
  bool has(std::uint64_t offset, std::uint64_t length) const noexcept {
    return offset <= head_.size() && length <= head_.size() - offset;
  }
  bool is_in_file(std::uint64_t offset, std::uint64_t length) const noexcept {
    return offset <= file_bytes_ && length <= file_bytes_ - offset;
  }
  template <class T>
  T get(std::size_t offset) const noexcept {
    return load_le<T>(head_, offset);
  }

  Result<void> read_headers();
  Result<void> read_optional();
  Result<void> read_sections();

  std::span<const std::byte> head_;
  std::uint64_t file_bytes_;
  std::uint16_t section_count_ = 0;
  std::uint16_t optional_bytes_ = 0;
  PeImage image_;
};

Result<void> PeReader::read_headers() {
  if (!has(0, kDosBytes) || std::memcmp(head_.data(), "MZ", 2) != 0) {
    return refuse("it does not begin with MZ");
  }
  const auto signature = get<std::uint32_t>(0x3C);
  constexpr std::size_t kSignatureBytes = 4;
  if (!has(signature, kSignatureBytes + kCoffBytes)) {
    return refuse(fmt::format("its header is not in the first {} bytes", kPeHeadBytes));
  }
  if (std::memcmp(head_.data() + signature, "PE\0\0", kSignatureBytes) != 0) {
    return refuse("it has no PE header");
  }
  image_.coff_offset = static_cast<std::uint32_t>(signature + kSignatureBytes);
  image_.optional_offset = static_cast<std::uint32_t>(image_.coff_offset + kCoffBytes);
  image_.machine = get<std::uint16_t>(image_.coff_offset);
  section_count_ = get<std::uint16_t>(image_.coff_offset + 2);
  optional_bytes_ = get<std::uint16_t>(image_.coff_offset + 16);
  image_.table_offset = image_.optional_offset + optional_bytes_;
  if (!has(image_.optional_offset, optional_bytes_) ||
      !has(image_.table_offset, section_count_ * kSectionBytes)) {
    return refuse(fmt::format("its headers do not end in the first {} bytes", kPeHeadBytes));
  }
  return {};
}

Result<void> PeReader::read_optional() {
  constexpr std::uint16_t kPe32 = 0x10B;
  constexpr std::uint16_t kPe32Plus = 0x20B;
  constexpr std::size_t kLeastBytes = 96;       // PE32 up to its directories
  constexpr std::size_t kLeastPlusBytes = 112;  // PE32+ up to its directories
  const std::size_t at = image_.optional_offset;
  const std::uint16_t magic = optional_bytes_ >= 2 ? get<std::uint16_t>(at) : 0;
  if (magic != kPe32 && magic != kPe32Plus)
    return refuse("its optional header is of no known kind");
  const std::size_t directories = magic == kPe32 ? kLeastBytes : kLeastPlusBytes;
  if (optional_bytes_ < directories) return refuse("its optional header is cut off");
  if (get<std::uint16_t>(at + 68) != kSubsystemEfiApplication) {
    return refuse("it is an executable of another system");
  }
  image_.section_alignment = get<std::uint32_t>(at + 32);
  image_.file_alignment = get<std::uint32_t>(at + 36);
  image_.image_bytes = get<std::uint32_t>(at + 56);
  image_.header_bytes = get<std::uint32_t>(at + 60);
  if (!is_alignment(image_.section_alignment) || !is_alignment(image_.file_alignment)) {
    return refuse("its alignments are no powers of two up to 64 KiB");
  }
  if (!is_in_file(0, image_.header_bytes)) return refuse("its headers are longer than the file");
  const auto count = get<std::uint32_t>(at + directories - 4);
  const std::size_t entry = directories + kCertificateDirectory * kDirectoryBytes;
  if (count <= kCertificateDirectory || optional_bytes_ < entry + kDirectoryBytes) return {};
  image_.certificates = {get<std::uint32_t>(at + entry), get<std::uint32_t>(at + entry + 4)};
  if (image_.is_signed() && !is_in_file(image_.certificates.offset, image_.certificates.length)) {
    return refuse("it is cut off before the end of its certificates");
  }
  return {};
}

Result<void> PeReader::read_sections() {
  for (std::size_t number = 0; number < section_count_; ++number) {
    const std::size_t at = image_.table_offset + number * kSectionBytes;
    PeSection section;
    const auto* const name = reinterpret_cast<const char*>(head_.data() + at);
    section.name.assign(name, ::strnlen(name, kNameBytes));
    section.virtual_bytes = get<std::uint32_t>(at + 8);
    section.virtual_address = get<std::uint32_t>(at + 12);
    section.file_bytes = get<std::uint32_t>(at + 16);
    section.file_offset = get<std::uint32_t>(at + 20);
    if (section.file_bytes != 0 && !is_in_file(section.file_offset, section.file_bytes)) {
      return refuse("it is cut off before the end of a section");
    }
    image_.sections.push_back(std::move(section));
  }
  return {};
}

}  // namespace

const PeSection* PeImage::find(std::string_view name) const noexcept {
  const auto found = std::ranges::find(sections, name, &PeSection::name);
  return found == sections.end() ? nullptr : &*found;
}

Result<PeImage> read_pe(std::span<const std::byte> head, std::uint64_t file_bytes) {
  return PeReader(head, file_bytes).run();
}

std::span<const EfiMachine> efi_machines() noexcept { return kMachines; }

const EfiMachine* find_efi_machine(std::uint16_t machine) noexcept {
  const auto found = std::ranges::find(kMachines, machine, &EfiMachine::machine);
  return found == kMachines.end() ? nullptr : &*found;
}

}  // namespace mkvirtfs::bootsect
