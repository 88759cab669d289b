// SPDX-License-Identifier: BSD-3-Clause
// Pieces of a boot loader. The first byte chooses the loader: ISOLINUX (432 bytes of code, then the
// loader) or GRUB (512 bytes of boot.img, then core.img). An accepted piece can be patched and
// keeps its length. A refused one gives an error of one line.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "bootsect/eltorito.h"
#include "bootsect/grub.h"
#include "bootsect/isolinux.h"
#include "fuzz_require.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;

namespace {

using Bytes = std::span<const std::byte>;

std::vector<std::byte> copy_of(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

void check_refusal(const Error& error) {
  FUZZ_REQUIRE(error.code == Errc::unsupported);
  FUZZ_REQUIRE(error.what.find('\n') == std::string::npos);
}

void try_isolinux(Bytes code, Bytes loader) {
  const auto from = check_isolinux(copy_of(loader), copy_of(code));
  if (!from) return check_refusal(from.error());
  FUZZ_REQUIRE(from->loader.size() == loader.size());
  const auto sector = isohybrid_sector(from->hybrid_code, 0xFFFFFFFF, 1, kIsohybridAlignmentBytes);
  FUZZ_REQUIRE(sector && sector->size() == 512);
  FUZZ_REQUIRE(boot_information_table(from->loader, 0xFFFFFFFF).size() == kBootInformationBytes);
}

void try_grub(Bytes boot, Bytes core) {
  const auto from = check_grub(copy_of(boot), copy_of(core));
  if (!from) return check_refusal(from.error());
  FUZZ_REQUIRE(from->core.size() % 512 == 0 && from->core.size() >= core.size());
  std::uint64_t code_bytes = 0;
  for (const Patch& patch : grub_patches(*from, 1)) {
    if (patch.offset < 512) code_bytes += patch.bytes.size();
    // The partition table is not touched, nor the room of a BPB.
    FUZZ_REQUIRE(patch.offset == 512 || patch.offset + patch.bytes.size() <= 440);
    FUZZ_REQUIRE(patch.offset != 512 || patch.bytes == from->core);
  }
  FUZZ_REQUIRE(code_bytes == 3 + 440 - 0x5A);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes input = std::as_bytes(std::span(data, size));
  const Bytes rest = input.subspan(1);
  const bool is_grub = input[0] == std::byte{'G'};
  const std::size_t first = std::min(rest.size(), std::size_t{is_grub ? 512u : 432u});
  if (is_grub) {
    try_grub(rest.first(first), rest.subspan(first));
  } else {
    try_isolinux(rest.first(first), rest.subspan(first));
  }
  return 0;
}
