// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "fsgen/disk/read_disk.h"
#include "fsgen/helper/helper_process.h"
#include "fsgen/helper/helper_service.h"
#include "fsgen/stream/byte_source.h"
#include "support/error.h"
#include "support/log.h"

// read_disk_here() in a helper process: both sides of the job called "disk".

namespace mkvirtfs::disk {

constexpr std::string_view kDiskJob = "disk";

/// As read_disk_here(), in a helper: libext2fs and what is here parse what nobody vouches for. What
/// comes back is checked as an archive is; whether ranges lie on the disk is the caller's to ask of
/// archive::check_places().
Result<ReadDisk> read_disk(const std::shared_ptr<ByteSource>& disk, DiskFormat format,
                           const archive::ReadLimits& limits,
                           const helper::HelperSettings& settings, LogSink& log);

/// The helper's side: does the job, and returns its last word.
Result<std::vector<std::byte>> serve_disk_job(std::span<const std::byte> job,
                                              helper::HelperService& service);

}  // namespace mkvirtfs::disk
