// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace mkvirtfs::guest {

/// Gives the first network device the address that QEMU's user network has for a guest, a route,
/// and a name server.
void set_up_network();

}  // namespace mkvirtfs::guest
