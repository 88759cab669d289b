// SPDX-License-Identifier: BSD-3-Clause
// An executable of UEFI. What is read of it lies inside it. Taken for a stub, it becomes a unified
// kernel image that reads as one, with the bytes of the stub but for its headers; or it is refused
// on one line.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "bootsect/pe.h"
#include "bootsect/uki.h"
#include "fuzz_require.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;

namespace {

void check_refusal(const Error& error) {
  FUZZ_REQUIRE(error.code == Errc::unsupported || error.code == Errc::does_not_fit);
  FUZZ_REQUIRE(error.what.find('\n') == std::string::npos);
}

Result<PeImage> read_all(std::span<const std::byte> file) {
  return read_pe(file.first(std::min(file.size(), kPeHeadBytes)), file.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  const auto image = read_all(file);
  if (!image) {
    check_refusal(image.error());
    return 0;
  }
  FUZZ_REQUIRE(image->certificates.length <= size);
  for (const PeSection& section : image->sections) {
    FUZZ_REQUIRE(section.file_bytes <= size && section.name.size() <= 8);
  }
  const std::vector<UkiSection> sections{{".cmdline", 5, 5}, {".linux", 1000, 5000, true}};
  const auto layout = lay_out_uki(file, sections);
  if (!layout) {
    check_refusal(layout.error());
    return 0;
  }
  FUZZ_REQUIRE(layout->stub.size() == size && layout->offsets.size() == 2);
  FUZZ_REQUIRE(std::equal(layout->stub.begin() + image->header_bytes, layout->stub.end(),
                          file.begin() + image->header_bytes));
  // The file as it would be, zeroes for what is added.
  std::vector<std::byte> whole = layout->stub;
  if (layout->size_bytes > (std::uint64_t{1} << 24)) return 0;
  whole.resize(layout->size_bytes);
  const auto again = read_all(whole);
  FUZZ_REQUIRE(again && again->sections.size() == image->sections.size() + 2);
  FUZZ_REQUIRE(again->find(".cmdline") != nullptr && again->find(".linux") != nullptr);
  FUZZ_REQUIRE(again->find(".linux")->file_offset == layout->offsets[1]);
  return 0;
}
