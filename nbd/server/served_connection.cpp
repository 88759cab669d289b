// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/served_connection.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace mkvirtfs::nbd {
namespace {

/// What a name that a client or an operator chose may take of a line in the log.
constexpr std::size_t kMostLoggedName = 128;

std::string for_log(std::string_view name) {
  return name.size() <= kMostLoggedName ? std::string(name)
                                        : std::string(name.substr(0, kMostLoggedName)) + "...";
}

}  // namespace

ServedConnection::ServedConnection(net::ServerLoop::Arrival arrival, ExportTree& exports,
                                   const ConnectionOptions& options, StatisticsKeeper& statistics,
                                   LogSink& log)
    : number_(arrival.number),
      peer_(arrival.peer),
      connection_(std::move(arrival.socket), exports, options, net::Patience::linger),
      statistics_(statistics),
      log_(log) {
  statistics_.add(connection_.meter());
}

net::ServedClient::Wants ServedConnection::turn(net::Patience patience) {
  connection_.on_ready(patience);
  log_progress();
  if (connection_.ended()) log_end();
  return {.read = connection_.want_read(),
          .write = connection_.want_write(),
          .another_turn = connection_.has_more(),
          .ended = connection_.ended(),
          .is_served = connection_.has_opened_export(),
          .deadline = deadline()};
}

/// `client 7 (192.0.2.7:49152, export "disk", key "alice")`.
std::string ServedConnection::describe() const {
  std::string text = fmt::format("client {} ({}", number_, peer_.text());
  if (connection_.meter().has_begun()) {
    text += fmt::format(", export \"{}\"", for_log(connection_.meter().export_name()));
  }
  if (const std::string identity = connection_.peer_identity(); !identity.empty()) {
    text += ", " + for_log(identity);
  }
  return text + ")";
}

void ServedConnection::log_progress() {
  if (!is_announced_ && connection_.meter().has_begun()) {
    is_announced_ = true;
    log_.write(LogLevel::debug, describe() + ": connected");
  }
  for (const Remark& remark : connection_.take_remarks()) {
    log_.write_with_hints(remark.level, fmt::format("{}: {}", describe(), remark.text),
                          remark.hints);
  }
}

void ServedConnection::log_end() {
  if (const Remark why = connection_.refusal(); !why.text.empty()) {
    log_.write_with_hints(why.level, fmt::format("{}: refused: {}", describe(), why.text),
                          why.hints);
    return;
  }
  const std::string& reason = connection_.end_reason();
  const std::chrono::duration<double> stay = Clock::now() - connected_at_;
  log_.write(LogLevel::debug, fmt::format("{}: gone after {:.3f} s{}{}", describe(), stay.count(),
                                          reason.empty() ? "" : ": ", reason));
}

}  // namespace mkvirtfs::nbd
