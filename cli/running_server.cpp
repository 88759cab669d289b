// SPDX-License-Identifier: BSD-3-Clause
#include "cli/running_server.h"

#include "support/thread.h"

namespace mkvirtfs::cli {

Result<std::unique_ptr<RunningServer>> RunningServer::start(std::shared_ptr<ExportTree> exports,
                                                            const std::string& socket,
                                                            LogSink& log) {
  nbd::ServerOptions options;
  options.log = &log;
  auto server = nbd::Server::create(std::move(exports), std::move(options));
  if (!server) return propagate(server);
  if (Result<void> on = (*server)->listen_unix(socket); !on) return propagate(on);
  std::unique_ptr<RunningServer> running(new RunningServer(*std::move(server)));
  Result<std::thread> thread = start_thread(
      "serve the image: start a thread",
      [&server_of = *running->server_] { [[maybe_unused]] const auto ended = server_of.run(); });
  if (!thread) return propagate(thread);
  running->thread_ = *std::move(thread);
  return running;
}

RunningServer::~RunningServer() {
  if (!thread_.joinable()) return;
  server_->request_stop_at_once();
  thread_.join();
}

std::uint64_t RunningServer::reads_answered() const {
  std::uint64_t reads = 0;
  for (const nbd::ExportStatistics& each : server_->statistics().exports) {
    reads += each.of(nbd::CommandKind::read).requests;
  }
  return reads;
}

}  // namespace mkvirtfs::cli
