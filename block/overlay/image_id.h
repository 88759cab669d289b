// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "block/device.h"
#include "block/overlay/header.h"
#include "support/error.h"

namespace mkvirtfs {

/// SHA-256 of a device's map and of all bytes that no file holds. Takes as long as making these.
Result<ImageId> image_id(BlockDevice& device);

}  // namespace mkvirtfs
