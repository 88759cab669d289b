// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "block/content.h"
#include "fsgen/archive/layer_tree.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/compressed.h"
#include "fsgen/tree/source_tree.h"
#include "support/mutex.h"

namespace mkvirtfs::archive {

/// The bytes of an archive's members. Stored ones are windows of the archive, or of what it unpacks
/// to, or of its spool, and can be moved by the kernel where these can; deflated ones are unpacked
/// as they are read, by sources of which the last few thousand are kept.
class ArchiveContents final : public ContentStore {
 public:
  struct Sources {
    std::shared_ptr<ByteSource> stream;   ///< of MemberPlace::stored and MemberPlace::deflated
    std::shared_ptr<ByteSource> spool;    ///< of MemberPlace::spooled
    std::shared_ptr<ContentStore> hosts;  ///< of MemberPlace::host: by node number
  };

  ArchiveContents(std::shared_ptr<const SourceTree> tree, ContentPlaces places, Sources sources,
                  StreamOptions stream_options);

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override;
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override;
  bool is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  void fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  bool keeps_fetched(ContentNo content) override;
  /// Files without holes that lie stored in something that can be pinned.
  Result<Pin> pin(ContentNo content) override;
  Result<void> recheck(ContentNo content, const PinnedFile& file) override;
  std::string name(ContentNo content) const override;
  std::optional<HostFile> host_file(ContentNo content) const override;

 private:
  /// Where a file's bytes are to be read: byte n of it, or of a sparse one's data, is at
  /// `offset` + n.
  struct Bytes {
    std::shared_ptr<ByteSource> source;
    std::uint64_t offset = 0;
    /// When there are any: byte n is the n-th of all of them.
    std::span<const ContentPlaces::Piece> pieces;
  };
  /// Calls `visit(source offset, part of the range, counted from its start)` for each piece.
  template <class Visit>
  static Result<void> for_each_piece(const Bytes& bytes, Range range, Visit visit);
  /// Whether its bytes lie somewhere, so that bytes_of() is for it: neither holes alone nor
  /// unreadable.
  bool lies_somewhere(NodeNo no) const noexcept;
  /// Zeroes for what lies nowhere; the error of what is unreadable.
  Result<void> read_nothing(NodeNo no, std::span<std::byte> out) const;
  Result<Bytes> bytes_of(NodeNo no);
  Result<std::shared_ptr<ByteSource>> deflated(NodeNo no) EXCLUDES(mutex_);
  /// Calls `visit(source offset, part of out)` for what is data; zeroes the rest.
  template <class Visit>
  Result<void> for_each_run(NodeNo no, std::uint64_t offset, std::span<std::byte> out,
                            Visit visit) const;
  std::unexpected<Error> named(NodeNo no, Error error) const;

  const std::shared_ptr<const SourceTree> tree_;
  const ContentPlaces places_;
  const Sources sources_;
  const StreamOptions stream_options_;

  struct Kept {
    std::shared_ptr<ByteSource> source;
    std::uint64_t last_use = 0;
  };
  Mutex mutex_;
  std::map<NodeNo, Kept> deflated_ GUARDED_BY(mutex_);
  std::uint64_t clock_ GUARDED_BY(mutex_) = 0;
};

}  // namespace mkvirtfs::archive
