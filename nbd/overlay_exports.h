// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "exports/overlay_exports.h"
#include "nbd/export_tree.h"

namespace mkvirtfs::nbd {

using mkvirtfs::OverlayExports;

}  // namespace mkvirtfs::nbd
