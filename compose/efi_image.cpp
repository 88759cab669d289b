// SPDX-License-Identifier: BSD-3-Clause
#include "compose/efi_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "compose/boot_files.h"
#include "fsgen/tree/tree_builder.h"
#include "fsgen/tree/tree_path.h"
#include "support/ascii_case.h"

namespace mkvirtfs {
namespace {

/// What FAT does not have: symlinks, devices and the like.
struct LeftOut {
  std::uint64_t count = 0;
  std::string first;
};

/// All files below a directory.
void add_files_below(const ReadSources& from, const Directory& directory, const std::string& path,
                     BootFiles& files, LeftOut& left_out) {
  for (const Entry& entry : from.tree->entries(directory)) {
    const Node& node = from.tree->node(entry.node);
    const std::string child = join_path(path, from.tree->name(directory, entry));
    if (node.is_directory()) {
      add_files_below(from, from.tree->directory(from.tree->directory_no(entry.node)), child, files,
                      left_out);
    } else if (node.is_regular()) {
      files.add(child, from, entry.node);
    } else if (++left_out.count == 1) {
      left_out.first = child;
    }
  }
}

}  // namespace

Result<ReadSources> efi_part_of(const ReadSources& sources, Remarks& remarks) {
  const SourceTree& tree = *sources.tree;
  BootFiles files;
  LeftOut left_out;
  const Directory& root = tree.directory(tree.directory_no(kRootNode));
  for (const Entry& entry : tree.entries(root)) {
    const std::string_view name = tree.name(root, entry);
    const bool is_part = ascii_lower(name) == "efi" || ascii_lower(name) == "loader";
    if (!is_part || !tree.node(entry.node).is_directory()) continue;
    add_files_below(sources, tree.directory(tree.directory_no(entry.node)), std::string(name),
                    files, left_out);
  }
  if (left_out.count != 0) {
    remarks.add(
        Remark::About::boot, LogLevel::warning,
        fmt::format("UEFI does not see {} of the ISO image, which {} a file nor a "
                    "directory: {}{}",
                    left_out.count == 1 ? "an entry" : fmt::format("{} entries", left_out.count),
                    left_out.count == 1 ? "is neither" : "are neither", left_out.first,
                    left_out.count == 1 ? "" : ", ..."));
  }
  ReadSources part;
  part.settings = {.has_xattrs = false,
                   .source_date_epoch_s = sources.settings.source_date_epoch_s};
  if (Result<void> good = part.add(files.layer(tree.newest_mtime()), "EFI"); !good) {
    return propagate(good);
  }
  return part;
}

Result<JoinedContent> joined_image(const Image& image, std::shared_ptr<ContentStore> store,
                                   std::string name) {
  JoinedContent joined{std::move(name), {}};
  std::vector<std::byte> bytes;  // of the pieces in memory that touch each other
  const auto end_bytes = [&] {
    if (!bytes.empty()) joined.pieces.push_back(ContentPiece::memory(std::exchange(bytes, {})));
  };
  Result<void> done;
  for_each_extent(image, {0, image.size_bytes()}, [&](const Extent& extent) {
    switch (extent.kind) {
      case ExtentKind::hole:
        end_bytes();
        joined.pieces.push_back(ContentPiece::zeroes(extent.length));
        break;
      case ExtentKind::content:
        end_bytes();
        joined.pieces.push_back(
            ContentPiece::of(store, extent.content, {extent.content_offset, extent.length}));
        break;
      case ExtentKind::memory:
        bytes.insert(bytes.end(), extent.memory, extent.memory + extent.length);
        break;
      case ExtentKind::computed:
      case ExtentKind::derived: {
        const std::size_t at = bytes.size();
        bytes.resize(at + extent.length);
        done = image.compute(extent.offset, std::span(bytes).subspan(at), *store);
        break;
      }
    }
    return done.has_value();
  });
  if (!done) return propagate(done);
  end_bytes();
  return joined;
}

}  // namespace mkvirtfs
