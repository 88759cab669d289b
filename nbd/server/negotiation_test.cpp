// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/negotiation.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <set>

#include <fmt/format.h>

#include "block/testing/gated_device.h"
#include "block/testing/memory_device.h"
#include "nbd/wire/testing/messages.h"
#include "tests/support/hinted_text.h"

namespace mkvirtfs::nbd {
namespace {

using testing::Bytes;
using testing::client_flags;
using testing::info_data;
using testing::meta_data;
using testing::option;
using testing::OptionAnswer;
using testing::Stream;

constexpr std::size_t kDiskBytes = 1 << 20;

/// Counts how often devices are asked for.
class CountingTree final : public ExportTree {
 public:
  explicit CountingTree(std::shared_ptr<ExportTree> tree) : tree_(std::move(tree)) {}
  Result<std::vector<ExportEntry>> list(std::string_view directory,
                                        std::optional<std::string_view> after,
                                        std::size_t most) override {
    ++lists;
    if (lists_fail) return fail(Errc::io, "the list is gone");
    return tree_->list(directory, after, most);
  }
  Result<Export> open(std::string_view name) override {
    ++opens;
    if (open_error) return std::unexpected(*open_error);
    return tree_->open(name);
  }
  Result<ExportEntry> find(std::string_view name) override { return tree_->find(name); }
  int lists = 0;
  int opens = 0;
  bool lists_fail = false;
  std::optional<Error> open_error;

 private:
  std::shared_ptr<ExportTree> tree_;
};

std::shared_ptr<CountingTree> disk_tree() {
  std::vector<Export> exports;
  const auto device = [](std::size_t size) {
    return std::make_shared<testing::MemoryDevice>(std::vector<std::byte>(size));
  };
  exports.push_back({"disk", "the first disk", device(kDiskBytes)});
  exports.push_back({"more/other", "", device(5000)});
  return std::make_shared<CountingTree>(*make_fixed_exports(exports));
}

/// "1=base:allocation 2=..."
std::string names_of(const std::vector<SelectedContext>& contexts) {
  std::string text;
  for (const SelectedContext& selected : contexts) {
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", selected.id, selected.context->name());
  }
  return text;
}

/// A negotiation and the bytes it answers with.
class Handshake {
 public:
  explicit Handshake(std::shared_ptr<ExportTree> tree = disk_tree(), TlsMode tls = TlsMode::off,
                     std::size_t most_names_listed = kMostNamesListed)
      : tree_(std::move(tree)),
        negotiation_(*tree_, batch_, tls, Extensions::standard(), {}, &remarks, most_names_listed) {
    CHECK(testing::take_greeting(answers_after({})) == (kFixedNewstyle | kNoZeroes));
  }
  Handshake(const Handshake&) = delete;
  Handshake& operator=(const Handshake&) = delete;

  void send(std::span<const std::byte> more) { answers_after(more); }

  /// Sends and takes the answers one by one.
  OptionAnswer next(std::span<const std::byte> more = {}) {
    return testing::take_option_answer(answers_after(more));
  }
  /// Sends, and takes everything up to the last answer of the option.
  std::vector<OptionAnswer> all(std::span<const std::byte> more) {
    std::vector<OptionAnswer> answers;
    do {
      answers.push_back(next(answers.empty() ? more : std::span<const std::byte>()));
    } while (!answers.back().is(OptionReply::ack) && !answers.back().is_error());
    return answers;
  }
  /// The reply type of the last answer.
  OptionReply verdict(std::span<const std::byte> more) {
    return OptionReply{all(more).back().reply};
  }

  Stream& stream() { return stream_; }
  Negotiation& negotiation() { return negotiation_; }
  std::size_t unused() const { return input_.size(); }

  Remarks remarks;
  std::size_t largest_batch = 0;

 private:
  Stream& answers_after(std::span<const std::byte> more) {
    input_ += more;
    while (true) {
      const std::size_t used = negotiation_.consume(input_);
      input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(used));
      if (batch_.empty()) return stream_;
      largest_batch = std::max(largest_batch, batch_.size_bytes());
      std::vector<iovec> parts;
      batch_.gather(parts);
      for (const iovec& part : parts) {
        stream_.add({static_cast<const std::byte*>(part.iov_base), part.iov_len});
      }
      batch_.clear();
    }
  }

  std::shared_ptr<ExportTree> tree_;
  Batch batch_;
  Negotiation negotiation_;
  Bytes input_;
  Stream stream_;
};

/// A handshake whose client flags are sent.
class FixedHandshake : public Handshake {
 public:
  explicit FixedHandshake(std::shared_ptr<ExportTree> tree = disk_tree(),
                          TlsMode tls = TlsMode::off,
                          std::size_t most_names_listed = kMostNamesListed)
      : Handshake(std::move(tree), tls, most_names_listed) {
    send(client_flags());
  }
};

}  // namespace

TEST_CASE("client flags that were not offered end the connection", "[negotiation][H2]") {
  for (unsigned bit = 0; bit < 32; ++bit) {
    CAPTURE(bit);
    Handshake handshake;
    handshake.send(client_flags(1U << bit));
    CHECK(handshake.negotiation().ended() == (bit > 1));
  }
}

TEST_CASE("every option has its answer in every state", "[negotiation]") {
  struct Case {
    const char* name;
    Option number;
    Bytes data;
    OptionReply fixed;       // right after the client flags
    OptionReply structured;  // after STRUCTURED_REPLY
    bool fixed_ends = false;
  };
  const auto cases = std::vector<Case>{
      {"ABORT", Option::abort, {}, OptionReply::ack, OptionReply::ack, true},
      {"ABORT with data", Option::abort, Bytes(9), OptionReply::ack, OptionReply::ack, true},
      {"LIST", Option::list, {}, OptionReply::ack, OptionReply::ack},
      {"LIST with data", Option::list, Bytes(1), OptionReply::err_invalid,
       OptionReply::err_invalid},
      {"PEEK_EXPORT", Option::peek_export, Bytes(4), OptionReply::err_unsup,
       OptionReply::err_unsup},
      {"STARTTLS", Option::starttls, {}, OptionReply::err_policy, OptionReply::err_policy},
      {"STARTTLS with data", Option::starttls, Bytes(1), OptionReply::err_invalid,
       OptionReply::err_invalid},
      {"INFO", Option::info, info_data("disk"), OptionReply::ack, OptionReply::ack},
      {"INFO of nothing", Option::info, info_data("dis"), OptionReply::err_unknown,
       OptionReply::err_unknown},
      {"INFO too short", Option::info, Bytes(5), OptionReply::err_invalid,
       OptionReply::err_invalid},
      {"GO", Option::go, info_data("disk"), OptionReply::ack, OptionReply::ack, true},
      {"GO of nothing", Option::go, info_data("more"), OptionReply::err_unknown,
       OptionReply::err_unknown},
      {"GO with junk", Option::go, Bytes(7), OptionReply::err_invalid, OptionReply::err_invalid},
      {"STRUCTURED_REPLY",
       Option::structured_reply,
       {},
       OptionReply::ack,
       OptionReply::err_invalid},
      {"STRUCTURED_REPLY with data", Option::structured_reply, Bytes(1), OptionReply::err_invalid,
       OptionReply::err_invalid},
      {"LIST_META_CONTEXT", Option::list_meta_context, meta_data("disk", {}), OptionReply::ack,
       OptionReply::ack},
      {"LIST_META_CONTEXT of nothing", Option::list_meta_context, meta_data("x", {}),
       OptionReply::err_unknown, OptionReply::err_unknown},
      {"LIST_META_CONTEXT too short", Option::list_meta_context, Bytes(7), OptionReply::err_invalid,
       OptionReply::err_invalid},
      {"SET_META_CONTEXT", Option::set_meta_context, meta_data("disk", {"base:allocation"}),
       OptionReply::err_invalid, OptionReply::ack},
      {"SET_META_CONTEXT of nothing", Option::set_meta_context, meta_data("x", {}),
       OptionReply::err_invalid, OptionReply::err_unknown},
      {"SET_META_CONTEXT too short", Option::set_meta_context, Bytes(7), OptionReply::err_invalid,
       OptionReply::err_invalid},
      {"EXTENDED_HEADERS", Option::extended_headers, {}, OptionReply::ack, OptionReply::ack},
      {"EXTENDED_HEADERS with data", Option::extended_headers, Bytes(1), OptionReply::err_invalid,
       OptionReply::err_invalid},
      {"option 0", Option{0}, Bytes(100), OptionReply::err_unsup, OptionReply::err_unsup},
      {"option 2^32 - 1", Option{0xffffffff}, {}, OptionReply::err_unsup, OptionReply::err_unsup},
      {"option \"mkv\" 1", Option{0x6d6b7601}, Bytes(16), OptionReply::err_unsup,
       OptionReply::err_unsup},
  };
  for (const Case& c : cases) {
    CAPTURE(c.name);
    const Bytes message = option(std::to_underlying(c.number), c.data);
    SECTION(std::string("fixed newstyle: ") + c.name) {
      FixedHandshake handshake;
      const auto answers = handshake.all(message);
      for (const OptionAnswer& answer : answers) {
        CHECK(answer.option == std::to_underlying(c.number));
      }
      CHECK(OptionReply{answers.back().reply} == c.fixed);
      CHECK(handshake.stream().empty());
      CHECK((handshake.negotiation().ended() || handshake.negotiation().agreed()) == c.fixed_ends);
      // Still in step: the next option is understood.
      if (!c.fixed_ends) CHECK(handshake.verdict(option(Option::list)) == OptionReply::ack);
    }
    SECTION(std::string("with structured replies: ") + c.name) {
      FixedHandshake handshake;
      handshake.next(option(Option::structured_reply));
      CHECK(handshake.verdict(message) == c.structured);
      CHECK(handshake.stream().empty());
      if (!c.fixed_ends) CHECK(handshake.verdict(option(Option::list)) == OptionReply::ack);
    }
    SECTION(std::string("with extended headers: ") + c.name) {
      FixedHandshake handshake;
      handshake.next(option(Option::extended_headers));
      // They are more than structured replies: those cannot be had any more, nor they once again.
      OptionReply expected = c.structured;
      if (c.number == Option::structured_reply && c.data.empty()) {
        expected = OptionReply::err_ext_header_reqd;
      }
      if (c.number == Option::extended_headers) expected = OptionReply::err_invalid;
      CHECK(handshake.verdict(message) == expected);
      CHECK(handshake.stream().empty());
      if (!c.fixed_ends) CHECK(handshake.verdict(option(Option::list)) == OptionReply::ack);
    }
    SECTION(std::string("with an export opened and a context selected: ") + c.name) {
      FixedHandshake handshake;
      handshake.next(option(Option::structured_reply));
      handshake.all(option(Option::set_meta_context, meta_data("disk", {"base:allocation"})));
      handshake.all(option(Option::info, info_data("disk")));
      CHECK(handshake.verdict(message) == c.structured);
      CHECK(handshake.stream().empty());
      if (!c.fixed_ends) CHECK(handshake.verdict(option(Option::list)) == OptionReply::ack);
    }
    SECTION(std::string("without the fixed flag: ") + c.name) {
      Handshake handshake;
      handshake.send(client_flags(kNoZeroes));
      const bool is_abort = c.number == Option::abort;
      CHECK(handshake.verdict(message) == (is_abort ? OptionReply::ack : OptionReply::err_invalid));
      CHECK(handshake.negotiation().ended() == is_abort);
    }
    SECTION(std::string("while the server stops: ") + c.name) {
      FixedHandshake handshake;
      handshake.negotiation().begin_shutdown();
      const bool is_abort = c.number == Option::abort;
      CHECK(handshake.verdict(message) ==
            (is_abort ? OptionReply::ack : OptionReply::err_shutdown));
      CHECK(handshake.negotiation().ended() == is_abort);
    }
    SECTION(std::string("a byte at a time: ") + c.name) {
      FixedHandshake handshake;
      for (const std::byte byte : message) handshake.send(std::span(&byte, 1));
      CHECK(handshake.verdict({}) == c.fixed);
    }
  }
}

TEST_CASE("extended headers stand in for structured replies", "[negotiation][X4]") {
  FixedHandshake handshake;
  REQUIRE(handshake.verdict(option(Option::extended_headers)) == OptionReply::ack);
  CHECK(handshake.verdict(option(Option::extended_headers)) == OptionReply::err_invalid);
  CHECK(handshake.verdict(option(Option::structured_reply)) == OptionReply::err_ext_header_reqd);
  CHECK(handshake.verdict(option(Option::set_meta_context,
                                 meta_data("disk", {"base:allocation"}))) == OptionReply::ack);
  SECTION("GO keeps them") {
    CHECK(handshake.verdict(option(Option::go, info_data("disk"))) == OptionReply::ack);
    const Agreement agreed = handshake.negotiation().take_agreement();
    CHECK(agreed.reply_style() == ReplyStyle::extended);
    CHECK((agreed.transmission_flags & kSendDf) != 0);
    CHECK(agreed.contexts.size() == 1);
  }
  SECTION("EXPORT_NAME has no form for them") {
    handshake.send(option(Option::export_name, testing::bytes_of("disk")));
    CHECK(handshake.negotiation().ended());
    CHECK(handshake.stream().empty());
  }
}

TEST_CASE("EXPORT_NAME is answered with exactly its bytes", "[negotiation][H4][A14]") {
  const auto [flags, padding] = GENERATE(table<std::uint16_t, std::size_t>({
      {kFixedNewstyle | kNoZeroes, 0},
      {kFixedNewstyle, 124},
      {kNoZeroes, 0},
      {0, 124},
  }));
  const std::string name = GENERATE("disk", "");
  CAPTURE(flags, name);
  Handshake handshake;
  handshake.send(client_flags(flags));
  handshake.send(option(Option::export_name, testing::bytes_of(name)));
  Stream& stream = handshake.stream();
  CHECK(handshake.negotiation().agreed());
  REQUIRE(stream.left() == 10 + padding);
  CHECK(stream.number<std::uint64_t>() == kDiskBytes);
  CHECK(stream.number<std::uint16_t>() == (kHasFlags | kReadOnly | kMultiConn | kSendCache));
  for (const std::byte byte : stream.take(padding)) CHECK(byte == std::byte{0});
}

TEST_CASE("EXPORT_NAME ends the handshake in every state", "[negotiation]") {
  FixedHandshake handshake;
  Negotiation& negotiation = handshake.negotiation();
  const Bytes message = option(Option::export_name, testing::bytes_of("disk"));
  SECTION("with structured replies, a context selected and an export opened") {
    handshake.next(option(Option::structured_reply));
    handshake.all(option(Option::set_meta_context, meta_data("disk", {"base:allocation"})));
    handshake.all(option(Option::info, info_data("disk")));
    handshake.send(message);
    REQUIRE(negotiation.agreed());
    CHECK(handshake.stream().left() == 10);
    const Agreement agreed = negotiation.take_agreement();
    CHECK(agreed.reply_style() == ReplyStyle::structured);
    CHECK(agreed.contexts.size() == 1);
  }
  SECTION("after contexts of another export") {
    handshake.next(option(Option::structured_reply));
    handshake.all(option(Option::set_meta_context, meta_data("more/other", {"base:allocation"})));
    handshake.send(message);
    REQUIRE(negotiation.agreed());
    CHECK(negotiation.take_agreement().contexts.empty());
  }
  SECTION("while the server stops") {
    negotiation.begin_shutdown();
    handshake.send(message);
    CHECK(negotiation.ended());
    CHECK(handshake.stream().empty());
  }
}

TEST_CASE("an EXPORT_NAME that cannot be had ends the connection", "[negotiation]") {
  const std::string name = GENERATE(as<std::string>(), "disk2", "dis", "more", "DISK",
                                    std::string(4097, 'x'), std::string("disk\0", 5), "\xff");
  FixedHandshake handshake;
  handshake.send(option(Option::export_name, testing::bytes_of(name)));
  CHECK(handshake.negotiation().ended());
  CHECK(handshake.stream().empty());
  CHECK_FALSE(handshake.negotiation().end_reason().empty());
}

TEST_CASE("a writable device is advertised as what it is", "[negotiation]") {
  const bool zeroes_fast = GENERATE(false, true);
  const auto device = std::make_shared<testing::WritableDevice>(1 << 20);
  device->zeroes_are_fast(zeroes_fast);
  const auto tree = *make_single_export(device, "disk");
  Batch out;
  Negotiation negotiation(*tree, out);
  const auto hear = [&](const Bytes& message) {
    negotiation.consume(message);
    out.clear();
  };
  hear(client_flags());
  hear(option(Option::go, info_data("disk")));
  REQUIRE(negotiation.agreed());
  CHECK(negotiation.take_agreement().transmission_flags ==
        (kHasFlags | kMultiConn | kSendCache | kSendFlush | kSendFua | kSendTrim |
         kSendWriteZeroes | (zeroes_fast ? kSendFastZero : 0)));
}

TEST_CASE("INFO and GO answer what was asked for", "[negotiation]") {
  FixedHandshake handshake;
  const Option number = GENERATE(Option::info, Option::go);
  handshake.next(option(Option::structured_reply));

  const auto answers = handshake.all(option(number, info_data("", {1, 2, 3, 3, 77})));
  REQUIRE(answers.size() == 5);
  for (std::size_t i = 0; i < 4; ++i) CHECK(answers[i].is(OptionReply::info));

  Stream export_info(answers[0].data);
  REQUIRE(export_info.left() == 12);
  CHECK(export_info.number<std::uint16_t>() == 0);
  CHECK(export_info.number<std::uint64_t>() == kDiskBytes);
  CHECK(export_info.number<std::uint16_t>() ==
        (kHasFlags | kReadOnly | kMultiConn | kSendCache | kSendDf));

  CHECK(testing::text_of(answers[1].data) == std::string("\0\1disk", 6));
  CHECK(testing::text_of(answers[2].data) == std::string("\0\2the first disk", 16));

  Stream sizes(answers[3].data);
  REQUIRE(sizes.left() == 14);
  CHECK(sizes.number<std::uint16_t>() == 3);
  CHECK(sizes.number<std::uint32_t>() == 1);
  CHECK(sizes.number<std::uint32_t>() == 4096);
  CHECK(sizes.number<std::uint32_t>() == 64 << 20);

  CHECK(handshake.negotiation().agreed() == (number == Option::go));
}

TEST_CASE("a device's blocks are sent, asked for or not when they are not the usual ones",
          "[negotiation][point6]") {
  const Option number = GENERATE(Option::info, Option::go);
  const auto device = std::make_shared<testing::GatedDevice>(1 << 20, 8192);
  FixedHandshake handshake(*make_single_export(device, "disk"));
  const auto answers = GENERATE(false, true) ? handshake.all(option(number, info_data("", {3})))
                                             : handshake.all(option(number, info_data("")));
  REQUIRE(answers.size() == 3);
  Stream sizes(answers[1].data);
  REQUIRE(sizes.left() == 14);
  CHECK(sizes.number<std::uint16_t>() == 3);
  CHECK(sizes.number<std::uint32_t>() == 8192);
  CHECK(sizes.number<std::uint32_t>() == 8192);  // not below the minimum
  CHECK(sizes.number<std::uint32_t>() == 64 << 20);
}

TEST_CASE("GO hands over what was agreed", "[negotiation]") {
  FixedHandshake handshake;
  SECTION("nothing but the export") {
    handshake.all(option(Option::go, info_data("more/other")));
    const Agreement agreed = handshake.negotiation().take_agreement();
    CHECK(agreed.exported.name == "more/other");
    CHECK(agreed.exported.device->geometry().size_bytes == 5000);
    CHECK_FALSE(agreed.structured_replies);
    CHECK(agreed.contexts.empty());
    CHECK((agreed.transmission_flags & kSendDf) == 0);
  }
  SECTION("what follows GO is left for the transmission") {
    Bytes both = option(Option::go, info_data("disk"));
    both += testing::request(Command::read, 1, 0, 512);
    handshake.all(both);
    CHECK(handshake.negotiation().agreed());
    CHECK(handshake.unused() == kRequestBytes);
  }
  SECTION("a failed GO leaves everything as it was") {
    handshake.next(option(Option::structured_reply));
    handshake.all(option(Option::set_meta_context, meta_data("disk", {"base:allocation"})));
    CHECK(handshake.verdict(option(Option::go, info_data("nothing"))) == OptionReply::err_unknown);
    handshake.all(option(Option::go, info_data("disk")));
    const Agreement agreed = handshake.negotiation().take_agreement();
    CHECK(agreed.structured_replies);
    CHECK(names_of(agreed.contexts) == "1=base:allocation");
  }
}

TEST_CASE("a selection of contexts holds for its export only", "[negotiation]") {
  FixedHandshake handshake;
  handshake.next(option(Option::structured_reply));
  const auto select = [&](std::string_view name, std::initializer_list<std::string_view> queries) {
    return handshake.all(option(Option::set_meta_context, meta_data(name, queries)));
  };
  const auto selected_after_go = [&](std::string_view name) {
    handshake.all(option(Option::go, info_data(name)));
    return !handshake.negotiation().take_agreement().contexts.empty();
  };

  SECTION("it is answered once, however often it is asked for") {
    const auto answers = select("disk", {"base:allocation", "x-none:x", "base:allocation"});
    REQUIRE(answers.size() == 2);
    Stream context(answers[0].data);
    CHECK(context.number<std::uint32_t>() == 1);
    CHECK(testing::text_of(context.take(context.left())) == "base:allocation");
    CHECK(selected_after_go("disk"));
  }
  SECTION("the default name is the same export") {
    select("", {"base:allocation"});
    CHECK(selected_after_go("disk"));
  }
  SECTION("another export voids it") {
    select("disk", {"base:allocation"});
    CHECK_FALSE(selected_after_go("more/other"));
  }
  SECTION("a wildcard, a prefix and nothing select nothing") {
    for (const char* query : {"base:", "base:alloc", "base:allocation2", "base", "", ":"}) {
      CAPTURE(query);
      CHECK(select("disk", {query}).size() == 1);
    }
    CHECK(select("disk", {}).size() == 1);
    CHECK_FALSE(selected_after_go("disk"));
  }
  SECTION("a later one replaces it, also when it fails") {
    const Bytes broken = GENERATE(option(Option::set_meta_context, meta_data("disk", {})),
                                  option(Option::set_meta_context, meta_data("nothing", {})),
                                  option(Option::set_meta_context, Bytes(9)),
                                  option(Option::set_meta_context, Bytes(3)),
                                  option(Option::set_meta_context, Bytes((1 << 20) + 1)));
    select("disk", {"base:allocation"});
    handshake.all(broken);
    CHECK_FALSE(selected_after_go("disk"));
  }
}

TEST_CASE("LIST_META_CONTEXT lists the contexts there are", "[negotiation]") {
  FixedHandshake handshake;
  const auto count = [&](std::initializer_list<std::string_view> queries) {
    const auto answers =
        handshake.all(option(Option::list_meta_context, meta_data("disk", queries)));
    for (const OptionAnswer& answer : answers) {
      if (answer.is(OptionReply::meta_context)) {
        CHECK(testing::text_of(answer.data) == std::string("\0\0\0\0base:allocation", 19));
      }
    }
    return answers.size() - 1;
  };
  CHECK(count({}) == 1);
  CHECK(count({"base:"}) == 1);
  CHECK(count({"base:allocation"}) == 1);
  CHECK(count({"base:", "base:allocation"}) == 1);
  CHECK(count({"qemu:"}) == 0);
  CHECK(count({"x-mkvirtfs:ls:"}) == 0);
  CHECK(count({"base:dirty"}) == 0);
}

TEST_CASE("LIST sends every name and ends with ACK", "[negotiation]") {
  const auto tree = disk_tree();
  FixedHandshake handshake(tree);
  SECTION("names of all levels") {
    const auto answers = handshake.all(option(Option::list));
    REQUIRE(answers.size() == 3);
    CHECK(testing::text_of(answers[0].data) == std::string("\0\0\0\4diskthe first disk", 22));
    CHECK(testing::text_of(answers[1].data) == std::string("\0\0\0\xamore/other", 14));
    CHECK(answers[2].is(OptionReply::ack));
    CHECK(answers[2].data.empty());
    CHECK(tree->opens == 0);
  }
  SECTION("also when the tree fails") {
    tree->lists_fail = true;
    CHECK(handshake.all(option(Option::list)).size() == 1);
  }
}

TEST_CASE("a huge tree does not make a huge list", "[negotiation][A18]") {
  const auto device = std::make_shared<testing::MemoryDevice>(std::vector<std::byte>(512));
  const std::size_t length = GENERATE(std::size_t{10}, std::size_t{4000});
  std::vector<Export> exports;
  for (int i = 0; i < 3000; ++i) {
    exports.push_back({fmt::format("{:0{}}", i, length), "", device});
  }
  FixedHandshake handshake(*make_fixed_exports(exports));
  const auto answers = handshake.all(option(Option::list));
  std::size_t bytes = 0;
  for (const OptionAnswer& answer : answers) bytes += answer.data.size();
  CHECK(answers.back().is(OptionReply::ack));
  CHECK(answers.size() == 1001);
  CHECK(bytes > 1000 * length);
  // However long the names are, few of them are in memory at a time.
  CHECK(handshake.largest_batch < (1 << 20));
  CHECK(handshake.negotiation().names_listed() == 1000);
}

TEST_CASE("LIST ends at its limit, and the log says when there is more", "[negotiation]") {
  const auto device = std::make_shared<testing::MemoryDevice>(std::vector<std::byte>(512));
  std::vector<Export> exports;
  for (int i = 0; i < 2500; ++i)
    exports.push_back({fmt::format("d{}/{:04}", i % 7, i), "", device});
  const std::shared_ptr<ExportTree> tree = *make_fixed_exports(exports);
  const auto list = [&](std::size_t most) {
    FixedHandshake handshake(tree, TlsMode::off, most);
    const auto answers = handshake.all(option(Option::list));
    CHECK(answers.back().is(OptionReply::ack));
    CHECK(answers.size() - 1 == std::min(most, exports.size()));
    std::set<std::string> names;
    for (const OptionAnswer& answer : answers) names.insert(testing::text_of(answer.data));
    CHECK(names.size() == answers.size());
    // Said once for a client, however often it asks.
    handshake.all(option(Option::list));
    std::string remarks;
    for (const Remark& remark : handshake.remarks.take()) {
      remarks += hinted_text({Errc::io, 0, remark.text, {}, remark.hints}) + "\n";
    }
    return remarks;
  };
  CHECK(list(1) ==
        "NBD_OPT_LIST ended after 1 exports, and there are more; LIST_HIER lists all [list-max]\n");
  CHECK_THAT(list(1000), Catch::StartsWith("NBD_OPT_LIST ended after 1000 exports"));
  CHECK_THAT(list(2499), Catch::StartsWith("NBD_OPT_LIST ended after 2499 exports"));
  CHECK(list(2500).empty());
  CHECK(list(100'000).empty());
}

TEST_CASE("what would help is for the log, not for the client") {
  const auto tree = disk_tree();
  FixedHandshake handshake(tree);
  tree->open_error = Error{Errc::no_space, 0, "there are 2 clones already", {}, {{"clone-max"}}};
  const auto answers = handshake.all(option(Option::go, info_data("disk")));
  REQUIRE(answers.size() == 1);
  CHECK(answers[0].is(OptionReply::err_policy));
  CHECK(testing::text_of(answers[0].data) == "there are 2 clones already");
  const Remark refusal = handshake.negotiation().refusal();
  CHECK(refusal.text == "there are 2 clones already");
  REQUIRE(refusal.hints.size() == 1);
  CHECK(refusal.hints[0].option == "clone-max");

  tree->open_error.reset();
  CHECK(handshake.verdict(option(Option::go, info_data("disk"))) == OptionReply::ack);
  CHECK(handshake.negotiation().refusal().text.empty());
}

TEST_CASE("what is too long is dropped in step, or ends the connection", "[negotiation][O4]") {
  FixedHandshake handshake;
  SECTION("a known option beyond 1 MiB") {
    CHECK(handshake.verdict(option(Option::list_meta_context, Bytes((1 << 20) + 1))) ==
          OptionReply::err_too_big);
    CHECK(handshake.verdict(option(Option::go, Bytes(32 << 20))) == OptionReply::err_too_big);
    CHECK(handshake.verdict(option(Option::list)) == OptionReply::ack);
  }
  SECTION("an unknown option of 32 MiB is dropped without being kept, or burning time") {
    const auto start = std::chrono::steady_clock::now();
    CHECK(handshake.verdict(option(12345, Bytes(32 << 20))) == OptionReply::err_unsup);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
    CHECK(handshake.negotiation().wanted_bytes() == kOptionHeaderBytes);
  }
  SECTION("beyond 32 MiB") {
    const auto length = GENERATE(std::uint32_t{(32 << 20) + 1}, std::uint32_t{0xffffffff});
    handshake.send(option(12345, {}, length));
    CHECK(handshake.negotiation().ended());
  }
  SECTION("data that is not there yet is not reserved") {
    handshake.send(option(std::to_underlying(Option::set_meta_context), {}, 1 << 20));
    CHECK(handshake.negotiation().wanted_bytes() == kOptionHeaderBytes + (1 << 20));
    CHECK_FALSE(handshake.negotiation().ended());
  }
}

TEST_CASE("twenty thousand queries are answered quickly", "[negotiation][A8]") {
  FixedHandshake handshake;
  Bytes data = meta_data("disk", {});
  std::ranges::copy(pack(std::uint32_t{20'000}), data.end() - 4);
  for (int i = 0; i < 20'000; ++i) {
    data += pack(std::uint32_t{6});
    data += testing::bytes_of("x-y:zz");
  }
  const auto start = std::chrono::steady_clock::now();
  CHECK(handshake.verdict(option(Option::list_meta_context, data)) == OptionReply::ack);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
}

TEST_CASE("the longest names do no harm, in options or error texts", "[negotiation][A2]") {
  const auto tree = disk_tree();
  FixedHandshake handshake(tree);
  handshake.next(option(Option::structured_reply));
  for (const std::string& name :
       {std::string(4096, '\n'), std::string(4096, '%'), std::string(4095, 'x') + "n"}) {
    for (const Option number : {Option::info, Option::go}) {
      const auto answers = handshake.all(option(number, info_data(name)));
      CHECK(answers.back().is(OptionReply::err_unknown));
      CHECK(answers.back().data.size() < 600);
      CHECK(testing::text_of(answers.back().data).find('\n') == std::string::npos);
    }
    for (const Option number : {Option::list_meta_context, Option::set_meta_context}) {
      CHECK(handshake.verdict(option(number, meta_data(name, {}))) == OptionReply::err_unknown);
    }
  }
}

TEST_CASE("wrong magic ends the connection", "[negotiation][O1]") {
  FixedHandshake handshake;
  Bytes message = option(Option::list);
  message[static_cast<std::size_t>(GENERATE(0, 3, 7))] ^= std::byte{1};
  handshake.send(message);
  CHECK(handshake.negotiation().ended());
  CHECK(handshake.stream().empty());
}

TEST_CASE("options have a budget, which grows with the names that were listed",
          "[negotiation][O10]") {
  const auto tree = disk_tree();
  FixedHandshake handshake(tree);
  const auto sent_until_end = [&] {
    int count = 0;
    while (!handshake.negotiation().ended() && count < 1000) {
      handshake.send(option(Option::info, info_data("disk")));
      ++count;
    }
    return count;
  };
  SECTION("without a list") { CHECK(sent_until_end() == 33); }
  SECTION("with two names") {
    handshake.all(option(Option::list));
    CHECK(handshake.negotiation().names_listed() == 2);
    CHECK(sent_until_end() == 32 * 3);
  }
}

TEST_CASE("nothing is opened before it must be, and then once", "[negotiation][A4]") {
  const auto tree = disk_tree();
  FixedHandshake handshake(tree);
  handshake.next(option(Option::structured_reply));
  handshake.all(option(Option::list));
  CHECK(tree->opens == 0);
  handshake.all(option(Option::info, info_data("disk")));
  handshake.all(option(Option::list_meta_context, meta_data("disk", {})));
  handshake.all(option(Option::set_meta_context, meta_data("disk", {"base:allocation"})));
  handshake.all(option(Option::go, info_data("disk")));
  CHECK(tree->opens == 1);
}

TEST_CASE("replies are handed over before more options are looked at", "[negotiation][A18]") {
  const auto device = std::make_shared<testing::MemoryDevice>(std::vector<std::byte>(512));
  std::vector<Export> exports;
  for (int i = 0; i < 250; ++i) {
    exports.push_back({fmt::format("{:0200}", i), std::string(4000, 'd'), device});
  }
  const auto tree = *make_fixed_exports(exports);
  Batch batch;
  Negotiation negotiation(*tree, batch);
  Bytes input = client_flags();
  for (int i = 0; i < 30; ++i) input += option(Option::list);
  std::size_t used = 0;
  while (used < input.size()) {
    used += negotiation.consume(std::span(input).subspan(used));
    REQUIRE(batch.owned_bytes() < (1 << 20) + (64 << 10) + 16384);
    batch.clear();
  }
}

TEST_CASE("every option has its answer in every mode of TLS", "[negotiation][tls][T1]") {
  struct Case {
    const char* name;
    Option number;
    Bytes data;
    OptionReply without;  // TLS offered and not used
    OptionReply barred;   // TLS required and not used
    OptionReply secured;
  };
  constexpr OptionReply kAck = OptionReply::ack;
  constexpr OptionReply kBarred = OptionReply::err_tls_reqd;
  constexpr OptionReply kInvalid = OptionReply::err_invalid;
  constexpr OptionReply kUnsup = OptionReply::err_unsup;
  const auto cases = std::vector<Case>{
      {"ABORT", Option::abort, {}, kAck, kAck, kAck},
      {"LIST", Option::list, {}, kAck, kBarred, kAck},
      {"LIST with data", Option::list, Bytes(1), kInvalid, kBarred, kInvalid},
      {"STARTTLS", Option::starttls, {}, kAck, kAck, kInvalid},
      {"STARTTLS with data", Option::starttls, Bytes(1), kInvalid, kInvalid, kInvalid},
      {"INFO", Option::info, info_data("disk"), kAck, kBarred, kAck},
      {"GO", Option::go, info_data("disk"), kAck, kBarred, kAck},
      {"GO of nothing", Option::go, info_data("x"), OptionReply::err_unknown, kBarred,
       OptionReply::err_unknown},
      {"ABORT with data", Option::abort, Bytes(9), kAck, kAck, kAck},
      {"PEEK_EXPORT", Option::peek_export, Bytes(4), kUnsup, kBarred, kUnsup},
      {"INFO too short", Option::info, Bytes(5), kInvalid, kBarred, kInvalid},
      {"EXTENDED_HEADERS", Option::extended_headers, {}, kAck, kBarred, kAck},
      {"EXTENDED_HEADERS with data", Option::extended_headers, Bytes(1), kInvalid, kBarred,
       kInvalid},
      {"STRUCTURED_REPLY", Option::structured_reply, {}, kAck, kBarred, kAck},
      {"STRUCTURED_REPLY with data", Option::structured_reply, Bytes(1), kInvalid, kBarred,
       kInvalid},
      {"LIST_META_CONTEXT", Option::list_meta_context, meta_data("disk", {}), kAck, kBarred, kAck},
      {"SET_META_CONTEXT", Option::set_meta_context, meta_data("disk", {}), kInvalid, kBarred,
       kInvalid},
      {"option 0", Option{0}, Bytes(100), kUnsup, kBarred, kUnsup},
  };
  for (const Case& c : cases) {
    CAPTURE(c.name);
    const Bytes message = option(std::to_underlying(c.number), c.data);
    const auto check = [&](FixedHandshake& handshake, OptionReply expected) {
      CHECK(handshake.verdict(message) == expected);
      CHECK(handshake.stream().empty());
      CHECK(handshake.negotiation().wants_tls() ==
            (c.number == Option::starttls && expected == kAck));
    };
    FixedHandshake offered(disk_tree(), TlsMode::on);
    check(offered, c.without);
    const auto tree = disk_tree();
    FixedHandshake required(tree, TlsMode::require);
    check(required, c.barred);
    if (c.barred == kBarred) {
      CHECK(tree->opens + tree->lists == 0);
      // Still in step.
      CHECK(required.verdict(option(Option::starttls)) == kAck);
    }
    FixedHandshake secured(disk_tree(), TlsMode::require);
    CHECK(secured.verdict(option(Option::starttls)) == kAck);
    secured.negotiation().tls_established();
    check(secured, c.secured);
  }
}

TEST_CASE("STARTTLS forgets what was agreed before it", "[negotiation][tls][A3]") {
  const auto tree = disk_tree();
  FixedHandshake handshake(tree, TlsMode::on);
  handshake.next(option(Option::structured_reply));
  handshake.all(option(Option::set_meta_context, meta_data("disk", {"base:allocation"})));
  handshake.all(option(Option::list));
  handshake.all(option(Option::info, info_data("disk")));
  const int opens = tree->opens;
  CHECK(handshake.negotiation().names_listed() == 2);
  CHECK(handshake.verdict(option(Option::starttls)) == OptionReply::ack);
  CHECK(handshake.negotiation().names_listed() == 0);
  handshake.negotiation().tls_established();
  SECTION("not structured, no contexts, nothing open") {
    handshake.all(option(Option::go, info_data("disk")));
    const Agreement agreed = handshake.negotiation().take_agreement();
    CHECK_FALSE(agreed.structured_replies);
    CHECK(agreed.contexts.empty());
    CHECK((agreed.transmission_flags & kSendDf) == 0);
    CHECK(tree->opens == opens + 1);
  }
  SECTION("everything can be agreed anew, but TLS") {
    CHECK(handshake.verdict(option(Option::starttls)) == OptionReply::err_invalid);
    CHECK(handshake.verdict(option(Option::structured_reply)) == OptionReply::ack);
  }
}

TEST_CASE("what is received between STARTTLS and TLS ends the handshake",
          "[negotiation][tls][A3]") {
  FixedHandshake handshake(disk_tree(), TlsMode::on);
  Bytes message = option(Option::starttls);
  SECTION("together with it") {
    message += option(Option::structured_reply);
    handshake.send(message);
  }
  SECTION("later") {
    handshake.next(message);
    CHECK(handshake.negotiation().wants_tls());
    handshake.send(Bytes(1));
  }
  CHECK(handshake.negotiation().ended());
  CHECK_FALSE(handshake.negotiation().wants_tls());
  CHECK_THAT(std::string(handshake.negotiation().end_reason()),
             Catch::Contains("between STARTTLS and TLS"));
}

TEST_CASE("EXPORT_NAME without the TLS that is required ends the handshake", "[negotiation][tls]") {
  const auto tree = disk_tree();
  FixedHandshake handshake(tree, TlsMode::require);
  handshake.send(option(Option::export_name, testing::bytes_of("disk")));
  CHECK(handshake.negotiation().ended());
  CHECK(handshake.stream().empty());
  CHECK(tree->opens == 0);
}

TEST_CASE("STARTTLS needs the fixed newstyle", "[negotiation][tls]") {
  Handshake handshake(disk_tree(), TlsMode::require);
  handshake.send(client_flags(kNoZeroes));
  CHECK(handshake.verdict(option(Option::starttls)) == OptionReply::err_invalid);
  CHECK_FALSE(handshake.negotiation().wants_tls());
}

}  // namespace mkvirtfs::nbd
