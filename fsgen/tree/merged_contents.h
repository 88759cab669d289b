// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/content.h"
#include "fsgen/tree/source_tree.h"
#include "fsgen/tree/stack_marks.h"
#include "support/error.h"

namespace mkvirtfs {

/// A node of a layer. Directories on the way to where a layer is placed are counted backwards from
/// the last number that there is: ~0 is the first of them.
struct Origin {
  LayerNo layer;
  NodeNo node;

  friend auto operator<=>(const Origin&, const Origin&) = default;
};

struct OriginHash {
  std::size_t operator()(const Origin& origin) const noexcept {
    return std::hash<std::uint64_t>()(std::uint64_t{origin.layer} << 32 | origin.node);
  }
};

/// The stores of all layers as one: each node's bytes are those of its origin.
class MergedContents final : public ContentStore {
 public:
  /// By layer, and by node of the merged tree.
  MergedContents(std::vector<std::shared_ptr<ContentStore>> stores, std::vector<Origin> origins)
      : stores_(std::move(stores)), origins_(std::move(origins)) {
    for (const std::shared_ptr<ContentStore>& store : stores_) has_joined_ |= store->has_joined();
  }

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override {
    return store(content).read(below(content), offset, out);
  }
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override {
    return store(content).read_at_once(below(content), offset, out);
  }
  bool is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) override {
    return store(content).is_at_hand(below(content), offset, length);
  }
  void fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) override {
    store(content).fetch(below(content), offset, length);
  }
  bool keeps_fetched(ContentNo content) override {
    return store(content).keeps_fetched(below(content));
  }
  Result<Pin> pin(ContentNo content) override { return store(content).pin(below(content)); }
  Result<void> recheck(ContentNo content, const PinnedFile& file) override {
    return store(content).recheck(below(content), file);
  }
  void map(ContentNo content, Range range, ExtentSink& sink) override {
    store(content).map(below(content), range, sink);
  }
  bool has_joined() const override { return has_joined_; }
  std::string name(ContentNo content) const override { return store(content).name(below(content)); }
  std::optional<HostFile> host_file(ContentNo content) const override {
    // A number beyond all nodes is that of a directory that was made on the way to a layer.
    if (node_no(content) >= origins_.size()) return std::nullopt;
    return store(content).host_file(below(content));
  }
  std::uint32_t source_of(ContentNo content) const override { return origin(content).layer; }

 private:
  const Origin& origin(ContentNo content) const noexcept { return origins_[node_no(content)]; }
  ContentStore& store(ContentNo content) const noexcept { return *stores_[origin(content).layer]; }
  ContentNo below(ContentNo content) const noexcept { return content_no(origin(content).node); }

  std::vector<std::shared_ptr<ContentStore>> stores_;
  std::vector<Origin> origins_;
  bool has_joined_ = false;
};

}  // namespace mkvirtfs
