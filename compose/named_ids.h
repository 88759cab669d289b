// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/content.h"
#include "compose/source_loader.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs {

/// A file system, and what names it. Without a tree it is one that only has names: swap space.
struct NamedVolume {
  std::string what{};  ///< for messages: "partition 2"; "" of an image by itself
  std::shared_ptr<const SourceTree> tree{};
  std::shared_ptr<ContentStore> contents{};
  std::string uuid{};
  std::string label{};
  std::string partuuid{};
  std::string name{};  ///< in a GPT
};

/// What names a file system in a text: "UUID=1234-ABCD".
struct NamedId {
  std::string kind;  ///< UUID, PARTUUID, LABEL or PARTLABEL
  std::string value;

  friend auto operator<=>(const NamedId&, const NamedId&) = default;
};
/// Those that a configuration of a boot loader, or an fstab, names. Comments do not count.
std::vector<NamedId> ids_in(std::string_view text);

/// What volumes are part of.
struct NamedPlace {
  bool has_partitions = false;  ///< each has options of its own
  /// Ready images, whose ids are not looked at, for messages: "partition 3"; "": there are none.
  std::string unknown{};
};

/// Remarks on each file that says how to boot or what to mount, and names what none of the volumes
/// has; and on those that are too large to be read here, or cannot be read.
void remark_on_named_ids(const std::vector<NamedVolume>& volumes, const NamedPlace& place,
                         Remarks& remarks);

}  // namespace mkvirtfs
