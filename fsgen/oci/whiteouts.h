// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/archive/member_log.h"
#include "fsgen/archive/member_path.h"
#include "fsgen/tree/layers_below.h"
#include "support/error.h"

namespace mkvirtfs::oci {

/// One mark by which a layer changes those below it (OCI Image Specification, layer.md).
struct LayerMark {
  std::string path;        ///< "etc/hosts" of a member etc/.wh.hosts, "etc" of etc/.wh..wh..opq
  bool is_opaque = false;  ///< the second of these
};
struct LayerMarks {
  std::vector<LayerMark> marks;  ///< in the layer's order
  /// The directories on the way to these that the layer itself names. Sorted.
  std::vector<std::string> named_directories;
};

/// Takes whiteouts, and all other members that AUFS names .wh..wh., out of the log: none of them is
/// a file of the image. A file that AUFS keeps in .wh..wh.plnk because it has several names becomes
/// the first hard link to it, and the others become hard links to that one.
///
/// Errors: Errc::unreadable for a whiteout of no name, and for members below one. `name` is the
/// layer's, for messages.
Result<LayerMarks> take_whiteouts(archive::MemberLog& members, std::string_view name,
                                  archive::UnsafeNames unsafe_names);

/// What lies below a layer as its own marks leave it: the parents of what the layer implies are
/// looked for there.
class MarkedView final : public LayersBelow {
 public:
  explicit MarkedView(const LayersBelow& below) : below_(below) {}

  /// Puts the marks where symlinks of the layers below lead on the way, one after the other, each
  /// as those before it leave the view. A directory that the layer names is no symlink.
  ///
  /// Errors: Errc::unreadable for a way that does not end; with LayerSymlinks::error for any
  /// symlink. `name` is the layer's.
  Result<void> settle(const LayerMarks& marks, std::string_view name, LayerSymlinks symlinks);

  Standing look(std::string_view path) const override;

  std::vector<std::string> whiteouts() const { return {whiteouts_.begin(), whiteouts_.end()}; }
  std::vector<std::string> opaque_directories() const { return {opaque_.begin(), opaque_.end()}; }

 private:
  /// Where the directory stands; nullopt: nowhere.
  Result<std::optional<std::string>> directory_of(std::string_view path, const LayerMarks& marks,
                                                  LayerSymlinks symlinks) const;

  const LayersBelow& below_;
  std::set<std::string, std::less<>> whiteouts_;
  std::set<std::string, std::less<>> opaque_;
};

}  // namespace mkvirtfs::oci
