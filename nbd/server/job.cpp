// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/job.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "block/content.h"
#include "block/extent.h"
#include "nbd/server/remark.h"

namespace mkvirtfs::nbd {

void Job::run() noexcept {
  try {
    result_ = work();
  } catch (const std::exception& exception) {
    has_thrown_ = true;
    result_ = std::unexpected(error_of(exception));
    // The read that follows gets this failure, and does not try again.
    if (work_ == Work::read) {
      carried_.emplace();
      carried_->offset = range_.offset;
      carried_->failure = result_.error();
    }
  }
}

Result<void> Job::work() {
  switch (work_) {
    case Work::fetch:
    case Work::read:
      bring();
      return {};
    case Work::flush:
      return device_->flush();
    case Work::write: {
      const auto payload = std::exchange(payload_, nullptr);  // freed when it is written
      return device_->write(range_.offset,
                            {payload.get(), static_cast<std::size_t>(range_.length)});
    }
    case Work::zero:
      return device_->zero(range_, false);
    case Work::zero_allocated:
      return device_->zero(range_, true);
    case Work::trim:
      return device_->trim(range_);
    case Work::open: {
      Result<Export> opened = exports_->open(name_);
      if (!opened) return propagate(opened);
      opened_ = *std::move(opened);
      return {};
    }
  }
  return {};
}

void Job::bring() {
  bool must_carry = false;
  for_each_extent(*device_, range_, [&](const Extent& extent) {
    if (extent.is_made()) {
      must_carry = work_ == Work::read &&
                   device_->may_wait(DeviceCall::read, {extent.offset, extent.length});
    } else if (extent.kind == ExtentKind::content) {
      must_carry = work_ == Work::read && !extent.store->keeps_fetched(extent.content);
      if (!must_carry) extent.store->fetch(extent.content, extent.content_offset, extent.length);
    }
    return !must_carry;
  });
  if (must_carry) carry();
}

/// All kinds of extents, and not only those that are not kept: the device may look different when
/// the read goes on, and then still gets bytes of one moment.
void Job::carry() {
  const auto wanted =
      static_cast<std::size_t>(std::min<std::uint64_t>(range_.length, kMostCarriedBytes));
  CarriedBytes carried;
  carried.offset = range_.offset;
  carried.bytes = std::make_unique_for_overwrite<std::byte[]>(wanted);
  for_each_extent(*device_, {range_.offset, wanted}, [&](const Extent& extent) {
    const auto into =
        std::span(carried.bytes.get() + carried.length, static_cast<std::size_t>(extent.length));
    if (const Result<void> read = device_->read(extent.offset, into); !read) {
      carried.failure = read.error();
      return false;
    }
    carried.length += into.size();
    return true;
  });
  carried_ = std::move(carried);
}

}  // namespace mkvirtfs::nbd
