// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "fsgen/image/format_registry.h"

namespace mkvirtfs {

/// The formats that mkvirtfs has. A new one is a line in formats.cpp.
const FormatRegistry& all_formats();

}  // namespace mkvirtfs
