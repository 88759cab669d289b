// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/statistics.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <numeric>
#include <utility>

namespace mkvirtfs::nbd {
namespace {

CommandKind kind_of(Command command) noexcept {
  switch (command) {
    case Command::read:
      return CommandKind::read;
    case Command::write:
      return CommandKind::write;
    case Command::flush:
      return CommandKind::flush;
    case Command::trim:
      return CommandKind::trim;
    case Command::cache:
      return CommandKind::cache;
    case Command::write_zeroes:
      return CommandKind::write_zeroes;
    case Command::block_status:
      return CommandKind::block_status;
    default:
      return CommandKind::other;
  }
}

template <class Numbers>
void add_each(Numbers& to, const Numbers& more) noexcept {
  std::ranges::transform(to, more, to.begin(), std::plus<>());
}

}  // namespace

std::string_view command_name(CommandKind kind) noexcept {
  static constexpr std::array<std::string_view, kCommandKinds> kNames = {
      "read", "write", "flush", "trim", "cache", "write_zeroes", "block_status", "other"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string_view error_name(WireError error) noexcept {
  switch (error) {
    case WireError::ok:
      return "OK";
    case WireError::perm:
      return "EPERM";
    case WireError::io:
      return "EIO";
    case WireError::nomem:
      return "ENOMEM";
    case WireError::inval:
      return "EINVAL";
    case WireError::nospc:
      return "ENOSPC";
    case WireError::overflow:
      return "EOVERFLOW";
    case WireError::notsup:
      return "ENOTSUP";
    case WireError::shutdown:
      return "ESHUTDOWN";
  }
  return "?";
}

std::size_t latency_bucket(std::chrono::nanoseconds latency) noexcept {
  if (latency.count() <= 0) return 0;
  const auto microseconds = static_cast<std::uint64_t>(latency.count()) / 1000;
  return std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(microseconds)),
                               kLatencyBuckets - 1);
}

std::uint64_t CommandStatistics::error_count() const noexcept {
  return std::accumulate(errors.begin(), errors.end(), std::uint64_t{0});
}

CommandStatistics& CommandStatistics::operator+=(const CommandStatistics& more) noexcept {
  requests += more.requests;
  bytes += more.bytes;
  add_each(errors, more.errors);
  add_each(latency, more.latency);
  return *this;
}

ExportStatistics& ExportStatistics::operator+=(const ExportStatistics& more) noexcept {
  connections_open += more.connections_open;
  connections_total += more.connections_total;
  for (std::size_t i = 0; i < commands.size(); ++i) commands[i] += more.commands[i];
  return *this;
}

void RequestMeter::begin(std::string_view export_name) {
  assert(!has_begun());
  export_name_ = export_name;
  begun_.store(true, std::memory_order_release);
}

RequestMeter::Ticket RequestMeter::take(const Request& request) const noexcept {
  return {kind_of(request.command), request.length, arrived_};
}

void RequestMeter::answered(const Ticket& ticket, WireError error) {
  Counters& counters = counters_[static_cast<std::size_t>(ticket.kind)];
  counters.requests.add(1);
  if (error == WireError::ok) {
    counters.bytes.add(ticket.bytes);
  } else {
    const auto* const found = std::ranges::find(kCountedErrors, error);
    assert(found != kCountedErrors.end());
    counters.errors[static_cast<std::size_t>(found - kCountedErrors.begin())].add(1);
  }
  has_answers_ = true;
  if (ticket.arrived == arrived_) {
    ++pending_[static_cast<std::size_t>(ticket.kind)];
  } else {
    pending_late_.push_back(ticket);
  }
}

void RequestMeter::batch_sent(Clock::time_point now) noexcept {
  const std::size_t bucket = latency_bucket(now - arrived_);
  for (std::size_t i = 0; i < kCommandKinds; ++i) {
    if (pending_[i] != 0) counters_[i].latency[bucket].add(std::exchange(pending_[i], 0));
  }
  for (const Ticket& late : pending_late_) {
    counters_[static_cast<std::size_t>(late.kind)].latency[latency_bucket(now - late.arrived)].add(
        1);
  }
  pending_late_.clear();
  has_answers_ = false;
}

ExportStatistics RequestMeter::statistics() const {
  assert(has_begun());
  ExportStatistics result;
  result.name = export_name_;
  result.connections_open = 1;
  result.connections_total = 1;
  const auto value = [](const Counter& counter) { return counter.value(); };
  for (std::size_t i = 0; i < kCommandKinds; ++i) {
    CommandStatistics& command = result.commands[i];
    command.requests = counters_[i].requests.value();
    command.bytes = counters_[i].bytes.value();
    std::ranges::transform(counters_[i].errors, command.errors.begin(), value);
    std::ranges::transform(counters_[i].latency, command.latency.begin(), value);
  }
  return result;
}

}  // namespace mkvirtfs::nbd
