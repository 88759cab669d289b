// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"
#include "support/strong_integer.h"

namespace mkvirtfs {

/// A layer's number in its stack; 0 is the lowest layer.
struct LayerNoTag;
using LayerNo = StrongInteger<LayerNoTag>;

/// An outward link's number in its stack.
struct OutwardLinkNoTag;
using OutwardLinkNo = StrongInteger<OutwardLinkNoTag>;

/// A path about which a layer says something, or above such a path.
struct MarkNoTag;
using MarkNo = StrongInteger<MarkNoTag>;
inline constexpr MarkNo kRootMark{0};
inline constexpr MarkNo kNoMark{std::numeric_limits<std::uint32_t>::max()};

/// What layers say about paths besides what their trees hold there: whiteouts, opaque directories
/// and outward links. Layers are added in ascending order.
class StackMarks {
 public:
  /// The mark of a path, which may be new. Errc::unreadable for a path with "." or "..".
  Result<MarkNo> at(std::string_view path);
  void add_whiteout(MarkNo mark, LayerNo layer);
  void add_opaque_directory(MarkNo mark, LayerNo layer);
  void add_link(MarkNo mark, OutwardLinkNo link) { marks_[mark].links.push_back(link); }

  /// kNoMark when no layer says anything about `name`, or below it. `mark` may be kNoMark.
  MarkNo below(MarkNo mark, std::string_view name) const;
  using Children = std::map<std::string, MarkNo, std::less<>>;
  const Children& children(MarkNo mark) const noexcept { return marks_[mark].children; }
  /// By layer.
  std::span<const OutwardLinkNo> links(MarkNo mark) const noexcept { return marks_[mark].links; }

  /// The lowest layer that is seen at the path, and the lowest one that is seen in the directory
  /// there, while only the layers below `limit` are in place.
  LayerNo lowest_at(MarkNo mark, LayerNo limit) const noexcept;
  LayerNo lowest_in(MarkNo mark, LayerNo limit) const noexcept;

 private:
  struct Mark {
    Children children;
    std::vector<LayerNo> whiteouts;           // ascending
    std::vector<LayerNo> opaque_directories;  // ascending
    std::vector<OutwardLinkNo> links;
  };

  std::vector<Mark> marks_ = std::vector<Mark>(1);
};

}  // namespace mkvirtfs
