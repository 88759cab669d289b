// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "fsgen/image/format.h"

namespace mkvirtfs::toy {

/// A format for tests and for docs/adding-a-format.md: a block with the label, then the bytes of
/// every regular file, each from a new block on. The ends of files may be packed behind them, with
/// a sum in each block: that is derived of the files' bytes.
const Format& format();

}  // namespace mkvirtfs::toy
