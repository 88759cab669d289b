// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "nbd/extension.h"
#include "nbd/protocol.h"
#include "support/error.h"

// Walking a tree of exports one level at a time: our option LIST_HIER, and beside it the metadata
// contexts x-mkvirtfs:ls:, which need no option that the protocol does not have. Both are specified
// in docs/list-hier.md.

namespace mkvirtfs::nbd {

// Numbers that nobody has assigned: the protocol has no range for trying things out.
inline constexpr Option kListHier{0x6d6b7601};  // "mkv", 1
inline constexpr OptionReply kServerDir{0x6d6b7602};
inline constexpr OptionReply kHierMore{0x6d6b7603};

/// Of the option's flags (u16): leave descriptions out.
inline constexpr std::uint16_t kHierNoDescriptions = 1U << 0;
/// Of a SERVER_DIR's flags (u16): the directory is an export, too, and was told as one.
inline constexpr std::uint16_t kDirIsExport = 1U << 0;
inline constexpr std::uint32_t kUnknownChildren = 0xffffffff;

/// How many entries one LIST_HIER tells: by default, and at most.
inline constexpr std::uint32_t kHierPage = 1000;
inline constexpr std::uint32_t kMostHierPage = 4096;
/// How many LIST_HIER a client may send on one connection, beside its other options.
inline constexpr std::size_t kHierCalls = 4096;

/// The other way in: queries of LIST_META_CONTEXT, and the names that answer them.
inline constexpr std::string_view kListNamespace = "x-mkvirtfs";
inline constexpr std::string_view kListQuery = "x-mkvirtfs:ls:";
inline constexpr std::string_view kListAfterQuery = "x-mkvirtfs:after:";
inline constexpr std::string_view kListedExport = "x-mkvirtfs:export:";
inline constexpr std::string_view kListedDirectory = "x-mkvirtfs:dir:";
inline constexpr std::string_view kListedMore = "x-mkvirtfs:more:";

/// Adds both ways. Fails as Extensions::add_option and add_namespace do.
Result<void> add_list_hier(Extensions& extensions);

}  // namespace mkvirtfs::nbd
