// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/server.h"

#include <cassert>
#include <chrono>
#include <memory>
#include <utility>

#include "nbd/server/served_connection.h"
#include "nbd/server/statistics_keeper.h"
#include "nbd/server/uri.h"
#include "net/listener.h"
#include "net/server_loop.h"

namespace mkvirtfs::nbd {
namespace {

net::ServerLoopOptions loop_options(const ServerOptions& options) {
  net::ServerLoopOptions result;
  result.most_connections = options.most_connections;
  result.descriptor_reserve = options.descriptor_reserve;
  result.admits = options.admits;
  result.stop_grace = options.stop_grace;
  result.stop_after_last = options.stop_after_last;
  result.most_connection_threads = options.most_connection_threads;
  result.most_job_threads = options.most_job_threads;
  result.log = options.log;
  return result;
}

ConnectionOptions connection_options(const ServerOptions& options) {
  ConnectionOptions result;
  result.handshake_timeout = options.handshake_timeout;
  result.most_names_listed = options.most_names_listed;
  result.tls = options.tls;
  result.tls_credentials = options.tls_credentials;
  if (options.extensions) result.extensions = options.extensions.get();
  result.features = options.features;
  return result;
}

}  // namespace

struct Server::Implementation {
  std::shared_ptr<ExportTree> exports;
  ServerOptions options;
  StatisticsKeeper statistics;
  std::unique_ptr<net::ServerLoop> loop;  // last, so that it ends first: clients use the others
};

Server::Server(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}

Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::create(std::shared_ptr<ExportTree> exports,
                                               ServerOptions options) {
  assert(exports != nullptr && options.log != nullptr);
  assert(options.tls == TlsMode::off || options.tls_credentials != nullptr);
  auto implementation = std::make_unique<Implementation>();
  Implementation& parts = *implementation;
  parts.exports = std::move(exports);
  parts.options = std::move(options);
  const auto make_client = [&parts, of_connections = connection_options(parts.options)](
                               net::ServerLoop::Arrival arrival) {
    return std::make_unique<ServedConnection>(std::move(arrival), *parts.exports, of_connections,
                                              parts.statistics, *parts.options.log);
  };
  auto loop = net::ServerLoop::create(make_client, loop_options(parts.options));
  if (!loop) return propagate(loop);
  parts.loop = *std::move(loop);
  return std::unique_ptr<Server>(new Server(std::move(implementation)));
}

Result<void> Server::listen_unix(const std::string& path) {
  Result<net::Listener> listener = net::Listener::on_unix(path);
  if (!listener) return propagate(listener);
  return implementation_->loop->add_listener(*std::move(listener));
}

Result<void> Server::listen_tcp(const std::string& host, std::uint16_t port) {
  Result<std::vector<net::Listener>> listeners = net::Listener::on_tcp(host, port);
  if (!listeners) return propagate(listeners);
  for (net::Listener& listener : *listeners) {
    if (auto added = implementation_->loop->add_listener(std::move(listener)); !added) return added;
  }
  return {};
}

Result<void> Server::listen_vsock(std::uint32_t cid, std::uint32_t port) {
  Result<net::Listener> listener = net::Listener::on_vsock(cid, port);
  if (!listener) return propagate(listener);
  return implementation_->loop->add_listener(*std::move(listener));
}

Result<void> Server::listen_on(UniqueFd socket) {
  Result<net::Listener> listener = net::Listener::on_socket(std::move(socket));
  if (!listener) return propagate(listener);
  return implementation_->loop->add_listener(*std::move(listener));
}

Result<void> Server::adopt(UniqueFd connected) {
  return implementation_->loop->adopt(std::move(connected));
}

std::vector<std::string> Server::uris(std::string_view export_name) const {
  const ServerOptions& options = implementation_->options;
  const net::TlsCredentials* const tls =
      options.tls != TlsMode::off ? options.tls_credentials.get() : nullptr;
  std::vector<std::string> result;
  for (const net::Listener& listener : implementation_->loop->listeners()) {
    std::string uri = uri_of(listener.address(), export_name, tls);
    if (!uri.empty()) result.push_back(std::move(uri));
  }
  return result;
}

std::size_t Server::connection_count() const { return implementation_->loop->counts().open; }

ServerStatistics Server::statistics() const {
  ServerStatistics result = implementation_->statistics.statistics();
  const net::ServerLoop::Counts counts = implementation_->loop->counts();
  result.connections_open = counts.open;
  result.connections_total = counts.total;
  result.connections_refused = counts.refused;
  return result;
}

Result<void> Server::run() {
  implementation_->loop->run();
  return {};
}

void Server::request_stop() noexcept { implementation_->loop->request_stop(); }

void Server::request_stop_at_once() noexcept { implementation_->loop->request_stop_at_once(); }

}  // namespace mkvirtfs::nbd
