// SPDX-License-Identifier: BSD-3-Clause
//
// A record has room for 254 bytes, and its system use entries may need more. They are divided: as
// many as leave room for a CE stay in the record, the rest goes to the directory's continuation
// area in chunks that never cross a block, each but the last ending with a CE that names the next.
#include "fsgen/iso9660/system_use.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "fsgen/iso9660/iso_time.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::size_t kMostEntryBytes = 255;
constexpr std::size_t kHeaderBytes = 4;  // signature, length, version
constexpr std::byte kContinues{1};       // flag of NM, SL and of SL's components
constexpr std::size_t kMostLinuxNameBytes = 253;

}  // namespace

void put_both(std::span<std::byte> out, std::size_t at, std::uint32_t value) noexcept {
  store_le(out, at, value);
  store_be(out, at + 4, value);
}

void put_both16(std::span<std::byte> out, std::size_t at, std::uint16_t value) noexcept {
  store_le(out, at, value);
  store_be(out, at + 2, value);
}

std::span<std::byte> SystemUse::add(std::string_view signature, std::size_t bytes) noexcept {
  const std::size_t begin = ends_[count_];
  assert(bytes <= kMostEntryBytes && begin + bytes <= bytes_.size() && count_ < kMostEntries);
  const std::span<std::byte> entry = std::span(bytes_).subspan(begin, bytes);
  std::ranges::fill(entry, std::byte{0});
  std::memcpy(entry.data(), signature.data(), 2);
  entry[2] = static_cast<std::byte>(bytes);
  entry[3] = std::byte{1};
  ends_[++count_] = static_cast<std::uint16_t>(begin + bytes);
  return entry;
}

void SystemUse::add_root_marks() noexcept {
  const auto sharing = add("SP", 7);
  sharing[4] = std::byte{0xBE};
  sharing[5] = std::byte{0xEF};
  // Readers compare this id; the texts that may follow it are for people, and empty.
  constexpr std::string_view kRockRidge = "RRIP_1991A";
  const auto extension = add("ER", 8 + kRockRidge.size());
  extension[4] = static_cast<std::byte>(kRockRidge.size());
  extension[7] = std::byte{1};
  std::memcpy(extension.data() + 8, kRockRidge.data(), kRockRidge.size());
}

void SystemUse::add_attributes(const Node& node, std::uint32_t links,
                               std::uint32_t serial) noexcept {
  const auto entry = add("PX", kAttributesBytes);
  put_both(entry, 4, node.mode);
  put_both(entry, 12, links);
  put_both(entry, 20, node.uid);
  put_both(entry, 28, node.gid);
  put_both(entry, 36, serial);
}

void SystemUse::add_times(Timestamp when) noexcept {
  constexpr std::byte kModifyAccessAttributes{0x0E};
  const auto entry = add("TF", kTimesBytes);
  entry[4] = kModifyAccessAttributes;
  for (std::size_t at = 5; at < kTimesBytes; at += kShortTimeBytes) {
    put_short_time(entry.subspan(at, kShortTimeBytes), when);
  }
}

void SystemUse::add_name(std::string_view name) noexcept {
  // Linux passes over the entry that would bring it beyond its limit: so one ends just there.
  bool more = true;
  for (std::size_t done = 0; more;) {
    const std::size_t stop = name.size() > kMostLinuxNameBytes && done < kMostLinuxNameBytes
                                 ? kMostLinuxNameBytes
                                 : name.size();
    const std::size_t length = std::min(stop - done, kMostNameBytes);
    more = done + length < name.size();
    const auto entry = add("NM", kNameHeaderBytes + length);
    if (more) entry[4] = kContinues;
    std::memcpy(entry.data() + kNameHeaderBytes, name.data() + done, length);
    done += length;
  }
}

void SystemUse::add_target(std::string_view target) noexcept {
  constexpr std::byte kCurrent{2};
  constexpr std::byte kParent{4};
  constexpr std::byte kRoot{8};
  constexpr std::size_t kComponentHeader = 2;
  constexpr std::size_t kRoom = kMostEntryBytes - 5;
  // What stands in one SL; a component that does not fit the rest of it begins the next.
  std::array<std::byte, kRoom> components;
  std::size_t used = 0;
  constexpr std::byte kEnds{0};
  const auto flush = [&](std::byte flags) {
    const auto entry = add("SL", 5 + used);
    entry[4] = flags;
    std::memcpy(entry.data() + 5, components.data(), used);
    used = 0;
  };
  const auto component = [&](std::byte flags, std::string_view text) {
    if (used + kComponentHeader + text.size() > kRoom) flush(kContinues);
    components[used] = flags;
    components[used + 1] = static_cast<std::byte>(text.size());
    std::ranges::copy(std::as_bytes(std::span(text)),
                      std::span(components).subspan(used + kComponentHeader).begin());
    used += kComponentHeader + text.size();
  };
  if (target.starts_with('/')) {
    component(kRoot, {});
    target.remove_prefix(1);
    if (target.empty()) {
      flush(kEnds);
      return;
    }
  }
  for (bool more = true; more;) {
    const std::size_t slash = target.find('/');
    std::string_view text = target.substr(0, slash);
    more = slash != std::string_view::npos;
    if (more) target.remove_prefix(slash + 1);
    if (text == ".") {
      component(kCurrent, {});
    } else if (text == "..") {
      component(kParent, {});
    } else {
      constexpr std::size_t kMostText = kRoom - kComponentHeader;
      for (; text.size() > kMostText; text.remove_prefix(kMostText)) {
        component(kContinues, text.substr(0, kMostText));
      }
      component(kEnds, text);
    }
  }
  flush(kEnds);
}

void SystemUse::add_device(DeviceNumber number) noexcept {
  // The low word is what Linux and the C library agree on, as long as the minor number has 8 bits;
  // beyond them Linux wants the numbers one in each word.
  const bool small = number.minor <= 0xFF && number.major <= 0xFFF;
  const auto entry = add("PN", 20);
  put_both(entry, 4, small ? 0 : number.major);
  put_both(entry, 12, small ? number.major << 8 | number.minor : number.minor);
}

void SystemUse::add_child(BlockNo block) noexcept { put_both(add("CL", 12), 4, block.value()); }

void SystemUse::add_parent(BlockNo block) noexcept { put_both(add("PL", 12), 4, block.value()); }

void SystemUse::add_relocated() noexcept { add("RE", kHeaderBytes); }

std::uint64_t SystemUse::divide(std::size_t capacity, std::uint64_t area_bytes) noexcept {
  chunk_count_ = 0;
  in_record_ = count_;
  if (size_bytes() <= capacity) return area_bytes;
  in_record_ = 0;
  while (ends_[in_record_ + 1] + kContinuationBytes <= capacity) ++in_record_;

  std::uint64_t at = area_bytes;
  const std::uint64_t rest = size_bytes() - ends_[in_record_];
  if (rest > kBlockBytes - at % kBlockBytes) at = round_up<std::uint64_t>(at, kBlockBytes);
  for (std::size_t first = in_record_; first < count_;) {
    Chunk chunk;
    chunk.at = at;
    chunk.first = static_cast<std::uint32_t>(first);
    std::size_t count = count_ - first;
    chunk.last = bytes_of(first, count) <= kBlockBytes - at % kBlockBytes;
    while (!chunk.last && bytes_of(first, count) + kContinuationBytes > kBlockBytes) --count;
    chunk.count = static_cast<std::uint32_t>(count);
    assert(chunk_count_ < kMostChunks);
    chunks_[chunk_count_++] = chunk;
    first += count;
    at += chunk_bytes(chunk);
    if (!chunk.last) at = round_up<std::uint64_t>(at, kBlockBytes);
  }
  return at;
}

void SystemUse::put_continuation(std::span<std::byte> out, BlockNo area, const Chunk& next,
                                 std::size_t bytes) noexcept {
  out[0] = std::byte{'C'};
  out[1] = std::byte{'E'};
  out[2] = std::byte{kContinuationBytes};
  out[3] = std::byte{1};
  put_both(out, 4, (area + static_cast<std::uint32_t>(next.at / kBlockBytes)).value());
  put_both(out, 12, static_cast<std::uint32_t>(next.at % kBlockBytes));
  put_both(out, 20, static_cast<std::uint32_t>(bytes));
}

void SystemUse::write_record(BlockNo area, std::span<std::byte> out) const noexcept {
  std::memcpy(out.data(), bytes_.data(), ends_[in_record_]);
  if (chunk_count_ != 0) {
    put_continuation(out.subspan(ends_[in_record_]), area, chunks_[0], chunk_bytes(chunks_[0]));
  }
}

void SystemUse::write_chunk(std::size_t index, BlockNo area,
                            std::span<std::byte> out) const noexcept {
  const Chunk& chunk = chunks_[index];
  const std::size_t bytes = bytes_of(chunk.first, chunk.count);
  std::memcpy(out.data(), bytes_.data() + ends_[chunk.first], bytes);
  if (!chunk.last) {
    put_continuation(out.subspan(bytes), area, chunks_[index + 1], chunk_bytes(chunks_[index + 1]));
  }
}

}  // namespace mkvirtfs::iso9660
