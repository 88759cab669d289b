// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/stack_marks.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "fsgen/tree/tree_path.h"

namespace mkvirtfs {
namespace {

void add_once(std::vector<LayerNo>& layers, LayerNo layer) {
  if (layers.empty() || layers.back() != layer) layers.push_back(layer);
}

/// Each of these ascending layers hides those before it: the last one below `limit` counts.
LayerNo last_below(const std::vector<LayerNo>& layers, LayerNo limit) noexcept {
  const auto after = std::ranges::lower_bound(layers, limit);
  return after == layers.begin() ? LayerNo{0} : *std::prev(after);
}

}  // namespace

Result<MarkNo> StackMarks::at(std::string_view path) {
  const auto components = plain_components_of(path);
  if (!components) {
    return fail(Errc::unreadable, fmt::format("{}: . and .. have no place in a path", path));
  }
  MarkNo at = kRootMark;
  for (const std::string_view name : *components) {
    const Children& children = marks_[at].children;
    if (const auto known = children.find(name); known != children.end()) {
      at = known->second;
      continue;
    }
    const MarkNo next{static_cast<std::uint32_t>(marks_.size())};
    marks_[at].children.emplace(name, next);
    marks_.emplace_back();
    at = next;
  }
  return at;
}

void StackMarks::add_whiteout(MarkNo mark, LayerNo layer) {
  add_once(marks_[mark].whiteouts, layer);
}

void StackMarks::add_opaque_directory(MarkNo mark, LayerNo layer) {
  add_once(marks_[mark].opaque_directories, layer);
}

MarkNo StackMarks::below(MarkNo mark, std::string_view name) const {
  if (mark == kNoMark) return kNoMark;
  const Children& children = marks_[mark].children;
  const auto at = children.find(name);
  return at == children.end() ? kNoMark : at->second;
}

LayerNo StackMarks::lowest_at(MarkNo mark, LayerNo limit) const noexcept {
  return mark == kNoMark ? LayerNo{0} : last_below(marks_[mark].whiteouts, limit);
}

LayerNo StackMarks::lowest_in(MarkNo mark, LayerNo limit) const noexcept {
  return mark == kNoMark ? LayerNo{0} : last_below(marks_[mark].opaque_directories, limit);
}

}  // namespace mkvirtfs
