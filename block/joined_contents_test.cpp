// SPDX-License-Identifier: BSD-3-Clause
#include "block/joined_contents.h"

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/dump.h"
#include "block/host_files.h"
#include "block/image.h"
#include "block/testing/directory_table.h"
#include "block/testing/patchwork_device.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Some bytes of which the first so many are at hand.
class PartlyCold final : public MemoryStore {
 public:
  explicit PartlyCold(std::string text) : text_(std::move(text)), at_hand(text_.size()) {}
  Result<void> read(ContentNo, std::uint64_t offset, std::span<std::byte> out) override {
    if (broken) return fail(Errc::source_changed, "cold has changed");
    std::ranges::copy(std::as_bytes(std::span(text_)).subspan(offset, out.size()), out.begin());
    return {};
  }
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override {
    if (offset + out.size() > at_hand) return false;
    return MemoryStore::read_at_once(content, offset, out);
  }
  bool is_at_hand(ContentNo, std::uint64_t offset, std::uint64_t length) override {
    return offset + length <= at_hand;
  }
  void fetch(ContentNo, std::uint64_t offset, std::uint64_t length) override {
    at_hand = std::max(at_hand, offset + length);
  }
  bool keeps_fetched(ContentNo) override { return keeps; }
  Result<Pin> pin(ContentNo) override { return Pin{}; }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo) const override { return "cold"; }

 private:
  std::string text_;

 public:
  std::uint64_t at_hand;
  bool broken = false;
  bool keeps = true;
};

constexpr ContentNo kOuter{7};
constexpr ContentNo kInner{9};

/// "headCOLDtail" inside of another: a piece of memory, zeroes, a range of that one, a byte.
struct Fixture {
  std::shared_ptr<PartlyCold> cold = std::make_shared<PartlyCold>("xxxCOLDxxx");
  std::shared_ptr<JoinedContents> inner =
      std::make_shared<JoinedContents>(std::map<ContentNo, JoinedContent>{
          {kInner,
           {"inner",
            {ContentPiece::memory(bytes_of("head")), ContentPiece::of(cold, ContentNo{0}, {3, 4}),
             ContentPiece::memory(bytes_of("tail"))}}}});
  JoinedContents joined{
      {{kOuter,
        {"outer",
         {ContentPiece::memory(bytes_of("begin")), ContentPiece::zeroes(6),
          ContentPiece::of(inner, kInner, {2, 9}), ContentPiece::memory(bytes_of("!"))}}}}};
  std::string want = std::string("begin") + std::string(6, '\0') + "adCOLDtai" + "!";
};

}  // namespace

TEST_CASE("a joined content is its pieces, one behind the other") {
  Fixture fixture;
  JoinedContents& joined = fixture.joined;
  const std::string& want = fixture.want;
  CHECK(joined.has_joined());
  CHECK(joined.name(kOuter) == "outer");
  for (std::size_t from = 0; from <= want.size(); ++from) {
    for (std::size_t to = from; to <= want.size(); ++to) {
      std::vector<std::byte> out(to - from);
      REQUIRE(joined.read(kOuter, from, out));
      REQUIRE(text_of(out) == want.substr(from, to - from));
      std::ranges::fill(out, std::byte{'?'});
      const Result<bool> at_once = joined.read_at_once(kOuter, from, out);
      REQUIRE(at_once);
      REQUIRE(*at_once);
      REQUIRE(text_of(out) == want.substr(from, to - from));

      std::uint64_t at = from;
      std::string mapped;
      const auto take = [&](const Extent& extent) {
        CHECK(extent.offset == at);
        CHECK(extent.length != 0);
        at = extent.end();
        std::vector<std::byte> part(extent.length);
        if (extent.kind == ExtentKind::memory) {
          std::copy_n(extent.memory, extent.length, part.begin());
        } else if (extent.kind == ExtentKind::content) {
          CHECK(extent.store == fixture.cold.get());
          REQUIRE(extent.store->read(extent.content, extent.content_offset, part));
        } else {
          CHECK(extent.kind == ExtentKind::hole);
        }
        mapped += text_of(part);
        return true;
      };
      CallableSink<decltype(take)> sink(take);
      joined.map(kOuter, {from, to - from}, sink);
      REQUIRE(mapped == want.substr(from, to - from));
    }
  }
  for (int most = 1; most < 5; ++most) {
    int calls = 0;
    const auto count = [&](const Extent&) { return ++calls < most; };
    CallableSink<decltype(count)> sink(count);
    joined.map(kOuter, {0, want.size()}, sink);
    CHECK(calls == most);
  }
}

TEST_CASE("what a joined content waits for is what its pieces wait for") {
  Fixture fixture;
  JoinedContents& joined = fixture.joined;
  const std::size_t cold_at = fixture.want.find("COLD");
  fixture.cold->at_hand = 4;  // the C
  CHECK(joined.is_at_hand(kOuter, 0, cold_at + 1));
  CHECK_FALSE(joined.is_at_hand(kOuter, 0, cold_at + 2));
  CHECK(joined.is_at_hand(kOuter, cold_at + 4, 4));
  std::vector<std::byte> out(4);
  CHECK_FALSE(*joined.read_at_once(kOuter, cold_at, out));
  CHECK(*joined.read_at_once(kOuter, cold_at - 3, out));
  joined.fetch(kOuter, cold_at, 3);
  CHECK(fixture.cold->at_hand == 6);
  joined.fetch(kOuter, 0, fixture.want.size());
  CHECK(*joined.read_at_once(kOuter, cold_at, out));
  CHECK(joined.keeps_fetched(kOuter));
  fixture.cold->keeps = false;
  CHECK_FALSE(joined.keeps_fetched(kOuter));
  fixture.cold->broken = true;
  CHECK(joined.read(kOuter, 0, std::span(out).first(3)));
  CHECK(joined.read(kOuter, cold_at, out).error().what == "cold has changed");
  CHECK_FALSE(joined.read_at_once(kOuter, cold_at, out));
}

TEST_CASE("a device over a joined content maps its pieces, and dump moves them") {
  const TempDir directory;
  const std::string long_text(100'000, 'f');
  write_file(directory / "host", "head" + long_text + "tail");
  auto table = std::make_shared<testing::DirectoryTable>(directory.path());
  const ContentNo host = table->add("host");
  const std::shared_ptr<ContentStore> files =
      make_host_files(std::move(table), OnChange::error, null_log(), 1);

  /// All of it is one content.
  class OneFile final : public Image {
   public:
    explicit OneFile(std::uint64_t size) : size_(size) {}
    std::uint64_t size_bytes() const noexcept override { return size_; }
    std::uint32_t block_bytes() const noexcept override { return 4096; }
    void map(Range range, ExtentSink& sink) const override {
      if (range.length == 0) return;
      sink.extent({.offset = range.offset,
                   .length = range.length,
                   .kind = ExtentKind::content,
                   .content = kOuter,
                   .content_offset = range.offset});
    }
    Result<void> compute(std::uint64_t, std::span<std::byte>, ContentStore&) const override {
      return {};
    }
    std::string describe(std::uint64_t) const override { return "one file"; }
    std::string volume_id() const override { return "one file"; }
    std::vector<ImageFact> facts() const override { return {}; }

   private:
    std::uint64_t size_;
  };

  const JoinedContent content{
      "joined",
      {ContentPiece::memory(bytes_of(std::string(4096, 'm'))), ContentPiece::zeroes(1 << 20),
       ContentPiece::of(files, host, {4, long_text.size()})}};
  const auto image = std::make_shared<OneFile>(content.size_bytes());
  ImageDevice device(image, std::make_shared<JoinedContents>(
                                std::map<ContentNo, JoinedContent>{{kOuter, content}}));
  std::vector<ExtentKind> kinds;
  std::uint64_t at = 10;
  for_each_extent(device, {10, image->size_bytes() - 20}, [&](const Extent& extent) {
    CHECK(extent.offset == at);
    at = extent.end();
    kinds.push_back(extent.kind);
    return true;
  });
  CHECK(at == image->size_bytes() - 10);
  CHECK(kinds == std::vector{ExtentKind::memory, ExtentKind::hole, ExtentKind::content});
  int calls = 0;
  for_each_extent(device, {0, image->size_bytes()}, [&](const Extent&) { return ++calls < 2; });
  CHECK(calls == 2);

  DumpOptions options;
  const std::string out = (directory / "out").string();
  options.output = DumpFile{out, /*overwrite=*/false};
  const auto dumped = dump(device, options);
  REQUIRE(dumped);
  // The kernel moves what it would move of the file by itself.
  testing::PatchworkDevice plain;
  plain.file(*files, host, 4, long_text.size());
  options.output = DumpFile{(directory / "plain").string(), /*overwrite=*/false};
  const auto dumped_plain = dump(plain, options);
  REQUIRE(dumped_plain);
  CHECK(dumped->moved_bytes == dumped_plain->moved_bytes);
  CHECK(dumped->data_bytes == 4096 + long_text.size());
  CHECK((read_file(out) == std::string(4096, 'm') + std::string(1 << 20, '\0') + long_text));

  // A changed piece is an error that names it.
  write_file(directory / "host", "another");
  options.output = DumpFile{out, /*overwrite=*/true};
  const auto changed = dump(device, options);
  REQUIRE_FALSE(changed);
  CHECK(changed.error().code == Errc::source_changed);
  CHECK_THAT(changed.error().what, Catch::Contains("host"));
}

}  // namespace mkvirtfs
