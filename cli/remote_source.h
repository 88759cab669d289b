// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "fsgen/stream/byte_source.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The disk behind an NBD URI, for ResourceOptions::open_address.
Result<std::shared_ptr<ByteSource>> open_remote_source(const std::string& uri);

}  // namespace mkvirtfs::cli
