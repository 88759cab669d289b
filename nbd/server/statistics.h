// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/wire/codec.h"
#include "nbd/wire/protocol.h"

namespace mkvirtfs::nbd {

/// The commands as they are counted; `other` are those that we do not know.
enum class CommandKind : std::uint8_t {
  read,
  write,
  flush,
  trim,
  cache,
  write_zeroes,
  block_status,
  other,
};
inline constexpr std::size_t kCommandKinds = 8;
/// "read", "write_zeroes", "other".
std::string_view command_name(CommandKind kind) noexcept;

/// The errors of the protocol, in the order in which they are counted.
inline constexpr std::array kCountedErrors = {
    WireError::perm,  WireError::io,       WireError::nomem,  WireError::inval,
    WireError::nospc, WireError::overflow, WireError::notsup, WireError::shutdown,
};
/// "EPERM".
std::string_view error_name(WireError error) noexcept;

/// Bucket 0 counts what took less than a microsecond, bucket n what took less than 2^n of them but
/// not less than half of that, and the last everything longer.
inline constexpr std::size_t kLatencyBuckets = 25;
std::size_t latency_bucket(std::chrono::nanoseconds latency) noexcept;

struct CommandStatistics {
  std::uint64_t requests = 0;  ///< answered, with success or an error
  std::uint64_t bytes = 0;     ///< that those with success were about
  std::array<std::uint64_t, kCountedErrors.size()> errors{};
  /// How many took how long from their receipt until the kernel had the last byte of the answer.
  std::array<std::uint64_t, kLatencyBuckets> latency{};

  std::uint64_t error_count() const noexcept;
  CommandStatistics& operator+=(const CommandStatistics& more) noexcept;
  friend bool operator==(const CommandStatistics&, const CommandStatistics&) = default;
};

struct ExportStatistics {
  std::string name;                     ///< the canonical one
  std::uint64_t connections_open = 0;   ///< now
  std::uint64_t connections_total = 0;  ///< ever, those included
  std::array<CommandStatistics, kCommandKinds> commands{};

  const CommandStatistics& of(CommandKind kind) const noexcept {
    return commands[static_cast<std::size_t>(kind)];
  }
  /// Adds the numbers; the name stays.
  ExportStatistics& operator+=(const ExportStatistics& more) noexcept;
};

/// What a server has done so far.
struct ServerStatistics {
  /// So many exports keep numbers of their own once their last client left.
  static constexpr std::size_t kMostExports = 1000;

  std::uint64_t connections_open = 0;     ///< those in their handshake included
  std::uint64_t connections_total = 0;    ///< ever
  std::uint64_t connections_refused = 0;  ///< for a limit or a peer filter
  /// Those that a client ever had, by name.
  std::vector<ExportStatistics> exports;
  /// Sums up exports beyond kMostExports; its name is empty.
  ExportStatistics others;
};

/// Counts the requests of one connection.
///
/// The connection's thread counts, without locks, locked instructions or memory that other
/// connections write to; any thread may ask for the sums meanwhile, and sees each number whole, if
/// not all of one moment. It has no clock: the driver of the session gives the time, once
/// for all requests that came at once, and once for all answers that left at once.
class alignas(64) RequestMeter {
 public:
  using Clock = std::chrono::steady_clock;

  /// A request under way.
  struct Ticket {
    CommandKind kind = CommandKind::other;
    std::uint64_t bytes = 0;
    Clock::time_point arrived;
  };

  RequestMeter() = default;
  RequestMeter(const RequestMeter&) = delete;
  RequestMeter& operator=(const RequestMeter&) = delete;

  /// The handshake is over; once.
  void begin(std::string_view export_name);
  void input_arrived(Clock::time_point now) noexcept { arrived_ = now; }
  Ticket take(const Request& request) const noexcept;
  /// The answer is complete, and leaves with the next batch.
  void answered(const Ticket& ticket, WireError error);
  bool has_answers() const noexcept { return has_answers_; }
  void batch_sent(Clock::time_point now) noexcept;

  /// Whether begin() was called; what follows is only for this case. From any thread, as these:
  bool has_begun() const noexcept { return begun_.load(std::memory_order_acquire); }
  const std::string& export_name() const noexcept { return export_name_; }
  /// Of one connection, which is open.
  ExportStatistics statistics() const;

 private:
  /// Written by one thread, read by others.
  class Counter {
   public:
    void add(std::uint64_t more) noexcept {
      value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
    }
    std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

   private:
    std::atomic<std::uint64_t> value_ = 0;
  };
  struct Counters {
    Counter requests;
    Counter bytes;
    std::array<Counter, kCountedErrors.size()> errors;
    std::array<Counter, kLatencyBuckets> latency;
  };

  std::array<Counters, kCommandKinds> counters_;
  Clock::time_point arrived_;
  bool has_answers_ = false;
  /// Answers in the batch: of what came last, and of what came before it.
  std::array<std::uint32_t, kCommandKinds> pending_{};
  std::vector<Ticket> pending_late_;

  std::string export_name_;  // constant from begin() on
  std::atomic<bool> begun_ = false;
};

}  // namespace mkvirtfs::nbd
