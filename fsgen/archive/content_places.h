// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fsgen/archive/member_log.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::archive {

/// Where the bytes of a tree's regular files lie: a few bytes a node. Immutable once filled; any
/// thread may read.
class ContentPlaces {
 public:
  struct Deflated {
    std::uint64_t offset = 0;
    std::uint64_t packed_bytes = 0;
    std::uint32_t crc32 = 0;
  };
  /// A sparse file: its data runs lie one behind the other, or with the holes between them.
  struct Sparse {
    std::uint64_t offset = 0;            ///< in_pieces: for pieces()
    std::vector<std::uint64_t> skipped;  ///< a data run: how many bytes are stored before it
  };

  /// One range of several.
  struct Piece {
    std::uint64_t begins_at = 0;  ///< how many bytes lie in the pieces before it
    Range range;
  };

  MemberPlace place(NodeNo no) const noexcept { return place_[no]; }
  bool is_sparse(NodeNo no) const noexcept { return sparse_place_[no]; }
  /// Of what is stored or spooled and not sparse.
  std::uint64_t offset(NodeNo no) const noexcept { return where_[no]; }
  /// Of anything: where its first byte lies.
  std::uint64_t lies_at(NodeNo no) const noexcept;
  const Sparse& sparse(NodeNo no) const noexcept { return sparse_[where_[no]]; }
  const Deflated& deflated(NodeNo no) const noexcept { return deflated_[where_[no]]; }
  const std::string& contents(NodeNo no) const noexcept { return contents_[where_[no]]; }
  /// Of a file that lies in pieces, or of the data runs of a sparse one; at least one.
  std::span<const Piece> pieces(NodeNo no) const noexcept {
    const std::size_t at = is_sparse(no) ? sparse(no).offset : where_[no];
    return std::span(pieces_).subspan(first_piece_[at], first_piece_[at + 1] - first_piece_[at]);
  }

  /// The place of the next node: of `member`'s bytes.
  void add(const Member& member);
  void add_nowhere();
  void reserve(std::size_t nodes);

  std::size_t size() const noexcept { return place_.size(); }

 private:
  /// Which file in pieces it is.
  std::uint64_t add_pieces(const Member& member);

  std::vector<MemberPlace> place_;
  std::vector<bool> sparse_place_;
  std::vector<std::uint64_t> where_;  // stored: the offset; else an index below
  std::vector<Sparse> sparse_;
  std::vector<Deflated> deflated_;
  std::vector<std::string> contents_;
  std::vector<Piece> pieces_;
  std::vector<std::size_t> first_piece_{0};  // of each file in pieces, and the end
};

}  // namespace mkvirtfs::archive
