// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"

namespace mkvirtfs::net {

/// An address of IPv4 or IPv6; IPv4 in IPv6's clothes (::ffff:a.b.c.d) is IPv4. A value.
struct IpAddress {
  /// As it stands in a packet; of IPv4 the first 4 bytes, the rest is 0.
  std::array<std::byte, 16> bytes{};
  bool is_v4 = false;

  /// Numbers only, no names; nothing when it is none.
  static std::optional<IpAddress> parse(std::string_view text);
  /// From 4 or 16 bytes.
  static IpAddress from_v4(std::span<const std::byte, 4> bytes) noexcept;
  static IpAddress from_v6(std::span<const std::byte, 16> bytes) noexcept;

  unsigned bits() const noexcept { return is_v4 ? 32 : 128; }
  /// Whether the first `prefix_bits` are those of `other`, and the family is.
  bool shares_prefix(const IpAddress& other, unsigned prefix_bits) const noexcept;
  std::string text() const;

  friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

/// The other end of a connected socket, as far as the kernel knows it. A value.
struct Peer {
  enum class Kind : std::uint8_t { ip, unix_socket, vsock, other };

  Kind kind = Kind::other;
  IpAddress ip;            ///< of Kind::ip
  std::uint32_t cid = 0;   ///< of Kind::vsock
  std::uint32_t port = 0;  ///< of these two
  /// Of Kind::unix_socket: the credentials of the process that connected, at that moment.
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<pid_t> pid;

  static Peer of_socket(int fd) noexcept;
  /// "192.0.2.7:49152", "[2001:db8::1]:49152", "user 1000 (process 4711)", "vsock context 3, port
  /// 1024", for the log.
  std::string text() const;
};

/// Says whether a client may come in; what it may not is disconnected before anything is sent.
/// Called on the server's thread and those that adopt clients.
using PeerFilter = std::function<bool(const Peer&)>;

/// Lists of rules, a filter for servers. A client that a rule of the first list fits is let in;
/// else, one that a rule of the second fits is not; all others are. So to let in some alone, let
/// the second list be "any". Immutable.
///
/// A rule is one of
///
///     any                       all
///     192.0.2.7, 2001:db8::1    this address
///     192.0.2.0/24, fe80::/10   addresses that begin with so many of its bits
///     ipv4, ipv6                all that come by that protocol
///     unix                      all that come by a Unix socket
///     unix:uid=N, unix:gid=N    with this effective user or group id
///     unix:user=NAME            the same, of this user
///     vsock, vsock:cid=N        all that come by a vsock, or from that context
class PeerRules {
 public:
  /// Errc::usage for what is no rule.
  static Result<PeerRules> parse(std::span<const std::string> allow,
                                 std::span<const std::string> deny);

  bool admits(const Peer& peer) const noexcept;

 private:
  struct Rule {
    enum class Kind : std::uint8_t { any, network, ipv4, ipv6, unix_socket, uid, gid, vsock, cid };
    Kind kind = Kind::any;
    IpAddress network;
    unsigned prefix_bits = 0;
    std::uint32_t number = 0;  // a uid, gid or cid

    bool fits(const Peer& peer) const noexcept;
  };

  static Result<Rule> parse_rule(const std::string& text);

  std::vector<Rule> allow_;
  std::vector<Rule> deny_;
};

}  // namespace mkvirtfs::net
