// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/statistics.h"

#include <catch2/catch.hpp>
#include <numeric>

#include "block/testing/memory_device.h"
#include "nbd/server/session.h"
#include "nbd/server/testing/memory_driver.h"
#include "tests/support/allocations.h"

namespace mkvirtfs::nbd {
namespace {

using namespace std::chrono_literals;
using testing::Bytes;

std::uint64_t sum(const auto& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), std::uint64_t{0});
}

std::uint64_t errors(const CommandStatistics& command, WireError error) {
  const auto* const found = std::ranges::find(kCountedErrors, error);
  REQUIRE(found != kCountedErrors.end());
  return command.errors[static_cast<std::size_t>(found - kCountedErrors.begin())];
}

constexpr Request kRead{0, Command::read, 1, 0, 4096};

}  // namespace

TEST_CASE("latencies fall into buckets of doubling width", "[statistics]") {
  CHECK(latency_bucket(-1ns) == 0);
  CHECK(latency_bucket(0ns) == 0);
  CHECK(latency_bucket(999ns) == 0);
  CHECK(latency_bucket(1us) == 1);
  CHECK(latency_bucket(1999ns) == 1);
  CHECK(latency_bucket(2us) == 2);
  CHECK(latency_bucket(3999ns) == 2);
  CHECK(latency_bucket(4us) == 3);
  CHECK(latency_bucket(1ms) == 10);
  CHECK(latency_bucket(1s) == 20);
  CHECK(latency_bucket(8s) == 23);
  CHECK(latency_bucket(9s) == kLatencyBuckets - 1);
  CHECK(latency_bucket(std::chrono::nanoseconds::max()) == kLatencyBuckets - 1);
}

TEST_CASE("a meter counts what was answered, and how long it took", "[statistics]") {
  RequestMeter meter;
  CHECK_FALSE(meter.has_begun());
  meter.begin("disk");
  const RequestMeter::Clock::time_point start{};
  meter.input_arrived(start);
  const auto first = meter.take(kRead);
  const auto second = meter.take({0, Command::read, 2, 0, 100});
  const auto waiting = meter.take({0, Command::flush, 3, 0, 0});
  CHECK_FALSE(meter.has_answers());
  meter.answered(first, WireError::ok);
  meter.answered(second, WireError::io);
  CHECK(meter.has_answers());
  meter.batch_sent(start + 10us);
  CHECK_FALSE(meter.has_answers());
  // What waited is answered together with what came later.
  meter.input_arrived(start + 1ms);
  const auto third = meter.take({0, Command::resize, 4, 0, 7});
  meter.answered(third, WireError::inval);
  meter.answered(waiting, WireError::ok);
  meter.batch_sent(start + 1ms + 3us);

  const ExportStatistics statistics = meter.statistics();
  CHECK(statistics.name == "disk");
  CHECK(statistics.connections_open == 1);
  CHECK(statistics.connections_total == 1);
  const CommandStatistics& reads = statistics.of(CommandKind::read);
  CHECK(reads.requests == 2);
  CHECK(reads.bytes == 4096);
  CHECK(errors(reads, WireError::io) == 1);
  CHECK(reads.error_count() == 1);
  CHECK(reads.latency[4] == 2);
  CHECK(sum(reads.latency) == 2);
  const CommandStatistics& flushes = statistics.of(CommandKind::flush);
  CHECK(flushes.requests == 1);
  CHECK(flushes.error_count() == 0);
  CHECK(flushes.latency[10] == 1);
  CHECK(sum(flushes.latency) == 1);
  const CommandStatistics& others = statistics.of(CommandKind::other);
  CHECK(others.bytes == 0);
  CHECK(errors(others, WireError::inval) == 1);
  CHECK(others.latency[2] == 1);
  CHECK(statistics.of(CommandKind::write) == CommandStatistics{});
}

TEST_CASE("a busy meter does not allocate", "[statistics]") {
  RequestMeter meter;
  meter.begin("");
  const auto round = [&](RequestMeter::Clock::time_point now) {
    const auto old = meter.take(kRead);
    meter.input_arrived(now);
    const auto ticket = meter.take(kRead);
    for (int i = 0; i < 100; ++i) meter.answered(ticket, WireError::ok);
    meter.answered(old, WireError::ok);
    meter.batch_sent(now + 1us);
  };
  RequestMeter::Clock::time_point now{};
  round(now += 1s);
  const std::size_t before = allocations_of_this_thread();
  for (int i = 0; i < 100; ++i) round(now += 1s);
  CHECK(allocations_of_this_thread() == before);
}

TEST_CASE("statistics add up", "[statistics]") {
  RequestMeter meter;
  meter.begin("a");
  meter.answered(meter.take(kRead), WireError::ok);
  ExportStatistics twice = meter.statistics();
  twice += meter.statistics();
  CHECK(twice.connections_open == 2);
  CHECK(twice.of(CommandKind::read).requests == 2);
  CHECK(twice.of(CommandKind::read).bytes == 8192);
  // It was never sent.
  CHECK(sum(twice.of(CommandKind::read).latency) == 0);
}

TEST_CASE("kinds and errors have their names", "[statistics]") {
  CHECK(command_name(CommandKind::read) == "read");
  CHECK(command_name(CommandKind::write_zeroes) == "write_zeroes");
  CHECK(command_name(CommandKind::other) == "other");
  CHECK(error_name(WireError::perm) == "EPERM");
  CHECK(error_name(WireError::shutdown) == "ESHUTDOWN");
}

TEST_CASE("every answer of a session is counted once", "[statistics]") {
  const auto device = std::make_shared<testing::WritableDevice>(1 << 20);
  device->zeroes_are_fast(true);
  const auto tree = *make_single_export(device, "disk");
  RequestMeter meter;
  Session session(*tree, {}, TlsMode::off, Extensions::standard(), {}, &meter);
  testing::MemoryDriver driver(session);
  Bytes hello = testing::client_flags();
  hello += testing::option(Option::structured_reply);
  hello +=
      testing::option(Option::set_meta_context, testing::meta_data("disk", {"base:allocation"}));
  CHECK_FALSE(meter.has_begun());
  hello += testing::option(Option::go, testing::info_data("disk"));
  driver.exchange(hello);
  REQUIRE(meter.has_begun());
  CHECK(meter.export_name() == "disk");

  const auto ask = [&](Command command, std::uint64_t offset, std::uint32_t length,
                       std::uint16_t flags = 0) {
    Bytes message = testing::request(command, 9, offset, length, flags);
    if (command == Command::write) message += Bytes(length);
    driver.exchange(message);
  };
  ask(Command::read, 0, 4096);
  ask(Command::read, 0, 1 << 20);
  ask(Command::read, 0, (1 << 20) + 1);
  ask(Command::write, 0, 512);
  ask(Command::write, 0, 512, kFua);
  ask(Command::write, 1 << 20, 512);
  ask(Command::flush, 0, 0);
  ask(Command::trim, 0, 4096);
  ask(Command::cache, 0, 8192);
  ask(Command::write_zeroes, 0, 4096);
  ask(Command::block_status, 0, 1 << 20);
  ask(Command::resize, 0, 1);
  device->full = true;
  ask(Command::write, 0, 512);
  ask(Command::flush, 0, 0);

  const ExportStatistics statistics = meter.statistics();
  const auto check = [&](CommandKind kind, std::uint64_t requests, std::uint64_t bytes,
                         std::uint64_t failed) {
    CAPTURE(command_name(kind));
    CHECK(statistics.of(kind).requests == requests);
    CHECK(statistics.of(kind).bytes == bytes);
    CHECK(statistics.of(kind).error_count() == failed);
  };
  check(CommandKind::read, 3, (1 << 20) + 4096, 1);
  check(CommandKind::write, 4, 1024, 2);
  check(CommandKind::flush, 2, 0, 1);
  check(CommandKind::trim, 1, 4096, 0);
  check(CommandKind::cache, 1, 8192, 0);
  check(CommandKind::write_zeroes, 1, 4096, 0);
  check(CommandKind::block_status, 1, 1 << 20, 0);
  check(CommandKind::other, 1, 0, 1);
  CHECK(errors(statistics.of(CommandKind::write), WireError::nospc) == 2);
  CHECK(errors(statistics.of(CommandKind::flush), WireError::io) == 1);
}

}  // namespace mkvirtfs::nbd
