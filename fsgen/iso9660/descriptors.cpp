// SPDX-License-Identifier: BSD-3-Clause
// Volume descriptors (ECMA-119, 8).
#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "fsgen/iso9660/system_use.h"
#include "fsgen/iso9660/volume.h"
#include "support/byte_order.h"

namespace mkvirtfs::iso9660 {
namespace {

enum class DescriptorType : std::uint8_t {
  boot_record = 0,
  primary = 1,
  supplementary = 2,
  terminator = 255,
};

void put_head(std::span<std::byte> out, DescriptorType type) {
  std::ranges::fill(out, std::byte{0});
  out[0] = static_cast<std::byte>(type);
  std::memcpy(out.data() + 1, "CD001", 5);
  out[6] = std::byte{1};
}

/// Text filled up with blanks; of Joliet, big-endian UTF-16, of which a last odd byte is zero.
void put_text(std::span<std::byte> out, std::size_t at, std::size_t size, std::string_view text,
              Hierarchy::Kind kind) {
  const std::span<std::byte> field = out.subspan(at, size);
  if (kind == Hierarchy::Kind::primary) {
    std::ranges::fill(field, std::byte{' '});
    std::ranges::copy(std::as_bytes(std::span(text.substr(0, size))), field.begin());
    return;
  }
  for (std::size_t i = 0; i + 1 < size; i += 2) {
    const char c = i / 2 < text.size() ? text[i / 2] : ' ';
    field[i + 1] = static_cast<std::byte>(c);
  }
}

/// 17 bytes; empty: not given.
void put_time(std::span<std::byte> out, std::size_t at, std::string_view digits) {
  std::ranges::fill(out.subspan(at, 16), std::byte{'0'});
  std::ranges::copy(std::as_bytes(std::span(digits)), out.subspan(at).begin());
}

}  // namespace

void write_volume_descriptor(const Volume& volume, const Hierarchy& hierarchy,
                             std::span<std::byte> out) {
  const bool joliet = hierarchy.is_joliet();
  put_head(out, joliet ? DescriptorType::supplementary : DescriptorType::primary);
  const auto field = [&](Field which) -> std::string_view {
    return (joliet ? volume.joliet_fields : volume.fields)[std::to_underlying(which)];
  };
  put_text(out, 8, 32, field(Field::system), hierarchy.kind());
  put_text(out, 40, 32, volume.label, hierarchy.kind());
  put_both(out, 80, volume.end.value());
  if (joliet) std::memcpy(out.data() + 88, "%/E", 3);  // UCS-2, level 3
  put_both16(out, 120, 1);                             // volumes in the set
  put_both16(out, 124, 1);                             // which of them
  put_both16(out, 128, kBlockBytes);
  put_both(out, 132, hierarchy.path_table_bytes());
  store_le(out, 140, volume.path_tables[joliet ? 2 : 0].value());
  store_be(out, 148, volume.path_tables[joliet ? 3 : 1].value());
  hierarchy.write_root_record(out.subspan(156, 34));
  put_text(out, 190, 128, field(Field::volume_set), hierarchy.kind());
  put_text(out, 318, 128, field(Field::publisher), hierarchy.kind());
  put_text(out, 446, 128, field(Field::preparer), hierarchy.kind());
  put_text(out, 574, 128, field(Field::application), hierarchy.kind());
  put_text(out, 702, 37, field(Field::copyright), hierarchy.kind());
  put_text(out, 739, 37, field(Field::abstract), hierarchy.kind());
  put_text(out, 776, 37, field(Field::bibliographic), hierarchy.kind());
  put_time(out, 813, volume.time_digits);  // made
  put_time(out, 830, volume.time_digits);  // changed
  put_time(out, 847, {});                  // never obsolete
  put_time(out, 864, {});                  // at once in effect
  out[881] = std::byte{1};                 // version of the structure
  std::ranges::fill(out.subspan(883, 512), volume.options.application_use);
}

void write_boot_record(const Volume& volume, std::span<std::byte> out) {
  put_head(out, DescriptorType::boot_record);
  constexpr std::string_view kSystem = "EL TORITO SPECIFICATION";
  std::memcpy(out.data() + 7, kSystem.data(), kSystem.size());
  store_le(out, 71, volume.catalog.value());
}

void write_terminator(std::span<std::byte> out) { put_head(out, DescriptorType::terminator); }

}  // namespace mkvirtfs::iso9660
