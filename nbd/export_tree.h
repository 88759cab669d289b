// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "exports/export_tree.h"

// For embedders of the server: what it serves, under the names of this namespace.

namespace mkvirtfs::nbd {

using mkvirtfs::Export;
using mkvirtfs::ExportEntry;
using mkvirtfs::ExportTree;
using mkvirtfs::is_valid_export_name;
using mkvirtfs::LazyExport;
using mkvirtfs::make_fixed_exports;
using mkvirtfs::make_lazy_exports;
using mkvirtfs::make_single_export;

}  // namespace mkvirtfs::nbd
