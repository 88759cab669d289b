// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "nbd/server/agreement.h"
#include "nbd/wire/codec.h"

namespace mkvirtfs::nbd {

/// What is to be done with a request, by the command table alone.
struct Verdict {
  enum class Action : std::uint8_t {
    serve,       ///< it is legal: carry it out
    refuse,      ///< answer with `error`, after its payload was dropped
    finish,      ///< the client takes its leave
    disconnect,  ///< it broke the protocol beyond repair
  };
  Action action = Action::serve;
  WireError error = WireError::ok;
  std::string_view reason;          ///< for people
  std::uint32_t payload_bytes = 0;  ///< behind the request
};

/// Judges a request: the one place where a client's command, flags and range are checked, so that
/// devices only ever see legal requests (law 7).
Verdict judge(const Request& request, const Agreement& agreed) noexcept;

/// Whether the command is about a range of the export.
bool has_range(Command command) noexcept;

/// The payload of a block status: the length that it is about, and the ids of some contexts.
inline constexpr std::size_t kFilterHeadBytes = 8;
inline constexpr std::size_t kContextIdBytes = 4;

}  // namespace mkvirtfs::nbd
