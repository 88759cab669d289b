// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/content.h"
#include "compose/remark.h"
#include "compose/resources.h"
#include "compose/source_facts.h"
#include "compose/source_spec.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

// What is in a source: for looking inside, without an image.

namespace mkvirtfs {

/// A source that was read: names, metadata, and the way to its bytes.
struct ReadTree {
  std::shared_ptr<const SourceTree> tree;
  std::shared_ptr<ContentStore> contents;
  SourceFacts facts;
  /// Something could not be read; the remarks say what.
  bool is_damaged = false;
  std::vector<Remark> remarks;
};

/// Reads names and metadata of a source. With SourceSpec::skip_unreadable what can be read of a
/// damaged one is there, and with SourceSpec::keep_unreadable also the names of the rest. Any
/// thread. The result may outlive `resources`, but not their log.
///
/// Throws nothing. Errors: as those of prepare() that are about sources.
Result<ReadTree> read_tree(const SourceSpec& spec, Resources& resources) noexcept;

/// A source, and a path in it: "rootfs.tar.gz:/etc/passwd".
struct ItemName {
  std::string source{};
  std::string path{};  ///< "" or "/...": the root where it is empty
};

/// Splits at the first ":/" before which a source is there. A word that is a path of the host to
/// what is there is not split, nor one in which nothing is there.
ItemName split_item_name(const std::string& word);

/// The node at a path below the root of `tree`. Symlinks on the way are followed inside the tree,
/// as in a chroot, and so is the last one if `follows_last`. Errc::unreadable where there is
/// nothing, with the path alone.
Result<NodeNo> find_item(const SourceTree& tree, std::string_view path, bool follows_last);

}  // namespace mkvirtfs
