// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>

#include "nbd/export_tree.h"

namespace mkvirtfs::nbd {

/// The one metadata context we know, and the number that stands for it in block status replies.
inline constexpr std::string_view kBaseAllocation = "base:allocation";
inline constexpr std::uint32_t kBaseAllocationId = 1;

/// What a client and the server settled in the handshake; it holds for the rest of the connection.
struct Agreement {
  Export exported;
  std::uint16_t transmission_flags = 0;  ///< as advertised; requests are judged by them
  bool structured_replies = false;
  bool base_allocation = false;  ///< the context was selected for this export
};

}  // namespace mkvirtfs::nbd
