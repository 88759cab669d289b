// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::archive {

/// Names are written as by vis(3): "\040" for a blank, and C's short forms. Any other backslash is
/// itself.
std::string unescaped_name(std::string_view text);

/// What a line says, on top of what "/set" said before.
struct MtreeKeywords {
  std::uint16_t type = 0;
  std::optional<std::uint16_t> permissions;
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  // By name, when there is no number: this host's, or the name that it does not know.
  std::optional<std::uint32_t> named_uid;
  std::optional<std::uint32_t> named_gid;
  std::string unknown_user;
  std::string unknown_group;
  std::optional<Timestamp> mtime;
  std::optional<std::uint64_t> size_bytes;
  std::optional<std::string> link_target;
  std::optional<std::string> contents;
  std::optional<DeviceNumber> device;
  bool is_optional = false;
  bool no_change = false;

  /// What is wrong with the word, in words.
  std::optional<std::string> set(std::string_view word);
  void unset(std::string_view keyword);
};

}  // namespace mkvirtfs::archive
