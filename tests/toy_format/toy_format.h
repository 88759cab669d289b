// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "fsgen/image/format.h"

namespace mkvirtfs::toy {

/// A format for tests and for docs/adding-a-format.md: a block with the label, then the bytes of
/// every regular file, each from a new block on.
const Format& format();

}  // namespace mkvirtfs::toy
