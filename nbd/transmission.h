// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/agreement.h"
#include "nbd/allocation.h"
#include "nbd/batch.h"
#include "nbd/codec.h"
#include "nbd/read_reply.h"
#include "nbd/reply.h"

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
  std::uint32_t payload_bytes = 0;  ///< behind the request, to be dropped
};

/// Judges a request: the one place where a client's command, flags and range are checked, so that
/// devices only ever see legal requests (law 7).
Verdict judge(const Request& request, const Agreement& agreed) noexcept;

/// Limits of what is gathered before it is sent, and where copying stops to pay.
struct TransmissionTuning {
  /// A batch is handed over when it owns about this much. At least 128 KiB.
  std::size_t batch_bytes = 256U << 10;
  /// Runs of files from this size on are moved by the kernel, smaller ones are read and gathered.
  /// Measured on a Unix socket (CPU seconds of both ends for 1 GiB, read against sendfile): 16 KiB
  /// 0.47 / 0.55, 32 KiB 0.39 / 0.35, 64 KiB 0.33 / 0.25, 256 KiB 0.30 / 0.21.
  std::uint64_t file_run_bytes = 32U << 10;
  /// Whether the kernel can move file bytes to this client at all.
  bool file_runs = true;
};

/// The transmission phase of one client: requests in, a batch of replies out.
///
/// The batch is the bound of its memory: no request is looked at while the batch is full, and the
/// reply to a long read is made in as many batches as it takes (see ReadReply). No socket, clock or
/// thread. Belongs to one thread; the batch lives longer.
class Transmission {
 public:
  Transmission(Agreement agreed, Batch& out, const TransmissionTuning& tuning);

  /// Takes requests from the front of `input` and puts replies into the batch; says how many bytes
  /// it took. Call it again after the batch was sent, also without new input.
  std::size_t consume(std::span<const std::byte> input);

  /// The batch was sent and cleared; `move` says how its file run fared, if it had one.
  void batch_sent(const FileMove& move);

  /// The client is to be disconnected, once it has been sent what is in the batch.
  bool ended() const noexcept { return ended_; }
  /// Why, for the log; "" when the client asked for it.
  std::string_view end_reason() const noexcept { return end_reason_; }

  /// From now on new requests are answered with ESHUTDOWN.
  void begin_shutdown() noexcept { shutting_down_ = true; }

 private:
  std::size_t drop(std::span<const std::byte> input);
  void handle(const Request& request);
  void serve_block_status(const Request& request);
  void end(std::string_view reason);

  const Agreement agreed_;
  Batch& out_;
  bool shutting_down_ = false;
  bool ended_ = false;
  std::string end_reason_;
  ReadReply read_;
  std::vector<StatusRun> runs_;

  /// A refused request whose payload is being dropped.
  struct Dropping {
    std::uint32_t bytes_left = 0;
    std::uint64_t cookie = 0;
    Failure failure;
  };
  std::optional<Dropping> dropping_;
};

}  // namespace mkvirtfs::nbd
