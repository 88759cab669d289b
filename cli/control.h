// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/control_server.h"
#include "exports/overlay_exports.h"

namespace mkvirtfs::cli {

/// What `mkvirtfs ctl` can ask of a running server. `writable` is null when nothing can be written;
/// `statistics` returns one line of JSON.
ControlServer::Handler make_control(std::shared_ptr<OverlayExports> writable,
                                    std::function<std::string()> statistics);

}  // namespace mkvirtfs::cli
