// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace mkvirtfs::disk {

/// Which inodes were seen: an open end of bits, of which only those parts take memory that are
/// used.
class NumberSet {
 public:
  /// False: it is there already.
  bool insert(std::uint64_t number) {
    auto& part = parts_[number / kPart];
    if (!part) part = std::make_unique<std::bitset<kPart>>();
    if (part->test(number % kPart)) return false;
    part->set(number % kPart);
    return true;
  }

 private:
  static constexpr std::size_t kPart = 32768;
  std::unordered_map<std::uint64_t, std::unique_ptr<std::bitset<kPart>>> parts_;
};

}  // namespace mkvirtfs::disk
