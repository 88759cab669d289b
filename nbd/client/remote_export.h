// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "nbd/client/handshake_client.h"
#include "nbd/client/server_address.h"
#include "support/error.h"
#include "support/mutex.h"

namespace mkvirtfs::nbd {

/// An export of any server, which is read. The server is not trusted: an answer is what was asked
/// for, or an error. It never writes; what others write there is not noticed.
class RemoteExport {
 public:
  /// Connects, and opens the export. Errc::unreadable when the server refuses it; else as
  /// connect_to() and HandshakeClient. It waits `patience` at most for each answer.
  static Result<std::unique_ptr<RemoteExport>> open(
      const ServerAddress& server, std::chrono::milliseconds patience = std::chrono::seconds(30));
  ~RemoteExport();
  RemoteExport(const RemoteExport&) = delete;
  RemoteExport& operator=(const RemoteExport&) = delete;

  std::uint64_t size_bytes() const noexcept { return size_bytes_; }
  /// All of `out`, which must lie inside. Any thread; one at a time has the connection. Once it is
  /// lost, or the server broke the protocol, that is the error of every read.
  Result<void> read(std::uint64_t offset, std::span<std::byte> out);

 private:
  explicit RemoteExport(HandshakeClient client) : client_(std::move(client)) {}

  Result<void> go(const ServerAddress& server);
  Result<void> take_info(std::span<const std::byte> info);
  /// The error of this read, and of every later one.
  std::unexpected<Error> lose(Error error) REQUIRES(mutex_);
  Result<void> read_piece(std::uint64_t offset, std::span<std::byte> out) REQUIRES(mutex_);

  std::uint64_t size_bytes_ = 0;
  std::uint32_t alignment_bytes_ = 1;  // of every read
  bool has_size_ = false;
  Mutex mutex_;
  HandshakeClient client_ GUARDED_BY(mutex_);
  std::uint64_t cookie_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> lost_ GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs::nbd
