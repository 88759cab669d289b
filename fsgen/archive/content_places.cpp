// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/content_places.h"

#include <utility>

namespace mkvirtfs::archive {

void ContentPlaces::reserve(std::size_t nodes) {
  place_.reserve(nodes);
  sparse_place_.reserve(nodes);
  where_.reserve(nodes);
}

std::uint64_t ContentPlaces::lies_at(NodeNo no) const noexcept {
  if (place_[no] == MemberPlace::deflated) return deflated(no).offset;
  if (place_[no] == MemberPlace::in_pieces) return pieces(no).front().range.offset;
  return is_sparse(no) ? sparse(no).offset : where_[no];
}

void ContentPlaces::add_nowhere() {
  place_.push_back(MemberPlace::nowhere);
  sparse_place_.push_back(false);
  where_.push_back(0);
}

std::uint64_t ContentPlaces::add_pieces(const Member& member) {
  std::uint64_t before = 0;
  for (const Range& range : member.pieces) {
    pieces_.push_back({before, range});
    before += range.length;
  }
  first_piece_.push_back(pieces_.size());
  return first_piece_.size() - 2;
}

void ContentPlaces::add(const Member& member) {
  place_.push_back(member.place);
  const bool plain = member.place == MemberPlace::stored || member.place == MemberPlace::spooled ||
                     member.place == MemberPlace::in_pieces;
  sparse_place_.push_back(plain && member.is_sparse);
  const std::uint64_t start =
      member.place == MemberPlace::in_pieces ? add_pieces(member) : member.data_offset;
  switch (member.place) {
    case MemberPlace::nowhere:
      where_.push_back(0);
      break;
    case MemberPlace::stored:
    case MemberPlace::spooled:
    case MemberPlace::in_pieces:
      if (!member.is_sparse) {
        where_.push_back(start);
      } else {
        Sparse sparse{start, {}};
        std::uint64_t skipped = 0;
        for (const Range& run : member.stored_runs) {
          sparse.skipped.push_back(member.stores_holes ? run.offset : skipped);
          skipped += run.length;
        }
        where_.push_back(sparse_.size());
        sparse_.push_back(std::move(sparse));
      }
      break;
    case MemberPlace::deflated:
      where_.push_back(deflated_.size());
      deflated_.push_back({member.data_offset, member.packed_bytes, member.crc32});
      break;
    case MemberPlace::host:
    case MemberPlace::unreadable:
      where_.push_back(contents_.size());
      contents_.emplace_back(member.contents);
      break;
  }
}

}  // namespace mkvirtfs::archive
