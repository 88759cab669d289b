// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/transmission.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <limits>
#include <utility>

#include "support/arithmetic.h"

namespace mkvirtfs::nbd {
namespace {

/// The descriptors of one block status reply take at most so many bytes, those of all its contexts
/// together: clients ask on from where it ends.
constexpr std::size_t kMostStatusBytes = 64U << 10;
constexpr std::size_t kStatusRoom = kMostStatusBytes + Batch::kPieceBytes;
constexpr std::size_t descriptor_bytes(ReplyStyle style) noexcept {
  return style == ReplyStyle::extended ? 16 : 8;
}
static_assert(kMostContexts < 32);
static_assert(kMostContexts * (kExtendedChunkHeaderBytes + 8) <= Batch::kPieceBytes);
/// The most that one CACHE brings in: it is only advice.
constexpr std::uint64_t kMostCached = kLargestPayload;
/// The most extents of a map that one block status looks at, so that one request of 4 GiB over
/// tiny extents cannot keep its thread for long. All its contexts share them, too.
constexpr std::size_t kMostExtentsWalked = 1U << 18;

}  // namespace

Transmission::Transmission(Agreement agreed, Batch& out, Remarks& remarks,
                           const TransmissionTuning& tuning, RequestMeter* meter)
    : agreed_(std::move(agreed)),
      out_(out),
      remarks_(remarks),
      meter_(meter),
      makes_jobs_(tuning.makes_jobs),
      request_bytes_(agreed_.extended_headers ? kExtendedRequestBytes : kRequestBytes),
      read_context_{*agreed_.exported.device,
                    out,
                    ahead_,
                    remarks,
                    agreed_.reply_style(),
                    tuning.file_run_bytes,
                    tuning.file_runs,
                    tuning.makes_jobs} {
  assert(tuning.batch_bytes >= kStatusRoom + Batch::kPieceBytes);
}

std::size_t Transmission::consume(std::span<const std::byte> input) {
  std::size_t used = 0;
  while (!ended_) {
    if (current_) {
      if (!advance_read()) break;
    } else if (out_.is_full()) {
      break;
    } else if (done_count_ > 0) {
      resume_one();
    } else if (leaving_) {
      ended_ = waiting_.empty();
      break;
    } else {
      const std::size_t taken = take_request(input.subspan(used));
      if (taken == 0) break;
      used += taken;
    }
  }
  return used;
}

bool Transmission::wants_input() const noexcept {
  return !ended_ && !leaving_ && !current_ && !must_follow_ && has_waiting_room();
}

void Transmission::batch_sent(const FileMove& move) {
  if (current_) current_->batch_sent(move);
}

/// False when the read that goes into the batch cannot be finished now.
bool Transmission::advance_read() {
  if (current_job_) return false;
  current_->advance();
  if (current_->broken()) {
    count(current_asked_, current_->error());
    end(current_->reason());
    return false;
  }
  if (current_->waiting()) {
    if (current_->holds_the_line()) {
      current_job_ =
          std::make_shared<Job>(agreed_.exported.device, Job::Work::read, current_->wanted());
      new_jobs_.push_back(current_job_);
      return false;
    }
    const Range wanted = current_->wanted();
    Waiting waiting;
    waiting.asked = current_asked_;
    waiting.carried_bytes =
        static_cast<std::size_t>(std::min<std::uint64_t>(wanted.length, Job::kMostCarriedBytes));
    waiting.read = std::make_unique<ReadReply>(std::move(*current_));
    start_job(std::make_shared<Job>(agreed_.exported.device, Job::Work::read, wanted),
              std::move(waiting));
  } else if (current_->active()) {
    return false;
  } else {
    count(current_asked_, current_->error());
  }
  current_.reset();
  return true;
}

/// `waiting` has all but the job.
void Transmission::start_job(std::shared_ptr<Job> job, Waiting waiting) {
  waiting.job = job;
  waiting.done = !makes_jobs_;
  waiting_bytes_ += waiting.carried_bytes;
  if (waiting.change) {
    ++waiting.change->pieces_left;
    ++change_count_;
  }
  waiting_.push_back(std::move(waiting));
  if (makes_jobs_) {
    new_jobs_.push_back(std::move(job));
  } else {
    job->run();
    ++done_count_;
  }
}

void Transmission::start_flush(const Asked& asked) {
  Waiting waiting;
  waiting.asked = asked;
  start_job(std::make_shared<Job>(agreed_.exported.device, Job::Work::flush, Range{}),
            std::move(waiting));
}

std::shared_ptr<Job> Transmission::take_job() {
  if (new_jobs_.empty()) return nullptr;
  std::shared_ptr<Job> job = std::move(new_jobs_.front());
  new_jobs_.pop_front();
  return job;
}

void Transmission::job_done(const std::shared_ptr<Job>& job) {
  if (job->has_thrown()) {
    remarks_.add(LogLevel::error, "a request failed by an exception, and was answered EIO: " +
                                      job->result().error().what);
  }
  if (job == current_job_) {
    current_->fetched(job->take_carried());
    current_job_.reset();
    return;
  }
  const auto waiting = std::ranges::find(waiting_, job, &Waiting::job);
  assert(waiting != waiting_.end() && !waiting->done);
  waiting->done = true;
  ++done_count_;
}

/// Goes on with the request that waited longest of those whose job is done.
void Transmission::resume_one() {
  const auto at = std::ranges::find(waiting_, true, &Waiting::done);
  Waiting resumed = std::move(*at);
  waiting_.erase(at);
  --done_count_;
  waiting_bytes_ -= resumed.carried_bytes;
  if (resumed.read) {
    current_.emplace(std::move(*resumed.read));
    current_asked_ = resumed.asked;
    current_->fetched(resumed.job->take_carried());
  } else if (resumed.change) {
    --change_count_;
    finish_piece(*resumed.change, resumed.job->result());
  } else if (resumed.job->result()) {
    succeed(resumed.asked);
  } else {
    fail_request(resumed.asked, resumed.job->result().error());
  }
}

/// Takes a request, or bytes that belong to the last one. 0: it needs more bytes, or room.
std::size_t Transmission::take_request(std::span<const std::byte> input) {
  if (dropping_) return drop(input);
  if (writing_) return take_payload(input);
  if (filtering_) return take_filter(input);
  if (!has_waiting_room() || input.size() < request_bytes_) return 0;
  const auto request = agreed_.extended_headers
                           ? decode_extended_request(input.first<kExtendedRequestBytes>())
                           : decode_request(input.first<kRequestBytes>());
  if (!request) {
    end("a request did not begin with its magic number");
    return 0;
  }
  if (request->command == Command::block_status && !has_status_room()) return 0;
  must_follow_ = must_follow(*request);
  if (must_follow_) return 0;
  handle(*request);
  return request_bytes_;
}

bool Transmission::must_follow(const Request& request) const noexcept {
  if (change_count_ == 0) return false;
  if (!has_range(request.command)) return false;
  // What a list of contexts is about stands behind it.
  if (request.command == Command::block_status && (request.flags & kPayloadLen) != 0) return true;
  return std::ranges::any_of(waiting_, [&](const Waiting& waiting) {
    if (!waiting.change) return false;
    const Request& change = waiting.change->request;
    return request.offset <= change.offset ? change.offset - request.offset < request.length
                                           : request.offset - change.offset < change.length;
  });
}

bool Transmission::has_status_room() const noexcept {
  return out_.empty() || out_.room() >= kStatusRoom;
}

std::size_t Transmission::drop(std::span<const std::byte> input) {
  const std::uint64_t taken = std::min<std::uint64_t>(input.size(), dropping_->bytes_left);
  dropping_->bytes_left -= taken;
  if (dropping_->bytes_left == 0) {
    fail_request(dropping_->asked, dropping_->failure);
    dropping_.reset();
  }
  return static_cast<std::size_t>(taken);
}

/// Writes the payload as it comes, in whole blocks: a client that dies in the middle leaves no torn
/// ones.
std::size_t Transmission::take_payload(std::span<const std::byte> input) {
  Writing& writing = *writing_;
  if (writing.piece) return fill_piece(input);
  BlockDevice& device = *agreed_.exported.device;
  const std::uint64_t left = writing.request.length - writing.done;
  const std::uint64_t at = writing.request.offset + writing.done;
  std::uint64_t taken = std::min<std::uint64_t>(input.size(), left);
  if (taken < left) {
    const std::uint64_t end =
        round_down<std::uint64_t>(at + taken, allocation_block_bytes(device.geometry()));
    taken = end > at ? end - at : 0;
  }
  if (taken == 0) return 0;
  if (writing.change && !writing.change->result) writing.result = writing.change->result;
  if (writing.result) {
    bool waits = false;
    writing.result = guarded(remarks_, "a write", [&]() -> Result<void> {
      waits = makes_jobs_ && device.may_wait(DeviceCall::write, {at, taken});
      if (!waits) return device.write(at, input.first(static_cast<std::size_t>(taken)));
      if (has_waiting_room()) begin_piece(at, left);
      return {};
    });
    if (writing.piece) return fill_piece(input);
    if (waits && writing.result) return 0;
  }
  payload_taken(taken);
  return static_cast<std::size_t>(taken);
}

/// Makes room for what a job shall write next.
void Transmission::begin_piece(std::uint64_t offset, std::uint64_t left) {
  std::uint64_t length = std::min<std::uint64_t>(left, Job::kMostCarriedBytes);
  if (length < left) {
    length = round_down<std::uint64_t>(
                 offset + length, allocation_block_bytes(agreed_.exported.device->geometry())) -
             offset;
  }
  writing_->piece_bytes = static_cast<std::size_t>(length);
  writing_->piece_filled = 0;
  writing_->piece = std::make_unique_for_overwrite<std::byte[]>(writing_->piece_bytes);
}

std::size_t Transmission::fill_piece(std::span<const std::byte> input) {
  Writing& writing = *writing_;
  const auto part = input.first(std::min(input.size(), writing.piece_bytes - writing.piece_filled));
  std::ranges::copy(part, writing.piece.get() + writing.piece_filled);
  writing.piece_filled += part.size();
  if (writing.piece_filled == writing.piece_bytes) {
    if (!writing.change) {
      writing.change = std::make_shared<Change>();
      writing.change->request = writing.request;
      writing.change->asked = writing.asked;
    }
    Waiting waiting;
    waiting.change = writing.change;
    waiting.carried_bytes = writing.piece_bytes;
    const Range range{writing.request.offset + writing.done, writing.piece_bytes};
    start_job(std::make_shared<Job>(agreed_.exported.device, Job::Work::write, range,
                                    std::move(writing.piece)),
              std::move(waiting));
    payload_taken(range.length);
  }
  return part.size();
}

/// So much more of the payload was written, dropped, or given to a job.
void Transmission::payload_taken(std::uint64_t count) {
  writing_->done += count;
  if (writing_->done < writing_->request.length) return;
  const Writing written = *std::exchange(writing_, std::nullopt);
  if (!written.change) return finish_change(written.request, written.asked, written.result);
  Change& change = *written.change;
  change.all_begun = true;
  if (change.result) change.result = written.result;
  if (change.pieces_left == 0) finish_change(change.request, change.asked, change.result);
}

void Transmission::serve_change(const Request& request, DeviceCall call, const Asked& asked) {
  BlockDevice& device = *agreed_.exported.device;
  const Range range{request.offset, request.length};
  const bool is_trim = call == DeviceCall::trim;
  bool waits = false;
  const Result<void> result =
      guarded(remarks_, is_trim ? "a trim" : "a write of zeroes", [&]() -> Result<void> {
        waits = makes_jobs_ && device.may_wait(call, range);
        if (waits) return {};
        return is_trim ? device.trim(range)
                       : device.zero(range, call == DeviceCall::zero_allocated);
      });
  if (!waits) return finish_change(request, asked, result);
  Waiting waiting;
  waiting.change = std::make_shared<Change>();
  waiting.change->request = request;
  waiting.change->asked = asked;
  waiting.change->all_begun = true;
  const Job::Work work = is_trim                              ? Job::Work::trim
                         : call == DeviceCall::zero_allocated ? Job::Work::zero_allocated
                                                              : Job::Work::zero;
  start_job(std::make_shared<Job>(agreed_.exported.device, work, range), std::move(waiting));
}

void Transmission::finish_piece(Change& change, const Result<void>& result) {
  --change.pieces_left;
  if (change.result) change.result = result;
  if (change.all_begun && change.pieces_left == 0) {
    finish_change(change.request, change.asked, change.result);
  }
}

void Transmission::finish_change(const Request& request, const Asked& asked,
                                 const Result<void>& result) {
  if (!result) {
    fail_request(asked, result.error());
  } else if ((request.flags & kFua) != 0 || agreed_.exported.write_through) {
    start_flush(asked);
  } else {
    succeed(asked);
  }
}

void Transmission::serve_cache(const Request& request, const Asked& asked) {
  Waiting waiting;
  waiting.asked = asked;
  const Range range{request.offset, std::min(request.length, kMostCached)};
  start_job(std::make_shared<Job>(agreed_.exported.device, Job::Work::fetch, range),
            std::move(waiting));
}

void Transmission::succeed(const Asked& asked) {
  append_success(out_, asked.to);
  count(asked, WireError::ok);
}

void Transmission::fail_request(const Asked& asked, const Failure& failure) {
  append_error(out_, asked.to, failure);
  count(asked, failure.error);
}

void Transmission::fail_request(const Asked& asked, const Error& error) {
  fail_request(asked, Failure{wire_error(error), wire_text(error.what), std::nullopt});
}

void Transmission::count(const Asked& asked, WireError error) {
  if (meter_ != nullptr) meter_->answered(asked.ticket, error);
}

Transmission::Asked Transmission::asked_by(const Request& request) const noexcept {
  return {{agreed_.reply_style(), request.cookie, request.offset},
          meter_ != nullptr ? meter_->take(request) : RequestMeter::Ticket{}};
}

void Transmission::handle(const Request& request) {
  Verdict verdict = judge(request, agreed_);
  if (shutting_down_ &&
      (verdict.action == Verdict::Action::serve || verdict.action == Verdict::Action::refuse)) {
    verdict.action = Verdict::Action::refuse;
    verdict.error = WireError::shutdown;
    verdict.reason = "the server stops";
  }
  const Asked asked = asked_by(request);
  switch (verdict.action) {
    case Verdict::Action::finish:
      input_ended("");
      return;
    case Verdict::Action::disconnect:
      end(verdict.reason);
      return;
    case Verdict::Action::refuse:
      dropping_ = {
          verdict.payload_bytes, asked, {verdict.error, std::string(verdict.reason), std::nullopt}};
      if (verdict.payload_bytes == 0) drop({});
      return;
    case Verdict::Action::serve:
      break;
  }
  switch (request.command) {
    case Command::read:
      current_.emplace(read_context_, request);
      current_asked_ = asked;
      break;
    case Command::write:
      if (request.length == 0) {
        finish_change(request, asked, {});
      } else {
        Writing writing;
        writing.request = request;
        writing.asked = asked;
        writing_ = std::move(writing);
      }
      break;
    case Command::trim:
      serve_change(request, DeviceCall::trim, asked);
      break;
    case Command::write_zeroes:
      serve_change(request,
                   (request.flags & kNoHole) != 0 ? DeviceCall::zero_allocated : DeviceCall::zero,
                   asked);
      break;
    case Command::flush:
      // On a read-only device everything is on stable storage.
      if (agreed_.exported.device->geometry().writable) {
        start_flush(asked);
      } else {
        succeed(asked);
      }
      break;
    case Command::cache:
      serve_cache(request, asked);
      break;
    case Command::block_status:
      if (verdict.payload_bytes != 0) {
        filtering_ = {request, asked, verdict.payload_bytes};
      } else {
        serve_block_status(request, (1U << agreed_.contexts.size()) - 1, asked);
      }
      break;
    case Command::disc:
    case Command::resize:
      assert(false);  // judged otherwise
      break;
  }
}

std::optional<std::uint32_t> Transmission::chosen_contexts(
    std::span<const std::byte> ids) const noexcept {
  std::uint32_t chosen = 0;
  for (; !ids.empty(); ids = ids.subspan(kContextIdBytes)) {
    const auto found =
        std::ranges::find(agreed_.contexts, load_be<std::uint32_t>(ids), &SelectedContext::id);
    if (found == agreed_.contexts.end()) return std::nullopt;
    const std::uint32_t bit = 1U << (found - agreed_.contexts.begin());
    if ((chosen & bit) != 0) return std::nullopt;
    chosen |= bit;
  }
  return chosen;
}

/// Takes the whole payload of a block status, which is short.
std::size_t Transmission::take_filter(std::span<const std::byte> input) {
  const std::uint32_t payload_bytes = filtering_->payload_bytes;
  if (input.size() < payload_bytes || !has_status_room()) return 0;
  auto [request, asked, size] = *std::exchange(filtering_, std::nullopt);
  const auto payload = input.first(size);
  // With the length of its effect it is a request like any other, and judged as one.
  request.length = load_be<std::uint64_t>(payload);
  request.flags &= static_cast<std::uint16_t>(~kPayloadLen);
  asked.ticket.bytes = request.length;
  const auto contexts = chosen_contexts(payload.subspan(kFilterHeadBytes));
  const Verdict verdict = judge(request, agreed_);
  if (!contexts) {
    fail_request(asked, Failure{WireError::inval, "a context in the list is unknown or there twice",
                                std::nullopt});
  } else if (verdict.action != Verdict::Action::serve) {
    fail_request(asked, Failure{verdict.error, std::string(verdict.reason), std::nullopt});
  } else {
    serve_block_status(request, *contexts, asked);
  }
  return payload_bytes;
}

/// `contexts` has a bit for each place in the agreement's list.
void Transmission::serve_block_status(const Request& request, std::uint32_t contexts,
                                      const Asked& asked) {
  const auto count_contexts = static_cast<std::size_t>(std::popcount(contexts));
  const bool one = (request.flags & kReqOne) != 0;
  const ReplyTo& to = asked.to;
  const std::size_t most_runs = kMostStatusBytes / descriptor_bytes(to.style) / count_contexts;
  const StatusLimits limits{one ? 1 : most_runs, kMostExtentsWalked / count_contexts};
  for (std::uint32_t left = contexts; left != 0; left &= left - 1) {
    const auto& [id, context] = agreed_.contexts[static_cast<std::size_t>(std::countr_zero(left))];
    runs_.clear();
    const Result<void> reported = guarded(remarks_, "a block status", [&]() -> Result<void> {
      context->append_status(*agreed_.exported.device, {request.offset, request.length}, limits,
                             runs_);
      return {};
    });
    if (!reported) return fail_request(asked, reported.error());
    assert(!runs_.empty() && runs_.size() <= limits.most_runs &&
           runs_.front().range.offset == request.offset &&
           runs_.back().range.end() <= request.offset + request.length);
    append_status(to, std::has_single_bit(left) ? kChunkDone : std::uint16_t{0}, id);
  }
  count(asked, WireError::ok);
}

/// One chunk: what runs_ say of a context.
void Transmission::append_status(const ReplyTo& to, std::uint16_t flags, std::uint32_t context) {
  if (to.style == ReplyStyle::extended) {
    append_chunk_header(out_, to, flags, ChunkType::block_status_ext, 8 + 16 * runs_.size());
    out_.append(pack(context, narrow<std::uint32_t>(runs_.size())));
    for (const StatusRun& run : runs_) {
      out_.append(pack(run.range.length, std::uint64_t{run.flags}));
    }
  } else {
    append_chunk_header(out_, to, flags, ChunkType::block_status, 4 + 8 * runs_.size());
    out_.append(pack(context));
    for (const StatusRun& run : runs_) {
      out_.append(pack(narrow<std::uint32_t>(run.range.length), run.flags));
    }
  }
}

void Transmission::input_ended(std::string_view reason) {
  if (ended_ || leaving_) return;
  leaving_ = true;
  end_reason_ = reason;
}

void Transmission::end(std::string_view reason) {
  end_reason_ = reason;
  ended_ = true;
}

}  // namespace mkvirtfs::nbd
