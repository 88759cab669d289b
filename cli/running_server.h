// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "exports/export_tree.h"
#include "nbd/server/server.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// A server on a Unix socket, for a program that this process starts: it runs on a thread of its
/// own while this lives. When it goes, its clients are cut off.
class RunningServer {
 public:
  /// `log` must outlive it.
  static Result<std::unique_ptr<RunningServer>> start(std::shared_ptr<ExportTree> exports,
                                                      const std::string& socket, LogSink& log);
  ~RunningServer();
  RunningServer(const RunningServer&) = delete;
  RunningServer& operator=(const RunningServer&) = delete;

  std::string uri() const { return server_->uris().front(); }
  /// Requests for bytes that were answered so far.
  std::uint64_t reads_answered() const;

 private:
  explicit RunningServer(std::unique_ptr<nbd::Server> server) : server_(std::move(server)) {}

  std::unique_ptr<nbd::Server> server_;
  std::thread thread_;
};

}  // namespace mkvirtfs::cli
