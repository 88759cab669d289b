// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "compose/resources.h"
#include "compose/source_loader.h"
#include "compose/source_spec.h"
#include "fsgen/host/scan.h"
#include "fsgen/tree/layers_below.h"
#include "support/error.h"

namespace mkvirtfs {

/// Whether that is the file or the symlink to one at `path`: "-" and pipes are none.
bool is_regular_file(const std::string& path);

/// The host file `spec.path` as a layer of one file, for `spec.at` less its last name: see
/// SourceSpec::is_file. `below` are the sources before it, null for none. Excludes do not concern
/// it. What is no regular file is read into a spool first.
///
/// Errors: Errc::usage where `spec.at` is a directory in the sources before it, or names nothing;
/// those of scanning and of spools.
Result<LoadedSource> load_file(const SourceSpec& spec, const ScanOptions& scan,
                               const LayersBelow* below, Resources& resources);

/// Of a place, without slashes at either end: the directory, and the name in it.
struct FilePlace {
  std::string directory;
  std::string name;
};
FilePlace file_place(const std::string& at);

}  // namespace mkvirtfs
