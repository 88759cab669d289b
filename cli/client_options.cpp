// SPDX-License-Identifier: BSD-3-Clause
#include "cli/client_options.h"

#include <fmt/format.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>

#include "nbd/server/feature_set.h"
#include "net/peer.h"
#include "support/parse_number.h"

namespace mkvirtfs::cli {

void ClientOptions::add_to(OptionSet& options, const char* group) {
  options.add_value("--max-conn", max_connections_, "N", "Refuse more than N clients (1024)")
      .group(group);
  options
      .add_values("--allow", allow_, "RULE,...",
                  "Allow clients that match a rule: any, ipv4,\nipv6, ADDRESS[/BITS], unix, "
                  "unix:uid=N, ...")
      .split_at(',')
      .one_value_each()
      .group(group);
  options.add_values("--deny", deny_, "RULE,...", "Refuse other clients that match a rule")
      .split_at(',')
      .one_value_each()
      .group(group);
  options
      .add_value("--timeout", timeout_, "SECONDS",
                 "Disconnect clients whose handshake takes longer\n(10; 0: no limit)")
      .group(group);
  options
      .add_value("--list-max", most_names_listed_, "N", "List at most N exports to a client (1000)")
      .group(group);
  options
      .add_values("--no", masked_, "FEATURE,...",
                  "Turn off features of the protocol, to test\nclients: multi-conn, df, ...")
      .split_at(',')
      .one_value_each()
      .group(group);
}

Result<void> ClientOptions::apply(nbd::ServerOptions& options) const {
  if (!max_connections_.empty()) {
    const auto count = parse_number<std::size_t>(max_connections_);
    if (!count || *count == 0) {
      return fail(Errc::usage,
                  fmt::format("--max-conn={} is not a number above 0", max_connections_));
    }
    options.most_connections = *count;
  }
  if (!timeout_.empty()) {
    const auto seconds = parse_number<unsigned>(timeout_);
    if (!seconds || *seconds > 1'000'000) {
      return fail(Errc::usage,
                  fmt::format("--timeout={} is not a number of seconds up to 1000000", timeout_));
    }
    options.handshake_timeout = std::chrono::seconds(*seconds);
  }
  if (!most_names_listed_.empty()) {
    constexpr std::size_t kMost = 1'000'000;
    const auto count = parse_number<std::size_t>(most_names_listed_);
    if (!count || *count == 0 || *count > kMost) {
      return fail(Errc::usage, fmt::format("--list-max={} is not a number from 1 to {}",
                                           most_names_listed_, kMost));
    }
    options.most_names_listed = *count;
  }
  if (!allow_.empty() && deny_.empty()) {
    return fail(Errc::usage, "--allow alone refuses nobody (add --deny=any)");
  }
  if (!deny_.empty()) {
    Result<net::PeerRules> rules = net::PeerRules::parse(allow_, deny_);
    if (!rules) return propagate("--allow, --deny", rules);
    options.admits = [rules = std::move(*rules)](const net::Peer& peer) {
      return rules.admits(peer);
    };
  }
  for (const std::string& name : masked_) {
    Result<nbd::Feature> feature = nbd::parse_feature(name);
    if (!feature) return propagate("--no", feature);
    options.features.remove(*feature);
  }
  return {};
}

}  // namespace mkvirtfs::cli
