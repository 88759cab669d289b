// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/server/agreement.h"
#include "nbd/server/allocation.h"
#include "nbd/server/batch.h"
#include "nbd/server/command_rules.h"
#include "nbd/server/job.h"
#include "nbd/server/read_reply.h"
#include "nbd/server/remark.h"
#include "nbd/server/reply.h"
#include "nbd/server/statistics.h"
#include "nbd/wire/codec.h"

namespace mkvirtfs::nbd {

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
  /// Whether requests that may have to wait are laid aside as jobs; else the thread that calls
  /// consume() waits.
  bool makes_jobs = true;
};

/// The transmission phase of one client: requests in, a batch of replies out.
///
/// Requests are answered at once and in order, but for those that may have to wait: they become
/// jobs, and are answered when these are done, while others pass them. None passes a write, a zero
/// or a trim of bytes that it is about itself. The batch, kMostWaiting and kMostWaitingBytes are
/// the bounds of its memory: no request is looked at while the batch is full or so many wait; the
/// reply to a long read is made in as many batches as it takes (see ReadReply); the payload of a
/// write goes to the device as it comes, in pieces when jobs must write it. What a device throws
/// makes its request an error, and a remark. No socket, clock or thread. Belongs to one thread; the
/// batch, the remarks and the meter, which may be null, live longer.
class Transmission {
 public:
  /// Requests under way that may wait at a time.
  static constexpr std::size_t kMostWaiting = 64;
  /// And of together so many bytes, which jobs carry from a read, or to a write.
  static constexpr std::size_t kMostWaitingBytes = 16U << 20;

  Transmission(Agreement agreed, Batch& out, Remarks& remarks, const TransmissionTuning& tuning,
               RequestMeter* meter = nullptr);

  /// Takes requests from the front of `input` and puts replies into the batch; says how many bytes
  /// it took. Call it again after the batch was sent or a job done, also without new input.
  std::size_t consume(std::span<const std::byte> input);
  /// More input would be used: not so when jobs must be done first.
  bool wants_input() const noexcept;

  /// A job to be run; nullptr when there is none. Each must come back by job_done(), until the
  /// session ended.
  std::shared_ptr<Job> take_job();
  void job_done(const std::shared_ptr<Job>& job);
  /// There are jobs that have not come back.
  bool has_jobs() const noexcept { return !waiting_.empty() || current_job_ != nullptr; }

  /// No more input will come: what was begun is finished, and then it ends for `reason`.
  void input_ended(std::string_view reason);

  /// How many bytes of input must be there at once: those of a request without the payload of a
  /// write, which comes in parts.
  std::size_t wanted_bytes() const noexcept {
    return filtering_ ? filtering_->payload_bytes : request_bytes_;
  }

  /// The batch was sent and cleared; `move` says how its file run fared, if it had one.
  void batch_sent(const FileMove& move);

  /// The client is to be disconnected, once it has been sent what is in the batch.
  bool ended() const noexcept { return ended_; }
  /// Why, for the log; "" when the client asked for it.
  std::string_view end_reason() const noexcept { return end_reason_; }

  /// From now on new requests are answered with ESHUTDOWN.
  void begin_shutdown() noexcept { shutting_down_ = true; }

 private:
  /// A request under way: how it is answered and counted.
  struct Asked {
    ReplyTo to;
    RequestMeter::Ticket ticket;
  };
  /// A write, a zero or a trim that jobs do, a long write in several pieces.
  struct Change {
    Request request;
    Asked asked;
    std::size_t pieces_left = 0;  // of those that were begun
    bool all_begun = false;
    Result<void> result;  // the first failure
  };
  /// A request that waits for its job.
  struct Waiting {
    std::shared_ptr<Job> job;
    Asked asked;
    /// The read that goes on then;
    std::unique_ptr<ReadReply> read;
    /// or what the job did a piece of. Without both, the job's result is the answer.
    std::shared_ptr<Change> change;
    bool done = false;
    std::size_t carried_bytes = 0;  ///< at most
  };

  bool has_waiting_room() const noexcept {
    return waiting_.size() < kMostWaiting && waiting_bytes_ < kMostWaitingBytes;
  }
  bool advance_read();
  void resume_one();
  std::size_t take_request(std::span<const std::byte> input);
  std::size_t drop(std::span<const std::byte> input);
  std::size_t take_payload(std::span<const std::byte> input);
  void begin_piece(std::uint64_t offset, std::uint64_t left);
  std::size_t fill_piece(std::span<const std::byte> input);
  void payload_taken(std::uint64_t count);
  /// Whether a job is changing bytes that this request is about.
  bool must_follow(const Request& request) const noexcept;
  void handle(const Request& request);
  std::size_t take_filter(std::span<const std::byte> input);
  /// The contexts with these ids, as bits by their places; nothing for unknown or repeated ones.
  std::optional<std::uint32_t> chosen_contexts(std::span<const std::byte> ids) const noexcept;
  void serve_block_status(const Request& request, std::uint32_t contexts, const Asked& asked);
  /// Whether the largest answer to a block status could be put into the batch.
  bool has_status_room() const noexcept;
  void append_status(const ReplyTo& to, std::uint16_t flags, std::uint32_t context);
  void serve_change(const Request& request, DeviceCall call, const Asked& asked);
  void finish_change(const Request& request, const Asked& asked, const Result<void>& result);
  void finish_piece(Change& change, const Result<void>& result);
  void start_job(std::shared_ptr<Job> job, Waiting waiting);
  void start_flush(const Asked& asked);
  void serve_cache(const Request& request, const Asked& asked);
  Asked asked_by(const Request& request) const noexcept;
  void succeed(const Asked& asked);
  void fail_request(const Asked& asked, const Failure& failure);
  void fail_request(const Asked& asked, const Error& error);
  void count(const Asked& asked, WireError error);
  void end(std::string_view reason);

  const Agreement agreed_;
  Batch& out_;
  Remarks& remarks_;
  RequestMeter* const meter_;
  const bool makes_jobs_;
  const std::size_t request_bytes_;
  bool shutting_down_ = false;
  bool ended_ = false;
  bool leaving_ = false;  // takes no more input; ends when nothing is under way
  std::string end_reason_;

  ReadAhead ahead_;
  ReadReply::Context read_context_;
  std::optional<ReadReply> current_;  // the read that goes into the batch now
  Asked current_asked_;
  std::shared_ptr<Job> current_job_;  // it waits, and nothing may come between

  std::vector<Waiting> waiting_;
  std::size_t done_count_ = 0;     // of these
  std::size_t change_count_ = 0;   // of these
  std::size_t waiting_bytes_ = 0;  // that their jobs may carry
  bool must_follow_ = false;       // the next request waits for a change
  std::deque<std::shared_ptr<Job>> new_jobs_;
  std::vector<StatusRun> runs_;

  /// A write whose payload is on its way.
  struct Writing {
    Request request;
    Asked asked;
    std::uint64_t done = 0;
    Result<void> result;
    /// When jobs write some of it.
    std::shared_ptr<Change> change;
    /// The part that the next of them writes, while it comes.
    std::unique_ptr<std::byte[]> piece;
    std::size_t piece_bytes = 0;
    std::size_t piece_filled = 0;
  };
  std::optional<Writing> writing_;

  /// A block status whose payload, which holds its length and its contexts, is on its way.
  struct Filtering {
    Request request;
    Asked asked;
    std::uint32_t payload_bytes = 0;
  };
  std::optional<Filtering> filtering_;

  /// A refused request whose payload is being dropped.
  struct Dropping {
    std::uint64_t bytes_left = 0;
    Asked asked;
    Failure failure;
  };
  std::optional<Dropping> dropping_;
};

}  // namespace mkvirtfs::nbd
