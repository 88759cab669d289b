// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/feature_set.h"

#include <catch2/catch.hpp>

#include "block/testing/memory_device.h"
#include "nbd/server/list_hier.h"
#include "nbd/server/session.h"
#include "nbd/server/testing/memory_driver.h"

namespace mkvirtfs::nbd {
namespace {

using testing::Answer;
using testing::Bytes;
using testing::info_data;
using testing::meta_data;
using testing::option;
using testing::OptionAnswer;

constexpr std::uint16_t kAllFlags = kHasFlags | kSendFlush | kSendFua | kSendTrim |
                                    kSendWriteZeroes | kSendDf | kMultiConn | kSendCache |
                                    kSendFastZero;

/// A client of a server without some features. Its device can do everything.
class Client {
 public:
  explicit Client(std::initializer_list<Feature> missing) {
    Features features;
    for (const Feature feature : missing) features.remove(feature);
    REQUIRE(add_list_hier(extensions_));
    const auto device = std::make_shared<testing::WritableDevice>(1 << 20);
    device->zeroes_are_fast(true);
    tree_ = *make_single_export(device, "disk");
    session_.emplace(*tree_, TransmissionTuning{}, TlsMode::off, extensions_, features);
    driver_.emplace(*session_);
    testing::Stream greeting(driver_->exchange(testing::client_flags()));
    testing::take_greeting(greeting);
  }

  std::vector<OptionAnswer> all(const Bytes& message) {
    testing::Stream stream(driver_->exchange(message));
    std::vector<OptionAnswer> answers;
    while (!stream.empty()) answers.push_back(testing::take_option_answer(stream));
    return answers;
  }
  OptionReply verdict(const Bytes& message) { return OptionReply{all(message).back().reply}; }

  /// The contexts that are told or selected.
  std::size_t contexts(Option number, std::initializer_list<std::string_view> queries) {
    return all(option(number, meta_data("disk", queries))).size() - 1;
  }

  /// Ends the handshake; the transmission flags.
  std::uint16_t go() {
    const auto answers = all(option(Option::go, info_data("disk")));
    REQUIRE(answers.back().is(OptionReply::ack));
    testing::Stream item(answers.front().data);
    item.take(10);
    return item.number<std::uint16_t>();
  }

  bool succeeds(Command command, std::uint16_t flags = 0) {
    const bool has_range = command != Command::flush;
    const Request asked{flags, command, 7, 0, has_range ? 4096U : 0U};
    Bytes message;
    message += encode_request(asked);
    if (command == Command::write) message += Bytes(4096);
    testing::Stream stream(driver_->exchange(message));
    const Answer answer = testing::take_answer(stream, asked, true);
    CHECK((answer.is(WireError::ok) || answer.is(WireError::inval)));
    CHECK(stream.empty());
    return answer.is(WireError::ok);
  }

 private:
  std::shared_ptr<ExportTree> tree_;
  Extensions extensions_;
  std::optional<Session> session_;
  std::optional<testing::MemoryDriver> driver_;
};

const Bytes kHierOfTop = option(std::to_underlying(kListHier), Bytes(16));

}  // namespace

TEST_CASE("features have names", "[features]") {
  Features features;
  for (const std::string_view name :
       {"structured", "extended-headers", "meta-context", "extents", "list", "hier", "multi-conn",
        "df", "flush", "fua", "trim", "zeroes", "fast-zero", "cache"}) {
    CAPTURE(name);
    const Result<Feature> feature = parse_feature(name);
    REQUIRE(feature);
    CHECK(features.has(*feature));
    features.remove(*feature);
    CHECK_FALSE(features.has(*feature));
    CHECK_THAT(feature_names(), Catch::Contains(std::string(name)));
  }
  for (const std::string_view name : {"", "starttls", "Trim", "fua ", "structured,df"}) {
    CAPTURE(name);
    const Result<Feature> feature = parse_feature(name);
    REQUIRE_FALSE(feature);
    CHECK(feature.error().code == Errc::usage);
    CHECK_THAT(feature.error().what, Catch::Contains("fast-zero"));
  }
}

TEST_CASE("a server with all features offers all", "[features]") {
  Client client({});
  CHECK(client.verdict(option(Option::list)) == OptionReply::ack);
  CHECK(client.verdict(kHierOfTop) == OptionReply::ack);
  CHECK(client.verdict(option(Option::structured_reply)) == OptionReply::ack);
  CHECK(client.contexts(Option::list_meta_context, {}) == 1);
  CHECK(client.contexts(Option::list_meta_context, {"x-mkvirtfs:ls:"}) == 1);
  CHECK(client.contexts(Option::set_meta_context, {"base:allocation"}) == 1);
  CHECK(client.go() == kAllFlags);
  for (const Command command : {Command::read, Command::write, Command::flush, Command::trim,
                                Command::cache, Command::write_zeroes, Command::block_status}) {
    CHECK(client.succeeds(command));
  }
  CHECK(client.succeeds(Command::read, kDf));
  CHECK(client.succeeds(Command::write, kFua));
  CHECK(client.succeeds(Command::write_zeroes, kFastZero));
}

TEST_CASE("a masked option is unknown", "[features]") {
  SECTION("structured replies") {
    Client client({Feature::structured});
    CHECK(client.verdict(option(Option::structured_reply)) == OptionReply::err_unsup);
    CHECK(client.verdict(option(Option::set_meta_context, meta_data("disk", {}))) ==
          OptionReply::err_invalid);
    CHECK(client.go() == (kAllFlags & ~kSendDf));
  }
  SECTION("extended headers") {
    Client client({Feature::extended_headers});
    CHECK(client.verdict(option(Option::extended_headers)) == OptionReply::err_unsup);
    CHECK(client.verdict(option(Option::structured_reply)) == OptionReply::ack);
  }
  SECTION("contexts") {
    Client client({Feature::meta_context});
    client.verdict(option(Option::structured_reply));
    for (const Option number : {Option::list_meta_context, Option::set_meta_context}) {
      CHECK(client.verdict(option(number, meta_data("disk", {"base:allocation"}))) ==
            OptionReply::err_unsup);
    }
    client.go();
    CHECK_FALSE(client.succeeds(Command::block_status));
  }
  SECTION("the hierarchical list") {
    Client client({Feature::hier});
    CHECK(client.verdict(kHierOfTop) == OptionReply::err_unsup);
    CHECK(client.contexts(Option::list_meta_context, {"x-mkvirtfs:ls:"}) == 0);
    CHECK(client.all(option(Option::list)).size() == 2);
  }
}

TEST_CASE("extents are a context like others when they are masked", "[features]") {
  Client client({Feature::extents});
  client.verdict(option(Option::structured_reply));
  CHECK(client.contexts(Option::list_meta_context, {}) == 0);
  CHECK(client.contexts(Option::list_meta_context, {"base:", "base:allocation"}) == 0);
  CHECK(client.contexts(Option::list_meta_context, {"x-mkvirtfs:ls:"}) == 1);
  CHECK(client.contexts(Option::set_meta_context, {"base:allocation"}) == 0);
  client.go();
  CHECK_FALSE(client.succeeds(Command::block_status));
  CHECK(client.succeeds(Command::read));
}

TEST_CASE("without a list there is no way to learn names", "[features]") {
  Client client({Feature::list});
  const auto answers = client.all(option(Option::list));
  REQUIRE(answers.size() == 1);
  CHECK(answers[0].is(OptionReply::err_policy));
  CHECK(client.verdict(kHierOfTop) == OptionReply::err_policy);
  CHECK(client.contexts(Option::list_meta_context, {"x-mkvirtfs:ls:"}) == 0);
  CHECK(client.contexts(Option::list_meta_context, {"base:"}) == 1);
  client.go();
}

TEST_CASE("a masked command or flag is not advertised, and refused", "[features]") {
  struct Case {
    Feature feature;
    unsigned flags;  // that are gone
    Command command;
    std::uint16_t command_flags;
  };
  const Case c = GENERATE(values<Case>({
      {Feature::df, kSendDf, Command::read, kDf},
      {Feature::flush, kSendFlush, Command::flush, 0},
      {Feature::fua, kSendFua, Command::write, kFua},
      {Feature::trim, kSendTrim, Command::trim, 0},
      {Feature::zeroes, kSendWriteZeroes | kSendFastZero, Command::write_zeroes, 0},
      {Feature::fast_zero, kSendFastZero, Command::write_zeroes, kFastZero},
      {Feature::cache, kSendCache, Command::cache, 0},
  }));
  CAPTURE(c.flags);
  Client client({c.feature});
  client.verdict(option(Option::structured_reply));
  CHECK(client.go() == (kAllFlags & ~c.flags));
  CHECK_FALSE(client.succeeds(c.command, c.command_flags));
  CHECK(client.succeeds(Command::read));
  CHECK(client.succeeds(Command::write));
  CHECK(client.succeeds(Command::write_zeroes) == (c.feature != Feature::zeroes));
}

TEST_CASE("connections may be masked to one", "[features]") {
  Client client({Feature::multi_conn});
  client.verdict(option(Option::structured_reply));
  CHECK(client.go() == (kAllFlags & ~kMultiConn));
}

}  // namespace mkvirtfs::nbd
