// SPDX-License-Identifier: BSD-3-Clause
// The transmission phase against an oracle: the input is a list of requests, as fields rather than
// bytes. Every answer is taken apart by the tests' own reader, which knows the protocol's rules,
// and what was read is compared with the device.
//
// Input: u8 mode (1 structured, 2 contexts, 4 file runs, 8 file runs the kernel refuses, 16 small
// batches), then 12 bytes a request: u8 command, u8 flags, u32 offset, u32 length, u8 offset scale,
// u8 cookie.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "fuzz_require.h"
#include "nbd/server/session.h"
#include "nbd/server/testing/memory_driver.h"
#include "nbd_fuzz_exports.h"
#include "support/byte_order.h"

using namespace mkvirtfs;
using namespace mkvirtfs::nbd;
using mkvirtfs::nbd::testing::Answer;
using mkvirtfs::nbd::testing::Bytes;

namespace {

constexpr std::size_t kRecordBytes = 12;

Bytes handshake(bool structured, bool contexts) {
  Bytes hello = nbd::testing::client_flags();
  if (structured) hello += nbd::testing::option(Option::structured_reply);
  if (contexts) {
    hello += nbd::testing::option(Option::set_meta_context,
                                  nbd::testing::meta_data("mixed", {"base:allocation"}));
  }
  hello += nbd::testing::option(Option::go, nbd::testing::info_data("mixed"));
  return hello;
}

bool touches_broken(const Request& asked) {
  // A store is asked for what fits the batch, so that an error may come from a little behind.
  return asked.length != 0 && asked.offset < nbd::testing::kBrokenRange.end() &&
         asked.offset + asked.length > nbd::testing::kBrokenRange.offset;
}

void check(BlockDevice& device, const Request& asked, const Answer& answer, bool contexts) {
  const std::uint64_t size = device.geometry().size_bytes;
  const bool inside = asked.length <= size && asked.offset <= size - asked.length;
  if (asked.command == Command::read && answer.error == 0) {
    FUZZ_REQUIRE(inside && answer.data.size() == asked.length);
    Bytes expected(asked.length);
    FUZZ_REQUIRE(device.read(asked.offset, expected));
    FUZZ_REQUIRE(answer.data == expected);
  }
  if (asked.command == Command::read && inside && asked.flags == 0) {
    FUZZ_REQUIRE((answer.error != 0) == touches_broken(asked));
  }
  if (asked.command == Command::block_status && answer.error == 0) {
    FUZZ_REQUIRE(inside && contexts && !answer.descriptors.empty());
    std::uint64_t at = asked.offset;
    for (const auto& [length, status] : answer.descriptors) {
      FUZZ_REQUIRE(at + length <= size);
      if (status != 0) {
        // What is called a hole has nothing but holes in the map.
        for_each_extent(device, {at, length}, [&](const Extent& extent) {
          FUZZ_REQUIRE(extent.kind == ExtentKind::hole);
          return true;
        });
      }
      at += length;
    }
  }
  const bool writes = asked.command == Command::write || asked.command == Command::trim ||
                      asked.command == Command::write_zeroes;
  if (writes) FUZZ_REQUIRE(answer.is(WireError::perm));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::shared_ptr<nbd::testing::ExtentDevice> device = nbd::testing::mixed_device();
  static const std::shared_ptr<ExportTree> exports = *make_single_export(device, "mixed");
  if (size == 0) return 0;
  const std::uint8_t mode = data[0];
  const bool structured = (mode & 1) != 0;
  const bool contexts = structured && (mode & 2) != 0;
  TransmissionTuning tuning;
  tuning.file_runs = (mode & 4) != 0;
  if ((mode & 16) != 0) tuning.batch_bytes = 128U << 10;

  Session session(*exports, tuning);
  nbd::testing::MemoryDriver driver(session);
  driver.move_unsupported = (mode & 8) != 0;
  driver.exchange(handshake(structured, contexts));
  FUZZ_REQUIRE(!session.in_handshake());

  auto records = std::as_bytes(std::span(data + 1, size - 1));
  for (int i = 0; i < 200 && records.size() >= kRecordBytes && !session.finished(); ++i) {
    const auto record = records.first<kRecordBytes>();
    records = records.subspan(kRecordBytes);
    Request asked;
    asked.command = Command{std::to_integer<std::uint16_t>(record[0])};
    asked.flags = std::to_integer<std::uint16_t>(record[1]);
    asked.offset = std::uint64_t{load_be<std::uint32_t>(record, 2)}
                   << (std::to_integer<unsigned>(record[10]) % 33);
    asked.length = load_be<std::uint32_t>(record, 6);
    asked.cookie = std::to_integer<std::uint64_t>(record[11]);
    Bytes message;
    message += encode_request(asked);
    if (asked.command == Command::write) {
      asked.length %= 100'000;
      message.clear();
      message += encode_request(asked);
      message.resize(message.size() + asked.length);
    }
    nbd::testing::Stream stream(driver.exchange(message));
    FUZZ_REQUIRE(driver.largest_batch <= tuning.batch_bytes + (16U << 10));
    if (asked.command == Command::disc) {
      FUZZ_REQUIRE(session.finished() && stream.empty());
      break;
    }
    // A simple read that failed when part of it was sent has no other way out.
    if (session.finished() && !structured && asked.command == Command::read) break;
    const Answer answer = nbd::testing::take_answer(stream, asked, structured);
    FUZZ_REQUIRE(stream.empty());
    FUZZ_REQUIRE(!session.finished());
    check(*device, asked, answer, contexts);
  }
  return 0;
}
