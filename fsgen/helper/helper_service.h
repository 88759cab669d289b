// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/helper/message.h"
#include "fsgen/stream/byte_source.h"
#include "support/error.h"
#include "support/log.h"

// The helper's side of fsgen/helper/helper_process.h.

namespace mkvirtfs::helper {

class HelperService;

/// Does the job called `kind`; what it returns is the helper's last word, of 1 MiB at most.
using JobRunner = std::function<Result<std::vector<std::byte>>(
    std::string_view kind, std::span<const std::byte> job, HelperService& service)>;

/// What a job finds goes through here to the parent. When the parent is gone, so is the process:
/// nothing here can fail. One thread.
class HelperService : public LogSink {
 public:
  explicit HelperService(MessageSocket socket) : socket_(std::move(socket)) {}

  /// Sent when there is enough of it, or when the parent has not heard anything for a while.
  void add_records(std::span<const std::byte> bytes);
  /// Sent at once.
  void add_data(std::span<const std::byte> bytes);
  void restart();
  void write(LogLevel level, std::string_view message) noexcept override;

  /// The parent's source. For the service's thread, and no longer than it.
  std::shared_ptr<ByteSource> source() const noexcept { return source_; }

 private:
  class RemoteSource;
  friend int serve_job(const JobRunner& run);

  void send(MessageType type, std::span<const std::byte> payload);
  Message receive();
  void send_records();

  MessageSocket socket_;
  std::shared_ptr<ByteSource> source_;
  std::vector<std::byte> records_;
  std::chrono::steady_clock::time_point heard_ = std::chrono::steady_clock::now();
};

/// What a helper does: takes the one job from the socket on standard input, puts itself under the
/// job's limits, has `run` do it and sends what that returns. Returns the exit status.
int serve_job(const JobRunner& run);

}  // namespace mkvirtfs::helper
