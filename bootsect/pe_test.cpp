// SPDX-License-Identifier: BSD-3-Clause
// The judges are objdump(1) and sbverify(1), of the pieces that Debian's packages bring.
#include "bootsect/pe.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bootsect/testing/image_file.h"
#include "bootsect/testing/pe_file.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;
using testing::PeFile;
using testing::piece;

namespace {

Result<PeImage> read_all(const std::vector<std::byte>& file) {
  const std::span<const std::byte> bytes(file);
  return read_pe(bytes.first(std::min(file.size(), kPeHeadBytes)), file.size());
}

/// The lines of `objdump -h` that name a section, as it writes them; "/" for a name of more than 8
/// bytes, which lies elsewhere in the file.
std::string sections_of(const PeImage& image) {
  std::string lines;
  for (const PeSection& section : image.sections) {
    const std::uint32_t size = section.virtual_bytes == 0
                                   ? section.file_bytes
                                   : std::min(section.virtual_bytes, section.file_bytes);
    lines += fmt::format("{} {:08x} {:016x} {:08x}\n",
                         section.name.starts_with('/') ? "/" : section.name, size,
                         section.virtual_address, section.file_offset);
  }
  return lines;
}

std::string sections_by_objdump(const std::string& path) {
  const std::string script =
      R"(objdump -h "$1" | awk '$1 ~ /^[0-9]+$/ && NF == 7 {print (length($2) > 8 ? "/" : $2), $3, $4, $6}')";
  const Ran ran = run_tool({"sh", "-c", script, "sh", path});
  REQUIRE(ran.status == 0);
  return ran.output;
}

}  // namespace

TEST_CASE("the sections of loaders are those that objdump lists") {
  for (const char* name : {"systemd-bootx64.efi", "linuxx64.efi.stub", "mmx64.efi.signed",
                           "shimx64.efi.signed", "grubx64.efi.signed"}) {
    INFO(name);
    auto read = read_boot_piece(name, "");
    if (!read) FAIL(hinted_text(read.error()));
    const auto image = read_all(read->bytes);
    if (!image) FAIL(hinted_text(image.error()));
    CHECK(image->machine == 0x8664);
    CHECK(sections_of(*image) == sections_by_objdump(read->path));
    const Ran signatures = run_tool({"sbverify", "--list", read->path});
    CHECK(image->is_signed() == (signatures.output.find("signature 1\n") != std::string::npos));
  }
}

TEST_CASE("a loader has a name by its machine") {
  CHECK(find_efi_machine(0x8664)->loader_name == "BOOTX64.EFI");
  CHECK(find_efi_machine(0xAA64)->loader_name == "BOOTAA64.EFI");
  CHECK(find_efi_machine(0x014C)->loader_name == "BOOTIA32.EFI");
  CHECK(find_efi_machine(0x5064)->loader_name == "BOOTRISCV64.EFI");
  CHECK(find_efi_machine(0x01C0) == nullptr);
}

TEST_CASE("what a header says lies inside the file, or it is refused") {
  const std::vector<std::byte> good = PeFile{.certificate_bytes = 16}.bytes();
  const auto refusal = [&](std::size_t at, std::uint32_t value) {
    std::vector<std::byte> bad = good;
    store_le(std::span(bad), at, value);
    const auto read = read_all(bad);
    return read ? std::string("none") : read.error().what;
  };
  const auto image = read_all(good);
  REQUIRE(image);
  CHECK(image->is_signed());
  REQUIRE(image->sections.size() == 1);
  CHECK(image->find(".text") == &image->sections.front());
  CHECK(image->find(".linux") == nullptr);
  const std::size_t optional = image->optional_offset;
  CHECK(refusal(0, 0) == "not an executable of UEFI: it does not begin with MZ");
  CHECK(refusal(0x3C, 0xFFFFFFFF) ==
        "not an executable of UEFI: its header is not in the first 4096 bytes");
  CHECK(refusal(0x3C, 0x90) == "not an executable of UEFI: it has no PE header");
  CHECK(refusal(image->coff_offset, 0xFFFF8664) ==
        "not an executable of UEFI: its headers do not end in the first 4096 bytes");
  CHECK(refusal(optional, 0x107) ==
        "not an executable of UEFI: its optional header is of no known kind");
  CHECK(refusal(optional + 68, 3) ==
        "not an executable of UEFI: it is an executable of another system");
  CHECK(refusal(optional + 36, 513) ==
        "not an executable of UEFI: its alignments are no powers of two up to 64 KiB");
  CHECK(refusal(optional + 60, 4096) ==
        "not an executable of UEFI: its headers are longer than the file");
  CHECK(refusal(image->table_offset + 16, 0xFFFFFFFF) ==
        "not an executable of UEFI: it is cut off before the end of a section");
  CHECK(refusal(optional + 112 + 36, 17) ==
        "not an executable of UEFI: it is cut off before the end of its certificates");
  std::vector<std::byte> empty;
  CHECK(!read_all(empty));
}
