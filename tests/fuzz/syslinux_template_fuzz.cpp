// SPDX-License-Identifier: BSD-3-Clause
// The finder of SYSLINUX's template in what is said to be its installer. What it finds can be
// filled in, wherever the loader lies, without leaving it; what it refuses is reported on one line.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "bootsect/syslinux.h"
#include "fuzz_require.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto from = find_syslinux(std::as_bytes(std::span(data, size)));
  if (!from) {
    FUZZ_REQUIRE(from.error().code == Errc::unsupported);
    FUZZ_REQUIRE(from.error().what.find('\n') == std::string::npos);
    return 0;
  }
  const std::vector<std::byte> file = syslinux_file(*from);
  FUZZ_REQUIRE(from->boot_sector.size() == 512);
  FUZZ_REQUIRE(file.size() % 512 == 0 && file.size() > from->loader.size());
  std::vector<std::uint64_t> sectors;
  for (std::size_t at = 0; at < file.size() / 512; ++at) {
    sectors.push_back(0x1'0000'0000 + at + at / 8);  // in pieces
  }
  const auto made = patch_syslinux(*from, sectors, "/boot",
                                   {.one_sector_reads = true, .next_device_if_no = true});
  if (!made) {
    FUZZ_REQUIRE(made.error().code == Errc::does_not_fit);
    return 0;
  }
  FUZZ_REQUIRE(made->boot_sector.size() == 512);
  FUZZ_REQUIRE(made->file.size() == file.size());
  return 0;
}
