// SPDX-License-Identifier: BSD-3-Clause
#include "block/image.h"

#include <catch2/catch.hpp>
#include <string_view>

#include "block/device.h"
#include "block/testing/derived_image.h"

namespace mkvirtfs {
namespace {

constexpr std::string_view kStored = "superblock";

/// 100 bytes: 10 stored, 20 computed (the low byte of their offset), 30 of file 1 from its byte 5,
/// 40 of hole.
class ToyImage final : public Image {
 public:
  std::uint64_t size_bytes() const noexcept override { return 100; }
  std::uint32_t block_bytes() const noexcept override { return 10; }
  void map(Range range, ExtentSink& sink) const override {
    const auto* stored = reinterpret_cast<const std::byte*>(kStored.data());
    const Extent all[] = {
        {.offset = 0, .length = 10, .kind = ExtentKind::memory, .memory = stored},
        {.offset = 10, .length = 20, .kind = ExtentKind::computed},
        {.offset = 30,
         .length = 30,
         .kind = ExtentKind::content,
         .content = ContentNo{1},
         .content_offset = 5},
        {.offset = 60, .length = 40, .kind = ExtentKind::hole},
    };
    for (const Extent& extent : all) {
      if (extent.offset >= range.end() || extent.end() <= range.offset) continue;
      if (!sink.extent(extent.clipped(range.offset, range.end()))) return;
    }
  }
  Result<void> compute(std::uint64_t offset, std::span<std::byte> out,
                       ContentStore&) const override {
    for (std::byte& byte : out) byte = static_cast<std::byte>(offset++);
    return {};
  }
  std::string describe(std::uint64_t) const override { return "toy"; }
  std::string volume_id() const override { return "toy"; }
  std::vector<ImageFact> facts() const override { return {}; }
};

/// Byte n of any file is 'a' + n; file reads can be told to fail.
class ToyStore final : public ContentStore {
 public:
  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override {
    if (broken) return fail(Errc::source_changed, "toy changed");
    CHECK(content <= ContentNo{1});
    for (std::byte& byte : out) byte = static_cast<std::byte>('a' + offset++);
    return {};
  }
  bool is_at_hand(ContentNo, std::uint64_t offset, std::uint64_t length) override {
    return offset + length <= bytes_at_hand;
  }
  Result<Pin> pin(ContentNo) override { return Pin{}; }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo) const override { return "toy"; }

  bool broken = false;
  std::uint64_t bytes_at_hand = 0;
};

char expected_at(std::uint64_t offset) {
  if (offset < 10) return kStored[offset];
  if (offset < 30) return static_cast<char>(offset);
  if (offset < 60) return static_cast<char>('a' + offset - 30 + 5);
  return '\0';
}

}  // namespace

TEST_CASE("an image device reads each byte from where the map says it lives") {
  const auto store = std::make_shared<ToyStore>();
  ImageDevice device(std::make_shared<ToyImage>(), store);
  CHECK(device.geometry().size_bytes == 100);
  CHECK(device.geometry().preferred_block_bytes == 4096);
  CHECK_FALSE(device.geometry().writable);

  for (std::uint64_t from = 0; from <= 100; ++from) {
    for (std::uint64_t to = from; to <= 100; ++to) {
      std::string text(to - from, '?');
      std::string expected;
      for (std::uint64_t at = from; at < to; ++at) expected += expected_at(at);
      REQUIRE(device.read(from, std::as_writable_bytes(std::span(text))));
      REQUIRE(text == expected);
    }
  }
}

TEST_CASE("an image device's map names the store, covers the range and stops when told") {
  const auto store = std::make_shared<ToyStore>();
  const ImageDevice device(std::make_shared<ToyImage>(), store);
  std::uint64_t at = 5;
  for_each_extent(device, {5, 90}, [&](const Extent& extent) {
    CHECK(extent.offset == at);
    CHECK(extent.store == (extent.kind == ExtentKind::content ? store.get() : nullptr));
    at = extent.end();
    return true;
  });
  CHECK(at == 95);

  int calls = 0;
  for_each_extent(device, {0, 100}, [&](const Extent&) { return ++calls < 2; });
  CHECK(calls == 2);
}

TEST_CASE("a store's failure is the device's, and only where the file lies") {
  const auto store = std::make_shared<ToyStore>();
  ImageDevice device(std::make_shared<ToyImage>(), store);
  store->broken = true;
  std::array<std::byte, 40> out;
  const Result<void> over_the_file = device.read(20, out);
  REQUIRE_FALSE(over_the_file);
  CHECK(over_the_file.error().code == Errc::source_changed);
  CHECK(device.read(0, std::span(out).first(30)));
}

TEST_CASE("derived bytes are made of the store's, wait for them, and fail as they do") {
  using testing::DerivedImage;
  const auto store = std::make_shared<ToyStore>();
  const auto image = std::make_shared<DerivedImage>(10'000);
  ImageDevice device(image, store);
  const Range derived = image->derived();
  std::vector<std::byte> out(500);
  REQUIRE(device.read(derived.offset + 3000, out));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto from = static_cast<std::byte>('a' + 3000 + i);
    REQUIRE(out[i] == DerivedImage::derived_byte(from));
  }
  // Over all kinds at once.
  out.resize(image->size_bytes());
  REQUIRE(device.read(0, out));
  CHECK(out[DerivedImage::kBlock - 1] == DerivedImage::kComputed);
  CHECK(out[derived.offset] == DerivedImage::derived_byte(static_cast<std::byte>('a')));
  CHECK(out[image->hole().offset] == std::byte{0});
  CHECK(out[image->content().offset + 1] == static_cast<std::byte>('b'));

  const auto waits = [&](Range range) { return device.may_wait(DeviceCall::read, range); };
  CHECK(waits(derived));
  CHECK(waits({0, image->size_bytes()}));
  CHECK_FALSE(waits(image->computed()));
  CHECK_FALSE(waits(image->content()));  // its store says it
  store->bytes_at_hand = 4000;
  CHECK_FALSE(waits({derived.offset, 4000}));
  CHECK(waits({derived.offset, 4001}));
  CHECK_FALSE(
      ImageDevice(std::make_shared<ToyImage>(), store).may_wait(DeviceCall::read, {0, 100}));

  store->broken = true;
  const Result<void> failed = device.read(derived.offset, std::span(out).first(1));
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == Errc::source_changed);
  CHECK(device.read(0, std::span(out).first(DerivedImage::kBlock)));
}

TEST_CASE("a read-only device refuses to be written") {
  ImageDevice device(std::make_shared<ToyImage>(), std::make_shared<ToyStore>());
  const std::array<std::byte, 4> data{};
  CHECK(device.write(0, data).error().code == Errc::unsupported);
  CHECK(device.zero({0, 4}, false).error().code == Errc::unsupported);
  CHECK(device.trim({0, 4}).error().code == Errc::unsupported);
  CHECK(device.flush());
}

}  // namespace mkvirtfs
