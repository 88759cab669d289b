// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace mkvirtfs::nbd {

/// Which clients may do without TLS ("TLS versions" in the protocol: NOTLS, SELECTIVETLS,
/// FORCEDTLS).
enum class TlsMode : std::uint8_t {
  off,      ///< STARTTLS is refused
  on,       ///< STARTTLS is offered, every export can be had without it
  require,  ///< nothing but STARTTLS and ABORT is answered without it
};

}  // namespace mkvirtfs::nbd
