// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>

#include "compose/resources.h"
#include "compose/source_spec.h"
#include "fsgen/archive/index_cache.h"
#include "fsgen/archive/layer_tree.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/stream/compressed.h"
#include "support/error.h"

namespace mkvirtfs {

/// What the rooms below want to know to read an archive.
struct ArchiveSettings {
  archive::ReadOptions read;
  StreamOptions stream;
  archive::LayerOptions layer;                             ///< without `scan`, `below` and `at`
  std::shared_ptr<const archive::IndexCache> index_cache;  ///< null: none
};

/// What `spec` and `resources` say together. Reads the file of passphrases: Errc::unreadable where
/// that fails.
Result<ArchiveSettings> archive_settings(const SourceSpec& spec, Resources& resources);

}  // namespace mkvirtfs
