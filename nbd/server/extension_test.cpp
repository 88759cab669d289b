// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/extension.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include "block/testing/extent_device.h"
#include "nbd/server/allocation.h"
#include "nbd/server/testing/memory_driver.h"

namespace mkvirtfs::nbd {
namespace {

using testing::Answer;
using testing::Bytes;
using testing::meta_data;
using testing::option;
using testing::OptionAnswer;
using testing::Stream;

constexpr Option kEcho{0x6d6b7fff};
constexpr OptionReply kEchoed{0x6d6b7ffe};

/// Says the data back, byte for byte as often as its first byte says; 'e' is an error.
OptionExtension echo() {
  OptionExtension extension;
  extension.rule = {kEcho, 1, 1000, true};
  extension.handler = [](std::span<const std::byte> data,
                         OptionCall& call) -> std::expected<void, OptionRefusal> {
    if (data[0] == std::byte{'e'}) {
      return std::unexpected(OptionRefusal{OptionReply::err_policy, "no\nechoes"});
    }
    for (int i = 0; i < std::to_integer<int>(data[0]); ++i) call.reply(kEchoed, data);
    return {};
  };
  return extension;
}

/// Calls every block of so many bytes by its number times a factor.
class NumberContext final : public MetaContext {
 public:
  NumberContext(std::string name, std::uint64_t block_bytes, std::uint32_t factor)
      : name_(std::move(name)), block_bytes_(block_bytes), factor_(factor) {}
  std::string_view name() const noexcept override { return name_; }
  void append_status(const BlockDevice&, Range request, const StatusLimits& limits,
                     std::vector<StatusRun>& runs) const override {
    for (std::uint64_t at = request.offset;
         at < request.end() && runs.size() < std::min(limits.most_runs, limits.most_extents);) {
      const std::uint64_t end = std::min(request.end(), at - at % block_bytes_ + block_bytes_);
      runs.push_back({{at, end - at}, static_cast<std::uint32_t>(at / block_bytes_) * factor_});
      at = end;
    }
  }

 private:
  const std::string name_;
  const std::uint64_t block_bytes_;
  const std::uint32_t factor_;
};

/// x-number:1 to x-number:100, and x-number:opened for exports that can be opened.
class NumberNamespace final : public MetaNamespace {
 public:
  std::string_view name() const noexcept override { return "x-number"; }
  void list(std::string_view query, QueriedExport& exported,
            ContextListing& listing) const override {
    if (query.empty()) {
      for (int i = 1; i <= 100; ++i) listing.tell(fmt::format("x-number:{}", i));
    } else if (query == "flood") {
      for (int i = 0; i < 1'000'000 && listing.room() > 0; ++i) {
        listing.tell(fmt::format("x-number:{:03000}", i));
      }
    } else if (query == "repeat") {
      for (int i = 0; i < 1'000'000 && listing.room() > 0; ++i) listing.tell("x-number:7");
    } else if (query == "name") {
      listing.tell("x-number:" + exported.entry().name);
    }
  }
  std::shared_ptr<const MetaContext> select(std::string_view query,
                                            QueriedExport& exported) const override {
    const int factor = std::atoi(std::string(query).c_str());
    if (query == "opened" && exported.open()) {
      return std::make_shared<NumberContext>("x-number:opened", 512, 1);
    }
    if (factor < 1 || factor > 100) return nullptr;
    return std::make_shared<NumberContext>(fmt::format("x-number:{}", factor), 1024,
                                           static_cast<std::uint32_t>(factor));
  }
};

/// A client of a server that has the extensions above.
class Client {
 public:
  Client() {
    REQUIRE(extensions_.add_option(echo()));
    REQUIRE(extensions_.add_namespace(std::make_shared<NumberNamespace>()));
    auto device = std::make_shared<testing::ExtentDevice>();
    device->computed(65536).hole(65536);
    tree_ = *make_lazy_exports({{"disk", "", [this, device] {
                                   ++builds;
                                   return device;
                                 }}});
    session_.emplace(*tree_, TransmissionTuning{}, TlsMode::off, extensions_);
    driver_.emplace(*session_);
    Stream greeting(driver_->exchange(testing::client_flags()));
    testing::take_greeting(greeting);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  std::vector<OptionAnswer> ask(std::span<const std::byte> message) {
    Stream stream(driver_->exchange(message));
    std::vector<OptionAnswer> answers;
    while (!stream.empty()) answers.push_back(testing::take_option_answer(stream));
    return answers;
  }
  std::vector<std::string> contexts(Option number,
                                    std::initializer_list<std::string_view> queries) {
    std::vector<std::string> names;
    for (const OptionAnswer& answer : ask(option(number, meta_data("", queries)))) {
      if (answer.is(OptionReply::meta_context)) {
        Stream body(Bytes(answer.data.begin(), answer.data.end()));
        const auto id = body.number<std::uint32_t>();
        names.push_back(fmt::format("{}={}", id, testing::text_of(body.take(body.left()))));
      } else if (!answer.is(OptionReply::ack)) {
        names.push_back("refused");
      }
    }
    return names;
  }
  Answer status(std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0) {
    const Request asked{flags, Command::block_status, 7, offset, length};
    Bytes message;
    message += encode_request(asked);
    Stream stream(driver_->exchange(message));
    Answer answer = testing::take_answer(stream, asked, true);
    CHECK(stream.empty());
    return answer;
  }

  /// With extended headers, and a payload of this length and these ids.
  Answer filtered(std::uint64_t offset, std::uint64_t length,
                  std::initializer_list<std::uint32_t> ids, std::uint16_t flags = 0,
                  std::size_t junk = 0) {
    Bytes payload;
    payload += pack(length);
    for (const std::uint32_t id : ids) payload += pack(id);
    payload += Bytes(junk);
    Request asked{static_cast<std::uint16_t>(flags | kPayloadLen), Command::block_status, 7, offset,
                  payload.size()};
    Bytes message;
    message += encode_extended_request(asked);
    message += payload;
    Stream stream(driver_->exchange(message));
    asked.length = length;
    asked.flags = flags;
    Answer answer = testing::take_answer(stream, asked, true, true);
    CHECK(stream.empty());
    return answer;
  }
  /// The same without a payload, which is all contexts.
  Answer unfiltered(std::uint64_t offset, std::uint64_t length) {
    const Request asked{0, Command::block_status, 7, offset, length};
    Bytes message;
    message += encode_extended_request(asked);
    Stream stream(driver_->exchange(message));
    Answer answer = testing::take_answer(stream, asked, true, true);
    CHECK(stream.empty());
    return answer;
  }
  /// The transmission flags of GO or INFO.
  std::uint16_t flags(Option number) {
    const auto answers = ask(option(number, testing::info_data("disk")));
    REQUIRE(answers.back().is(OptionReply::ack));
    Stream item(Bytes(answers.front().data.begin(), answers.front().data.end()));
    item.take(10);
    return item.number<std::uint16_t>();
  }
  void arrive_in_steps_of(std::size_t bytes) { driver_.emplace(*session_, bytes); }

  int builds = 0;
  bool finished() const { return session_->finished(); }

 private:
  Extensions extensions_;
  std::shared_ptr<ExportTree> tree_;
  std::optional<Session> session_;
  std::optional<testing::MemoryDriver> driver_;
};

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("an option that was added is answered within the common rules", "[extension][L8]") {
  Client client;
  SECTION("replies, then ACK") {
    const auto answers = client.ask(option(std::to_underlying(kEcho), Bytes{std::byte{2}}));
    REQUIRE(answers.size() == 3);
    CHECK(answers[0].is(kEchoed));
    CHECK(answers[0].data.size() == 1);
    CHECK(answers[1].is(kEchoed));
    CHECK(answers[2].is(OptionReply::ack));
    for (const OptionAnswer& answer : answers) CHECK(Option{answer.option} == kEcho);
  }
  SECTION("a refusal has a text that is fit for the wire") {
    const auto answers = client.ask(option(std::to_underlying(kEcho), testing::bytes_of("e")));
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].is(OptionReply::err_policy));
    CHECK(testing::text_of(answers[0].data) == "no\\x0aechoes");
  }
  SECTION("lengths that its rule does not allow never reach it") {
    for (const std::size_t size : {std::size_t{0}, std::size_t{1001}, std::size_t{1} << 20}) {
      const auto answers = client.ask(option(std::to_underlying(kEcho), Bytes(size)));
      REQUIRE(answers.size() == 1);
      CHECK(answers[0].is(OptionReply::err_invalid));
    }
    const auto answers = client.ask(option(std::to_underlying(kEcho), Bytes((1 << 20) + 1)));
    CHECK(answers.at(0).is(OptionReply::err_too_big));
  }
  SECTION("a number beside it is unknown") {
    const auto answers = client.ask(option(std::to_underlying(kEcho) + 1, Bytes(1)));
    CHECK(answers.at(0).is(OptionReply::err_unsup));
  }
}

TEST_CASE("what a handler says is bounded", "[extension][A18]") {
  Extensions extensions;
  OptionExtension extension;
  extension.rule = {kEcho, 0, 0, true};
  std::size_t said = 0;
  extension.handler = [&](std::span<const std::byte>, OptionCall& call) {
    const Bytes kilobyte(1000);
    while (call.room_bytes() >= 1020) {
      CHECK(call.reply(kEchoed, kilobyte));
      ++said;
    }
    CHECK_FALSE(call.reply(kEchoed, kilobyte));
    return std::expected<void, OptionRefusal>();
  };
  REQUIRE(extensions.add_option(extension));
  const auto device = std::make_shared<testing::ExtentDevice>();
  const auto tree = *make_single_export(device);
  Session session(*tree, {}, TlsMode::off, extensions);
  testing::MemoryDriver driver(session);
  Stream stream(driver.exchange(testing::client_flags()));
  testing::take_greeting(stream);
  stream.add(driver.exchange(option(std::to_underlying(kEcho), {})));
  CHECK(said == (1 << 20) / 1020);
  for (std::size_t i = 0; i < said; ++i) CHECK(testing::take_option_answer(stream).is(kEchoed));
  CHECK(testing::take_option_answer(stream).is(OptionReply::err_too_big));
  CHECK(stream.empty());
}

TEST_CASE("an option can have calls that the budget does not count", "[extension][O10]") {
  Extensions extensions;
  OptionExtension extension;
  extension.rule = {kEcho, 0, 0, true};
  extension.free_calls = 100;
  extension.handler = [](std::span<const std::byte>, OptionCall&) {
    return std::expected<void, OptionRefusal>();
  };
  REQUIRE(extensions.add_option(extension));
  const auto tree = *make_single_export(std::make_shared<testing::ExtentDevice>());
  Session session(*tree, {}, TlsMode::off, extensions);
  testing::MemoryDriver driver(session);
  driver.exchange(testing::client_flags());
  int answered = 0;
  while (!session.finished()) {
    driver.exchange(option(std::to_underlying(kEcho), {}));
    ++answered;
    REQUIRE(answered < 1000);
  }
  CHECK(answered == 100 + 32 + 1);
}

TEST_CASE("an option waits for TLS unless its rule says otherwise", "[extension][T1]") {
  const bool needs_tls = GENERATE(true, false);
  Extensions extensions;
  OptionExtension extension = echo();
  extension.rule.needs_tls = needs_tls;
  REQUIRE(extensions.add_option(extension));
  const auto tree = *make_single_export(std::make_shared<testing::ExtentDevice>());
  Session session(*tree, {}, TlsMode::require, extensions);
  testing::MemoryDriver driver(session);
  Stream stream(driver.exchange(testing::client_flags()));
  testing::take_greeting(stream);
  stream.add(driver.exchange(option(std::to_underlying(kEcho), Bytes(1))));
  CHECK(testing::take_option_answer(stream).is(needs_tls ? OptionReply::err_tls_reqd
                                                         : OptionReply::ack));
}

TEST_CASE("contexts of an added namespace are listed and selected like our own", "[extension]") {
  Client client;
  client.ask(option(Option::structured_reply));
  CHECK(client.contexts(Option::list_meta_context, {}).size() == 101);
  CHECK(client.contexts(Option::list_meta_context, {"x-number:"}).size() == 100);
  CHECK(client.contexts(Option::list_meta_context, {"x-number:name", "base:"}) ==
        Names{"0=x-number:disk", "0=base:allocation"});
  CHECK(client.contexts(Option::list_meta_context, {"x-number", "x-numbe:", ":", ""}).empty());
  CHECK(client.contexts(Option::set_meta_context, {"x-number:", "x-number:0"}).empty());
  CHECK(client.builds == 0);
  CHECK(client.contexts(Option::set_meta_context, {"x-number:opened"}) ==
        Names{"1=x-number:opened"});
  CHECK(client.builds == 1);
}

TEST_CASE("a flood of contexts has an end", "[extension][A18]") {
  Client client;
  const auto flood = client.contexts(Option::list_meta_context, {"x-number:flood"});
  CHECK(flood.size() > 200);
  CHECK(flood.size() < 400);
  CHECK(client.contexts(Option::list_meta_context, {"x-number:repeat", "base:"}) ==
        Names{"0=x-number:7"});
}

TEST_CASE("too many contexts or queries for them are refused", "[extension]") {
  Client client;
  client.ask(option(Option::structured_reply));
  Bytes data = meta_data("", {});
  const auto count = GENERATE(16, 17, 1000, 1001);
  std::ranges::copy(pack(static_cast<std::uint32_t>(count)), data.end() - 4);
  for (int i = 1; i <= count; ++i) {
    // A thousand times the same is one context.
    const std::string query = fmt::format("x-number:{}", count > 100 ? 1 : i);
    data += pack(static_cast<std::uint32_t>(query.size()));
    data += testing::bytes_of(query);
  }
  const auto answers = client.ask(option(Option::set_meta_context, data));
  const bool too_many = count == 17 || count == 1001;
  CHECK(answers.back().is(too_many ? OptionReply::err_too_big : OptionReply::ack));
  CHECK(answers.size() == (too_many ? 1U : count == 16 ? 17U : 2U));
}

TEST_CASE("block status answers every selected context in one reply", "[extension][R3]") {
  Client client;
  client.ask(option(Option::structured_reply));
  CHECK(client.contexts(Option::set_meta_context,
                        {"x-number:3", "base:allocation", "x-number:3", "x-number:10"}) ==
        Names{"1=x-number:3", "2=base:allocation", "3=x-number:10"});
  CHECK(client.ask(option(Option::go, testing::info_data(""))).back().is(OptionReply::ack));

  const Answer whole = client.status(64512, 4096);
  CHECK(whole.descriptors ==
        Answer::Descriptors{{1024, 189}, {1024, 192}, {1024, 195}, {1024, 198}});
  REQUIRE(whole.other_status.size() == 2);
  CHECK(whole.other_status.at(2) ==
        Answer::Descriptors{{1024, 0}, {3072, kStateHole | kStateZero}});
  CHECK(whole.other_status.at(3) ==
        Answer::Descriptors{{1024, 630}, {1024, 640}, {1024, 650}, {1024, 660}});

  const Answer one = client.status(65536, 65536, kReqOne);
  CHECK(one.descriptors == Answer::Descriptors{{1024, 192}});
  CHECK(one.other_status.at(2) == Answer::Descriptors{{65536, kStateHole | kStateZero}});
}

TEST_CASE("extensions that contradict the protocol or each other are refused", "[extension]") {
  Extensions extensions;
  const auto added = [&](std::uint32_t number, std::uint32_t least, std::uint32_t most) {
    OptionExtension extension = echo();
    extension.rule = {Option{number}, least, most, true};
    return extensions.add_option(extension).has_value();
  };
  CHECK_FALSE(added(7, 0, 0));
  CHECK_FALSE(added(255, 0, 0));
  CHECK_FALSE(added(0x80000100, 0, 0));
  CHECK_FALSE(added(1000, 2, 1));
  CHECK_FALSE(added(1000, 0, (1 << 20) + 1));
  CHECK(added(1000, 0, 1 << 20));
  CHECK_FALSE(added(1000, 0, 0));
  CHECK(added(999, 0, 0));
  OptionExtension empty;
  empty.rule = {Option{2000}, 0, 0, true};
  CHECK_FALSE(extensions.add_option(empty));
  REQUIRE(extensions.options().size() == 2);
  CHECK(extensions.options()[0].rule.option == Option{999});

  class Named final : public MetaNamespace {
   public:
    explicit Named(std::string name) : name_(std::move(name)) {}
    std::string_view name() const noexcept override { return name_; }
    void list(std::string_view, QueriedExport&, ContextListing&) const override {}
    std::shared_ptr<const MetaContext> select(std::string_view, QueriedExport&) const override {
      return nullptr;
    }

   private:
    std::string name_;
  };
  const auto named = [&](const char* name) {
    return extensions.add_namespace(std::make_shared<Named>(name)).has_value();
  };
  for (const char* name : {"", "x-", "mine", "x-a:b", "x-a b", "x-\xc3\xa9", "base"}) {
    CAPTURE(name);
    CHECK_FALSE(named(name));
  }
  CHECK(named("x-mine"));
  CHECK_FALSE(named("x-mine"));
  CHECK(named("qemu"));
  CHECK_FALSE(extensions.add_namespace(nullptr));
}

TEST_CASE("a client with contexts and extended headers may choose among them", "[extension][X3]") {
  Client client;
  CHECK((client.flags(Option::info) & kBlockStatusPayload) == 0);
  SECTION("not with structured replies") {
    client.ask(option(Option::structured_reply));
    client.contexts(Option::set_meta_context, {"base:allocation"});
    CHECK((client.flags(Option::go) & kBlockStatusPayload) == 0);
  }
  SECTION("not without contexts") {
    client.ask(option(Option::extended_headers));
    client.contexts(Option::set_meta_context, {"base:none"});
    CHECK((client.flags(Option::info) & kBlockStatusPayload) == 0);
    CHECK((client.flags(Option::go) & kBlockStatusPayload) == 0);
    CHECK(client.filtered(0, 4096, {1}).is(WireError::inval));
    CHECK_FALSE(client.finished());
  }
  SECTION("with both") {
    client.ask(option(Option::extended_headers));
    client.contexts(Option::set_meta_context, {"base:allocation"});
    CHECK((client.flags(Option::info) & kBlockStatusPayload) != 0);
    CHECK((client.flags(Option::go) & kBlockStatusPayload) != 0);
  }
}

TEST_CASE("a block status may ask for some contexts only", "[extension][X3]") {
  Client client;
  client.ask(option(Option::extended_headers));
  REQUIRE(
      client.contexts(Option::set_meta_context, {"x-number:1", "base:allocation", "x-number:3"}) ==
      Names{"1=x-number:1", "2=base:allocation", "3=x-number:3"});
  client.flags(Option::go);
  client.arrive_in_steps_of(GENERATE(SIZE_MAX, std::size_t{1}, std::size_t{33}));
  using Descriptors = Answer::Descriptors;
  const Descriptors all_of_disk = {{65536, 0}, {65536, 3}};

  const auto seen = [](const Answer& answer) {
    CHECK(answer.error == 0);
    return std::pair{answer.descriptors, answer.other_status};
  };
  const auto whole = seen(client.unfiltered(0, 131072));
  CHECK(whole.second.size() == 2);
  const auto one = seen(client.filtered(0, 131072, {2}));
  CHECK(one.first.empty());
  CHECK(one.second.size() == 1);
  CHECK(one.second.at(2) == all_of_disk);
  // The order of the ids does not matter.
  CHECK(seen(client.filtered(0, 131072, {3, 1, 2})) == whole);
  CHECK(seen(client.filtered(1024, 2048, {3})).second.at(3) == Descriptors{{1024, 3}, {1024, 6}});
  const auto two = seen(client.filtered(1024, 2048, {3, 1}, kReqOne));
  CHECK(two.first == Descriptors{{1024, 1}});
  CHECK(two.second.size() == 1);
  CHECK(two.second.at(3) == Descriptors{{1024, 3}});

  // What is wrong with it is answered, and the next request understood.
  for (const auto& ids :
       std::vector<std::vector<std::uint32_t>>{{0}, {4}, {1, 1}, {1, 2, 2}, {1, 0xffffffff}}) {
    CAPTURE(ids);
    const Answer answer = ids.size() == 1   ? client.filtered(0, 4096, {ids[0]})
                          : ids.size() == 2 ? client.filtered(0, 4096, {ids[0], ids[1]})
                                            : client.filtered(0, 4096, {ids[0], ids[1], ids[2]});
    CHECK(answer.is(WireError::inval));
    CHECK_FALSE(answer.text.empty());
  }
  CHECK(client.filtered(0, 4096, {}).is(WireError::inval));
  CHECK(client.filtered(0, 4096, {1, 2, 3, 1}).is(WireError::inval));
  for (const std::size_t junk : std::initializer_list<std::size_t>{1, 2, 3, 4, 100, 1 << 20}) {
    CHECK(client.filtered(0, 4096, {1, 2}, 0, junk).is(WireError::inval));
  }
  CHECK(client.filtered(0, 0, {1}).is(WireError::inval));
  CHECK(client.filtered(0, 131073, {1}).is(WireError::inval));
  CHECK(client.filtered(131072, 1, {1}).is(WireError::inval));
  CHECK(client.filtered(512, ~std::uint64_t{0}, {1}).is(WireError::inval));
  CHECK(client.filtered(0, 4096, {1}, kDf).is(WireError::inval));
  CHECK(seen(client.filtered(0, 131072, {2})).second.at(2) == all_of_disk);
  CHECK_FALSE(client.finished());
}

}  // namespace mkvirtfs::nbd
