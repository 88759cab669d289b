// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "exports/export_tree.h"
#include "nbd/server/batch.h"
#include "nbd/server/extension.h"
#include "nbd/server/feature_set.h"
#include "nbd/server/negotiation.h"
#include "nbd/server/remark.h"
#include "nbd/server/statistics.h"
#include "nbd/server/transmission.h"

namespace mkvirtfs::nbd {

/// Everything the protocol says to one client, from the greeting to the last reply: bytes in, a
/// batch out. Its driver moves the bytes and knows the time:
///
///     while (!session.finished()) {
///       input.drop(session.consume(input.bytes()));
///       if (!session.batch().empty()) { move = send(session.batch()); session.batch_sent(move); }
///       else if (session.wants_tls()) { put TLS between; session.tls_established(); }
///       else if (job = session.take_job()) { job->run(); session.job_done(job); }
///       else if (!session.finished()) input.receive(session.wanted_bytes());
///     }
///
/// No socket, clock or thread. Belongs to one thread; the tree, the extensions and the meter, which
/// may be null, live longer.
class Session {
 public:
  Session(ExportTree& exports, const TransmissionTuning& tuning, TlsMode tls = TlsMode::off,
          const Extensions& extensions = Extensions::standard(), Features features = {},
          RequestMeter* meter = nullptr, std::size_t most_names_listed = kMostNamesListed);

  /// Takes what it can from the front of `input`; says how many bytes that was. Having taken
  /// nothing and given no batch, it wants more input than this.
  std::size_t consume(std::span<const std::byte> input);
  /// How many bytes of input must be there at once for consume() to get on.
  std::size_t wanted_bytes() const noexcept;

  /// What is to be sent now. All of it, before consume() is called again.
  const Batch& batch() const noexcept { return batch_; }
  /// All of the batch was sent, but for what `move` says of its file run.
  void batch_sent(const FileMove& move = {});

  /// More input would be used: not so while jobs must be done first.
  bool wants_input() const noexcept;
  /// No more input will come: what was begun is finished, and then the session ends.
  void input_ended(std::string_view reason);

  /// Gives memory back that a busy client needs and a quiet one does not.
  void trim() noexcept {
    if (batch_.empty()) batch_.release();
  }

  /// Work that must be done elsewhere, because it may wait for a disk; nullptr when there is none.
  /// Each job comes back by job_done(), and then consume() is called again, also without input.
  std::shared_ptr<Job> take_job();
  void job_done(const std::shared_ptr<Job>& job);
  /// There are jobs that have not come back.
  bool has_jobs() const noexcept;

  /// Nothing is left to be sent, and the client is to be disconnected.
  bool finished() const noexcept { return ended() && batch_.empty(); }
  /// Why, for the log; "" when the client took its leave.
  std::string_view end_reason() const noexcept;

  /// The client has asked for an export, if only by INFO, and there was one.
  bool has_opened_export() const noexcept;
  /// Of a handshake: why the client did not get what it asked for; "" when it got it, or did not
  /// ask.
  Remark refusal() const;

  /// The client knows that TLS begins: what is sent and received from now on goes through it.
  bool wants_tls() const noexcept;
  /// It does. File runs are read into memory, because the kernel cannot encrypt them.
  void tls_established() noexcept;

  /// What the log should have of it since the last call.
  std::vector<Remark> take_remarks() noexcept { return remarks_.take(); }

  bool in_handshake() const noexcept { return std::holds_alternative<Negotiation>(phase_); }
  /// See Negotiation::names_listed().
  std::size_t names_listed() const noexcept;

  /// New options and requests are refused from now on; what was begun is finished.
  void begin_shutdown() noexcept;

 private:
  bool ended() const noexcept;

  TransmissionTuning tuning_;
  RequestMeter* const meter_;
  bool shutting_down_ = false;
  std::string hang_up_reason_;  // the input ended in the handshake
  Batch batch_;
  Remarks remarks_;
  std::variant<Negotiation, Transmission> phase_;
};

}  // namespace mkvirtfs::nbd
