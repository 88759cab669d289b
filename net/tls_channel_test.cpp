// SPDX-License-Identifier: BSD-3-Clause
#include "net/tls_channel.h"

#include <malloc.h>

#include <catch2/catch.hpp>
#include <optional>
#include <random>

#include "net/testing/tls_party.h"
#include "support/byte_order.h"

namespace mkvirtfs::net {
namespace {

using testing::Authority;
using testing::Bytes;
using testing::ClientFiles;
using testing::converse;
using testing::Identity;
using testing::kTls12;
using testing::kTls13;
using testing::Party;
using testing::TlsClient;
using testing::TlsServer;

const Party& party() {
  static const Party kParty;
  return kParty;
}

iovec segment(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

/// Sends all of `plain` through the channel, in the pieces that it asks for.
Bytes send_all(TlsServer& server, std::vector<iovec> plain) {
  Bytes cipher;
  std::span<iovec> left(plain);
  while (!left.empty()) {
    std::size_t taken = server.channel.write(left);
    REQUIRE(taken > 0);
    CHECK(server.channel.cipher_out().size() <= TlsChannel::kCipherBytes);
    while (!left.empty() && taken >= left.front().iov_len) {
      taken -= left.front().iov_len;
      left = left.subspan(1);
    }
    if (taken > 0) {
      left.front().iov_base = static_cast<std::byte*>(left.front().iov_base) + taken;
      left.front().iov_len -= taken;
    }
    cipher += server.take();
  }
  return cipher;
}

/// The lengths of the records in a stream of them.
std::vector<std::size_t> record_lengths(std::span<const std::byte> cipher) {
  std::vector<std::size_t> lengths;
  while (!cipher.empty()) {
    REQUIRE(cipher.size() >= 5);
    const std::size_t length = load_be<std::uint16_t>(cipher, 3);
    REQUIRE(cipher.size() >= 5 + length);
    lengths.push_back(length);
    cipher = cipher.subspan(5 + length);
  }
  return lengths;
}

struct Pair {
  explicit Pair(const ClientFiles& files, bool verify_peer = false)
      : server(party().credentials(verify_peer)), client(files) {
    converse(server, client);
  }
  bool both_done() const {
    return server.channel.handshake_done() && !server.channel.failed() && client.done() &&
           client.error() == 0;
  }
  TlsServer server;
  TlsClient client;
};

}  // namespace

TEST_CASE("bytes travel both ways, whatever the client comes with", "[tls]") {
  const char* const version = GENERATE(kTls12, kTls13);
  const bool by_key = GENERATE(false, true);
  const std::size_t step = GENERATE(std::size_t{1}, std::size_t{7}, SIZE_MAX);
  CAPTURE(version, by_key, step);
  TlsServer server(party().credentials(false));
  TlsClient client(by_key ? Party::with_key("alice", std::string(32, '\x77'), version)
                          : party().with_certificate(nullptr, version));
  converse(server, client, step);
  CAPTURE(server.channel.failure());
  REQUIRE(server.channel.handshake_done());
  REQUIRE(client.done());

  const Bytes question = testing::bytes_of("may I have a disk?");
  client.write(question);
  server.give(client.take(), step);
  CHECK(server.received == question);

  const std::vector<std::byte> disk = testing::pattern_bytes(1'000'000);
  client.give(send_all(server, {segment(disk)}));
  CHECK(std::ranges::equal(client.read(), disk));

  // And a long way in.
  server.received.clear();
  client.write(disk);
  server.give(client.take(), step == SIZE_MAX ? step : 1000 * step);
  CHECK(std::ranges::equal(server.received, disk));

  client.write(question);
  gnutls_bye(client.session(), GNUTLS_SHUT_WR);
  server.give(client.take(), step);
  CHECK(server.channel.closed_by_peer());
  CHECK_FALSE(server.channel.failed());
  server.channel.close();
  client.give(server.take());
  CHECK(client.read().empty());
  CHECK(client.closed_by_server());
}

TEST_CASE("a handshake may be cut at any byte", "[tls]") {
  const ClientFiles files = GENERATE(0, 1) == 0 ? party().with_certificate() : Party::with_key();
  std::size_t length = 1;
  for (std::size_t cut = 0; cut < length; ++cut) {
    TlsServer server(party().credentials(false));
    TlsClient client(files);
    client.shake_hands();
    const Bytes hello = client.take();
    length = hello.size();
    server.give(std::span(hello).first(cut));
    CHECK(server.take().empty());
    server.give(std::span(hello).subspan(cut));
    client.give(server.take());
    converse(server, client);
    CAPTURE(cut, server.channel.failure());
    REQUIRE(server.channel.handshake_done());
    REQUIRE(client.done());
  }
  CHECK(length > 100);
}

TEST_CASE("records are full, and no more of them wait than may", "[tls]") {
  Pair pair(party().with_certificate());
  REQUIRE(pair.both_done());
  constexpr std::size_t kFull = 16384;
  // Small pieces, large ones, and those that end in the middle of a record.
  const std::vector<std::byte> bytes = testing::pattern_bytes(3'000'000);
  std::vector<iovec> pieces;
  std::minstd_rand random(7);
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::size_t most = random() % 3 == 0 ? 100'000 : 60;
    const std::size_t count = std::min<std::size_t>(random() % most, bytes.size() - at);
    pieces.push_back(segment(std::span(bytes).subspan(at, count)));
    at += count;
  }
  const Bytes cipher = send_all(pair.server, pieces);
  pair.client.give(cipher);
  CHECK(std::ranges::equal(pair.client.read(), bytes));
  const std::vector<std::size_t> lengths = record_lengths(cipher);
  CHECK(lengths.size() == (bytes.size() + kFull - 1) / kFull);
  CHECK(std::ranges::count_if(lengths, [](std::size_t length) { return length >= kFull; }) ==
        static_cast<std::ptrdiff_t>(lengths.size() - 1));

  // 32 MiB that nobody sends on: the channel takes what it may, and then nothing.
  const std::vector<std::byte> large(32U << 20);
  const std::vector<iovec> all = {segment(large)};
  const std::size_t taken = pair.server.channel.write(all);
  CHECK(taken % kFull == 0);
  CHECK(taken >= TlsChannel::kCipherBytes / 2);
  CHECK(pair.server.channel.cipher_out().size() <= TlsChannel::kCipherBytes);
  CHECK(pair.server.channel.write(all) == 0);
  CHECK_FALSE(pair.server.channel.failed());
  pair.server.take();
  pair.server.channel.trim();
  CHECK(pair.server.channel.write(all) == taken);
}

TEST_CASE("a quiet channel costs little memory", "[tls]") {
  const auto credentials = party().credentials(false);
  const ClientFiles files = GENERATE(0, 1) == 0 ? party().with_certificate() : Party::with_key();
  const std::vector<std::byte> answer = testing::pattern_bytes(100'000);
  constexpr std::size_t kChannels = 20;
  std::vector<std::unique_ptr<TlsServer>> channels;
  // What the clients take must not be counted: they are gone before.
  const std::size_t before = ::mallinfo2().uordblks;
  for (std::size_t i = 0; i < kChannels; ++i) {
    channels.push_back(std::make_unique<TlsServer>(credentials));
    TlsClient client(files);
    converse(*channels.back(), client);
    REQUIRE(channels.back()->channel.handshake_done());
    send_all(*channels.back(), {segment(answer)});
    channels.back()->channel.trim();
  }
  const std::size_t each = (::mallinfo2().uordblks - before) / kChannels;
  CAPTURE(each);
  CHECK(each < 32U << 10);
}

TEST_CASE("what was sent in part goes on where it stopped", "[tls]") {
  Pair pair(party().with_certificate());
  REQUIRE(pair.both_done());
  const std::vector<std::byte> bytes = testing::pattern_bytes(600'000);
  Bytes received;
  std::size_t at = 0;
  while (at < bytes.size() || !pair.server.channel.cipher_out().empty()) {
    if (at < bytes.size()) {
      const std::vector<iovec> rest = {segment(std::span(bytes).subspan(at))};
      at += pair.server.channel.write(rest);
    }
    const auto waiting = pair.server.channel.cipher_out();
    const std::size_t count = std::min<std::size_t>(waiting.size(), 70'001);
    pair.client.give(waiting.first(count));
    pair.server.channel.sent(count);
    pair.server.channel.trim();
    received += pair.client.read();
  }
  CHECK(std::ranges::equal(received, bytes));
}

TEST_CASE("a client may ask for small records", "[tls]") {
  ClientFiles files = party().with_certificate(nullptr, GENERATE(kTls12, kTls13));
  files.most_record_bytes = 1024;
  Pair pair(files);
  REQUIRE(pair.both_done());
  const std::vector<std::byte> bytes = testing::pattern_bytes(100'000);
  const Bytes cipher = send_all(pair.server, {segment(bytes)});
  CHECK(std::ranges::max(record_lengths(cipher)) < 1500);
  pair.client.give(cipher);
  CHECK(std::ranges::equal(pair.client.read(), bytes));
}

TEST_CASE("a client that does not believe the server says so", "[tls]") {
  ClientFiles files = party().with_certificate(nullptr, GENERATE(kTls12, kTls13));
  files.authority_pem = party().other.self().crt_pem();
  const Pair pair(files);
  CHECK(pair.client.error() == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR);
  CHECK(pair.server.channel.failed());
  CHECK_THAT(pair.server.channel.failure(), Catch::StartsWith("TLS: the client refused: "));
}

TEST_CASE("a wrong key is refused, and strangers learn no more than those", "[tls]") {
  const char* const version = GENERATE(kTls12, kTls13);
  const Pair wrong(Party::with_key("alice", std::string(32, '\x78'), version));
  const Pair stranger(Party::with_key("mallory", std::string(32, '\x77'), version));
  CHECK(wrong.server.channel.failed());
  CHECK_FALSE(wrong.client.error() == 0);
  CHECK(stranger.server.channel.failed());
  CHECK(stranger.server.channel.failure() == wrong.server.channel.failure());
  CHECK(stranger.client.error() == wrong.client.error());
  const Pair bob(Party::with_key("bob", std::string("\1\2\3\4\5\6\7\10", 8), version));
  CHECK(bob.both_done());
}

TEST_CASE("clients are verified when that is asked for", "[tls]") {
  const char* const version = GENERATE(kTls12, kTls13);
  struct Case {
    const Identity* identity;
    bool accepted;
    const char* reason;
  };
  const Case c = GENERATE(values<Case>({
      {&party().client, true, ""},
      {&party().plain, true, ""},
      {nullptr, false, ""},
      {&party().stranger, false, ""},
      {&party().server, false, "key usage"},
      {&party().revoked, false, "revoked"},
  }));
  CAPTURE(version, c.identity == nullptr, c.reason);
  Pair pair(party().with_certificate(c.identity, version), true);
  CAPTURE(pair.server.channel.failure());
  // In TLS 1.3 a client is done before it hears what the server thinks of it.
  if (pair.client.done()) pair.client.read();
  CHECK(pair.both_done() == c.accepted);
  CHECK(pair.server.channel.failed() != c.accepted);
  CHECK((pair.client.error() == 0) == c.accepted);
  CHECK(pair.server.channel.failure().find('\n') == std::string::npos);
  // A key is as good as a certificate.
  const Pair by_key(Party::with_key("alice", std::string(32, '\x77'), version), true);
  CHECK(by_key.both_done());
  // Without --tls-verify-peer none of this matters.
  CHECK(Pair(party().with_certificate(c.identity, version)).both_done());
}

TEST_CASE("a server with certificates alone knows no keys, and the other way round", "[tls]") {
  // In TLS 1.3 a client that has a key and no authorities would take any certificate.
  for (const bool keys : {false, true}) {
    TlsServer server(party().credentials(false, keys, !keys));
    TlsClient client(keys ? party().with_certificate()
                          : Party::with_key("alice", std::string(32, '\x77'), kTls12));
    converse(server, client);
    CHECK(server.channel.failed());
    CHECK(client.error() != 0);
  }
}

TEST_CASE("the cipher is one that processors have instructions for", "[tls]") {
  const std::string version = GENERATE(kTls12, kTls13);
  // What libnbd and QEMU come with, and a client that would like to have it otherwise.
  const std::string priority =
      version + GENERATE(as<std::string>(), "", ":-CIPHER-ALL:+CHACHA20-POLY1305:+AES-128-GCM");
  CAPTURE(priority);
  std::vector<ClientFiles> clients = {party().with_certificate(nullptr, priority.c_str())};
  // In TLS 1.2 no cipher suite joins ECDHE-PSK and AES-GCM.
  if (version == kTls13) {
    clients.push_back(Party::with_key("alice", std::string(32, '\x77'), priority.c_str()));
  }
  for (const ClientFiles& files : clients) {
    Pair pair(files);
    REQUIRE(pair.both_done());
    const auto cipher = gnutls_cipher_get(pair.client.session());
    CHECK((cipher == GNUTLS_CIPHER_AES_128_GCM || cipher == GNUTLS_CIPHER_AES_256_GCM));
  }
  // Who has nothing else gets it.
  Pair other(
      party().with_certificate(nullptr, (version + ":-CIPHER-ALL:+CHACHA20-POLY1305").c_str()));
  CHECK(other.both_done());
}

TEST_CASE("versions before TLS 1.2 are refused", "[tls]") {
  const Pair pair(party().with_certificate(nullptr, "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0"));
  CHECK(pair.server.channel.failed());
  CHECK(pair.client.error() != 0);
}

TEST_CASE("garbage instead of a ClientHello ends the channel", "[tls]") {
  std::vector<Bytes> inputs = {
      testing::bytes_of("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
      testing::bytes_of(std::string_view("IHAVEOPT\0\0\0\7\0\0\0\0", 16)),
      Bytes(100),
      Bytes(100, std::byte{0xff}),
  };
  std::minstd_rand random(11);
  for (int i = 0; i < 200; ++i) {
    Bytes bytes(1 + random() % 600);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    if (i % 2 == 0) {
      // What looks like a handshake record in its first bytes, and goes wrong behind them.
      const Bytes start = {std::byte{22}, std::byte{3}, std::byte{1}, std::byte{0}};
      std::ranges::copy(std::span(start).first(std::min(start.size(), bytes.size())),
                        bytes.begin());
    }
    bytes += Bytes(TlsChannel::kLongestHandshakeBytes);
    inputs.push_back(std::move(bytes));
  }
  for (const Bytes& input : inputs) {
    TlsServer server(party().credentials(true));
    server.give(input, 1000);
    CHECK(server.channel.failed());
    CHECK_FALSE(server.channel.handshake_done());
    CHECK_THAT(server.channel.failure(), Catch::StartsWith("TLS: "));
    CHECK(server.take().size() < 100);
  }
}

TEST_CASE("a handshake that swells is refused", "[tls]") {
  const auto record = [](std::uint8_t type, std::span<const std::byte> data) {
    Bytes bytes = {std::byte{type}, std::byte{3}, std::byte{3}};
    bytes.push_back(static_cast<std::byte>(data.size() >> 8));
    bytes.push_back(static_cast<std::byte>(data.size()));
    bytes += data;
    return bytes;
  };
  Bytes hello = {std::byte{1}, std::byte{0x00}, std::byte{0xff}, std::byte{0xff}};
  const std::uint8_t type = GENERATE(std::uint8_t{22}, std::uint8_t{21}, std::uint8_t{20});
  CAPTURE(int{type});
  TlsServer server(party().credentials(false));
  std::size_t given = 0;
  const auto give = [&](const Bytes& bytes) {
    given += bytes.size();
    server.give(bytes);
  };
  if (type == 22) {
    give(record(22, hello));
    while (!server.channel.failed() && given < (1U << 20)) give(record(22, Bytes(100)));
  } else {
    // Warnings (unrecognized_name), or changes of the cipher, without an end.
    const Bytes data = type == 21 ? Bytes{std::byte{1}, std::byte{112}} : Bytes{std::byte{1}};
    while (!server.channel.failed() && given < (1U << 20)) give(record(type, data));
  }
  CHECK(server.channel.failed());
  CHECK(given <= TlsChannel::kLongestHandshakeBytes + 1000);
}

TEST_CASE("another handshake within the session is refused", "[tls]") {
  Pair pair(party().with_certificate(nullptr, kTls12));
  REQUIRE(pair.both_done());
  gnutls_handshake(pair.client.session());
  pair.server.give(pair.client.take());
  CHECK(pair.server.channel.failed());
  CHECK(pair.server.channel.failure() == "TLS: the client asked for another handshake");
}

TEST_CASE("a client may change its keys", "[tls]") {
  Pair pair(party().with_certificate());
  REQUIRE(pair.both_done());
  const Bytes text = testing::bytes_of("after the change");
  for (int i = 0; i < 3; ++i) {
    testing::tls_require(gnutls_session_key_update(pair.client.session(), GNUTLS_KU_PEER));
    pair.client.write(text);
    pair.server.received.clear();
    pair.server.give(pair.client.take());
    CAPTURE(pair.server.channel.failure());
    CHECK(pair.server.received == text);
    pair.client.give(send_all(pair.server, {segment(text)}));
    CHECK(pair.client.read() == text);
  }
}

TEST_CASE("an alert ends the channel and is reported by its name", "[tls]") {
  Pair pair(party().with_certificate(nullptr, GENERATE(kTls12, kTls13)));
  REQUIRE(pair.both_done());
  gnutls_alert_send(pair.client.session(), GNUTLS_AL_FATAL, GNUTLS_A_INTERNAL_ERROR);
  pair.server.give(pair.client.take());
  CHECK(pair.server.channel.failed());
  CHECK(pair.server.channel.failure() == "TLS: the client refused: Internal error");
  const std::vector<iovec> more = {segment(pair.server.received)};
  CHECK(pair.server.channel.write(more) == 0);
}

TEST_CASE("a stream that was changed on the way is not believed", "[tls]") {
  const Bytes text = testing::bytes_of("a request of some bytes");
  for (std::size_t at = 0; at < 5 + text.size() + 17; ++at) {
    Pair pair(party().with_certificate());
    REQUIRE(pair.both_done());
    pair.client.write(text);
    Bytes cipher = pair.client.take();
    REQUIRE(at < cipher.size());
    cipher[at] ^= std::byte{0x40};
    // A longer record than it was needs more bytes to be found wrong.
    cipher += Bytes(20'000);
    pair.server.give(cipher);
    CAPTURE(at);
    CHECK(pair.server.channel.failed());
    CHECK(pair.server.received.empty());
  }
}

TEST_CASE("a stream that ends early was not closed by the client", "[tls]") {
  Pair pair(party().with_certificate());
  REQUIRE(pair.both_done());
  const Bytes text = testing::bytes_of("the beginning of a request");
  pair.client.write(text);
  const Bytes cipher = pair.client.take();
  pair.server.give(std::span(cipher).first(cipher.size() - 1));
  CHECK(pair.server.received.empty());
  CHECK_FALSE(pair.server.channel.closed_by_peer());
  CHECK_FALSE(pair.server.channel.failed());
}

}  // namespace mkvirtfs::net
