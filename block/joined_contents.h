// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "block/content.h"

namespace mkvirtfs {

/// A part of a joined content. Never empty.
struct ContentPiece {
  struct Zeroes {};
  struct Memory {
    std::shared_ptr<const std::vector<std::byte>> bytes;
    std::size_t offset = 0;  ///< of the piece in `bytes`
  };
  /// Bytes of a content of another store, which the piece keeps alive. They lie inside its planned
  /// size.
  struct Other {
    std::shared_ptr<ContentStore> store;
    ContentNo content{};
    std::uint64_t offset = 0;
  };

  std::uint64_t length = 0;
  std::variant<Zeroes, Memory, Other> from;

  static ContentPiece zeroes(std::uint64_t length) { return {length, Zeroes{}}; }
  static ContentPiece memory(std::vector<std::byte> bytes);
  static ContentPiece of(std::shared_ptr<ContentStore> store, ContentNo content, Range range) {
    return {range.length, Other{std::move(store), content, range.offset}};
  }
};

/// Pieces that stand one behind the other, as one content.
struct JoinedContent {
  std::string name;  ///< as ContentStore::name() says it
  std::vector<ContentPiece> pieces;

  std::uint64_t size_bytes() const noexcept;
};

/// A store whose contents are made of pieces: a kernel image made of several files, a loader with a
/// header before it.
///
/// The map of a content (ContentStore::map()) leads to each piece where it lives, so whatever moves
/// the bytes of an image moves those of a piece as it would move them by themselves: holes stay
/// holes, files of the host go by sendfile or copy_file_range, members of archives are unpacked. A
/// piece's file that changed is answered by its own store's policy and under its own name.
///
/// Immutable: any method, any thread, as far as the other stores allow.
class JoinedContents final : public ContentStore {
 public:
  /// Each under its number, which is a node's where the contents are those of a tree.
  explicit JoinedContents(std::map<ContentNo, JoinedContent> contents);

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override;
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override;
  bool is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  void fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  bool keeps_fetched(ContentNo content) override;
  /// There is no descriptor for all of it: the pieces have theirs.
  Result<Pin> pin(ContentNo) override { return Pin{}; }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo content) const override;
  void map(ContentNo content, Range range, ExtentSink& sink) override;
  bool has_joined() const override { return true; }

 private:
  /// A content, and where each of its pieces begins.
  struct Placed {
    JoinedContent content;
    std::vector<std::uint64_t> starts;
  };

  /// Calls `visit(piece, range in it, offset in the content) -> bool` for the parts of a range.
  template <class Visit>
  void for_each_part(ContentNo content, Range range, Visit&& visit) const;

  std::map<ContentNo, Placed> contents_;
};

}  // namespace mkvirtfs
