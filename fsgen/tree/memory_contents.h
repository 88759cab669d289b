// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "block/content.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs {

/// Fills `out` with the patterned bytes of the file at `path` from `offset`: a function of both,
/// never zero, so that a block that was lost or came from elsewhere shows.
void fill_pattern(std::string_view path, std::uint64_t offset, std::span<std::byte> out) noexcept;

/// The files' bytes of a tree that a TreeBuilder made: literal ones from memory, all others
/// patterned after the first path of the file; holes read as zeroes. Immutable: any thread.
class MemoryContents final : public MemoryStore {
 public:
  MemoryContents(std::shared_ptr<const SourceTree> tree, std::map<NodeNo, std::string> literals)
      : tree_(std::move(tree)), literals_(std::move(literals)) {}

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override;
  /// There is never a descriptor.
  Result<Pin> pin(ContentNo) override { return Pin{}; }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo content) const override;

 private:
  std::shared_ptr<const SourceTree> tree_;
  std::map<NodeNo, std::string> literals_;
};

}  // namespace mkvirtfs
