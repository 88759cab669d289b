// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/archive/content_places.h"
#include "fsgen/archive/member_log.h"
#include "fsgen/archive/member_path.h"
#include "fsgen/tree/entry_rules.h"
#include "fsgen/tree/layer.h"
#include "fsgen/tree/layers_below.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::archive {

/// In which order an image shall have the files' data (`--layout`).
enum class DataOrder : std::uint8_t {
  archive,  ///< as it lies in the archive, so that reading the image unpacks it once
  name,     ///< as of a directory with the same tree
};

struct LayerOptions {
  EntryOptions entries;
  UnsafeNames unsafe_names = UnsafeNames::error;
  DataOrder data_order = DataOrder::archive;
  /// Hard links to files that the archive does not hold go to Layer::outward_links, to be found in
  /// the layers below. Else they are errors.
  bool outward_links = false;
  /// The layers that the archive is laid over, and the path there at which its root stands; none:
  /// nothing. A directory that is only implied is asked for there (docs/layers.md).
  const LayersBelow* below = nullptr;
  std::string at;
  /// The directory of the archive that becomes the root of the layer; "" is the archive's own. What
  /// stands beside it is in no image, but hard links to it are: they are names of the same file.
  /// Rules, and paths of links and overrides, are then those below it. Where a symlink of the
  /// layers below would have to be followed, it is refused.
  std::string subtree;
  LayerSymlinks layer_symlinks = LayerSymlinks::follow;
  /// The archive's own symlinks are followed as those below it are. Else only relative ones without
  /// "..", to a directory that is there already, as GNU tar does.
  bool follows_own_symlinks = false;
};

/// What a log of members becomes: all of a Layer but its contents.
struct LayerTree {
  Layer layer;  ///< `contents` is not set yet
  ContentPlaces places;
  std::uint64_t excluded_count = 0;
};

/// Makes a tree of what the members would have been extracted to, one after the other into an empty
/// directory: the last of several with one path wins, directories keep what is in them, and
/// directories that are not named are made (0755, of 0:0, from 1970). Links may come before what
/// they name.
///
/// Parents that are symlinks are followed as `options` say: then the member lies where they lead.
///
/// Refused, with the archive's name: a subtree that is no directory of it; and with the member's,
/// too: names that lead out or are too long, what
/// lies below something that is no directory, a directory with entries that something else
/// replaces, hard links to nothing, to directories or in a circle, and attributes that no file can
/// have. `name` is the archive's, for messages.
Result<LayerTree> make_layer_tree(const MemberLog& members, std::string_view name,
                                  const LayerOptions& options, LogSink& log);

}  // namespace mkvirtfs::archive
