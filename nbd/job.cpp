// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/job.h"

#include <exception>
#include <utility>

#include "block/content.h"
#include "block/extent.h"

namespace mkvirtfs::nbd {

void Job::run() noexcept {
  try {
    if (work_ == Work::flush) {
      result_ = device_->flush();
    } else {
      for_each_extent(*device_, range_, [](const Extent& extent) {
        if (extent.kind == ExtentKind::content) {
          extent.store->fetch(extent.content, extent.content_offset, extent.length);
        }
        return true;
      });
    }
  } catch (const std::exception& exception) {
    result_ = std::unexpected(Error{Errc::io, 0, exception.what()});
  }
}

}  // namespace mkvirtfs::nbd
