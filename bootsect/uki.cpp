// SPDX-License-Identifier: BSD-3-Clause
//
// The stub keeps its bytes. Its table of sections gets more entries, for which its headers have to
// have room; the sections lie behind all that it has, each at the next page of memory and at the
// next multiple of its alignment in the file. The kernel comes last: in memory it is longer than in
// the file, and what it has more is zeroes that may end anywhere.
#include "bootsect/uki.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <utility>

#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::size_t kSectionBytes = 40;
constexpr std::uint64_t kMostBytes = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint64_t kInitrdAlignment = 4;

// In the COFF header and in the optional one.
constexpr std::size_t kSectionCount = 2;
constexpr std::size_t kImageBytes = 56;
constexpr std::size_t kCheckSum = 64;

constexpr std::uint32_t kCode = 0x60000020;  // code, executable, readable
constexpr std::uint32_t kData = 0x40000040;  // initialised data, readable

std::unexpected<Error> too_big() {
  return fail(
      Errc::does_not_fit,
      fmt::format("a unified kernel image ends at {} bytes, and kernel and initrds are more",
                  kMostBytes));
}

Result<void> check_stub(const PeImage& stub, std::span<const UkiSection> sections) {
  if (stub.is_signed()) {
    return fail(Errc::unsupported,
                "the stub of a unified kernel image is signed, and more sections would break that");
  }
  for (const UkiSection& section : sections) {
    if (stub.find(section.name) == nullptr) continue;
    return fail(Errc::unsupported, fmt::format("the stub of a unified kernel image has a section "
                                               "{} already: it is no stub",
                                               section.name));
  }
  // Up to where the headers end, or the first section's bytes begin.
  std::uint64_t room_end = stub.header_bytes;
  for (const PeSection& section : stub.sections) {
    if (section.file_bytes != 0) room_end = std::min<std::uint64_t>(room_end, section.file_offset);
  }
  const std::uint64_t needed =
      stub.table_offset + (stub.sections.size() + sections.size()) * kSectionBytes;
  if (needed <= room_end) return {};
  return fail(Errc::does_not_fit,
              fmt::format("the headers of the stub have no room for {} more sections: they end at "
                          "{} and would need {} bytes",
                          sections.size(), room_end, needed));
}

void put_section(std::span<std::byte> entry, const UkiSection& section, std::uint64_t address,
                 std::uint64_t offset, std::uint64_t file_bytes) {
  std::ranges::fill(entry, std::byte{0});
  assert(section.name.size() <= 8);
  std::ranges::copy(std::as_bytes(std::span(section.name)), entry.begin());
  store_le(entry, 8, static_cast<std::uint32_t>(section.virtual_bytes));
  store_le(entry, 12, static_cast<std::uint32_t>(address));
  store_le(entry, 16, static_cast<std::uint32_t>(file_bytes));
  store_le(entry, 20, static_cast<std::uint32_t>(offset));
  store_le(entry, 36, section.is_code ? kCode : kData);
}

/// One section, and what it is made of.
struct Filled {
  UkiSection section;
  std::vector<ContentPiece> pieces;
};

Filled text_section(std::string_view name, std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  Filled filled{{name, bytes.size(), bytes.size()}, {}};
  filled.pieces.push_back(ContentPiece::memory({bytes.begin(), bytes.end()}));
  return filled;
}

Filled initrd_section(const std::vector<ContentPiece>& initrds) {
  Filled filled{{".initrd"}, {}};
  for (const ContentPiece& initrd : initrds) {
    filled.pieces.push_back(initrd);
    filled.section.file_bytes += initrd.length;
    const std::uint64_t end = round_up(filled.section.file_bytes, kInitrdAlignment);
    if (end == filled.section.file_bytes) continue;
    filled.pieces.push_back(ContentPiece::zeroes(end - filled.section.file_bytes));
    filled.section.file_bytes = end;
  }
  filled.section.virtual_bytes = filled.section.file_bytes;
  return filled;
}

Result<void> check_kernel(const UkiParts& parts) {
  if (parts.kernel_headers.find(".linux") != nullptr) {
    return fail(Errc::unsupported,
                "the kernel is a unified kernel image itself, and starts as one");
  }
  Result<PeImage> stub =
      read_pe(parts.stub.first(std::min(parts.stub.size(), kPeHeadBytes)), parts.stub.size());
  if (!stub) return propagate("the stub of a unified kernel image", stub);
  if (stub->machine == parts.kernel_headers.machine) return {};
  const auto name_of = [](std::uint16_t machine) {
    const EfiMachine* const known = find_efi_machine(machine);
    return known != nullptr ? std::string(known->architecture)
                            : fmt::format("machine {:04X}", machine);
  };
  return fail(Errc::unsupported,
              fmt::format("the kernel is for {}, and the stub for {}",
                          name_of(parts.kernel_headers.machine), name_of(stub->machine)));
}

}  // namespace

Result<UkiLayout> lay_out_uki(std::span<const std::byte> stub,
                              std::span<const UkiSection> sections) {
  Result<PeImage> read = read_pe(stub.first(std::min(stub.size(), kPeHeadBytes)), stub.size());
  if (!read) return propagate("the stub of a unified kernel image", read);
  if (Result<void> good = check_stub(*read, sections); !good) return propagate(good);
  const std::uint64_t page = std::max<std::uint64_t>(kPageBytes, read->section_alignment);
  std::uint64_t address = 0;
  for (const PeSection& section : read->sections) {
    address = std::max(address, std::uint64_t{section.virtual_address} +
                                    std::max(section.virtual_bytes, section.file_bytes));
  }
  UkiLayout layout;
  layout.stub.assign(stub.begin(), stub.end());
  const std::span<std::byte> out(layout.stub);
  std::uint64_t offset = stub.size();
  std::size_t entry = read->table_offset + read->sections.size() * kSectionBytes;
  for (const UkiSection& section : sections) {
    assert(section.file_bytes != 0 && section.virtual_bytes >= section.file_bytes);
    address = round_up(address, page);
    offset = round_up<std::uint64_t>(offset, read->file_alignment);
    // None of the sums below wraps.
    if (section.virtual_bytes > kMostBytes || address > kMostBytes || offset > kMostBytes) {
      return too_big();
    }
    const auto file_bytes = round_up<std::uint64_t>(section.file_bytes, read->file_alignment);
    if (offset + file_bytes > kMostBytes || address + section.virtual_bytes > kMostBytes) {
      return too_big();
    }
    put_section(out.subspan(entry, kSectionBytes), section, address, offset, file_bytes);
    layout.offsets.push_back(offset);
    entry += kSectionBytes;
    address += section.virtual_bytes;
    offset += file_bytes;
  }
  layout.size_bytes = offset;
  const auto image_bytes = round_up<std::uint64_t>(address, read->section_alignment);
  if (image_bytes > kMostBytes) return too_big();
  store_le(out, read->coff_offset + kSectionCount,
           static_cast<std::uint16_t>(read->sections.size() + sections.size()));
  store_le(out, read->optional_offset + kImageBytes, static_cast<std::uint32_t>(image_bytes));
  store_le(out, read->optional_offset + kCheckSum, std::uint32_t{0});
  return layout;
}

Result<JoinedContent> join_uki(const UkiParts& parts, std::string name) {
  if (Result<void> good = check_kernel(parts); !good) return propagate(good);
  std::vector<Filled> filled;
  for (const auto& [section, text] :
       {std::pair(".osrel", &parts.os_release), std::pair(".uname", &parts.kernel_version),
        std::pair(".cmdline", &parts.command_line)}) {
    if (!text->empty()) filled.push_back(text_section(section, *text));
  }
  if (!parts.initrds.empty()) filled.push_back(initrd_section(parts.initrds));
  const std::uint64_t kernel_bytes = parts.kernel.length;
  filled.push_back({{".linux", kernel_bytes,
                     std::max<std::uint64_t>(kernel_bytes, parts.kernel_headers.image_bytes), true},
                    {parts.kernel}});
  std::vector<UkiSection> sections;
  for (const Filled& each : filled) sections.push_back(each.section);
  Result<UkiLayout> layout = lay_out_uki(parts.stub, sections);
  if (!layout) return propagate(layout);
  JoinedContent joined{std::move(name), {}};
  std::uint64_t at = layout->stub.size();
  joined.pieces.push_back(ContentPiece::memory(std::move(layout->stub)));
  const auto fill_up_to = [&](std::uint64_t end) {
    if (end > at) joined.pieces.push_back(ContentPiece::zeroes(end - at));
    at = end;
  };
  for (std::size_t number = 0; number < filled.size(); ++number) {
    fill_up_to(layout->offsets[number]);
    at += filled[number].section.file_bytes;
    std::ranges::move(filled[number].pieces, std::back_inserter(joined.pieces));
  }
  fill_up_to(layout->size_bytes);
  return joined;
}

}  // namespace mkvirtfs::bootsect
