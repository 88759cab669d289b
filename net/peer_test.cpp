// SPDX-License-Identifier: BSD-3-Clause
#include "net/peer.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "net/testing/connect.h"

namespace mkvirtfs::net {
namespace {

Peer at(std::string_view address) {
  const auto ip = IpAddress::parse(address);
  REQUIRE(ip);
  Peer peer;
  peer.kind = Peer::Kind::ip;
  peer.ip = *ip;
  return peer;
}

Peer user(uid_t uid, gid_t gid = 100) {
  Peer peer;
  peer.kind = Peer::Kind::unix_socket;
  peer.uid = uid;
  peer.gid = gid;
  return peer;
}

Peer context(std::uint32_t cid) {
  Peer peer;
  peer.kind = Peer::Kind::vsock;
  peer.cid = cid;
  return peer;
}

PeerRules rules(std::vector<std::string> allow, std::vector<std::string> deny) {
  const Result<PeerRules> parsed = PeerRules::parse(allow, deny);
  REQUIRE(parsed);
  return *parsed;
}

/// Whether a rule alone lets a client in, where nobody else is.
bool fits(const std::string& rule, const Peer& peer) { return rules({rule}, {"any"}).admits(peer); }

}  // namespace

TEST_CASE("addresses are numbers, and IPv4 stays IPv4 in IPv6's clothes", "[peer]") {
  CHECK(IpAddress::parse("192.0.2.7")->is_v4);
  CHECK(IpAddress::parse("::ffff:192.0.2.7") == IpAddress::parse("192.0.2.7"));
  CHECK(IpAddress::parse("::ffff:c000:207")->text() == "192.0.2.7");
  CHECK(IpAddress::parse("2001:DB8::0:1")->text() == "2001:db8::1");
  CHECK_FALSE(IpAddress::parse("::1")->is_v4);
  // The older form for it has been given up: it is just an IPv6 address.
  CHECK_FALSE(IpAddress::parse("::192.0.2.7")->is_v4);
  for (const std::string_view text : {"", "192.0.2", "192.0.2.256", "192.0.2.7 ", "1:2", ":::",
                                      "localhost", "[::1]", "fe80::1%lo", "0x7f.1", "010.0.0.1"}) {
    CAPTURE(text);
    CHECK_FALSE(IpAddress::parse(text));
  }
  CHECK_FALSE(IpAddress::parse(std::string_view("::1\0", 4)));
}

TEST_CASE("networks are the first bits of addresses", "[peer]") {
  CHECK(fits("192.0.2.7", at("192.0.2.7")));
  CHECK_FALSE(fits("192.0.2.7", at("192.0.2.70")));
  CHECK(fits("192.0.2.0/24", at("192.0.2.255")));
  CHECK_FALSE(fits("192.0.2.0/24", at("192.0.3.0")));
  CHECK(fits("10.0.0.0/9", at("10.127.255.255")));
  CHECK_FALSE(fits("10.0.0.0/9", at("10.128.0.0")));
  CHECK(fits("192.0.2.255/25", at("192.0.2.128")));
  CHECK(fits("192.0.2.4/31", at("192.0.2.5")));
  CHECK_FALSE(fits("192.0.2.4/31", at("192.0.2.6")));
  CHECK(fits("0.0.0.0/0", at("203.0.113.9")));
  CHECK(fits("2001:db8::/32", at("2001:db8:ffff::1")));
  CHECK_FALSE(fits("2001:db8::/32", at("2001:db9::1")));
  CHECK(fits("fe80::/10", at("febf::1")));
  CHECK_FALSE(fits("fe80::/10", at("fec0::1")));
  CHECK(fits("::1/128", at("::1")));
  CHECK(fits("::/0", at("2001:db8::1")));
}

TEST_CASE("a rule for one family does not fit the other", "[peer]") {
  CHECK_FALSE(fits("::/0", at("192.0.2.7")));
  CHECK_FALSE(fits("0.0.0.0/0", at("::1")));
  CHECK(fits("192.0.2.0/24", at("::ffff:192.0.2.7")));
  CHECK(fits("::ffff:192.0.2.0/120", at("192.0.2.7")));
  CHECK_FALSE(fits("::ffff:192.0.2.0/120", at("192.0.3.7")));
  CHECK(fits("ipv4", at("::ffff:192.0.2.7")));
  CHECK_FALSE(fits("ipv6", at("::ffff:192.0.2.7")));
  CHECK(fits("ipv6", at("::1")));
  for (const char* rule : {"ipv4", "ipv6", "0.0.0.0/0", "::/0", "vsock", "vsock:cid=0"}) {
    CHECK_FALSE(fits(rule, user(0)));
    CHECK_FALSE(fits(rule, Peer{}));
  }
}

TEST_CASE("users of Unix sockets and contexts of vsock are distinguished", "[peer]") {
  CHECK(fits("unix", user(7)));
  CHECK(fits("unix:uid=7", user(7)));
  CHECK_FALSE(fits("unix:uid=7", user(77)));
  CHECK(fits("unix:gid=100", user(7)));
  CHECK_FALSE(fits("unix:gid=7", user(7)));
  CHECK(fits("unix:user=root", user(0)));
  CHECK_FALSE(fits("unix:user=root", user(1)));
  CHECK_FALSE(fits("unix:uid=0", at("::1")));
  CHECK_FALSE(fits("unix", at("127.0.0.1")));
  CHECK(fits("vsock", context(3)));
  CHECK(fits("vsock:cid=3", context(3)));
  CHECK_FALSE(fits("vsock:cid=3", context(4)));
  // Of a client without credentials nobody knows who it is.
  Peer unknown;
  unknown.kind = Peer::Kind::unix_socket;
  CHECK_FALSE(fits("unix:uid=0", unknown));
  CHECK(fits("any", unknown));
}

TEST_CASE("what is allowed comes in, then what is denied does not, and all others do",
          "[peer][A11]") {
  const Peer here = at("127.0.0.1");
  const Peer there = at("198.51.100.1");
  CHECK(rules({}, {}).admits(there));
  CHECK(rules({"127.0.0.0/8"}, {}).admits(there));
  CHECK(rules({}, {"127.0.0.0/8"}).admits(there));
  CHECK_FALSE(rules({}, {"127.0.0.0/8"}).admits(here));
  CHECK(rules({"127.0.0.1"}, {"127.0.0.0/8"}).admits(here));
  CHECK_FALSE(rules({"127.0.0.2"}, {"127.0.0.0/8"}).admits(here));
  CHECK(rules({"127.0.0.1"}, {"any"}).admits(here));
  CHECK_FALSE(rules({"127.0.0.1"}, {"any"}).admits(there));
  CHECK(rules({"any"}, {"any"}).admits(there));
}

TEST_CASE("what is no rule is an error that says what is", "[peer]") {
  const std::string text =
      GENERATE("", " any", "all", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/x", "192.0.2.0/-1", "/8",
               "192.0.2.0/24/8", "::/129", "::ffff:192.0.2.0/95",
               "unix:", "unix:uid=", "unix:uid=x", "unix:uid=-1", "unix:uid=4294967296",
               "unix:user=no-such-user-here", "unix:user=", "vsock:3", "localhost");
  CAPTURE(text);
  for (const bool allow : {false, true}) {
    const std::vector<std::string> one = {text};
    const std::vector<std::string> none;
    const auto parsed = PeerRules::parse(allow ? one : none, allow ? none : one);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().code == Errc::usage);
    CHECK_FALSE(parsed.error().what.empty());
  }
}

TEST_CASE("the kernel knows which user connected", "[peer]") {
  SECTION("by a Unix socket") {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    const UniqueFd one(fds[0]);
    const UniqueFd other(fds[1]);
    const Peer peer = Peer::of_socket(one.get());
    CHECK(peer.kind == Peer::Kind::unix_socket);
    CHECK(peer.uid == ::geteuid());
    CHECK(peer.gid == ::getegid());
    CHECK(peer.text() ==
          "user " + std::to_string(::geteuid()) + " (process " + std::to_string(::getpid()) + ")");
  }
  SECTION("by TCP, also where one socket serves both families") {
    const UniqueFd listening(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int off = 0;
    ::setsockopt(listening.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    socklen_t length = sizeof address;
    REQUIRE(::bind(listening.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
    REQUIRE(::listen(listening.get(), 4) == 0);
    REQUIRE(::getsockname(listening.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
    for (const auto& [family, text] : {std::pair{AF_INET, "127.0.0.1"}, {AF_INET6, "[::1]"}}) {
      const UniqueFd client = testing::connect_loopback(family, ntohs(address.sin6_port));
      const UniqueFd accepted(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
      const Peer peer = Peer::of_socket(accepted.get());
      CHECK(peer.kind == Peer::Kind::ip);
      sockaddr_in6 own{};  // the port stands at the same place in both families
      length = sizeof own;
      REQUIRE(::getsockname(client.get(), reinterpret_cast<sockaddr*>(&own), &length) == 0);
      CHECK(peer.text() == std::string(text) + ":" + std::to_string(ntohs(own.sin6_port)));
    }
  }
  SECTION("not of what is no socket") {
    CHECK(Peer::of_socket(-1).kind == Peer::Kind::other);
    CHECK_FALSE(Peer::of_socket(-1).text().empty());
  }
}

}  // namespace mkvirtfs::net
