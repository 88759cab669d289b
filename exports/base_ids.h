// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <condition_variable>
#include <memory>
#include <optional>
#include <vector>

#include "block/device.h"
#include "block/overlay/header.h"
#include "support/error.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// The ids of images that have overlays on a disk: twenty clones of one image need it once. A call
/// while it is computed waits for that, but for no other image. Any thread.
class BaseIds {
 public:
  Result<ImageId> id_of(const std::shared_ptr<BlockDevice>& device);

 private:
  struct Known {
    std::weak_ptr<BlockDevice> device;
    std::optional<Result<ImageId>> id;
  };

  Mutex mutex_;
  std::condition_variable_any computed_;
  std::vector<std::shared_ptr<Known>> known_ GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs
