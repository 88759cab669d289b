// SPDX-License-Identifier: BSD-3-Clause
#include "net/peer.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>

// Behind sys/socket.h, which it needs.
#include <linux/vm_sockets.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

namespace mkvirtfs::net {
namespace {

/// The prefix of IPv4 addresses that travel as IPv6 ones (RFC 4291, 2.5.5.2).
constexpr std::size_t kMappedPrefixBytes = 12;

bool is_mapped(std::span<const std::byte, 16> bytes) noexcept {
  return std::ranges::all_of(bytes.first<10>(), [](std::byte b) { return b == std::byte{0}; }) &&
         bytes[10] == std::byte{0xff} && bytes[11] == std::byte{0xff};
}

std::optional<std::uint32_t> parse_number(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Result<uid_t> find_user(const std::string& name) {
  std::vector<char> buffer(1024);
  while (true) {
    passwd entry{};
    passwd* found = nullptr;
    const int error = ::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (error == ERANGE && buffer.size() < (1U << 20)) {
      buffer.resize(buffer.size() * 4);
      continue;
    }
    if (found != nullptr) return entry.pw_uid;
    return fail(Errc::usage, fmt::format("there is no user \"{}\"", name));
  }
}

}  // namespace

IpAddress IpAddress::from_v4(std::span<const std::byte, 4> bytes) noexcept {
  IpAddress address;
  address.is_v4 = true;
  std::ranges::copy(bytes, address.bytes.begin());
  return address;
}

IpAddress IpAddress::from_v6(std::span<const std::byte, 16> bytes) noexcept {
  if (is_mapped(bytes)) return from_v4(bytes.last<4>());
  IpAddress address;
  std::ranges::copy(bytes, address.bytes.begin());
  return address;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string terminated(text);
  if (terminated.find('\0') != std::string::npos) return std::nullopt;
  std::array<std::byte, 4> v4{};
  if (::inet_pton(AF_INET, terminated.c_str(), v4.data()) == 1) return from_v4(v4);
  std::array<std::byte, 16> v6{};
  if (::inet_pton(AF_INET6, terminated.c_str(), v6.data()) == 1) return from_v6(v6);
  return std::nullopt;
}

bool IpAddress::shares_prefix(const IpAddress& other, unsigned prefix_bits) const noexcept {
  if (is_v4 != other.is_v4) return false;
  const std::size_t whole = prefix_bits / 8;
  if (!std::equal(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(whole),
                  other.bytes.begin())) {
    return false;
  }
  const unsigned rest = prefix_bits % 8;
  return rest == 0 || ((bytes[whole] ^ other.bytes[whole]) >> (8 - rest)) == std::byte{0};
}

std::string IpAddress::text() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(is_v4 ? AF_INET : AF_INET6, bytes.data(), text.data(), text.size());
  return text.data();
}

Peer Peer::of_socket(int fd) noexcept {
  Peer peer;
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return peer;
  const auto bytes_of = [&]<class Field>(const Field& field) {
    return std::as_bytes(std::span<const Field, 1>(&field, 1));
  };
  switch (storage.ss_family) {
    case AF_INET:
      peer.kind = Kind::ip;
      peer.ip = IpAddress::from_v4(bytes_of(reinterpret_cast<sockaddr_in*>(&storage)->sin_addr));
      peer.port = ntohs(reinterpret_cast<sockaddr_in*>(&storage)->sin_port);
      break;
    case AF_INET6:
      peer.kind = Kind::ip;
      peer.ip = IpAddress::from_v6(bytes_of(reinterpret_cast<sockaddr_in6*>(&storage)->sin6_addr));
      peer.port = ntohs(reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port);
      break;
    case AF_UNIX: {
      peer.kind = Kind::unix_socket;
      ucred credentials{};
      socklen_t credentials_bytes = sizeof credentials;
      if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &credentials_bytes) == 0) {
        peer.uid = credentials.uid;
        peer.gid = credentials.gid;
        peer.pid = credentials.pid;
      }
      break;
    }
    case AF_VSOCK:
      peer.kind = Kind::vsock;
      peer.cid = reinterpret_cast<sockaddr_vm*>(&storage)->svm_cid;
      peer.port = reinterpret_cast<sockaddr_vm*>(&storage)->svm_port;
      break;
    default:
      break;
  }
  return peer;
}

std::string Peer::text() const {
  switch (kind) {
    case Kind::ip:
      return ip.is_v4 ? fmt::format("{}:{}", ip.text(), port)
                      : fmt::format("[{}]:{}", ip.text(), port);
    case Kind::unix_socket:
      if (!uid) return "an unknown user";
      return pid.value_or(0) > 0 ? fmt::format("user {} (process {})", *uid, *pid)
                                 : fmt::format("user {}", *uid);
    case Kind::vsock:
      return fmt::format("vsock context {}, port {}", cid, port);
    case Kind::other:
      break;
  }
  return "a client of an unknown kind";
}

Result<PeerRules::Rule> PeerRules::parse_rule(const std::string& text) {
  using Kind = Rule::Kind;
  constexpr std::array kWords = {
      std::pair{std::string_view("any"), Kind::any},
      std::pair{std::string_view("ipv4"), Kind::ipv4},
      std::pair{std::string_view("ipv6"), Kind::ipv6},
      std::pair{std::string_view("unix"), Kind::unix_socket},
      std::pair{std::string_view("vsock"), Kind::vsock},
  };
  for (const auto& [word, kind] : kWords) {
    if (text == word) return Rule{kind, {}, 0, 0};
  }
  constexpr std::array kNumbers = {
      std::pair{std::string_view("unix:uid="), Kind::uid},
      std::pair{std::string_view("unix:gid="), Kind::gid},
      std::pair{std::string_view("vsock:cid="), Kind::cid},
  };
  for (const auto& [prefix, kind] : kNumbers) {
    if (!text.starts_with(prefix)) continue;
    const auto number = parse_number(std::string_view(text).substr(prefix.size()));
    if (number) return Rule{kind, {}, 0, *number};
  }
  constexpr std::string_view kUser = "unix:user=";
  if (text.starts_with(kUser)) {
    const Result<uid_t> uid = find_user(text.substr(kUser.size()));
    if (!uid) return propagate(uid);
    return Rule{Kind::uid, {}, 0, *uid};
  }
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(std::string_view(text).substr(0, slash));
  if (address) {
    if (slash == std::string::npos) return Rule{Kind::network, *address, address->bits(), 0};
    auto bits = parse_number(std::string_view(text).substr(slash + 1));
    // Of an IPv4 address that is written as an IPv6 one, the bits are those of IPv6.
    const bool was_mapped = address->is_v4 && text.find(':') < slash;
    if (bits && was_mapped) {
      bits = *bits >= kMappedPrefixBytes * 8
                 ? std::optional(*bits - static_cast<std::uint32_t>(kMappedPrefixBytes * 8))
                 : std::nullopt;
    }
    if (bits && *bits <= address->bits()) return Rule{Kind::network, *address, *bits, 0};
  }
  return fail(Errc::usage,
              fmt::format("\"{}\" is no rule (any, ADDRESS, ADDRESS/BITS, ipv4, ipv6, unix, "
                          "unix:uid=N, unix:gid=N, unix:user=NAME, vsock, vsock:cid=N)",
                          text));
}

Result<PeerRules> PeerRules::parse(std::span<const std::string> allow,
                                   std::span<const std::string> deny) {
  PeerRules rules;
  for (const auto& [texts, list] : {std::pair{allow, &rules.allow_}, {deny, &rules.deny_}}) {
    for (const std::string& text : texts) {
      const Result<Rule> rule = parse_rule(text);
      if (!rule) return propagate(rule);
      list->push_back(*rule);
    }
  }
  return rules;
}

bool PeerRules::Rule::fits(const Peer& peer) const noexcept {
  switch (kind) {
    case Kind::any:
      return true;
    case Kind::network:
      return peer.kind == Peer::Kind::ip && peer.ip.shares_prefix(network, prefix_bits);
    case Kind::ipv4:
      return peer.kind == Peer::Kind::ip && peer.ip.is_v4;
    case Kind::ipv6:
      return peer.kind == Peer::Kind::ip && !peer.ip.is_v4;
    case Kind::unix_socket:
      return peer.kind == Peer::Kind::unix_socket;
    case Kind::uid:
      return peer.uid == number;
    case Kind::gid:
      return peer.gid == number;
    case Kind::vsock:
      return peer.kind == Peer::Kind::vsock;
    case Kind::cid:
      return peer.kind == Peer::Kind::vsock && peer.cid == number;
  }
  return false;
}

bool PeerRules::admits(const Peer& peer) const noexcept {
  const auto fits = [&](const Rule& rule) { return rule.fits(peer); };
  return std::ranges::any_of(allow_, fits) || std::ranges::none_of(deny_, fits);
}

}  // namespace mkvirtfs::net
