// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace mkvirtfs {

/// Ids `from` .. `from + count - 1` become `to` ..; ids in no mapping stay.
struct IdMapping {
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::uint32_t count = 1;
};

/// User or group ids of the host as the image has them: the first mapping that holds an id decides.
class IdMap {
 public:
  IdMap() = default;
  explicit IdMap(std::vector<IdMapping> mappings) : mappings_(std::move(mappings)) {}

  std::uint32_t operator()(std::uint32_t id) const noexcept {
    for (const IdMapping& mapping : mappings_) {
      if (id >= mapping.from && id - mapping.from < mapping.count) {
        return mapping.to + (id - mapping.from);
      }
    }
    return id;
  }

 private:
  std::vector<IdMapping> mappings_;
};

}  // namespace mkvirtfs
