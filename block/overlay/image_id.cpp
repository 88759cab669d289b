// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/image_id.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "block/extent.h"
#include "support/byte_order.h"
#include "support/sha256.h"

namespace mkvirtfs {

Result<ImageId> image_id(BlockDevice& device) {
  Sha256 sha;
  const auto add = [&](std::uint64_t number) {
    std::array<std::byte, 8> bytes;
    store_le(bytes, 0, number);
    sha.update(bytes);
  };
  const std::uint64_t size_bytes = device.geometry().size_bytes;
  add(size_bytes);
  std::vector<std::byte> bytes;
  Result<void> result;
  for_each_extent(device, {0, size_bytes}, [&](const Extent& extent) {
    add(extent.offset);
    add(extent.length);
    if (extent.kind == ExtentKind::hole) {
      add(0);
    } else if (extent.kind == ExtentKind::content) {
      // The bytes of files follow from their names, sizes and times, which stand elsewhere.
      add(1);
      add(static_cast<std::uint64_t>(extent.content));
      add(extent.content_offset);
    } else {
      // Computed or in memory is for the planner to choose.
      add(2);
      for (std::uint64_t done = 0; result && done < extent.length; done += bytes.size()) {
        bytes.resize(static_cast<std::size_t>(
            std::min<std::uint64_t>(extent.length - done, std::uint64_t{1} << 20)));
        result = device.read(extent.offset + done, bytes);
        sha.update(bytes);
      }
    }
    return result.has_value();
  });
  if (!result) return propagate(result);
  return sha.finish();
}

}  // namespace mkvirtfs
