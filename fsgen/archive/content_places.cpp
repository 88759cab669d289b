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
  return is_sparse(no) ? sparse(no).offset : where_[no];
}

void ContentPlaces::add_nowhere() {
  place_.push_back(MemberPlace::nowhere);
  sparse_place_.push_back(false);
  where_.push_back(0);
}

void ContentPlaces::add(const Member& member) {
  place_.push_back(member.place);
  const bool plain = member.place == MemberPlace::stored || member.place == MemberPlace::spooled;
  sparse_place_.push_back(plain && member.is_sparse);
  switch (member.place) {
    case MemberPlace::nowhere:
      where_.push_back(0);
      break;
    case MemberPlace::stored:
    case MemberPlace::spooled:
      if (!member.is_sparse) {
        where_.push_back(member.data_offset);
      } else {
        Sparse sparse{member.data_offset, {}};
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
      where_.push_back(contents_.size());
      contents_.emplace_back(member.contents);
      break;
  }
}

}  // namespace mkvirtfs::archive
