// SPDX-License-Identifier: BSD-3-Clause
// Images of ISO 9660. The input is a SparseDisk.
#include "disk_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  mkvirtfs::fuzz::read_a_disk(std::as_bytes(std::span(data, size)),
                              mkvirtfs::disk::DiskFormat::iso);
  return 0;
}
