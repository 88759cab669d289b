// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "fsgen/stream/packing.h"
#include "support/error.h"
#include "support/unique_fd.h"

// What a helper and the process that started it say to each other: messages of a type and a
// payload over a socket pair. The helper speaks first of everything but the job; each `read` is
// answered by `bytes` or `refusal`, and nothing else is.

namespace mkvirtfs::helper {

enum class MessageType : std::uint8_t {
  job = 1,      ///< to the helper: what to do, and its limits
  bytes = 2,    ///< to the helper: what it asked for
  refusal = 3,  ///< to the helper: why it does not get it
  read = 4,     ///< from the helper: some bytes of the source
  records = 5,  ///< from the helper: more of what it found
  data = 6,     ///< from the helper: more of what it unpacked
  restart = 7,  ///< from the helper: records and data begin anew
  remark = 8,   ///< from the helper: a line for the log
  done = 9,     ///< from the helper: the last of it
  failed = 10,  ///< from the helper: why there is nothing
};

constexpr std::size_t kMostPayloadBytes = std::size_t{1} << 20;

struct Message {
  MessageType type{};
  std::vector<std::byte> payload;
};

/// An error as a payload, and back; nullopt for what is none. Texts are cut to 64 KiB.
void put(Packer& out, const Error& error);
std::optional<Error> take_error(Unpacker& in);

/// One end of the socket pair. One thread.
class MessageSocket {
 public:
  explicit MessageSocket(UniqueFd descriptor) : descriptor_(std::move(descriptor)) {}

  /// How long the other side may keep this one waiting from now on, over all calls; at first it may
  /// for ever.
  void set_patience(std::chrono::nanoseconds patience) noexcept { patience_ = patience; }
  /// How long it has, over all calls.
  std::chrono::nanoseconds waited() const noexcept { return waited_; }

  enum class Outcome : std::uint8_t { done, closed, too_slow, broken };

  Outcome send(MessageType type, std::span<const std::byte> payload);
  /// `broken` also for a message that is too long.
  Outcome receive(Message& message);

 private:
  Outcome wait(short events);
  Outcome receive_all(std::span<std::byte> out);
  Outcome send_all(std::span<const std::byte> bytes);

  UniqueFd descriptor_;
  std::optional<std::chrono::nanoseconds> patience_;
  std::chrono::nanoseconds waited_{};
};

}  // namespace mkvirtfs::helper
