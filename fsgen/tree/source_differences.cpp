// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/source_differences.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>

namespace mkvirtfs {
namespace {

struct FlagWord {
  std::uint8_t flag;
  std::string_view word;
};
// As chattr(1) names them.
constexpr std::array<FlagWord, 4> kFlagWords = {{{unshown::kImmutable, "immutable (i)"},
                                                 {unshown::kAppendOnly, "append only (a)"},
                                                 {unshown::kNoDump, "no dump (d)"},
                                                 {unshown::kCompressed, "compressed (c)"}}};

std::string words_of(std::uint8_t flags) {
  std::string words;
  for (const FlagWord& known : kFlagWords) {
    if ((flags & known.flag) == 0) continue;
    if (!words.empty()) words += ", ";
    words += known.word;
  }
  return words;
}

}  // namespace

std::string counted(std::uint64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::string joined_remarks(std::string first, std::string_view second) {
  if (!first.empty() && !second.empty()) first += "; ";
  return first.append(second);
}

std::string source_remark(const SourceTree& tree) {
  const SourceTree::UnshownCounts& counts = tree.unshown_counts();
  std::string text;
  if (counts.flagged != 0) {
    text = "chattr flags of " + counted(counts.flagged, "entry", "entries");
  }
  if (counts.lost_xattrs != 0) {
    if (!text.empty()) text += ", ";
    text += "extended attributes that Linux has no name for, of " +
            counted(counts.lost_xattrs, "entry", "entries");
  }
  return text.empty() ? text : "dropped: " + text;
}

bool list_source_differences(const SourceTree& tree, DifferenceSink& sink) {
  if (tree.unshown_counts() == SourceTree::UnshownCounts{}) return true;
  for (NodeNo no; no < tree.node_count(); ++no) {
    const std::uint8_t flags = tree.node(no).unshown;
    if (flags == 0) continue;
    const std::string path = no == kRootNode ? "." : tree.path(no);
    const std::string words = words_of(flags);
    if (!words.empty() && !sink.difference({"dropped", path, "loses its chattr flags: " + words})) {
      return false;
    }
    if ((flags & unshown::kXattrs) != 0 &&
        !sink.difference(
            {"dropped", path,
             fmt::format("loses its extended attributes: {}", tree.lost_xattrs(no))})) {
      return false;
    }
  }
  return true;
}

}  // namespace mkvirtfs
