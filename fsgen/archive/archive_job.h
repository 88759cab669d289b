// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "fsgen/archive/read_members.h"
#include "fsgen/helper/helper_service.h"
#include "fsgen/stream/byte_source.h"
#include "support/error.h"
#include "support/log.h"

// read_members() in a helper process: both sides of the job called "archive".

namespace mkvirtfs::archive {

constexpr std::string_view kArchiveJob = "archive";

/// Whether the archive begins as tar, cpio, ar or zip, and as nothing else. libarchive's loops over
/// these end with the bytes that it asks for, so that they are read in this process.
Result<bool> is_read_in_process(ByteSource& archive);

/// As read_members_here(), in the helper of `options`. What comes back is checked as an archive is.
Result<std::optional<ReadMembers>> read_members_in_helper(
    const std::shared_ptr<ByteSource>& archive, const ReadOptions& options, LogSink& log);

/// The helper's side: does the job, and returns its last word.
Result<std::vector<std::byte>> serve_archive_job(std::span<const std::byte> job,
                                                 helper::HelperService& service);

}  // namespace mkvirtfs::archive
