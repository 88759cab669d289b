// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "block/content.h"
#include "block/host_files.h"
#include "fsgen/archive/content_places.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"
#include "support/log.h"

// mtree manifests (mtree(5), and mtree.5 of libarchive): text with a line for each entry of a tree.
// They bring directories, symlinks, devices and files that name their `contents`, and set owners
// and permissions of what other sources bring.

namespace mkvirtfs::archive {

/// Whether the bytes are a manifest, by the signature in their first line: "#mtree".
Result<bool> is_mtree(ByteSource& source);

/// Reads a manifest. Members with contents have MemberPlace::host; `directory` is where these are
/// looked for, and nothing outside of it is opened. What names no contents, target or device, and
/// directories that are not described in full, change what others bring.
///
/// Errors: Errc::unreadable with the number of the line, also for contents that are not there
/// (unless they are optional) or have another size than the manifest says, for names that this host
/// does not know and for unknown keywords; Errc::does_not_fit beyond the limits.
Result<ReadMembers> read_mtree(ByteSource& manifest, const std::string& directory,
                               const ReadLimits& limits);

/// The bytes of the files in a manifest's tree, by node number, as they are from now on (law 5).
/// `log` outlives the store.
Result<std::shared_ptr<ContentStore>> open_mtree_files(
    const std::shared_ptr<const SourceTree>& tree, const ContentPlaces& places,
    const std::string& directory, ChangeCheck check, LogSink& log);

}  // namespace mkvirtfs::archive
