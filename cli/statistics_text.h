// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "nbd/server/statistics.h"

namespace mkvirtfs::cli {

/// What a server has done, for people: some lines for each export, each line ended.
std::string statistics_text(const nbd::ServerStatistics& statistics);

/// The same for programs: one line of JSON, with the whole histograms.
std::string statistics_json(const nbd::ServerStatistics& statistics);

}  // namespace mkvirtfs::cli
