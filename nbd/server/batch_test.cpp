// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/batch.h"

#include <catch2/catch.hpp>
#include <string>
#include <string_view>

namespace mkvirtfs::nbd {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string gathered(const Batch& batch) {
  std::vector<iovec> parts;
  batch.gather(parts);
  std::string text;
  for (const iovec& part : parts)
    text.append(static_cast<const char*>(part.iov_base), part.iov_len);
  return text;
}

}  // namespace

TEST_CASE("owned and borrowed bytes are sent in the order in which they came", "[batch]") {
  const std::string borrowed = "-borrowed-";
  Batch batch;
  CHECK(batch.empty());
  batch.append(bytes("one"));
  batch.append(bytes("two"));
  CHECK(batch.segment_count() == 1);
  batch.borrow(bytes(borrowed));
  batch.append(bytes("three"));
  CHECK(gathered(batch) == "onetwo-borrowed-three");
  CHECK(batch.size_bytes() == 21);
  CHECK(batch.owned_bytes() == 11);
  CHECK(batch.segment_count() == 3);
  batch.clear();
  CHECK(batch.empty());
  CHECK(gathered(batch).empty());
  batch.append(bytes("again"));
  CHECK(gathered(batch) == "again");
}

TEST_CASE("growing keeps what was there", "[batch]") {
  Batch batch;
  std::string expected;
  for (int i = 0; i < 3000; ++i) {
    const std::string piece = std::to_string(i);
    batch.append(bytes(piece));
    expected += piece;
  }
  CHECK(gathered(batch) == expected);
  CHECK(batch.segment_count() == 1);
}

TEST_CASE("a batch can be taken back to a mark", "[batch]") {
  const std::string borrowed = "borrowed";
  Batch batch;
  SECTION("inside an owned segment") {
    batch.append(bytes("head"));
    const Batch::Mark mark = batch.mark();
    batch.append(bytes("tail"));
    batch.borrow(bytes(borrowed));
    batch.append(bytes("more"));
    batch.rewind(mark);
    CHECK(gathered(batch) == "head");
    batch.append(bytes("!"));
    CHECK(gathered(batch) == "head!");
    CHECK(batch.size_bytes() == 5);
  }
  SECTION("behind a borrowed segment") {
    batch.append(bytes("head"));
    batch.borrow(bytes(borrowed));
    const Batch::Mark mark = batch.mark();
    batch.append(bytes("tail"));
    batch.rewind(mark);
    CHECK(gathered(batch) == "headborrowed");
    batch.append(bytes("!"));
    CHECK(gathered(batch) == "headborrowed!");
  }
  SECTION("to nothing") {
    const Batch::Mark mark = batch.mark();
    batch.append(bytes("tail"));
    batch.rewind(mark);
    CHECK(batch.empty());
  }
}

TEST_CASE("owned bytes can be filled in later", "[batch]") {
  Batch batch;
  batch.append(bytes("a"));
  const Batch::Mark mark = batch.mark();
  batch.extend(4);
  batch.append(bytes(std::string(10'000, 'b')));
  std::ranges::copy(bytes("1234"), batch.owned_at(mark, 4).begin());
  CHECK(gathered(batch).substr(0, 6) == "a1234b");
}

}  // namespace mkvirtfs::nbd
