// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/session.h"

#include <utility>

namespace mkvirtfs::nbd {

Session::Session(ExportTree& exports, const TransmissionTuning& tuning, TlsMode tls,
                 const Extensions& extensions, Features features, RequestMeter* meter,
                 std::size_t most_names_listed)
    : tuning_(tuning),
      meter_(meter),
      batch_(tuning.batch_bytes),
      phase_(std::in_place_type<Negotiation>, exports, batch_, tls, extensions, features, &remarks_,
             most_names_listed,
             tuning.makes_jobs ? OpensExports::by_job : OpensExports::in_consume) {}

std::size_t Session::consume(std::span<const std::byte> input) {
  std::size_t used = 0;
  if (auto* const negotiation = std::get_if<Negotiation>(&phase_)) {
    used = negotiation->consume(input);
    // The answer to GO goes out first: what follows are requests.
    if (!negotiation->agreed() || !batch_.empty()) return used;
    Agreement agreed = negotiation->take_agreement();
    batch_.release();
    if (meter_ != nullptr) meter_->begin(agreed.exported.name);
    phase_.emplace<Transmission>(std::move(agreed), batch_, remarks_, tuning_, meter_);
    if (shutting_down_) begin_shutdown();
  }
  return used + std::get<Transmission>(phase_).consume(input.subspan(used));
}

std::size_t Session::wanted_bytes() const noexcept {
  const auto* const negotiation = std::get_if<Negotiation>(&phase_);
  return negotiation != nullptr ? negotiation->wanted_bytes()
                                : std::get<Transmission>(phase_).wanted_bytes();
}

bool Session::wants_input() const noexcept {
  if (const auto* const negotiation = std::get_if<Negotiation>(&phase_)) {
    return !ended() && !negotiation->is_opening();
  }
  return std::get_if<Transmission>(&phase_)->wants_input();
}

void Session::input_ended(std::string_view reason) {
  if (auto* const transmission = std::get_if<Transmission>(&phase_)) {
    transmission->input_ended(reason);
  } else if (!ended()) {
    hang_up_reason_ = reason;
  }
}

std::shared_ptr<Job> Session::take_job() {
  if (auto* const negotiation = std::get_if<Negotiation>(&phase_)) return negotiation->take_job();
  return std::get_if<Transmission>(&phase_)->take_job();
}

void Session::job_done(const std::shared_ptr<Job>& job) {
  if (auto* const transmission = std::get_if<Transmission>(&phase_)) {
    transmission->job_done(job);
    return;
  }
  if (job->has_thrown()) {
    const Error& error = job->result().error();
    remarks_.add(LogLevel::error, "an export cannot be opened: " + error.what, error.hints);
  }
  std::get_if<Negotiation>(&phase_)->job_done(*job);
}

bool Session::has_jobs() const noexcept {
  const auto* const negotiation = std::get_if<Negotiation>(&phase_);
  return negotiation != nullptr ? negotiation->is_opening()
                                : std::get_if<Transmission>(&phase_)->has_jobs();
}

void Session::batch_sent(const FileMove& move) {
  batch_.clear();
  if (auto* const transmission = std::get_if<Transmission>(&phase_)) transmission->batch_sent(move);
}

std::string_view Session::end_reason() const noexcept {
  if (const auto* const negotiation = std::get_if<Negotiation>(&phase_)) {
    return hang_up_reason_.empty() ? negotiation->end_reason() : hang_up_reason_;
  }
  return std::get_if<Transmission>(&phase_)->end_reason();
}

bool Session::has_opened_export() const noexcept {
  const auto* const negotiation = std::get_if<Negotiation>(&phase_);
  return negotiation == nullptr || negotiation->has_opened_export();
}

Remark Session::refusal() const {
  const auto* const negotiation = std::get_if<Negotiation>(&phase_);
  return negotiation != nullptr ? negotiation->refusal() : Remark();
}

std::size_t Session::names_listed() const noexcept {
  const auto* const negotiation = std::get_if<Negotiation>(&phase_);
  return negotiation != nullptr ? negotiation->names_listed() : 0;
}

bool Session::wants_tls() const noexcept {
  const auto* const negotiation = std::get_if<Negotiation>(&phase_);
  return negotiation != nullptr && negotiation->wants_tls() && batch_.empty();
}

void Session::tls_established() noexcept {
  tuning_.file_runs = false;
  if (auto* const negotiation = std::get_if<Negotiation>(&phase_)) negotiation->tls_established();
}

bool Session::ended() const noexcept {
  if (const auto* const negotiation = std::get_if<Negotiation>(&phase_)) {
    return negotiation->ended() || !hang_up_reason_.empty();
  }
  return std::get_if<Transmission>(&phase_)->ended();
}

void Session::begin_shutdown() noexcept {
  shutting_down_ = true;
  if (auto* const negotiation = std::get_if<Negotiation>(&phase_)) negotiation->begin_shutdown();
  if (auto* const transmission = std::get_if<Transmission>(&phase_)) transmission->begin_shutdown();
}

}  // namespace mkvirtfs::nbd
