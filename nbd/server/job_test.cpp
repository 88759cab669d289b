// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/job.h"

#include <catch2/catch.hpp>
#include <deque>
#include <set>
#include <stdexcept>

#include "block/image.h"
#include "block/overlay/overlay.h"
#include "block/testing/derived_image.h"
#include "block/testing/extent_device.h"
#include "block/testing/gated_device.h"
#include "block/testing/memory_device.h"
#include "nbd/server/allocation_depth.h"
#include "nbd/server/session.h"
#include "nbd/server/testing/memory_driver.h"

// Requests that would have to wait for a disk are laid aside; everything else passes them.

namespace mkvirtfs::nbd {
namespace {

using mkvirtfs::testing::DerivedImage;
using testing::Answer;
using testing::Bytes;
using testing::ExtentDevice;
using testing::GatedDevice;
using testing::WritableDevice;

/// A store whose bytes must be fetched before they can be read at once, a block at a time.
class ColdStore final : public ContentStore {
 public:
  static constexpr std::uint64_t kBlock = 4096;
  static std::byte byte_at(std::uint64_t offset) {
    return static_cast<std::byte>((offset * 5 + offset / kBlock) & 0xFF);
  }

  Result<void> read(ContentNo, std::uint64_t offset, std::span<std::byte> out) override {
    ++patient_reads;
    fill(offset, out);
    return {};
  }
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override {
    if (!is_at_hand(content, offset, out.size())) return false;
    fill(offset, out);
    return true;
  }
  bool is_at_hand(ContentNo, std::uint64_t offset, std::uint64_t length) override {
    for (std::uint64_t block = offset / kBlock; block * kBlock < offset + length; ++block) {
      if (!warm.contains(block)) return false;
    }
    return true;
  }
  void fetch(ContentNo, std::uint64_t offset, std::uint64_t length) override {
    if (forgetful) return;
    for (std::uint64_t block = offset / kBlock; block * kBlock < offset + length; ++block) {
      warm.insert(block);
    }
  }
  bool keeps_fetched(ContentNo) override { return true; }
  Result<Pin> pin(ContentNo) override { return Pin{}; }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo) const override { return "cold"; }

  std::set<std::uint64_t> warm;
  bool forgetful = false;  // what was fetched is gone again when it is asked for
  int patient_reads = 0;

 private:
  static void fill(std::uint64_t offset, std::span<std::byte> out) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = byte_at(offset + i);
  }
};

/// A store that keeps nothing of what was fetched: each read waits, and the test counts them.
class UnkeptStore final : public ContentStore {
 public:
  Result<void> read(ContentNo, std::uint64_t offset, std::span<std::byte> out) override {
    ++reads;
    if (throws) throw std::runtime_error("the store is out of its mind");
    if (offset + out.size() > good_bytes) return fail(Errc::io, "the other machine is gone");
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = ColdStore::byte_at(offset + i);
    return {};
  }
  Result<bool> read_at_once(ContentNo, std::uint64_t, std::span<std::byte>) override {
    return false;
  }
  bool is_at_hand(ContentNo, std::uint64_t, std::uint64_t) override { return false; }
  void fetch(ContentNo, std::uint64_t, std::uint64_t) override { ++fetches; }
  bool keeps_fetched(ContentNo) override { return false; }
  Result<Pin> pin(ContentNo) override {
    ++pins;
    return Pin{};
  }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo) const override { return "unkept"; }

  std::uint64_t good_bytes = std::uint64_t{1} << 40;
  bool throws = false;
  int reads = 0;
  int fetches = 0;
  int pins = 0;
};

Bytes cold_bytes(std::uint64_t offset, std::size_t length) {
  Bytes bytes(length);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = ColdStore::byte_at(offset + i);
  return bytes;
}

/// A session in transmission whose jobs wait until the test runs them.
class Client {
 public:
  explicit Client(std::shared_ptr<BlockDevice> device, bool structured = true)
      : structured_(structured),
        tree_(*make_single_export(std::move(device), "disk")),
        session_(*tree_, {}) {
    Bytes hello = testing::client_flags();
    if (structured) hello += testing::option(Option::structured_reply);
    hello += testing::option(Option::go, testing::info_data("disk"));
    send(hello);
    testing::take_greeting(stream_);
    for (int acks = structured ? 2 : 1; acks > 0;) {
      if (testing::take_option_answer(stream_).is(OptionReply::ack)) --acks;
    }
    REQUIRE(stream_.empty());
  }

  void send(std::span<const std::byte> bytes) {
    input_ += bytes;
    pump();
  }
  void ask(const Request& asked) { send(Bytes() += encode_request(asked)); }
  void ask(const Request& asked, std::span<const std::byte> payload) {
    Bytes message;
    message += encode_request(asked);
    send(message += payload);
  }
  void run_job(std::size_t which = 0) {
    REQUIRE(which < jobs.size());
    const auto job = jobs[which];
    jobs.erase(jobs.begin() + static_cast<std::ptrdiff_t>(which));
    job->run();
    session_.job_done(job);
    pump();
  }
  Answer take(const Request& asked) { return testing::take_answer(stream_, asked, structured_); }
  bool silent() const { return stream_.empty(); }
  Session& session() { return session_; }
  std::size_t unused_input() const { return input_.size(); }
  void pump() {
    while (true) {
      const std::size_t used = session_.consume(input_);
      input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(used));
      while (auto job = session_.take_job()) jobs.push_back(std::move(job));
      if (session_.batch().empty()) return;
      REQUIRE_FALSE(session_.batch().file());
      std::vector<iovec> parts;
      session_.batch().gather(parts);
      Bytes sent;
      for (const iovec& part : parts) {
        sent += std::span(static_cast<const std::byte*>(part.iov_base), part.iov_len);
      }
      stream_.add(sent);
      session_.batch_sent();
    }
  }

  std::deque<std::shared_ptr<Job>> jobs;

 private:
  bool structured_;
  std::shared_ptr<ExportTree> tree_;
  Session session_;
  Bytes input_;
  testing::Stream stream_;
};

struct ColdDevice {
  std::shared_ptr<ColdStore> store = std::make_shared<ColdStore>();
  std::shared_ptr<ExtentDevice> device = std::make_shared<ExtentDevice>();
  explicit ColdDevice(std::uint64_t size = 64U << 20) {
    device->content(store, ContentNo{0}, 0, size);
  }
};

}  // namespace

TEST_CASE("a small read passes a large cold one", "[job]") {
  const bool structured = GENERATE(false, true);
  CAPTURE(structured);
  const ColdDevice cold;
  cold.store->warm = {0};
  Client client(cold.device, structured);
  const Request large{0, Command::read, 1, 1 << 20, 32U << 20};
  const Request small{0, Command::read, 2, 100, 3000};
  client.ask(large);
  CHECK(client.silent());
  REQUIRE(client.jobs.size() == 1);
  client.ask(small);
  CHECK(client.take(small).data == cold_bytes(100, 3000));
  CHECK(client.silent());
  while (!client.jobs.empty()) client.run_job();
  CHECK(client.take(large).data == cold_bytes(1 << 20, 32U << 20));
  CHECK(client.silent());
  CHECK_FALSE(client.session().has_jobs());
}

TEST_CASE("cold reads are answered as their jobs are done", "[job][D1]") {
  const ColdDevice cold;
  Client client(cold.device);
  std::vector<Request> asked;
  for (std::uint64_t i = 0; i < 5; ++i) {
    asked.push_back({0, Command::read, i, i << 20, 5000});
    client.ask(asked.back());
  }
  REQUIRE(client.jobs.size() == 5);
  client.run_job(4);
  CHECK(client.take(asked[4]).data == cold_bytes(4U << 20, 5000));
  client.run_job(0);
  CHECK(client.take(asked[0]).data == cold_bytes(0, 5000));
  client.run_job(1);
  CHECK(client.take(asked[2]).data == cold_bytes(2U << 20, 5000));
  client.run_job(1);
  client.run_job(0);
  CHECK(client.take(asked[3]).data == cold_bytes(3U << 20, 5000));
  CHECK(client.take(asked[1]).data == cold_bytes(1U << 20, 5000));
  CHECK(client.silent());
}

TEST_CASE("what was fetched and lost again is waited for", "[job]") {
  const std::uint16_t flags = GENERATE(std::uint16_t{0}, kDf);
  const ColdDevice cold;
  cold.store->forgetful = true;
  Client client(cold.device);
  const Request asked{flags, Command::read, 1, 0, 3U << 20};
  client.ask(asked);
  for (int i = 0; i < 100 && !client.jobs.empty(); ++i) client.run_job();
  CHECK(client.take(asked).data == cold_bytes(0, 3U << 20));
  CHECK(cold.store->patient_reads > 0);
}

TEST_CASE("the window of waiting requests is bounded", "[job][A16][L11]") {
  const ColdDevice cold;
  Client client(cold.device);
  for (std::uint64_t i = 0; i < 200; ++i) client.ask({0, Command::read, i, i << 16, 512});
  CHECK(client.jobs.size() == Transmission::kMostWaiting);
  CHECK_FALSE(client.session().wants_input());
  CHECK(client.unused_input() == (200 - Transmission::kMostWaiting) * kRequestBytes);
  for (std::uint64_t i = 0; i < 200; ++i) {
    client.run_job();
    CHECK(client.take({0, Command::read, i, i << 16, 512}).is(WireError::ok));
  }
  CHECK(client.silent());
  CHECK(client.session().wants_input());
}

TEST_CASE("a client that leaves is answered first", "[job][D2][A20]") {
  const ColdDevice cold;
  Client client(cold.device);
  const Request asked{0, Command::read, 1, 0, 4096};
  client.ask(asked);
  SECTION("by DISC") { client.ask({0, Command::disc, 2, 0, 0}); }
  SECTION("by closing its end") { client.session().input_ended("gone"); }
  client.pump();
  CHECK_FALSE(client.session().finished());
  CHECK_FALSE(client.session().wants_input());
  // What comes behind is not looked at.
  client.ask({0, Command::read, 3, 0, 4096});
  client.run_job();
  CHECK(client.take(asked).data == cold_bytes(0, 4096));
  CHECK(client.silent());
  CHECK(client.session().finished());
}

TEST_CASE("CACHE brings in what it is asked for", "[job]") {
  const ColdDevice cold;
  Client client(cold.device);
  const Request asked{0, Command::cache, 1, 4096, 100'000};
  client.ask(asked);
  REQUIRE(client.jobs.size() == 1);
  client.run_job();
  CHECK(client.take(asked).is(WireError::ok));
  const Request read{0, Command::read, 2, 4096, 100'000};
  client.ask(read);
  CHECK(client.jobs.empty());
  CHECK(client.take(read).data == cold_bytes(4096, 100'000));
}

TEST_CASE("a flush holds up no other request, and its reply says how it went", "[job]") {
  const auto device = std::make_shared<WritableDevice>(1 << 20);
  Client client(device);
  const Request flush{0, Command::flush, 1, 0, 0};
  const Request read{0, Command::read, 2, 0, 4096};
  client.ask(flush);
  client.ask(read);
  CHECK(client.take(read).is(WireError::ok));
  CHECK(device->flushes == 0);
  device->full = GENERATE(false, true);
  client.run_job();
  CHECK(client.take(flush).is(device->full ? WireError::io : WireError::ok));
}

TEST_CASE("what is not kept is read by the job alone", "[job]") {
  const bool structured = GENERATE(false, true);
  const std::uint16_t flags = GENERATE(std::uint16_t{0}, kDf);
  if (!structured && flags != 0) return;
  CAPTURE(structured, flags);
  const auto store = std::make_shared<UnkeptStore>();
  const auto device = std::make_shared<ExtentDevice>();
  device->content(store, ContentNo{0}, 0, 3U << 20).hole(1 << 20).computed(4096);
  device->content(store, ContentNo{0}, 4U << 20, 8192);
  Client client(device, structured);
  const Request small{flags, Command::read, 1, 5000, 4096};
  client.ask(small);
  CHECK(client.silent());
  CHECK(store->reads == 0);
  client.run_job();
  CHECK(store->reads == 1);
  CHECK(client.take(small).data == cold_bytes(5000, 4096));
  CHECK(store->reads == 1);

  // More than a job carries comes by several of them; all kinds of extents are in it.
  const Request large{flags, Command::read, 2, 100, (4U << 20) + 4096 + 8192 - 100};
  client.ask(large);
  int jobs = 0;
  for (; jobs < 100 && !client.jobs.empty(); ++jobs) client.run_job();
  Bytes wanted = cold_bytes(100, (3U << 20) - 100);
  wanted.resize((4U << 20) - 100);
  for (std::uint64_t at = 4U << 20; at < (4U << 20) + 4096; ++at) {
    wanted.push_back(ExtentDevice::computed_byte(at));
  }
  wanted += cold_bytes(4U << 20, 8192);
  CHECK(client.take(large).data == wanted);
  CHECK(jobs >= 4);
  CHECK(store->reads <= jobs + 2);
  CHECK(store->fetches == 0);
  CHECK(store->pins == 0);
  CHECK(client.silent());
}

TEST_CASE("what an image derives of files waits for them as their own bytes do", "[job]") {
  const bool structured = GENERATE(false, true);
  const std::uint16_t flags = GENERATE(std::uint16_t{0}, kDf);
  if (!structured && flags != 0) return;
  CAPTURE(structured, flags);
  const auto store = std::make_shared<ColdStore>();
  const auto image = std::make_shared<DerivedImage>(64U << 10);
  Client client(std::make_shared<ImageDevice>(image, store), structured);
  Bytes wanted = cold_bytes(0, 64U << 10);
  std::ranges::transform(wanted, wanted.begin(), DerivedImage::derived_byte);

  const auto from = static_cast<std::uint32_t>(image->derived().offset);
  const Request derived{flags, Command::read, 1, from, 64U << 10};
  const Request computed{flags, Command::read, 2, 0, 4096};
  client.ask(derived);
  client.ask(computed);
  CHECK(client.take(computed).data == Bytes(4096, DerivedImage::kComputed));  // it passes
  CHECK(client.silent());
  CHECK(store->patient_reads == 0);
  REQUIRE(client.jobs.size() == 1);
  client.run_job();
  CHECK(client.take(derived).data == wanted);
  CHECK(store->patient_reads == 1);

  // What is at hand takes no job.
  store->warm.insert(2);
  const Request warm{flags, Command::read, 3, from + 2 * ColdStore::kBlock, 4096};
  client.ask(warm);
  CHECK(client.jobs.empty());
  CHECK(client.take(warm).data ==
        Bytes(wanted.begin() + 2 * ColdStore::kBlock, wanted.begin() + 3 * ColdStore::kBlock));
}

TEST_CASE("a file that an image cannot be derived of is an error that names it", "[job]") {
  const auto store = std::make_shared<UnkeptStore>();
  store->good_bytes = 4096;
  const auto image = std::make_shared<DerivedImage>(64U << 10);
  Client client(std::make_shared<ImageDevice>(image, store));
  const Request bad{0, Command::read, 1, image->derived().offset, 8192};
  client.ask(bad);
  REQUIRE(client.jobs.size() == 1);
  client.run_job();
  const Answer answer = client.take(bad);
  CHECK(answer.is(WireError::io));
  CHECK_THAT(answer.text, Catch::Contains("the other machine is gone"));
}

TEST_CASE("reads that are not kept pass each other", "[job]") {
  const auto store = std::make_shared<UnkeptStore>();
  const auto device = std::make_shared<ExtentDevice>();
  device->content(store, ContentNo{0}, 0, 64U << 20).computed(4096);
  Client client(device);
  std::vector<Request> asked;
  for (std::uint64_t i = 0; i < 6; ++i) {
    asked.push_back({0, Command::read, i, i << 20, 65536});
    client.ask(asked.back());
  }
  const Request metadata{0, Command::read, 7, 64U << 20, 4096};
  client.ask(metadata);
  CHECK(client.take(metadata).is(WireError::ok));
  REQUIRE(client.jobs.size() == 6);
  client.run_job(5);
  CHECK(client.take(asked[5]).data == cold_bytes(5U << 20, 65536));
  for (std::size_t i = 0; i < 5; ++i) {
    client.run_job();
    CHECK(client.take(asked[i]).data == cold_bytes(i << 20, 65536));
  }
  CHECK(store->reads == 6);
}

TEST_CASE("a job that cannot read makes its request an error, and no other", "[job]") {
  const bool structured = GENERATE(false, true);
  CAPTURE(structured);
  const auto store = std::make_shared<UnkeptStore>();
  store->good_bytes = 0;
  const auto device = std::make_shared<ExtentDevice>();
  device->computed(4096).content(store, ContentNo{0}, 0, 1 << 20);
  Client client(device, structured);
  const Request asked{0, Command::read, 1, 0, 65536};
  client.ask(asked);
  client.run_job();
  CHECK(client.take(asked).is(WireError::io));
  CHECK(store->reads == 1);
  store->good_bytes = 1 << 20;
  const Request again{0, Command::read, 2, 4096, 4096};
  client.ask(again);
  client.run_job();
  CHECK(client.take(again).data == cold_bytes(0, 4096));
}

TEST_CASE("what a job throws is an answer, and a remark", "[job]") {
  const auto store = std::make_shared<UnkeptStore>();
  store->throws = true;
  const auto device = std::make_shared<ExtentDevice>();
  device->content(store, ContentNo{0}, 0, 1 << 20);
  Client client(device, GENERATE(false, true));
  const Request asked{0, Command::read, 1, 0, 65536};
  client.ask(asked);
  client.run_job();
  CHECK(client.take(asked).is(WireError::io));
  const auto remarks = client.session().take_remarks();
  REQUIRE(remarks.size() == 1);
  CHECK(remarks[0].level == LogLevel::error);
  CHECK_THAT(remarks[0].text, Catch::Contains("the store is out of its mind"));
  store->throws = false;
  const Request again{0, Command::read, 2, 0, 4096};
  client.ask(again);
  client.run_job();
  CHECK(client.take(again).data == cold_bytes(0, 4096));
}

TEST_CASE("the bytes that jobs may have to carry are bounded", "[job][A16]") {
  const auto store = std::make_shared<UnkeptStore>();
  const auto device = std::make_shared<ExtentDevice>();
  device->content(store, ContentNo{0}, 0, 64U << 20);
  Client client(device);
  for (std::uint64_t i = 0; i < 40; ++i) client.ask({0, Command::read, i, i << 20, 1U << 20});
  CHECK(client.jobs.size() == Transmission::kMostWaitingBytes / Job::kMostCarriedBytes);
  CHECK_FALSE(client.session().wants_input());
  for (std::uint64_t i = 0; i < 40; ++i) {
    client.run_job();
    CHECK(client.take({0, Command::read, i, i << 20, 1U << 20}).data ==
          cold_bytes(i << 20, 1U << 20));
  }
  CHECK(client.session().wants_input());
}

TEST_CASE("a job outlives its session", "[job]") {
  const ColdDevice cold;
  std::shared_ptr<Job> job;
  {
    Client client(cold.device);
    client.ask({0, Command::read, 1, 0, 4096});
    job = client.jobs.front();
  }
  job->run();
  CHECK(cold.store->warm.contains(0));
}

// --- Writes, zeroes and trims, and devices of which nothing is known
// -------------------------------

namespace {

Bytes numbered_bytes(std::size_t length, unsigned seed) {
  Bytes bytes(length);
  for (std::size_t i = 0; i < length; ++i) {
    bytes[i] = static_cast<std::byte>((i * 31 + i / 256 + seed) & 0xFF);
  }
  return bytes;
}

Bytes part_of(const std::vector<std::byte>& bytes, std::size_t offset, std::size_t length) {
  const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(offset);
  return {from, from + static_cast<std::ptrdiff_t>(length)};
}

/// An overlay over 64 MiB of a cold file.
struct ColdOverlay {
  ColdDevice cold;
  std::shared_ptr<Overlay> overlay;
  ColdOverlay() {
    auto store = OverlayStore::in_memory(cold.device->geometry().size_bytes);
    REQUIRE(store);
    overlay = std::make_shared<Overlay>(cold.device, *std::move(store), Overlay::Options{});
  }
};

}  // namespace

TEST_CASE("a device of which nothing is known is asked by jobs alone", "[job][point6]") {
  const auto device = std::make_shared<GatedDevice>(1 << 20);
  Client client(device, GENERATE(false, true));
  const auto command =
      GENERATE(Command::read, Command::write, Command::write_zeroes, Command::trim, Command::flush);
  CAPTURE(command);
  const Request asked{0, command, 7, command == Command::flush ? 0U : 5000U,
                      command == Command::flush ? 0U : 3000U};
  const Bytes payload = numbered_bytes(command == Command::write ? 3000 : 0, 3);
  client.ask(asked, payload);
  CHECK(client.silent());
  CHECK(device->calls() == 0);
  REQUIRE(client.jobs.size() == 1);
  client.run_job();
  CHECK(device->calls() == 1);
  CHECK(client.take(asked).is(WireError::ok));
  CHECK(client.silent());
  CHECK(part_of(device->bytes(), 5000, payload.size()) == payload);
}

TEST_CASE("a write with FUA is answered behind its flush", "[job][point6]") {
  const auto device = std::make_shared<GatedDevice>(1 << 20);
  Client client(device);
  const auto command = GENERATE(Command::write, Command::write_zeroes, Command::trim);
  const Request asked{kFua, command, 1, 0, 4096};
  client.ask(asked, Bytes(command == Command::write ? 4096 : 0));
  client.run_job();
  CHECK(client.silent());
  REQUIRE(client.jobs.size() == 1);
  CHECK(device->calls() == 1);
  client.run_job();
  CHECK(device->calls() == 2);
  CHECK(client.take(asked).is(WireError::ok));
}

TEST_CASE("a flush does not wait for a write that was not answered", "[job][point6]") {
  const auto device = std::make_shared<GatedDevice>(1 << 20);
  Client client(device);
  const Request write{0, Command::write, 1, 0, 4096};
  const Request flush{0, Command::flush, 2, 0, 0};
  client.ask(write, Bytes(4096));
  client.ask(flush);
  REQUIRE(client.jobs.size() == 2);
  client.run_job(1);
  CHECK(client.take(flush).is(WireError::ok));
  client.run_job();
  CHECK(client.take(write).is(WireError::ok));
}

TEST_CASE("a long write goes to its device in pieces of whole blocks", "[job][point6]") {
  constexpr std::size_t kStart = 5000;
  constexpr std::size_t kLength = (5U << 20) + 777;
  const auto device = std::make_shared<GatedDevice>(8 << 20);
  Client client(device);
  const Request asked{0, Command::write, 1, kStart, kLength};
  const Bytes payload = numbered_bytes(kLength, 1);
  client.ask(asked);
  const std::size_t step = GENERATE(std::size_t{100'003}, std::size_t{4096}, std::size_t{8 << 20});
  for (std::size_t at = 0; at < kLength; at += step) {
    client.send(std::span(payload).subspan(at, std::min(step, kLength - at)));
  }
  // Others pass it.
  const Request read{0, Command::read, 2, 7 << 20, 4096};
  client.ask(read);
  REQUIRE(client.jobs.size() == 7);
  client.run_job(6);
  CHECK(client.take(read).is(WireError::ok));
  while (!client.jobs.empty()) {
    CHECK(client.silent());
    client.run_job(client.jobs.size() - 1);  // in any order
  }
  CHECK(client.take(asked).is(WireError::ok));
  CHECK(part_of(device->bytes(), kStart, kLength) == payload);
  for (const Range& write : device->writes()) {
    CHECK(write.length <= Job::kMostCarriedBytes);
    CHECK((write.end() % 4096 == 0 || write.end() == kStart + kLength));
  }
}

TEST_CASE("a long write that fails in a piece is one error", "[job][point6]") {
  const auto device = std::make_shared<GatedDevice>(8 << 20);
  device->fill_up_from(2 << 20);
  Client client(device);
  const Request asked{0, Command::write, 1, 0, 5 << 20};
  const bool early = GENERATE(false, true);
  if (early) {
    client.ask(asked, Bytes(3 << 20));
    while (!client.jobs.empty()) client.run_job();
    CHECK(client.silent());
    client.send(Bytes(2 << 20));
    // What comes behind a failure is dropped.
    CHECK(client.jobs.empty());
  } else {
    client.ask(asked, Bytes(5 << 20));
    while (!client.jobs.empty()) client.run_job();
  }
  CHECK(client.take(asked).is(WireError::nospc));
  CHECK(client.silent());
  const Request again{0, Command::write, 2, 0, 4096};
  client.ask(again, Bytes(4096));
  client.run_job();
  CHECK(client.take(again).is(WireError::ok));
}

TEST_CASE("the payloads that jobs hold are bounded", "[job][A16][point6]") {
  const auto device = std::make_shared<GatedDevice>(64 << 20);
  Client client(device);
  const bool long_ones = GENERATE(false, true);
  const std::uint32_t length = long_ones ? 40U << 20 : 1U << 20;
  const std::uint64_t count = long_ones ? 1 : 40;
  for (std::uint64_t i = 0; i < count; ++i) {
    client.ask({0, Command::write, i, i << 20, length}, numbered_bytes(length, 9));
  }
  CHECK(client.jobs.size() == Transmission::kMostWaitingBytes / Job::kMostCarriedBytes);
  CHECK_FALSE(client.session().wants_input());
  for (int i = 0; i < 40; ++i) client.run_job();
  for (std::uint64_t i = 0; i < count; ++i) {
    CHECK(client.take({0, Command::write, i, i << 20, length}).is(WireError::ok));
  }
  CHECK(client.jobs.empty());
  CHECK(client.session().wants_input());
  CHECK(client.unused_input() == 0);
}

TEST_CASE("nothing passes a write of the same bytes", "[job][point6]") {
  const auto device = std::make_shared<GatedDevice>(1 << 20);
  Client client(device);
  const auto first = GENERATE(Command::write, Command::write_zeroes);
  const Bytes old = numbered_bytes(8192, 1);
  client.ask({0, Command::write, 1, 0, 8192}, old);
  client.run_job();
  CHECK(client.take({0, Command::write, 1, 0, 8192}).is(WireError::ok));

  const Bytes fresh = first == Command::write ? numbered_bytes(100, 2) : Bytes(100);
  const Request change{0, first, 2, 4000, 100};
  client.ask(change, first == Command::write ? fresh : Bytes());
  const Request beside{0, Command::read, 3, 0, 4000};
  const Request read{0, Command::read, 4, 4099, 10};
  const Request behind{0, Command::read, 5, 0, 10};
  client.ask(beside);
  CHECK(client.jobs.size() == 2);
  client.ask(read);
  client.ask(behind);
  CHECK(client.jobs.size() == 2);
  CHECK_FALSE(client.session().wants_input());
  client.run_job(1);
  CHECK(client.take(beside).data == part_of(device->bytes(), 0, 4000));
  CHECK(client.silent());
  client.run_job();
  CHECK(client.take(change).is(WireError::ok));
  REQUIRE(client.jobs.size() == 2);
  client.run_job();
  Bytes joined(1, fresh[99]);
  joined += part_of(old, 4100, 9);
  CHECK(client.take(read).data == joined);
  client.run_job();
  CHECK(client.take(behind).data == part_of(old, 0, 10));
  CHECK(client.session().wants_input());
}

TEST_CASE("a client that leaves within a payload leaves nothing behind", "[job][point6]") {
  const bool runs_in_time = GENERATE(false, true);
  const auto device = std::make_shared<GatedDevice>(8 << 20);
  std::shared_ptr<Job> job;
  {
    Client client(device);
    client.ask({0, Command::write, 1, 0, 3 << 20}, numbered_bytes((1 << 20) + 5000, 4));
    REQUIRE(client.jobs.size() == 1);
    job = client.jobs.front();
    client.session().input_ended("gone");
    client.pump();
    CHECK_FALSE(client.session().finished());
    if (runs_in_time) {
      client.run_job();
      CHECK(client.session().finished());
      CHECK(client.silent());
      job.reset();
    }
  }
  // Nor does one whose session is gone before it runs.
  if (job) job->run();
  REQUIRE(device->writes().size() == 1);
  CHECK(part_of(device->bytes(), 0, 1 << 20) == numbered_bytes(1 << 20, 4));
}

TEST_CASE(
    "what covers blocks of an overlay takes no job, what must be joined with a cold base does",
    "[job][point6]") {
  const ColdOverlay disk;
  Client client(disk.overlay);
  const auto is_done_at_once = [&](const Request& asked) {
    client.ask(asked, asked.command == Command::write ? numbered_bytes(asked.length, 5) : Bytes());
    const bool at_once = client.jobs.empty();
    while (!client.jobs.empty()) client.run_job();
    CHECK(client.take(asked).is(WireError::ok));
    return at_once;
  };
  CHECK(is_done_at_once({0, Command::write, 1, 4096, 8192}));
  CHECK_FALSE(is_done_at_once({0, Command::write, 2, 1 << 20, 4000}));
  CHECK(is_done_at_once({0, Command::write, 3, (1 << 20) + 1000, 3096}));  // it is here now
  CHECK(is_done_at_once({0, Command::trim, 4, (2 << 20) + 100, 10'000}));
  CHECK(is_done_at_once({0, Command::write, 5, (2 << 20) + 5000, 100}));  // in zeroes
  CHECK_FALSE(is_done_at_once({0, Command::write_zeroes, 6, (3 << 20) + 100, 10'000}));
  CHECK(is_done_at_once({0, Command::write_zeroes, 7, 4 << 20, 1 << 20}));
  CHECK(is_done_at_once({kNoHole, Command::write_zeroes, 8, 4 << 20, 1 << 20}));
  CHECK_FALSE(is_done_at_once({0, Command::write, 9, (6 << 20) - 8192, 8192 + 1}));
  disk.cold.store->warm.insert((7U << 20) / ColdStore::kBlock);
  CHECK(is_done_at_once({0, Command::write, 10, 7 << 20, 5}));  // its base is at hand
}

TEST_CASE("a write that must be joined with a cold base holds up no other request",
          "[job][point6]") {
  const ColdOverlay disk;
  Client client(disk.overlay);
  const Request part{0, Command::write, 1, 5000, 100};
  const Request whole{0, Command::write, 2, 8192, 4096};
  const Request read{0, Command::read, 3, 8192, 4096};
  client.ask(part, numbered_bytes(100, 1));
  client.ask(whole, numbered_bytes(4096, 2));
  client.ask(read);
  CHECK(client.take(whole).is(WireError::ok));
  CHECK(client.take(read).data == numbered_bytes(4096, 2));
  CHECK(client.silent());
  REQUIRE(client.jobs.size() == 1);
  client.run_job();
  CHECK(client.take(part).is(WireError::ok));
  Bytes joined = cold_bytes(4096, 4096);
  std::ranges::copy(numbered_bytes(100, 1), joined.begin() + (5000 - 4096));
  const Request again{0, Command::read, 4, 4096, 4096};
  client.ask(again);
  CHECK(client.take(again).data == joined);
}

TEST_CASE("a device's minimum block is kept by clients, and by the server", "[job][point6]") {
  const std::uint32_t block = GENERATE(512U, 4096U, 65536U);
  const auto device = std::make_shared<GatedDevice>(8 << 20, block);
  Client client(device, GENERATE(false, true));
  for (const Command command :
       {Command::read, Command::write, Command::write_zeroes, Command::trim, Command::cache}) {
    for (const auto& [offset, length] : std::vector<std::pair<std::uint32_t, std::uint32_t>>{
             {block / 2, block}, {block, block / 2}, {0, block + 1}, {1, block - 1}}) {
      const Request asked{0, command, 1, offset, length};
      CAPTURE(command, block, offset, length);
      client.ask(asked, Bytes(command == Command::write ? length : 0));
      CHECK(client.take(asked).is(WireError::inval));
    }
  }
  CHECK(client.jobs.empty());
  const std::uint32_t length = 3U << 20;
  const Request write{0, Command::write, 2, block, length};
  client.ask(write, numbered_bytes(length, 6));
  while (!client.jobs.empty()) client.run_job();
  CHECK(client.take(write).is(WireError::ok));
  const Request read{0, Command::read, 3, block, length};
  client.ask(read);
  while (!client.jobs.empty()) client.run_job();
  CHECK(client.take(read).data == numbered_bytes(length, 6));
  CHECK(device->is_aligned());
}

TEST_CASE("an option is taken when the export that it is about was opened by a job",
          "[job][point5]") {
  const bool works = GENERATE(true, false);
  int builds = 0;
  const auto tree =
      *make_lazy_exports({{.name = "disk", .build = [&]() -> Result<std::shared_ptr<BlockDevice>> {
                             ++builds;
                             if (!works) return fail(Errc::io, "the disk broke");
                             return std::make_shared<WritableDevice>(1 << 20);
                           }}});
  CHECK_FALSE(tree->open_at_once("disk").has_value());
  CHECK_FALSE(tree->open_at_once("no such export")->has_value());
  Extensions extensions = Extensions();
  REQUIRE(add_allocation_depth(extensions));
  Session session(*tree, {}, TlsMode::off, extensions);
  testing::MemoryDriver driver(session, GENERATE(std::size_t{1}, SIZE_MAX));
  const auto contexts = {std::string_view("qemu:"), std::string_view("qemu:allocation-depth")};
  Bytes hello = testing::client_flags();
  hello += testing::option(Option::structured_reply);
  hello += testing::option(Option::list_meta_context, testing::meta_data("disk", contexts));
  hello += testing::option(Option::set_meta_context, testing::meta_data("disk", contexts));
  hello += testing::option(Option::go, testing::info_data("disk"));
  testing::Stream stream(driver.exchange(hello));
  testing::take_greeting(stream);
  for (int i = 0; i < 3; ++i) CHECK(testing::take_option_answer(stream).is(OptionReply::ack));
  if (works) {
    CHECK(testing::take_option_answer(stream).is(OptionReply::info));
    CHECK(testing::take_option_answer(stream).is(OptionReply::ack));
    CHECK(builds == 1);
    CHECK(tree->open_at_once("disk").has_value());
  } else {
    CHECK(testing::text_of(testing::take_option_answer(stream).data) == "the disk broke");
    CHECK(builds == 3);
  }
  CHECK(stream.empty());
  CHECK(driver.jobs == static_cast<std::size_t>(builds));
}

}  // namespace mkvirtfs::nbd
