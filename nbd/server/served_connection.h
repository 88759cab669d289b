// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "exports/export_tree.h"
#include "nbd/server/connection.h"
#include "nbd/server/statistics_keeper.h"
#include "net/server_loop.h"
#include "support/log.h"

namespace mkvirtfs::nbd {

/// A Connection as a client of a net::ServerLoop: it is counted, and the log has what becomes of
/// it. The tree, the statistics and the log live longer.
class ServedConnection final : public net::ServedClient {
 public:
  ServedConnection(net::ServerLoop::Arrival arrival, ExportTree& exports,
                   const ConnectionOptions& options, StatisticsKeeper& statistics, LogSink& log);

  int fd() const noexcept override { return connection_.fd(); }
  Clock::time_point first_deadline() const noexcept override { return deadline(); }
  Wants turn(net::Patience patience) override;
  std::shared_ptr<net::LaneTask> take_job() override { return connection_.take_job(); }
  void job_done(const std::shared_ptr<net::LaneTask>& job) override {
    connection_.job_done(std::static_pointer_cast<Job>(job));
  }
  void trim() override { connection_.trim(); }
  void begin_shutdown() noexcept override { connection_.begin_shutdown(); }
  void cut() noexcept override { connection_.cut(); }
  void removed() noexcept override { statistics_.remove(connection_.meter()); }

 private:
  Clock::time_point deadline() const noexcept {
    return connection_.deadline().value_or(Clock::time_point::max());
  }
  std::string describe() const;
  void log_progress();
  void log_end();

  const std::uint64_t number_;
  const net::Peer peer_;
  const Clock::time_point connected_at_ = Clock::now();
  Connection connection_;
  StatisticsKeeper& statistics_;
  LogSink& log_;
  bool is_announced_ = false;  // the log has that it is connected
};

}  // namespace mkvirtfs::nbd
