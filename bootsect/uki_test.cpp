// SPDX-License-Identifier: BSD-3-Clause
// The judges are objdump(1), and objcopy(1), which makes such images by the recipe of
// systemd-stub(7) and takes sections out of ours.
#include "bootsect/uki.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bootsect/testing/disk_file.h"
#include "bootsect/testing/image_file.h"
#include "bootsect/testing/pe_file.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;
using testing::bytes_of;
using testing::PeFile;
using testing::piece;
using testing::text_of;

namespace {

PeImage headers_of(const std::vector<std::byte>& file) {
  const std::span<const std::byte> bytes(file);
  auto read = read_pe(bytes.first(std::min(file.size(), kPeHeadBytes)), file.size());
  if (!read) FAIL(read.error().what);
  return *std::move(read);
}

UkiParts parts_of(const std::vector<std::byte>& stub, const std::vector<std::byte>& kernel) {
  UkiParts parts;
  parts.stub = stub;
  parts.kernel = ContentPiece::memory(kernel);
  parts.kernel_headers = headers_of(kernel);
  return parts;
}

std::vector<std::byte> bytes_of(const JoinedContent& joined) {
  std::vector<std::byte> bytes(joined.size_bytes());
  JoinedContents store({{ContentNo{1}, joined}});
  REQUIRE(store.read(ContentNo{1}, 0, bytes));
  return bytes;
}

void write(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.flush());
}

std::string section_of(const TempDir& work, const std::string& image, const std::string& name) {
  const std::string out = (work / ("section" + name)).string();
  const Ran ran = run_tool({"objcopy", "--dump-section", name + "=" + out, image, out + ".rest"});
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  return testing::text_of(
      testing::bytes_of(testing::bytes_at(out, 0, std::filesystem::file_size(out))));
}

std::string why_not(const UkiParts& parts) {
  const auto joined = join_uki(parts, "linux.efi");
  return joined ? std::string("none") : joined.error().what;
}

}  // namespace

TEST_CASE("objcopy finds in a unified kernel image what it was made of") {
  const TempDir work;
  const std::vector<std::byte> stub = piece("linuxx64.efi.stub");
  const std::vector<std::byte> kernel = PeFile{.code_bytes = 70000,
                                               .image_bytes = 0x20000,
                                               .certificate_bytes = 24,
                                               .version = "6.1.0-1"}
                                            .bytes();
  UkiParts parts = parts_of(stub, kernel);
  parts.os_release = "ID=debian\nVERSION_ID=12\n";
  parts.kernel_version = "6.1.0-1";
  parts.command_line = "root=PARTUUID=1234 console=ttyS0";
  parts.initrds = {ContentPiece::memory(bytes_of("microcode")),
                   ContentPiece::memory(bytes_of("initrd, and more")),
                   ContentPiece::memory(bytes_of("x"))};
  const auto joined = join_uki(parts, "linux.efi");
  if (!joined) FAIL(hinted_text(joined.error()));
  const std::vector<std::byte> bytes = bytes_of(*joined);
  const std::string path = (work / "uki.efi").string();
  write(path, bytes);

  CHECK(section_of(work, path, ".osrel") == parts.os_release);
  CHECK(section_of(work, path, ".uname") == parts.kernel_version);
  CHECK(section_of(work, path, ".cmdline") == parts.command_line);
  const std::string initrd = std::string("microcode\0\0\0initrd, and morex\0\0\0", 32);
  CHECK(section_of(work, path, ".initrd") == initrd);
  // The kernel's section is as long as it is in memory; in the file it is whole sectors.
  CHECK(section_of(work, path, ".linux").starts_with(text_of(kernel)));

  const PeImage image = headers_of(bytes);
  std::string order;
  std::uint64_t end = 0;
  for (std::size_t at = headers_of(stub).sections.size(); at < image.sections.size(); ++at) {
    const PeSection& section = image.sections[at];
    order += section.name;
    CHECK(section.virtual_address % 4096 == 0);
    CHECK(section.virtual_address >= end);
    CHECK(section.file_offset % image.file_alignment == 0);
    end = std::uint64_t{section.virtual_address} + section.virtual_bytes;
  }
  CHECK(order == ".osrel.uname.cmdline.initrd.linux");
  CHECK(image.find(".linux")->virtual_bytes == 0x20000);
  CHECK(image.image_bytes == end);
  CHECK(bytes.size() % image.file_alignment == 0);
  CHECK(load_le<std::uint32_t>(std::span<const std::byte>(bytes), image.optional_offset + 64) == 0);
}

TEST_CASE("objcopy places the same sections at the same addresses") {
  const TempDir work;
  const std::vector<std::byte> stub = piece("linuxx64.efi.stub");
  const std::vector<std::byte> kernel =
      PeFile{.code_bytes = 5000 / 512 * 512, .image_bytes = 0x1000}.bytes();
  UkiParts parts = parts_of(stub, kernel);
  parts.os_release = "ID=linux\n";
  parts.command_line = std::string(5000, 'x');
  parts.initrds = {ContentPiece::memory(bytes_of("four"))};
  const auto joined = join_uki(parts, "linux.efi");
  REQUIRE(joined);
  const std::vector<std::byte> bytes = bytes_of(*joined);
  const PeImage ours = headers_of(bytes);

  std::vector<std::string> words{"objcopy"};
  const auto add = [&](const std::string& name, std::span<const std::byte> content) {
    write((work / name).string(), content);
    words.push_back("--add-section");
    words.push_back(name + "=" + (work / name).string());
    words.push_back("--change-section-vma");
    words.push_back(fmt::format("{}={:#x}", name, ours.find(name)->virtual_address));
  };
  add(".osrel", bytes_of(parts.os_release));
  add(".cmdline", bytes_of(parts.command_line));
  add(".initrd", bytes_of("four"));
  add(".linux", kernel);
  words.push_back("/usr/lib/systemd/boot/efi/linuxx64.efi.stub");
  const std::string path = (work / "theirs.efi").string();
  words.push_back(path);
  const Ran ran = run_tool(words);
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  const std::uint64_t size = std::filesystem::file_size(path);
  const PeImage theirs = headers_of(testing::bytes_of(testing::bytes_at(path, 0, size)));
  REQUIRE(theirs.sections.size() == ours.sections.size());
  for (std::size_t at = 0; at < ours.sections.size(); ++at) {
    INFO(ours.sections[at].name);
    CHECK(theirs.sections[at].name == ours.sections[at].name);
    CHECK(theirs.sections[at].virtual_address == ours.sections[at].virtual_address);
    CHECK(theirs.sections[at].virtual_bytes == ours.sections[at].virtual_bytes);
    CHECK(theirs.sections[at].file_bytes == ours.sections[at].file_bytes);
  }
}

TEST_CASE("no byte of kernel and initrds is looked at") {
  /// Fails each read.
  class Unread final : public ContentStore {
   public:
    Result<void> read(ContentNo, std::uint64_t, std::span<std::byte>) override {
      return fail(Errc::unreadable, "looked at");
    }
    Result<Pin> pin(ContentNo) override { return Pin{}; }
    Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
    std::string name(ContentNo) const override { return "unread"; }
  };
  const auto store = std::make_shared<Unread>();
  const std::vector<std::byte> stub = piece("linuxx64.efi.stub");
  UkiParts parts = parts_of(stub, PeFile{}.bytes());
  parts.kernel = ContentPiece::of(store, ContentNo{1}, {0, 10u << 20});
  parts.initrds = {ContentPiece::of(store, ContentNo{2}, {0, 60u << 20})};
  const auto joined = join_uki(parts, "linux.efi");
  REQUIRE(joined);
  CHECK(joined->size_bytes() > (70u << 20));
  std::uint64_t others = 0;
  for (const ContentPiece& each : joined->pieces) {
    if (std::holds_alternative<ContentPiece::Other>(each.from)) others += each.length;
  }
  CHECK(others == (70u << 20));
}

TEST_CASE("what becomes no unified kernel image is refused in one line") {
  const std::vector<std::byte> stub = piece("linuxx64.efi.stub");
  const std::vector<std::byte> kernel = PeFile{}.bytes();
  CHECK(why_not(parts_of(stub, PeFile{.section = ".linux"}.bytes())) ==
        "the kernel is a unified kernel image itself, and starts as one");
  CHECK(why_not(parts_of(stub, PeFile{.machine = 0xAA64}.bytes())) ==
        "the kernel is for arm64, and the stub for x86-64");
  CHECK(why_not(parts_of(PeFile{.certificate_bytes = 8}.bytes(), kernel)) ==
        "the stub of a unified kernel image is signed, and more sections would break that");
  CHECK(why_not(parts_of(PeFile{.section = ".linux"}.bytes(), kernel)) ==
        "the stub of a unified kernel image has a section .linux already: it is no stub");
  CHECK(why_not(parts_of(bytes_of("text"), kernel)) ==
        "the stub of a unified kernel image: not an executable of UEFI: it does not begin with MZ");

  // Sections in a header that ends behind them, one entry too early.
  std::vector<std::byte> full = PeFile{}.bytes();
  const PeImage headers = headers_of(full);
  store_le(std::span(full), headers.optional_offset + 60, headers.table_offset + 79);
  CHECK(why_not(parts_of(full, kernel)) ==
        fmt::format("the headers of the stub have no room for 1 more sections: they end at {} and "
                    "would need {} bytes",
                    headers.table_offset + 79, headers.table_offset + 80));

  UkiParts big = parts_of(stub, kernel);
  big.initrds = {ContentPiece::zeroes(std::uint64_t{4} << 30)};
  CHECK(why_not(big) ==
        "a unified kernel image ends at 4294967295 bytes, and kernel and initrds are more");
  const UkiSection huge{".linux", 1, std::numeric_limits<std::uint64_t>::max()};
  CHECK(!lay_out_uki(stub, std::vector{huge}));
}
