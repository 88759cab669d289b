// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "net/job_queue.h"

namespace mkvirtfs::net {

/// How a turn treats a client that has nothing to say.
enum class Patience : std::uint8_t {
  none,    ///< never waits for the client
  linger,  ///< waits a little: a busy client saves its thread the way through a poll loop
};

/// One client of a ServerLoop, whatever protocol it speaks: a connected socket and what stands
/// behind it. A front end implements it; the loop says when to go on, and on which thread.
///
/// Belongs to one thread at a time, which changes; only the functions that say so may be called
/// from others. What a turn throws ends the client.
class ServedClient {
 public:
  using Clock = std::chrono::steady_clock;

  /// What a turn ended with.
  struct Wants {
    bool read = false;          ///< another turn when there is something to receive
    bool write = false;         ///< another turn when there is room to send
    bool another_turn = false;  ///< at once: it only let others have the thread
    bool ended = false;         ///< the client is gone, or was sent away
    bool is_served = false;     ///< it got what clients come for, now or earlier
    Clock::time_point deadline = Clock::time_point::max();  ///< another turn then at the latest
  };

  virtual ~ServedClient() = default;
  ServedClient(const ServedClient&) = delete;
  ServedClient& operator=(const ServedClient&) = delete;

  virtual int fd() const noexcept = 0;
  /// When the first turn is due at the latest.
  virtual Clock::time_point first_deadline() const noexcept = 0;

  /// Goes on as far as it can, but not for long at a time. Wanting neither to read nor to write, it
  /// waits for a job.
  virtual Wants turn(Patience patience) = 0;
  /// What the last turn left to be done by a thread that may wait; null: nothing more. Such a task
  /// keeps what it needs alive, but for the front end itself.
  virtual std::shared_ptr<LaneTask> take_job() = 0;
  /// Takes such a task back, once it has run. A turn follows.
  virtual void job_done(const std::shared_ptr<LaneTask>& job) = 0;
  /// Gives memory back that only a busy client needs: it has gone quiet.
  virtual void trim() = 0;

  /// Takes no new requests, lets the ones received be answered, then ends. A turn follows. Any
  /// thread.
  virtual void begin_shutdown() noexcept = 0;
  /// Ends with the next turn. Any thread.
  virtual void cut() noexcept = 0;
  /// The loop counts it no more; once. Jobs may hold it for a while. Any thread.
  virtual void removed() noexcept = 0;

 protected:
  ServedClient() = default;
};

}  // namespace mkvirtfs::net
