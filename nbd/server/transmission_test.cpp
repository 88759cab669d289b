// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/transmission.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <new>
#include <random>
#include <stdexcept>

#include "block/testing/computed_extent.h"
#include "block/testing/extent_device.h"
#include "block/testing/gated_device.h"
#include "block/testing/memory_device.h"
#include "nbd/server/testing/memory_driver.h"
#include "tests/support/allocations.h"

namespace mkvirtfs::nbd {
namespace {

using testing::Answer;
using testing::Bytes;
using testing::ExtentDevice;
using testing::FileStore;
using testing::MemoryDevice;
using testing::pattern_bytes;
using testing::request;
using testing::WritableDevice;

constexpr std::uint16_t kOurFlags = kHasFlags | kReadOnly | kMultiConn | kSendCache;

Agreement agreement(std::shared_ptr<BlockDevice> device, bool structured = true,
                    bool base_allocation = true) {
  Agreement agreed;
  agreed.exported = {"disk", "", std::move(device)};
  agreed.transmission_flags = static_cast<std::uint16_t>(kOurFlags | (structured ? kSendDf : 0));
  agreed.structured_replies = structured;
  if (base_allocation && structured) {
    agreed.contexts.push_back({1, make_base_allocation()});
  }
  return agreed;
}

std::shared_ptr<MemoryDevice> memory_device(std::size_t size) {
  return std::make_shared<MemoryDevice>(pattern_bytes(size));
}

Bytes bytes_of_pattern(std::size_t size) {
  const auto bytes = pattern_bytes(size);
  return {bytes.begin(), bytes.end()};
}

/// The exports of another tree, with write-through.
class WrittenThrough final : public ExportTree {
 public:
  explicit WrittenThrough(std::shared_ptr<ExportTree> below) : below_(std::move(below)) {}
  Result<std::vector<ExportEntry>> list(std::string_view directory,
                                        std::optional<std::string_view> after,
                                        std::size_t most) override {
    return below_->list(directory, after, most);
  }
  Result<ExportEntry> find(std::string_view name) override { return below_->find(name); }
  Result<Export> open(std::string_view name) override {
    Result<Export> opened = below_->open(name);
    if (opened) opened->write_through = true;
    return opened;
  }

 private:
  const std::shared_ptr<ExportTree> below_;
};

/// A session whose handshake is done, and a client that reads its answers.
class Client {
 public:
  explicit Client(std::shared_ptr<BlockDevice> device, bool structured = true,
                  TransmissionTuning tuning = {}, std::size_t step = SIZE_MAX)
      : Client(std::move(device), structured ? ReplyStyle::structured : ReplyStyle::simple, tuning,
               step) {}
  Client(std::shared_ptr<BlockDevice> device, ReplyStyle style, TransmissionTuning tuning = {},
         std::size_t step = SIZE_MAX)
      : Client(*make_single_export(std::move(device), "disk"), style, tuning, step) {}
  /// `tree` has an export "disk".
  Client(std::shared_ptr<ExportTree> tree, ReplyStyle style, TransmissionTuning tuning = {},
         std::size_t step = SIZE_MAX)
      : tree_(std::move(tree)),
        session_(*tree_, tuning),
        driver(session_, step),
        structured_(style != ReplyStyle::simple),
        extended_(style == ReplyStyle::extended) {
    Bytes hello = testing::client_flags();
    if (structured_) {
      hello += testing::option(extended_ ? Option::extended_headers : Option::structured_reply);
      hello += testing::option(Option::set_meta_context,
                               testing::meta_data("disk", {"base:allocation"}));
    }
    hello += testing::option(Option::go, testing::info_data("disk"));
    testing::Stream answers(driver.exchange(hello));
    testing::take_greeting(answers);
    int acks = 0;
    while (!answers.empty()) acks += testing::take_option_answer(answers).is(OptionReply::ack);
    CHECK(acks == (structured_ ? 3 : 1));
    CHECK_FALSE(session_.in_handshake());
  }

  /// Sends one request, and takes its whole answer, which is all that may come.
  Answer ask(const Request& asked, std::span<const std::byte> payload = {}) {
    Bytes message;
    if (extended_) {
      message += encode_extended_request(asked);
    } else {
      message += encode_request(asked);
    }
    message += payload;
    testing::Stream stream(driver.exchange(message));
    Answer answer = testing::take_answer(stream, asked, structured_, extended_);
    CHECK(stream.empty());
    return answer;
  }
  Answer read(std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0) {
    return ask({flags, Command::read, ++cookie_, offset, length});
  }
  Answer status(std::uint64_t offset, std::uint64_t length, std::uint16_t flags = 0) {
    return ask({flags, Command::block_status, ++cookie_, offset, length});
  }

  Session& session() { return session_; }

 private:
  std::shared_ptr<ExportTree> tree_;
  Session session_;

 public:
  testing::MemoryDriver driver;

 private:
  bool structured_;
  bool extended_;
  std::uint64_t cookie_ = 0xfeedfacecafebeef;
};

/// A file that is gone when the test is over.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::span<const std::byte> bytes) {
    fd_ = UniqueFd(::memfd_create("nbd-test", MFD_CLOEXEC));
    REQUIRE(fd_);
    path_ = fmt::format("/proc/self/fd/{}", fd_.get());
    write(0, bytes);
  }
  const std::string& path() const { return path_; }
  void write(std::uint64_t offset, std::span<const std::byte> bytes) {
    REQUIRE(::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
            static_cast<ssize_t>(bytes.size()));
  }
  void truncate(std::uint64_t size) {
    REQUIRE(::ftruncate(fd_.get(), static_cast<off_t>(size)) == 0);
  }

 private:
  UniqueFd fd_;
  std::string path_;
};

/// Fails every read from a given byte on, and names itself.
class BrokenStore final : public MemoryStore {
 public:
  explicit BrokenStore(std::uint64_t broken_from, Error error)
      : broken_from_(broken_from), error_(std::move(error)) {}
  Result<void> read(ContentNo, std::uint64_t offset, std::span<std::byte> out) override {
    if (offset + out.size() > broken_from_) return std::unexpected(error_);
    std::ranges::fill(out, std::byte{0x55});
    return {};
  }
  Result<Pin> pin(ContentNo) override { return Pin{}; }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo) const override { return "a/file"; }

 private:
  std::uint64_t broken_from_;
  Error error_;
};

Bytes device_bytes(BlockDevice& device, std::uint64_t offset, std::size_t length) {
  Bytes bytes(length);
  REQUIRE(device.read(offset, bytes));
  return bytes;
}

}  // namespace

// --- The command table -------------------------------------------------------------------------

TEST_CASE("every command with every flag is judged as the specification says",
          "[transmission][C5][A12]") {
  const auto device = memory_device(1 << 20);
  const bool writable = GENERATE(false, true);
  const std::uint16_t offered =
      GENERATE(std::uint16_t{0}, kSendFua, kSendDf, kSendTrim, kSendWriteZeroes, kSendFastZero,
               kSendWriteZeroes | kSendFastZero, std::uint16_t{0xfffd});
  Agreement agreed = agreement(device);
  agreed.transmission_flags =
      static_cast<std::uint16_t>((offered & ~kReadOnly) | (writable ? 0 : kReadOnly));
  const auto has = [&](std::uint16_t flag) { return (offered & flag) != 0; };

  for (std::uint16_t number = 0; number <= 20; ++number) {
    for (unsigned bit = 0; bit <= 16; ++bit) {
      const auto flag = static_cast<std::uint16_t>(bit == 16 ? 0 : 1U << bit);
      const Command command{number};
      Request asked{flag, command, 1, 0, 4096};
      if (command == Command::flush) asked.length = 0;
      CAPTURE(number, flag, offered, writable);
      const Verdict verdict = judge(asked, agreed);

      // The expectation is written down once more, from the specification's text.
      const bool known = number <= 7;
      const bool writes =
          command == Command::write || command == Command::trim || command == Command::write_zeroes;
      bool flag_is_good = flag == 0 || (flag == kFua && has(kSendFua));
      if (command == Command::read) flag_is_good |= flag == kDf && has(kSendDf);
      if (command == Command::write_zeroes) {
        flag_is_good |= flag == kNoHole || (flag == kFastZero && has(kSendFastZero));
      }
      if (command == Command::block_status) flag_is_good |= flag == kReqOne;
      const bool command_is_offered = (command != Command::trim || has(kSendTrim)) &&
                                      (command != Command::write_zeroes || has(kSendWriteZeroes));

      if (command == Command::disc) {
        CHECK(verdict.action == Verdict::Action::finish);
        continue;
      }
      CHECK(verdict.payload_bytes == (command == Command::write ? 4096U : 0U));
      if (known && writes && !writable) {
        CHECK(verdict.action == Verdict::Action::refuse);
        CHECK(verdict.error == WireError::perm);
      } else if (!known || !flag_is_good || !command_is_offered) {
        CHECK(verdict.action == Verdict::Action::refuse);
        CHECK(verdict.error == WireError::inval);
      } else {
        CHECK(verdict.action == Verdict::Action::serve);
      }
      if (verdict.action == Verdict::Action::refuse) CHECK_FALSE(verdict.reason.empty());
    }
  }
}

TEST_CASE("ranges are checked without overflow", "[transmission][C6][A9]") {
  const std::uint64_t size = (1 << 20) + 100;
  Agreement agreed = agreement(memory_device(size));
  agreed.transmission_flags = kHasFlags | kSendTrim | kSendWriteZeroes;
  const auto [offset, length, inside] = GENERATE_COPY(table<std::uint64_t, std::uint32_t, bool>({
      {0, 1, true},
      {0, 1 << 20, true},
      {size - 1, 1, true},
      {size, 0, true},
      {size, 1, false},
      {size - 1, 2, false},
      {size + 1, 0, false},
      {0, static_cast<std::uint32_t>(size + 1), false},
      {0, 0xffffffff, false},
      {~std::uint64_t{0} - 511, 1024, false},
      {~std::uint64_t{0}, 1, false},
      {~std::uint64_t{0}, 0, false},
      {std::uint64_t{1} << 63, 0xffffffff, false},
  }));
  for (const Command command : {Command::read, Command::cache, Command::trim, Command::block_status,
                                Command::write_zeroes, Command::write}) {
    if (command == Command::block_status && length == 0) continue;
    if (command == Command::write && length > kLargestPayload) continue;
    CAPTURE(std::to_underlying(command), offset, length);
    const Verdict verdict = judge({0, command, 1, offset, length}, agreed);
    CHECK((verdict.action == Verdict::Action::serve) == inside);
    if (!inside) {
      const bool writes = command == Command::write || command == Command::write_zeroes;
      CHECK(verdict.error == (writes ? WireError::nospc : WireError::inval));
    }
  }
}

TEST_CASE("the remaining rules of single commands", "[transmission]") {
  class Huge final : public BlockDevice {
   public:
    const Geometry& geometry() const noexcept override { return geometry_; }
    Result<void> read(std::uint64_t, std::span<std::byte>) override { return {}; }
    void map(Range, ExtentSink&) const override {}

   private:
    Geometry geometry_{.size_bytes = std::uint64_t{1} << 40};
  };
  const Agreement agreed = agreement(std::make_shared<Huge>());
  const auto judged = [&](Command command, std::uint64_t offset, std::uint32_t length) {
    return judge({0, command, 1, offset, length}, agreed);
  };
  CHECK(judged(Command::flush, 1, 0).error == WireError::inval);
  CHECK(judged(Command::flush, 0, 1).error == WireError::inval);
  CHECK(judged(Command::flush, 0, 0).action == Verdict::Action::serve);
  CHECK(judged(Command::disc, 0xfffffffffffffe00, 7).action == Verdict::Action::finish);
  CHECK(judged(Command::read, 0, kLargestPayload).action == Verdict::Action::serve);
  CHECK(judged(Command::read, 0, kLargestPayload + 1).error == WireError::overflow);
  CHECK(judged(Command::write, 0, kLargestPayload).error == WireError::perm);
  CHECK(judged(Command::write, 0, kLargestPayload + 1).action == Verdict::Action::disconnect);
  CHECK(judged(Command::write, 0, 0xffffffff).action == Verdict::Action::disconnect);
  CHECK(judged(Command::cache, 0, 0xffffffff).action == Verdict::Action::serve);
  CHECK(judged(Command::block_status, 0, 0xffffffff).action == Verdict::Action::serve);
  CHECK(judged(Command::block_status, 0, 0).error == WireError::inval);
  Agreement without = agreed;
  without.contexts.clear();
  CHECK(judge({0, Command::block_status, 1, 0, 512}, without).error == WireError::inval);
}

// --- Requests and replies ----------------------------------------------------------------------

TEST_CASE("a client that speaks any command gets its answer and stays", "[transmission]") {
  const bool structured = GENERATE(true, false);
  CAPTURE(structured);
  const auto device = memory_device(1 << 20);
  Client client(device, structured);

  CHECK(client.read(1000, 5000).data == device_bytes(*device, 1000, 5000));
  CHECK(client.ask({0, Command::flush, 2, 0, 0}).is(WireError::ok));
  CHECK(client.ask({0, Command::cache, 3, 0, 1 << 20}).is(WireError::ok));
  CHECK(client.ask({0, Command::trim, 4, 0, 4096}).is(WireError::perm));
  CHECK(client.ask({0, Command::write_zeroes, 5, 0, 4096}).is(WireError::perm));
  CHECK(client.ask({kFastZero, Command::write_zeroes, 5, 0, 4096}).is(WireError::perm));
  CHECK(client.ask({0, Command::write, 6, 0, 4096}, Bytes(4096)).is(WireError::perm));
  CHECK(client.ask({0, Command::write, 6, 1 << 20, 10}, Bytes(10)).is(WireError::perm));
  CHECK(client.ask({0, Command::write, 6, 0, 0}).is(WireError::perm));
  CHECK(client.ask({0, Command::resize, 7, 0, 0}).is(WireError::inval));
  CHECK(client.ask({0, Command{0xffff}, 8, 0, 0}).is(WireError::inval));
  CHECK(client.ask({kFua, Command::read, 9, 0, 512}).is(WireError::inval));
  CHECK(client.read(1 << 20, 1).is(WireError::inval));
  CHECK(client.read(0, (1 << 20) + 1).is(WireError::inval));
  CHECK(client.read(0, 0xffffffff).is(WireError::inval));
  if (structured) {
    CHECK(client.status(0, 4096).descriptors.size() == 1);
    CHECK_FALSE(client.read(1 << 20, 1).text.empty());
  } else {
    CHECK(client.read(0, 512, kDf).is(WireError::inval));
    CHECK(client.status(0, 4096).is(WireError::inval));
  }
  // Zero lengths: success without effect.
  const Answer nothing = client.read(77, 0);
  CHECK(nothing.is(WireError::ok));
  CHECK(nothing.data.empty());
  CHECK(client.ask({0, Command::cache, 3, 0, 0}).is(WireError::ok));
  if (structured) CHECK(client.read(77, 0, kDf).is(WireError::ok));

  CHECK(client.read(0, 512).data == device_bytes(*device, 0, 512));
  CHECK_FALSE(client.session().finished());
}

TEST_CASE("writes reach the device whole, however their payload comes", "[transmission]") {
  const std::size_t step = GENERATE(std::size_t{7}, std::size_t{4096}, SIZE_MAX);
  const ReplyStyle style =
      GENERATE(ReplyStyle::simple, ReplyStyle::structured, ReplyStyle::extended);
  const auto device = std::make_shared<WritableDevice>(1 << 20);
  Client client(device, style, {}, step);
  const std::uint16_t payload_flag = style == ReplyStyle::extended ? kPayloadLen : 0;
  const auto write = [&](std::uint64_t offset, std::size_t length, std::uint16_t flags = 0) {
    const auto flagged = static_cast<std::uint16_t>(flags | payload_flag);
    return client.ask({flagged, Command::write, 1, offset, length}, pattern_bytes(length));
  };

  CHECK(write(1000, 50'000).is(WireError::ok));
  CHECK(client.read(1000, 50'000).data == bytes_of_pattern(50'000));
  CHECK(client.read(0, 1000).data == Bytes(1000));
  CHECK(device->flushes == 0);
  CHECK(write(1 << 19, 4096, kFua).is(WireError::ok));
  CHECK(device->flushes == 1);
  CHECK(write(77, 0, kFua).is(WireError::ok));
  CHECK(device->flushes == 2);
  CHECK(client.ask({0, Command::flush, 2, 0, 0}).is(WireError::ok));
  CHECK(device->flushes == 3);
  CHECK(client.ask({kNoHole, Command::write_zeroes, 3, 2000, 3000}).is(WireError::ok));
  CHECK(device->kept_allocated);
  CHECK(client.ask({kFastZero, Command::write_zeroes, 3, 2000, 3000}).is(WireError::ok));
  CHECK_FALSE(device->kept_allocated);
  CHECK(client.read(2000, 3000).data == Bytes(3000));
  CHECK(client.ask({kFua, Command::trim, 4, 10'000, 3000}).is(WireError::ok));
  CHECK(device->trims == 1);
  CHECK(device->flushes == 4);

  // What is outside is refused before anything is touched, and its payload dropped.
  const int writes = device->writes;
  CHECK(write((1 << 20) - 10, 4096).is(WireError::nospc));
  CHECK(client.ask({0, Command::write_zeroes, 3, 1 << 20, 1}).is(WireError::nospc));
  CHECK(client.ask({0, Command::trim, 3, 1 << 20, 1}).is(WireError::inval));
  CHECK(device->writes == writes);
  device->full = true;
  CHECK(write(0, 70'000).is(WireError::nospc));
  CHECK(client.ask({0, Command::flush, 2, 0, 0}).is(WireError::io));
  CHECK(client.ask({kFua, Command::write_zeroes, 2, 0, 512}).is(WireError::io));
  CHECK(client.read(1000, 10).is(WireError::ok));
}

TEST_CASE("changes of an export with write-through are answered behind a flush", "[transmission]") {
  const auto device = std::make_shared<WritableDevice>(1 << 20);
  Client client(std::make_shared<WrittenThrough>(*make_single_export(device, "disk")),
                ReplyStyle::structured);
  CHECK(client.ask({0, Command::write, 1, 0, 4096}, pattern_bytes(4096)).is(WireError::ok));
  CHECK(device->flushes == 1);
  CHECK(client.ask({0, Command::write_zeroes, 2, 0, 4096}).is(WireError::ok));
  CHECK(device->flushes == 2);
  CHECK(client.ask({0, Command::trim, 3, 0, 4096}).is(WireError::ok));
  CHECK(device->flushes == 3);
  CHECK(client.read(0, 4096).data == Bytes(4096));
  CHECK(device->flushes == 3);
}

TEST_CASE("a write that is cut off leaves no torn block", "[transmission][A7]") {
  const std::size_t cut = GENERATE(0U, 1U, 4095U, 4096U, 5000U, 8191U, 8192U, 12'287U);
  const auto device = std::make_shared<WritableDevice>(1 << 16);
  Client client(device);
  Bytes message;
  message += encode_request({0, Command::write, 1, 4096, 12'288});
  message += Bytes(cut, std::byte{0xee});
  client.driver.exchange(message);
  client.session().input_ended("gone");
  CHECK(client.driver.exchange({}).empty());
  CHECK(client.session().finished());
  const std::size_t written = cut / 4096 * 4096;
  CHECK(std::ranges::count(device->bytes, std::byte{0xee}) == static_cast<std::ptrdiff_t>(written));
}

TEST_CASE("extended headers carry all there is", "[transmission][X1][X2][X3]") {
  const std::uint64_t huge = std::uint64_t{1} << 36;
  const auto device = std::make_shared<ExtentDevice>();
  device->hole(huge).computed(8192);
  Client client(device, ReplyStyle::extended);
  // More than 32 bits could say, in one descriptor.
  CHECK(client.status(0, huge + 8192).descriptors ==
        Answer::Descriptors{{huge, kStateHole | kStateZero}, {8192, 0}});
  CHECK(client.status(huge - 4096, 8192, kReqOne).descriptors ==
        Answer::Descriptors{{4096, kStateHole | kStateZero}});
  CHECK(client.read(huge - 4096, 8192).hole_chunks == 1);
  CHECK(client.read(huge - 4096, 8192, kDf).data == device_bytes(*device, huge - 4096, 8192));
  CHECK(client.ask({0, Command::cache, 7, 0, huge}).is(WireError::ok));
  CHECK(client.ask({0, Command::flush, 7, 0, 0}).is(WireError::ok));
  CHECK(client.ask({0, Command::read, 7, huge, 8193}).is(WireError::inval));
  CHECK(client.ask({0, Command::read, 7, 0, kLargestPayload + 1}).is(WireError::overflow));
  CHECK(client.ask({0, Command::read, 7, 0, ~std::uint64_t{0}}).is(WireError::inval));
  CHECK(client.ask({kPayloadLen, Command::write, 7, 0, 5}, Bytes(5)).is(WireError::perm));
  // A payload where none belongs is dropped, and the client told.
  CHECK(client.ask({kPayloadLen, Command::read, 7, 0, 50}, Bytes(50)).is(WireError::inval));
  CHECK(client.ask({kPayloadLen, Command{99}, 7, 0, 50}, Bytes(50)).is(WireError::inval));
  CHECK(client.ask({0, Command::trim, 7, 0, 512}).is(WireError::perm));
  CHECK_FALSE(client.session().finished());
  // One that is too long is the end.
  Bytes message;
  message += encode_extended_request({kPayloadLen, Command::read, 7, 0, kLargestPayload + 1});
  client.driver.exchange(message);
  CHECK(client.session().finished());
}

TEST_CASE("DISC ends the session after everything before it was answered", "[transmission][A20]") {
  Client client(memory_device(1 << 20));
  Bytes message = request(Command::read, 1, 0, 100'000);
  message += request(Command::read, 2, 0, 512);
  message += request(Command::disc, 3, 0xfffffffffffffe00, 9);
  message += request(Command::read, 4, 0, 512);
  testing::Stream stream(client.driver.exchange(message));
  testing::take_answer(stream, {0, Command::read, 1, 0, 100'000}, true);
  testing::take_answer(stream, {0, Command::read, 2, 0, 512}, true);
  CHECK(stream.empty());
  CHECK(client.session().finished());
  CHECK(client.session().end_reason().empty());
}

TEST_CASE("a wrong magic number ends the session, with the replies before it sent",
          "[transmission][C1]") {
  Client client(memory_device(1 << 20));
  Bytes message = request(Command::read, 1, 0, 512);
  message += request(Command::read, 2, 0, 512);
  message[kRequestBytes] ^= std::byte{1};
  testing::Stream stream(client.driver.exchange(message));
  testing::take_answer(stream, {0, Command::read, 1, 0, 512}, true);
  CHECK(stream.empty());
  CHECK(client.session().finished());
  CHECK_FALSE(client.session().end_reason().empty());
}

TEST_CASE("cookies are the client's own business", "[transmission][A19]") {
  const auto device = memory_device(1 << 20);
  Client client(device);
  Bytes message;
  for (std::uint64_t i = 0; i < 20; ++i) message += request(Command::read, 42, 512 * i, 512);
  testing::Stream stream(client.driver.exchange(message));
  for (std::uint64_t i = 0; i < 20; ++i) {
    const Request asked{0, Command::read, 42, 512 * i, 512};
    CHECK(testing::take_answer(stream, asked, true).data == device_bytes(*device, 512 * i, 512));
  }
}

TEST_CASE("the payload of a refused write is dropped to the byte", "[transmission][C3]") {
  const std::size_t step = GENERATE(std::size_t{1}, std::size_t{4099}, SIZE_MAX);
  const std::uint32_t length = GENERATE(1U, 28U, 100'000U);
  const auto device = memory_device(1 << 20);
  Client client(device, true, {}, step);
  // The payload looks like requests, which must not be obeyed.
  Bytes payload;
  while (payload.size() < length) payload += request(Command::disc, 0, 0, 0);
  payload.resize(length);
  CHECK(client.ask({0, Command::write, 1, 0, length}, payload).is(WireError::perm));
  CHECK(client.read(0, 512).data == device_bytes(*device, 0, 512));
}

TEST_CASE("a write beyond the largest payload ends the session", "[transmission][C4]") {
  Client client(memory_device(1 << 20));
  CHECK(client.driver.exchange(request(Command::write, 1, 0, kLargestPayload + 1)).empty());
  CHECK(client.session().finished());
}

TEST_CASE("a stopping server refuses new requests", "[transmission][D3]") {
  const auto device = memory_device(1 << 20);
  Client client(device);
  client.session().begin_shutdown();
  CHECK(client.read(0, 512).is(WireError::shutdown));
  CHECK(client.ask({0, Command::write, 1, 0, 10}, Bytes(10)).is(WireError::shutdown));
  CHECK(client.ask({0, Command{99}, 1, 0, 0}).is(WireError::shutdown));
  client.driver.exchange(request(Command::disc, 1, 0, 0));
  CHECK(client.session().finished());
  CHECK(client.session().end_reason().empty());
}

// --- Reads ---------------------------------------------------------------------------------------

TEST_CASE("holes travel as hole chunks, for clients that know them", "[transmission]") {
  const auto device = std::make_shared<ExtentDevice>();
  device->computed(8192).hole(1 << 20).computed(4096);
  SECTION("structured") {
    Client client(device);
    const Answer answer = client.read(0, 8192 + (1 << 20) + 4096);
    CHECK(answer.hole_chunks == 1);
    CHECK(answer.data_chunks == 2);
    CHECK(answer.data == device_bytes(*device, 0, answer.data.size()));
    const Answer all_hole = client.read(10'000, 1000);
    CHECK(all_hole.hole_chunks == 1);
    CHECK(all_hole.data_chunks == 0);
    CHECK(all_hole.data == Bytes(1000));
  }
  SECTION("structured, but in one piece") {
    Client client(device);
    const Answer answer = client.read(0, 8192 + (1 << 20) + 4096, kDf);
    CHECK(answer.hole_chunks == 0);
    CHECK(answer.data_chunks == 1);
    CHECK(answer.data == device_bytes(*device, 0, answer.data.size()));
  }
  SECTION("simple") {
    Client client(device, false);
    const Answer answer = client.read(0, 8192 + (1 << 20) + 4096);
    CHECK(answer.data == device_bytes(*device, 0, answer.data.size()));
  }
}

TEST_CASE("the gaps behind small files do not become chunks", "[transmission]") {
  const auto device = std::make_shared<ExtentDevice>();
  for (int i = 0; i < 20; ++i) device->computed(100).hole(3996);
  Client client(device);
  const Answer answer = client.read(0, 81920);
  CHECK(answer.data_chunks == 1);
  CHECK(answer.hole_chunks == 0);
  CHECK(answer.data == device_bytes(*device, 0, 81920));
}

TEST_CASE("reads of any range of any device give its bytes", "[transmission][one-thread]") {
  std::mt19937 random(GENERATE(1U, 2U, 3U, 4U));
  const TemporaryFile file(pattern_bytes(400'000));
  const auto store = std::make_shared<FileStore>(file.path());
  const auto device = std::make_shared<ExtentDevice>();
  while (device->geometry().size_bytes < 3'000'000) {
    const std::uint64_t length =
        random() % 4 == 0 ? random() % 120'000 + 1 : 512 * (random() % 40 + 1);
    switch (random() % 4) {
      case 0:
        device->hole(length);
        break;
      case 1:
        device->computed(length);
        break;
      case 2:
        device->memory(pattern_bytes(length));
        break;
      default:
        device->content(store, ContentNo{1}, random() % 200'000, length);
        break;
    }
  }
  const bool structured = GENERATE(true, false);
  TransmissionTuning tuning;
  tuning.batch_bytes = GENERATE(std::size_t{128} << 10, std::size_t{1} << 20);
  tuning.file_runs = GENERATE(true, false);
  store->pinnable = random() % 4 != 0;
  Client client(device, structured, tuning, GENERATE(std::size_t{100}, SIZE_MAX));
  client.driver.move_unsupported = random() % 4 == 0;
  const std::uint64_t size = device->geometry().size_bytes;
  for (int i = 0; i < 40; ++i) {
    const std::uint64_t offset = random() % size;
    const auto length = static_cast<std::uint32_t>(
        1 + random() % std::min<std::uint64_t>(size - offset, i % 4 == 0 ? size : 9000));
    const auto flags =
        static_cast<std::uint16_t>(structured && random() % 2 == 0 ? kDf : std::uint16_t{0});
    CAPTURE(offset, length, flags);
    const Answer answer = client.read(offset, length, flags);
    REQUIRE(answer.is(WireError::ok));
    REQUIRE(answer.data == device_bytes(*device, offset, length));
  }
}

TEST_CASE("a long read does not need long memory", "[transmission][A16]") {
  const auto device = std::make_shared<ExtentDevice>();
  device->computed(64 << 20);
  const bool structured = GENERATE(true, false);
  Client client(device, structured);
  const Answer answer = client.read(0, 64 << 20);
  CHECK(answer.data == device_bytes(*device, 0, 64 << 20));
  CHECK(client.driver.largest_batch <= TransmissionTuning{}.batch_bytes + 64);
  CHECK(client.driver.batches >= 200);
}

TEST_CASE("requests wait while the batch is full", "[transmission][A16]") {
  const auto device = std::make_shared<ExtentDevice>();
  device->computed(1 << 20);
  const auto tree = *make_single_export(device);
  Session session(*tree, {});
  Bytes input = testing::client_flags();
  input += testing::option(Option::structured_reply);
  input += testing::option(Option::go, testing::info_data(""));
  testing::MemoryDriver(session).exchange(input);
  Bytes requests;
  for (int i = 0; i < 64; ++i) requests += request(Command::read, 1, 0, 1 << 20);
  const std::size_t used = session.consume(requests);
  CHECK(used == kRequestBytes);
  CHECK(session.batch().owned_bytes() <= (256 << 10) + 64);
}

TEST_CASE("what a device cannot read is an error with its text", "[transmission]") {
  const Error error{Errc::io, EIO, "read a/\nfile: it is broken"};
  const auto store = std::make_shared<BrokenStore>(8192, error);
  const auto device = std::make_shared<ExtentDevice>();
  device->computed(4096).content(store, ContentNo{0}, 0, 1 << 20);

  SECTION("structured: what is good comes, then the error with its place") {
    Client client(device);
    const Answer answer = client.read(0, 4096 + 8192);
    CHECK(answer.is(WireError::ok));
    const Answer broken = client.read(4096 + 4096, 8192);
    CHECK(broken.is(WireError::io));
    CHECK(broken.text == "read a/\\x0afile: it is broken");
    CHECK(broken.error_offset == 8192);
    CHECK(client.read(0, 4096).is(WireError::ok));
  }
  SECTION("structured and long: behind the chunks that were sent") {
    const auto later = std::make_shared<BrokenStore>(700'000, error);
    const auto longer = std::make_shared<ExtentDevice>();
    longer->content(later, ContentNo{0}, 0, 1 << 20);
    Client client(longer);
    const Answer broken = client.read(0, 1 << 20);
    CHECK(broken.is(WireError::io));
    CHECK(broken.data_chunks >= 2);
    CHECK(client.read(0, 4096).is(WireError::ok));
    // In one chunk, the promised rest is padded before the error.
    const Answer padded = client.read(0, 1 << 20, kDf);
    CHECK(padded.is(WireError::io));
    CHECK(padded.data.size() == 1 << 20);
    CHECK(client.read(0, 4096).is(WireError::ok));
  }
  SECTION("structured in one piece: nothing but the error, when nothing was sent") {
    Client client(device);
    const Answer broken = client.read(0, 65536, kDf);
    CHECK(broken.is(WireError::io));
    CHECK(broken.data_chunks == 0);
  }
  SECTION("simple: an error, when nothing was sent") {
    Client client(device, false);
    CHECK(client.read(0, 4096 + 8193).is(WireError::io));
    CHECK(client.read(0, 4096).is(WireError::ok));
  }
  SECTION("simple and sent in part: the end") {
    const auto later = std::make_shared<BrokenStore>(700'000, error);
    const auto longer = std::make_shared<ExtentDevice>();
    longer->content(later, ContentNo{0}, 0, 1 << 20);
    Client client(longer, false);
    const Bytes sent = client.driver.exchange(request(Command::read, 1, 0, 1 << 20));
    CHECK(sent.size() < (1 << 20));
    CHECK(client.session().finished());
    CHECK(std::string(client.session().end_reason()) == "read a/\\x0afile: it is broken");
  }
}

namespace {

/// A device that throws wherever it is asked to.
class ThrowingDevice final : public BlockDevice {
 public:
  ThrowingDevice() {
    geometry_.size_bytes = 1 << 20;
    geometry_.writable = true;
  }
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t, std::span<std::byte> out) override {
    if (throws) boom();
    std::ranges::fill(out, std::byte{1});
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    if (map_throws) boom();
    mkvirtfs::testing::map_computed(range, sink);
  }
  Result<void> write(std::uint64_t, std::span<const std::byte>) override {
    if (throws) boom();
    return {};
  }
  Result<void> zero(Range, bool) override {
    if (throws) throw std::bad_alloc();
    return {};
  }
  Result<void> trim(Range) override {
    if (throws) boom();
    return {};
  }
  Result<void> flush() override {
    if (throws) boom();
    return {};
  }

  bool throws = false;
  bool map_throws = false;

 private:
  [[noreturn]] static void boom() { throw std::runtime_error("the device broke"); }
  Geometry geometry_;
};

}  // namespace

TEST_CASE("an exception in a device is EIO, a remark, and not the end of its client",
          "[transmission]") {
  const auto style = GENERATE(ReplyStyle::simple, ReplyStyle::structured, ReplyStyle::extended);
  CAPTURE(style);
  const auto device = std::make_shared<ThrowingDevice>();
  Client client(device, style);
  std::uint64_t cookie = 100;
  const auto ask = [&](Command command) {
    Request asked{0, command, ++cookie, 0, 4096};
    if (command == Command::flush) asked.length = 0;
    if (command == Command::write && style == ReplyStyle::extended) asked.flags = kPayloadLen;
    return client.ask(asked, Bytes(command == Command::write ? 4096 : 0)).error;
  };
  const auto fails = [&](Command command, std::string_view what) {
    CAPTURE(command);
    CHECK(ask(command) == std::to_underlying(WireError::io));
    const auto remarks = client.session().take_remarks();
    REQUIRE(remarks.size() == 1);
    CHECK(remarks[0].level == LogLevel::error);
    CHECK_THAT(remarks[0].text, Catch::Contains(std::string(what)));
  };
  device->throws = true;
  fails(Command::read, "the device broke");
  fails(Command::write, "the device broke");
  fails(Command::trim, "the device broke");
  fails(Command::write_zeroes, "out of memory");
  fails(Command::flush, "the device broke");
  device->throws = false;
  device->map_throws = true;
  fails(Command::read, "the device broke");
  if (style != ReplyStyle::simple) fails(Command::block_status, "the device broke");
  device->map_throws = false;
  CHECK(ask(Command::read) == 0);
  CHECK(ask(Command::write) == 0);
  // A client that lets it happen again and again does not fill the log.
  device->throws = true;
  std::size_t told = 0;
  for (int i = 0; i < 100; ++i) {
    CHECK(ask(Command::read) == std::to_underlying(WireError::io));
    told += client.session().take_remarks().size();
  }
  CHECK(told < Remarks::kMost);
}

TEST_CASE("no errno of the host reaches the wire raw, and no text is too long",
          "[transmission][R8]") {
  const bool structured = GENERATE(true, false);
  for (const int os_errno : {1, 2, 13, 30, 61, 75, 95, 116, 122, 133}) {
    const Error error{Errc::io, os_errno, std::string(10'000, '\x01')};
    const auto device = std::make_shared<ExtentDevice>();
    device->content(std::make_shared<BrokenStore>(0, error), ContentNo{0}, 0, 4096);
    Client client(device, structured);
    CHECK_FALSE(client.read(0, 4096).is(WireError::ok));  // take_answer() knows the legal ones
  }
}

TEST_CASE("a busy connection does not allocate", "[transmission]") {
  const TemporaryFile file(pattern_bytes(1 << 20));
  const auto store = std::make_shared<FileStore>(file.path());
  const auto device = std::make_shared<ExtentDevice>();
  device->computed(10'000).hole(100'000).memory(pattern_bytes(50'000)).hole(412);
  device->content(store, ContentNo{1}, 0, 1000).hole(3096).content(store, ContentNo{1}, 0, 1 << 20);
  const bool structured = GENERATE(true, false);
  Client client(device, structured);

  Bytes requests;
  for (std::uint64_t i = 0; i < 40; ++i) {
    requests += request(Command::read, 1, 4096 * i, 4096);
    requests += request(Command::read, 1, 1000 * i, 200'000);
    if (structured) requests += request(Command::block_status, 1, 0, 1 << 20);
    requests += request(Command::flush, 1, 0, 0);
  }
  std::vector<iovec> parts;
  const auto serve_all = [&] {
    std::size_t used = 0;
    while (true) {
      used += client.session().consume(std::span(requests).subspan(used));
      const Batch& batch = client.session().batch();
      if (batch.empty()) break;
      parts.clear();
      batch.gather(parts);
      client.session().batch_sent({batch.file() ? batch.file()->length : 0, false});
    }
    return used;
  };
  REQUIRE(serve_all() == requests.size());  // buffers grow
  const std::size_t before = allocations_of_this_thread();
  const std::size_t used = serve_all();
  const std::size_t allocations = allocations_of_this_thread() - before;
  CHECK(used == requests.size());
  CHECK(allocations == 0);
  CHECK(store->pins > 0);
}

// --- File runs -----------------------------------------------------------------------------------

TEST_CASE("long file runs are left to the kernel, short ones are gathered", "[transmission]") {
  const TemporaryFile file(pattern_bytes(1 << 20));
  const auto store = std::make_shared<FileStore>(file.path());
  const auto device = std::make_shared<ExtentDevice>();
  device->content(store, ContentNo{1}, 0, 1 << 20);
  Client client(device);
  CHECK(client.read(0, 4096).data == device_bytes(*device, 0, 4096));
  CHECK(client.driver.file_runs == 0);
  CHECK(client.read(0, 1 << 20).data == device_bytes(*device, 0, 1 << 20));
  CHECK(client.driver.file_runs == 1);
}

TEST_CASE("a file that changes while it is sent is an error", "[transmission][A23]") {
  TemporaryFile file(pattern_bytes(1 << 20));
  const auto store = std::make_shared<FileStore>(file.path());
  const auto device = std::make_shared<ExtentDevice>();
  device->computed(4096).content(store, ContentNo{1}, 0, 1 << 20).computed(4096);
  const std::uint32_t all = 4096 + (1 << 20) + 4096;
  const bool structured = GENERATE(true, false);
  CAPTURE(structured);
  Client client(device, structured);
  const auto flags = static_cast<std::uint16_t>(structured ? GENERATE(std::uint16_t{0}, kDf) : 0);

  const auto expect_error = [&] {
    if (structured) {
      const Answer answer = client.read(0, all, flags);
      CHECK(answer.is(WireError::io));
      CHECK_THAT(answer.text, Catch::Contains(file.path()));
      CHECK(client.read(0, 4096).is(WireError::ok));
      CHECK(client.driver.file_runs == 1);
    } else {
      const Bytes sent = client.driver.exchange(request(Command::read, 1, 0, all));
      CHECK(sent.size() < all);
      CHECK(client.session().finished());
      CHECK_THAT(std::string(client.session().end_reason()), Catch::Contains(file.path()));
    }
  };
  SECTION("rewritten after the bytes were moved") {
    client.driver.after_move = [&] { file.truncate((1 << 20) + 1); };
    expect_error();
  }
  SECTION("truncated before: the promised bytes are padded") {
    client.driver.before_move = [&] { file.truncate(500'000); };
    expect_error();
  }
  SECTION("gone before the first byte") {
    client.driver.before_move = [&] { file.truncate(0); };
    expect_error();
  }
  SECTION("changed before it was pinned: nothing of it is sent, and simple clients stay") {
    file.truncate(0);
    const Answer answer = client.read(0, all, flags);
    CHECK(answer.is(WireError::io));
    CHECK(client.read(0, 4096).is(WireError::ok));
    CHECK(client.driver.file_runs == 0);
  }
}

TEST_CASE("a store that notices nothing can still not make a short file pass", "[transmission]") {
  class Blind final : public MemoryStore {
   public:
    explicit Blind(std::shared_ptr<FileStore> store) : store_(std::move(store)) {}
    Result<void> read(ContentNo no, std::uint64_t offset, std::span<std::byte> out) override {
      return store_->read(no, offset, out);
    }
    Result<Pin> pin(ContentNo no) override { return store_->pin(no); }
    Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
    std::string name(ContentNo) const override { return "blind/file"; }

   private:
    std::shared_ptr<FileStore> store_;
  };
  TemporaryFile file(pattern_bytes(1 << 20));
  const auto device = std::make_shared<ExtentDevice>();
  device->content(std::make_shared<Blind>(std::make_shared<FileStore>(file.path())), ContentNo{1},
                  0, 1 << 20);
  Client client(device);
  client.driver.before_move = [&] { file.truncate(500'000); };
  const Answer answer = client.read(0, 1 << 20);
  CHECK(answer.is(WireError::io));
  CHECK_THAT(answer.text, Catch::Contains("blind/file"));
  CHECK(answer.error_offset == 500'000);
}

TEST_CASE("a read that fails for lack of a spool's space is EIO, with the reason in its text",
          "[transmission]") {
  for (const Error& error : {Error{Errc::no_space, ENOSPC, "write the spool: No space left"},
                             Error{Errc::no_space, 0, "all spools together may take 1 MiB"},
                             Error{Errc::io, EDQUOT, "write the spool: Disk quota exceeded"}}) {
    const auto store = std::make_shared<BrokenStore>(8192, error);
    const auto device = std::make_shared<ExtentDevice>();
    device->content(store, ContentNo{0}, 0, 1 << 20);
    Client client(device);
    const Answer broken = client.read(8192, 4096);
    CHECK(broken.is(WireError::io));
    CHECK(broken.text == error.what);
  }
}

TEST_CASE("where the kernel cannot move a file, it is read", "[transmission]") {
  const TemporaryFile file(pattern_bytes(1 << 20));
  const auto store = std::make_shared<FileStore>(file.path());
  const auto device = std::make_shared<ExtentDevice>();
  device->content(store, ContentNo{1}, 0, 1 << 20);
  const bool structured = GENERATE(true, false);
  Client client(device, structured);
  client.driver.move_unsupported = true;
  CHECK(client.read(0, 1 << 20).data == device_bytes(*device, 0, 1 << 20));
  CHECK(client.read(0, 1 << 20).data == device_bytes(*device, 0, 1 << 20));
  CHECK(client.driver.file_runs == 1);  // it was tried once
}

// --- Block status --------------------------------------------------------------------------------

TEST_CASE("block status is the map", "[transmission]") {
  const auto device = std::make_shared<ExtentDevice>();
  device->computed(8192).hole(1 << 20).computed(100).hole(10'000);
  const std::uint64_t size = device->geometry().size_bytes;
  Client client(device);
  using Descriptors = Answer::Descriptors;
  constexpr std::uint32_t kBoth = kStateHole | kStateZero;
  CHECK(client.status(0, static_cast<std::uint32_t>(size)).descriptors ==
        Descriptors{{8192, 0}, {1 << 20, kBoth}, {4096, 0}, {6004, kBoth}});
  CHECK(client.status(4096, 8192).descriptors == Descriptors{{4096, 0}, {4096, kBoth}});
  CHECK(client.status(0, 1 << 20, kReqOne).descriptors == Descriptors{{8192, 0}});
  CHECK(client.status(0, 100, kReqOne).descriptors == Descriptors{{100, 0}});
  CHECK(client.status(size - 1, 1).descriptors == Descriptors{{1, kBoth}});
}

TEST_CASE("block status of the largest and oddest lengths", "[transmission][A5]") {
  const auto device = std::make_shared<ExtentDevice>();
  device->computed(5).hole((std::uint64_t{9} << 30) + 3).computed(1 << 20);
  Client client(device);
  const std::uint16_t flags = GENERATE(std::uint16_t{0}, kReqOne);
  for (const std::uint32_t length : {0xffffffffU, 0xfffffe00U, 0xfffffffeU, 0x80000001U, 1U}) {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{511},
                                       std::uint64_t{1} << 32, (std::uint64_t{1} << 32) + 513}) {
      CAPTURE(length, offset);
      const Answer answer = client.status(offset, length, flags);
      REQUIRE(answer.is(WireError::ok));
      std::uint64_t total = 0;
      for (const auto& [part, state] : answer.descriptors) total += part;
      if (flags == 0) CHECK(total == length);
    }
  }
}

TEST_CASE("a million extents do not make a reply of a million", "[transmission][A18]") {
  const auto device = std::make_shared<ExtentDevice>();
  device->block_bytes(512);
  for (int i = 0; i < 300'000; ++i) device->computed(512).hole(512);
  Client client(device);
  std::uint64_t at = 0;
  std::size_t replies = 0;
  const std::uint64_t size = device->geometry().size_bytes;
  while (at < size) {
    const Answer answer = client.status(at, static_cast<std::uint32_t>(size - at));
    REQUIRE(answer.is(WireError::ok));
    REQUIRE(answer.descriptors.size() <= 8192);
    for (const auto& [part, state] : answer.descriptors) at += part;
    ++replies;
  }
  CHECK(replies == 600'000 / 8192 + 1);
  CHECK(client.driver.largest_batch < 300 << 10);
}

TEST_CASE("reads keep to the minimum block also where a batch ends", "[transmission][point6]") {
  const auto style = GENERATE(ReplyStyle::simple, ReplyStyle::structured, ReplyStyle::extended);
  const std::uint16_t flags = GENERATE(std::uint16_t{0}, kDf);
  if (style == ReplyStyle::simple && flags != 0) return;
  const auto device = std::make_shared<testing::GatedDevice>(4 << 20, 65536);
  device->never_waits();
  TransmissionTuning tuning;
  tuning.batch_bytes = 128U << 10;
  Client client(device, style, tuning);
  // The second one begins behind the end of the first in a batch.
  Bytes both;
  std::vector<Request> asked;
  for (std::uint64_t i = 0; i < 4; ++i) {
    asked.push_back({flags, Command::read, i, i << 16, i % 2 == 0 ? 65536U : 1U << 20});
    if (style == ReplyStyle::extended) {
      both += encode_extended_request(asked.back());
    } else {
      both += encode_request(asked.back());
    }
  }
  testing::Stream stream(client.driver.exchange(both));
  for (const Request& request : asked) {
    const Answer answer = testing::take_answer(stream, request, style != ReplyStyle::simple,
                                               style == ReplyStyle::extended);
    CHECK(answer.data == Bytes(request.length));
  }
  CHECK(device->is_aligned());
  CHECK(client.driver.jobs == 0);
}

}  // namespace mkvirtfs::nbd
