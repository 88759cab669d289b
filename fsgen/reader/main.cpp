// SPDX-License-Identifier: BSD-3-Clause
// mkvirtfs-reader: parses sources that are not trusted, under limits. Only mkvirtfs starts it; see
// fsgen/helper/helper_process.h.
#include "fsgen/archive/archive_job.h"
#include "fsgen/disk/disk_job.h"
#include "fsgen/helper/helper_service.h"

using namespace mkvirtfs;

int main() {
  return helper::serve_job(
      [](std::string_view kind, std::span<const std::byte> job, helper::HelperService& service) {
        if (kind == archive::kArchiveJob) return archive::serve_archive_job(job, service);
        if (kind == disk::kDiskJob) return disk::serve_disk_job(job, service);
        return Result<std::vector<std::byte>>(fail(Errc::usage, "no such job"));
      });
}
