// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "support/error.h"

namespace mkvirtfs::cli {

/// Answers `mkvirtfs ctl`: a Unix socket that only this user (and root) may talk to, one request a
/// connection, several connections at once.
///
/// A request is one line of JSON; the answer is any number of lines, and a last one that is
/// {"done":true} or {"error":"..."}. A request must come within ten seconds, and each line be taken
/// within ten. A slower client delays no other, and gets an error line, as every refused client
/// does.
class ControlServer {
 public:
  /// Sends one line of the answer, without its end; false when the client has gone.
  using Tell = std::function<bool(const std::string& line)>;
  /// Called on several threads at once with a request of at most kLongestRequest bytes.
  /// `ending` becomes true when the server ends: what takes long gives up then.
  using Handler = std::function<Result<void>(const std::string& request, const Tell& tell,
                                             const std::atomic<bool>& ending)>;
  static constexpr std::size_t kLongestRequest = 16U << 10;

  static Result<ControlServer> start(const std::string& path, Handler handler);
  ControlServer(ControlServer&&) noexcept;
  ControlServer& operator=(ControlServer&&) = delete;
  /// Ends all waits for clients, waits for handlers to return, and removes the socket.
  ~ControlServer();

 private:
  struct State;
  explicit ControlServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Sends one request to such a server and calls `line` for each line of the answer but the last,
/// which is the result.
Result<void> ask_control_server(const std::string& path, const std::string& request,
                                const std::function<Result<void>(const std::string& line)>& line);

}  // namespace mkvirtfs::cli
