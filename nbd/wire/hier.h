// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>

#include "nbd/wire/protocol.h"

// The numbers and names of LIST_HIER, our option that lists one level of a tree of exports, and of
// the metadata contexts x-mkvirtfs:, which do the same without an option that the protocol does not
// have. Both are specified in docs/list-hier.md.

namespace mkvirtfs::nbd {

// Numbers that are not assigned: the protocol has no range for experiments.
inline constexpr Option kListHier{0x6d6b7601};  // "mkv", 1
inline constexpr OptionReply kServerDir{0x6d6b7602};
inline constexpr OptionReply kHierMore{0x6d6b7603};

/// Of the option's flags (u16): leave descriptions out.
inline constexpr std::uint16_t kHierNoDescriptions = 1U << 0;
/// Of a SERVER_DIR's flags (u16): the directory is an export, too, and was sent as one.
inline constexpr std::uint16_t kDirIsExport = 1U << 0;
inline constexpr std::uint32_t kUnknownChildren = 0xffffffff;

/// The other way in: queries of LIST_META_CONTEXT, and the names that answer them.
inline constexpr std::string_view kListNamespace = "x-mkvirtfs";
inline constexpr std::string_view kListQuery = "x-mkvirtfs:ls:";
inline constexpr std::string_view kListAfterQuery = "x-mkvirtfs:after:";
inline constexpr std::string_view kListedExport = "x-mkvirtfs:export:";
inline constexpr std::string_view kListedDirectory = "x-mkvirtfs:dir:";
inline constexpr std::string_view kListedMore = "x-mkvirtfs:more:";

}  // namespace mkvirtfs::nbd
