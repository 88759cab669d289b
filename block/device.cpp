// SPDX-License-Identifier: BSD-3-Clause
#include "block/device.h"

namespace mkvirtfs {
namespace {

std::unexpected<Error> read_only() { return fail(Errc::unsupported, "the device is read-only"); }

}  // namespace

bool BlockDevice::may_wait(DeviceCall, Range) const { return true; }

Result<void> BlockDevice::write(std::uint64_t, std::span<const std::byte>) { return read_only(); }
Result<void> BlockDevice::zero(Range, bool) { return read_only(); }
Result<void> BlockDevice::trim(Range) { return read_only(); }
Result<void> BlockDevice::flush() { return {}; }

}  // namespace mkvirtfs
