// SPDX-License-Identifier: BSD-3-Clause
// Images of ext2, ext3 and ext4, through libext2fs over an io_manager of ours. The input is a
// SparseDisk.
#include "disk_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  mkvirtfs::fuzz::read_a_disk(std::as_bytes(std::span(data, size)),
                              mkvirtfs::disk::DiskFormat::ext);
  return 0;
}
