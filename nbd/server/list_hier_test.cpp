// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/list_hier.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include "block/testing/memory_device.h"
#include "exports/testing/generated_tree.h"
#include "nbd/server/testing/memory_driver.h"

namespace mkvirtfs::nbd {
namespace {

using testing::Bytes;
using testing::meta_data;
using testing::option;
using testing::OptionAnswer;
using testing::Stream;

Bytes hier_data(std::string_view path, std::string_view cursor = {}, std::uint32_t most = 0,
                std::uint16_t flags = 0) {
  Bytes data;
  data += pack(flags, std::uint16_t{0}, most, static_cast<std::uint32_t>(path.size()));
  data += testing::bytes_of(path);
  data += pack(static_cast<std::uint32_t>(cursor.size()));
  data += testing::bytes_of(cursor);
  return data;
}

std::shared_ptr<ExportTree> small_tree() {
  const auto device = std::make_shared<testing::MemoryDevice>(std::vector<std::byte>(512));
  std::vector<Export> exports;
  exports.push_back({"disk", "a disk", device});
  for (const char* name :
       {"", "photos", "photos/2022", "photos/2023/06", "photos-old", "tools/b"}) {
    exports.push_back({name, name == std::string("photos/2022") ? "a year" : "", device});
  }
  return *make_fixed_exports(exports);
}

/// A client that lists.
class Client {
 public:
  explicit Client(std::shared_ptr<ExportTree> tree = small_tree()) : tree_(std::move(tree)) {
    REQUIRE(add_list_hier(extensions_));
    session_.emplace(*tree_, TransmissionTuning{}, TlsMode::off, extensions_);
    driver_.emplace(*session_);
    Stream stream(driver_->exchange(testing::client_flags()));
    testing::take_greeting(stream);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  std::vector<OptionAnswer> ask(std::span<const std::byte> message) {
    Stream stream(driver_->exchange(message));
    std::vector<OptionAnswer> answers;
    while (!stream.empty()) answers.push_back(testing::take_option_answer(stream));
    return answers;
  }
  std::vector<OptionAnswer> list(const Bytes& data) {
    return ask(option(std::to_underlying(kListHier), data));
  }
  OptionReply verdict(const Bytes& data) { return OptionReply{list(data).back().reply}; }

  /// "disk(a disk) photos photos/ >cursor": a directory ends in a slash, and in a plus sign when it
  /// is an export, too; what says that there is more begins with ">".
  std::string level(const Bytes& data) {
    std::string text;
    for (const OptionAnswer& answer : list(data)) {
      if (answer.is(OptionReply::ack)) break;
      text += text.empty() ? "" : " ";
      if (answer.is(kHierMore)) {
        text += ">" + testing::text_of(answer.data);
        continue;
      }
      Stream body(Bytes(answer.data.begin(), answer.data.end()));
      const auto name_bytes = body.number<std::uint32_t>();
      text += '"' + testing::text_of(body.take(name_bytes)) + '"';
      if (answer.is(kServerDir)) {
        text += '/';
        if (body.number<std::uint16_t>() == kDirIsExport) text += '+';
        CHECK(body.number<std::uint16_t>() == 0);
        const auto children = body.number<std::uint32_t>();
        if (children != kUnknownChildren) text += fmt::format("{}", children);
      } else {
        REQUIRE(answer.is(OptionReply::server));
      }
      if (!body.empty()) text += '(' + testing::text_of(body.take(body.left())) + ')';
    }
    return text;
  }

  /// The names that answer queries of contexts, without "x-mkvirtfs:".
  std::string contexts(std::initializer_list<std::string_view> queries,
                       Option number = Option::list_meta_context) {
    std::string text;
    for (const OptionAnswer& answer : ask(option(number, meta_data("", queries)))) {
      if (!answer.is(OptionReply::meta_context)) {
        CHECK(answer.is(OptionReply::ack));
        continue;
      }
      const std::string name = testing::text_of(std::span(answer.data).subspan(4));
      text += (text.empty() ? "" : " ") + name.substr(name.find(':') + 1);
    }
    return text;
  }

  const Session& session() const { return *session_; }
  std::size_t largest_batch() const { return driver_->largest_batch; }

 private:
  std::shared_ptr<ExportTree> tree_;
  Extensions extensions_;
  std::optional<Session> session_;
  std::optional<testing::MemoryDriver> driver_;
};

}  // namespace

TEST_CASE("LIST_HIER lists one level", "[list_hier]") {
  Client client;
  CHECK(client.level(hier_data("")) ==
        R"("" "disk"(a disk) "photos" "photos"/+ "photos-old" "tools"/)");
  CHECK(client.level(hier_data("photos")) == R"("photos/2022"(a year) "photos/2023"/)");
  CHECK(client.level(hier_data("photos/2023")) == R"("photos/2023/06")");
  CHECK(client.level(hier_data("photos", "", 0, kHierNoDescriptions)) ==
        R"("photos/2022" "photos/2023"/)");
  CHECK(client.list(hier_data("")).back().data.empty());
}

TEST_CASE("the example of the specification is answered, byte for byte", "[list_hier]") {
  Client client;
  const Bytes message = option(std::to_underlying(kListHier), hier_data("photos"));
  const auto hex = [](std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<int>(byte));
    return text;
  };
  CHECK(hex(message) ==
        "49484156454f50546d6b760100000016000000000000000000000006"
        "70686f746f7300000000");
  const auto answers = client.ask(message);
  REQUIRE(answers.size() == 3);
  CHECK(hex(answers[0].data) ==
        "0000000b70686f746f732f323032326120796561"
        "72");
  CHECK(answers[1].reply == 0x6d6b7602);
  CHECK(hex(answers[1].data) == "0000000b70686f746f732f3230323300000000ffffffff");
}

TEST_CASE("LIST_HIER goes on where it stopped", "[list_hier]") {
  Client client;
  CHECK(client.level(hier_data("", "", 1)) == R"("" >/)");
  CHECK(client.level(hier_data("", "/", 1)) == R"("disk"(a disk) >disk)");
  CHECK(client.level(hier_data("", "disk", 1)) == R"("photos" "photos"/+ >photos)");
  CHECK(client.level(hier_data("", "photos", 1)) == R"("photos-old" >photos-old)");
  CHECK(client.level(hier_data("", "photos-old", 1)) == R"("tools"/)");
  CHECK(client.level(hier_data("photos", "2022", 5)) == R"("photos/2023"/)");
  // What was removed meanwhile is still a place.
  CHECK(client.level(hier_data("", "pa", 1)) == R"("photos" "photos"/+ >photos)");
  CHECK(client.level(hier_data("", "zzz")).empty());
}

TEST_CASE("every malformed LIST_HIER is refused, in step", "[list_hier][A1][A23]") {
  Client client;
  using R = OptionReply;
  SECTION("paths") {
    for (const char* path : {"/", "/photos", "photos/", "a//b", ".", "..", "photos/..", "../photos",
                             "photos/./2022", "\xff", "a\nb", "a\x1b[2J"}) {
      CAPTURE(path);
      CHECK(client.verdict(hier_data(path)) == R::err_invalid);
    }
    CHECK(client.verdict(hier_data(std::string_view("a\0b", 3))) == R::err_invalid);
    for (const char* path : {"nothing", "disk", "photo", "photos-old", "PHOTOS", "%2e%2e"}) {
      CAPTURE(path);
      CHECK(client.verdict(hier_data(path)) == R::err_unknown);
    }
    CHECK(client.verdict(hier_data(std::string(4096, 'x'))) == R::err_unknown);
    CHECK(client.verdict(hier_data(std::string(4097, 'x'))) == R::err_too_big);
    CHECK(client.verdict(hier_data(std::string((1 << 20), 'x'))) == R::err_too_big);
  }
  SECTION("cursors") {
    for (const char* cursor : {"//", "a/b", ".", "..", "\xff", "a\nb"}) {
      CAPTURE(cursor);
      CHECK(client.verdict(hier_data("photos", cursor)) == R::err_invalid);
    }
    CHECK(client.verdict(hier_data("photos", "/")) == R::err_invalid);
    CHECK(client.verdict(hier_data("", std::string(4096, 'x'))) == R::ack);
    CHECK(client.verdict(hier_data("", std::string(4097, 'x'))) == R::err_too_big);
  }
  SECTION("flags") {
    CHECK(client.verdict(hier_data("", "", 0, 2)) == R::err_invalid);
    CHECK(client.verdict(hier_data("", "", 0, 0x8001)) == R::err_invalid);
    Bytes data = hier_data("");
    data[3] = std::byte{1};
    CHECK(client.verdict(data) == R::err_invalid);
  }
  SECTION("lengths") {
    const Bytes whole = hier_data("photos", "2022");
    for (std::size_t size = 0; size < whole.size(); ++size) {
      CAPTURE(size);
      CHECK(client.verdict(Bytes(whole.begin(), whole.begin() + static_cast<long>(size))) ==
            R::err_invalid);
    }
    for (const std::size_t at : {std::size_t{8}, std::size_t{12 + 6}}) {
      for (const std::uint32_t length :
           {0xffffffffU, 0x80000000U, 0xfffffff0U, 5U, 7U, 10U, 11U, 4097U}) {
        CAPTURE(at, length);
        Bytes lying = whole;
        std::ranges::copy(pack(length), lying.begin() + static_cast<long>(at));
        CHECK(client.verdict(lying) == R::err_invalid);
      }
    }
    Bytes longer = whole;
    longer.push_back(std::byte{0});
    CHECK(client.verdict(longer) == R::err_invalid);
  }
  CHECK(client.verdict(hier_data("photos")) == R::ack);
}

TEST_CASE("100,000 exports of one level are listed a page at a time", "[list_hier][A18]") {
  const auto tree = std::make_shared<testing::GeneratedTree>(100'000);
  Client client(tree);
  CHECK(client.level(hier_data("")) == R"("wide"/100000)");
  std::string cursor;
  std::size_t names = 0;
  std::size_t pages = 0;
  do {
    const auto answers = client.list(hier_data("wide", cursor));
    cursor.clear();
    for (const OptionAnswer& answer : answers) {
      if (answer.is(kHierMore)) cursor = testing::text_of(answer.data);
      if (!answer.is(OptionReply::server)) continue;
      const std::string name = testing::text_of(std::span(answer.data).subspan(4, 16));
      if (name != tree->name(names)) REQUIRE(name == tree->name(names));
      ++names;
    }
    ++pages;
  } while (!cursor.empty());
  CHECK(names == 100'000);
  CHECK(pages == 100);
  CHECK(client.session().names_listed() == 1000);
  CHECK(client.largest_batch() < (64 << 10));
  CHECK(tree->largest_page <= 64);
  CHECK(tree->opens == 0);

  // However many are asked for, there is a cap.
  CHECK(client.list(hier_data("wide", "", 0xffffffff)).size() == 4096 + 2);

  // The flat list ends, too.
  const auto flat = client.ask(option(Option::list));
  CHECK(flat.size() == 1001);
  CHECK(flat.back().is(OptionReply::ack));

  // And so do the contexts.
  std::size_t told = 0;
  std::string query = "x-mkvirtfs:ls:wide";
  while (!query.empty()) {
    const auto answers =
        client.ask(option(Option::list_meta_context, meta_data("wide/disk-000007", {query})));
    REQUIRE(answers.back().is(OptionReply::ack));
    query.clear();
    for (const OptionAnswer& answer : answers) {
      if (answer.is(OptionReply::ack)) continue;
      const std::string name = testing::text_of(std::span(answer.data).subspan(4));
      if (name.starts_with(kListedMore)) {
        query = std::string(kListAfterQuery) + name.substr(kListedMore.size());
      } else {
        ++told;
      }
    }
  }
  CHECK(told == 100'000);
}

TEST_CASE("names of the longest kind are paged by their bytes", "[list_hier][A2]") {
  const auto device = std::make_shared<testing::MemoryDevice>(std::vector<std::byte>(512));
  std::vector<Export> exports;
  for (int i = 0; i < 500; ++i) {
    exports.push_back({fmt::format("{:04096}", i), std::string(4096, 'd'), device});
  }
  Client client(*make_fixed_exports(exports));
  std::string cursor;
  int names = 0;
  do {
    const auto answers = client.list(hier_data("", cursor, 4096));
    cursor.clear();
    REQUIRE(answers.size() > 2);
    for (const OptionAnswer& answer : answers) {
      if (answer.is(kHierMore)) cursor = testing::text_of(answer.data);
      names += answer.is(OptionReply::server);
    }
    REQUIRE(answers.back().is(OptionReply::ack));
  } while (!cursor.empty());
  CHECK(names == 500);
  CHECK(client.largest_batch() <= (1 << 20) + 100);
  // A context's name has no room for them.
  CHECK(client.contexts({"x-mkvirtfs:ls:"}).empty());
}

TEST_CASE("the tree can be walked through LIST_META_CONTEXT", "[list_hier]") {
  Client client;
  CHECK(client.contexts({"x-mkvirtfs:ls:"}) ==
        "export: export:disk export:photos dir:photos export:photos-old dir:tools");
  CHECK(client.contexts({"x-mkvirtfs:ls:photos"}) == "export:photos/2022 dir:photos/2023");
  CHECK(client.contexts({"x-mkvirtfs:after:photos/2022"}) == "dir:photos/2023");
  CHECK(client.contexts({"x-mkvirtfs:after:"}) ==
        "export:disk export:photos dir:photos export:photos-old dir:tools");
  for (const char* query : {"x-mkvirtfs:", "x-mkvirtfs", "x-mkvirtfs:ls", "x-mkvirtfs:ls:nothing",
                            "x-mkvirtfs:ls:disk", "x-mkvirtfs:ls:../photos", "x-mkvirtfs:ls:/",
                            "x-mkvirtfs:after:a//b", "x-mkvirtfs:export:disk"}) {
    CAPTURE(query);
    CHECK(client.contexts({query}).empty());
  }
  // Of all contexts that can be selected there is still just the one.
  CHECK(client.contexts({}) == "allocation");
  client.ask(option(Option::structured_reply));
  CHECK(client
            .contexts({"x-mkvirtfs:ls:", "x-mkvirtfs:export:disk", "x-mkvirtfs:dir:photos"},
                      Option::set_meta_context)
            .empty());
}

TEST_CASE("a walk of thousands of directories fits into one connection", "[list_hier][O10]") {
  Client client;
  for (std::size_t i = 0; i < kHierCalls; ++i) {
    if (client.verdict(hier_data("tools")) != OptionReply::ack) FAIL("refused at " << i);
  }
  int more = 0;
  while (!client.session().finished() && more < 1000) {
    client.list(hier_data("tools"));
    ++more;
  }
  // Each of these told one name, so the common budget is twice 32.
  CHECK(more == 65);
}

TEST_CASE("a tree that fails in the middle of a page loses nothing", "[list_hier]") {
  const auto tree = std::make_shared<testing::GeneratedTree>(1000);
  tree->fail_behind = 300;
  Client client(tree);
  const auto answers = client.list(hier_data("wide"));
  CHECK(answers.size() > 64);
  CHECK(answers[answers.size() - 2].is(kHierMore));
  CHECK(answers.back().is(OptionReply::ack));
  const std::string cursor = testing::text_of(answers[answers.size() - 2].data);
  const auto rest = client.list(hier_data("wide", cursor));
  REQUIRE(rest.size() == 1);
  CHECK(rest[0].is(OptionReply::err_unknown));
  CHECK(testing::text_of(rest[0].data) == "the rest is gone");
}

}  // namespace mkvirtfs::nbd
