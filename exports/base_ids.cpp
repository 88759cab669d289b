// SPDX-License-Identifier: BSD-3-Clause
#include "exports/base_ids.h"

#include <algorithm>

#include "block/overlay/image_id.h"
#include "support/message.h"

namespace mkvirtfs {
namespace {

Result<ImageId> guarded_image_id(BlockDevice& device) {
  // Whatever goes wrong, the calls that wait must learn of it.
  try {
    return image_id(device);
  } catch (...) {
    return std::unexpected(error_of_exception("compute the id of the image"));
  }
}

}  // namespace

Result<ImageId> BaseIds::id_of(const std::shared_ptr<BlockDevice>& device) {
  std::shared_ptr<Known> known;
  {
    MutexLock lock(mutex_);
    std::erase_if(known_, [](const auto& each) { return each->device.expired(); });
    // Not by lock(): what is freed must not be freed here.
    const auto found = std::ranges::find_if(known_, [&](const auto& each) {
      return !each->device.owner_before(device) && !device.owner_before(each->device);
    });
    if (found != known_.end()) {
      known = *found;
      while (!known->id) lock.wait(computed_);
      return *known->id;
    }
    known = known_.emplace_back(std::make_shared<Known>());
    known->device = device;
  }
  Result<ImageId> id = guarded_image_id(*device);
  {
    const MutexLock lock(mutex_);
    known->id = id;
    if (!id) std::erase(known_, known);  // the next one tries again
  }
  computed_.notify_all();
  return id;
}

}  // namespace mkvirtfs
