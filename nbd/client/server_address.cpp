// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/client/server_address.h"

#include <fmt/format.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <system_error>

#include "nbd/wire/codec.h"

namespace mkvirtfs::nbd {

namespace {

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    unsigned value = 0;
    if (text.size() - i < 3) return std::nullopt;
    const auto [end, error] = std::from_chars(&text[i + 1], &text[i + 1] + 2, value, 16);
    if (error != std::errc() || end != &text[i + 1] + 2) return std::nullopt;
    decoded += static_cast<char>(value);
    i += 2;
  }
  return decoded;
}

/// The value of a parameter in a URI's query, decoded.
std::optional<std::string> parameter_in(std::string_view query, std::string_view key) {
  while (!query.empty()) {
    const std::size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    if (pair.starts_with(key) && pair.substr(key.size()).starts_with('=')) {
      return percent_decoded(pair.substr(key.size() + 1));
    }
    query = end == std::string_view::npos ? "" : query.substr(end + 1);
  }
  return std::nullopt;
}

/// What a URI says about TLS, but for the user before its host.
std::optional<net::TlsClientFiles> tls_files_in(std::string_view query) {
  net::TlsClientFiles files;
  const auto set = [&](std::string& value, std::string_view key) {
    value = parameter_in(query, key).value_or("");
    return value.find('\0') == std::string::npos;
  };
  if (!set(files.certificates_directory, "tls-certificates") ||
      !set(files.psk_file, "tls-psk-file") || !set(files.user, "tls-username") ||
      !set(files.server_name, "tls-hostname")) {
    return std::nullopt;
  }
  const std::string verify = parameter_in(query, "tls-verify-peer").value_or("1");
  files.verify_peer = verify == "1" || verify == "true";
  if (!files.verify_peer && verify != "0" && verify != "false") return std::nullopt;
  return files;
}

/// The parts of a URI, still encoded.
struct UriParts {
  std::string_view scheme;
  std::string_view user;  ///< what stands before the '@', of which `has_user` says that it is there
  bool has_user = false;
  std::string_view authority;  ///< without the user
  std::string_view path;       ///< without its first slash
  std::string_view query;
};

/// Nothing when it is no URI.
std::optional<UriParts> split_uri(std::string_view uri) {
  const std::size_t colon = uri.find("://");
  if (colon == std::string_view::npos) return std::nullopt;
  UriParts parts;
  parts.scheme = uri.substr(0, colon);
  std::string_view rest = uri.substr(colon + 3);
  if (const std::size_t mark = rest.find('?'); mark != std::string_view::npos) {
    parts.query = rest.substr(mark + 1);
    rest = rest.substr(0, mark);
  }
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  parts.authority = rest.substr(0, slash);
  parts.path = rest.substr(std::min(slash + 1, rest.size()));
  if (const std::size_t at = parts.authority.find('@'); at != std::string_view::npos) {
    parts.has_user = true;
    parts.user = parts.authority.substr(0, at);
    parts.authority.remove_prefix(at + 1);
  }
  return parts;
}

// What follows fills a part of the address; the text says what is wrong with the URI, "" nothing.

std::string_view set_socket(const UriParts& parts, ServerAddress& server) {
  const auto socket = parameter_in(parts.query, "socket");
  if (!parts.authority.empty()) return "a Unix socket has no host";
  if (!socket || socket->empty()) return "there is no socket=PATH";
  if (socket->size() >= sizeof sockaddr_un::sun_path || socket->find('\0') != std::string::npos) {
    return "the socket's path is too long";
  }
  server.unix_socket = *socket;
  return {};
}

std::string_view set_port(std::string_view text, ServerAddress& server) {
  if (text.empty()) return {};
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data() + 1, last, server.port);
  const bool good = text.front() == ':' && error == std::errc() && end == last;
  return good ? "" : "the port is malformed";
}

std::string_view set_host_and_port(std::string_view authority, ServerAddress& server) {
  constexpr std::string_view kMalformed = "the host is malformed";
  std::string_view port;
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos) return kMalformed;
    server.host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
  } else {
    const std::size_t at = std::min(authority.find(':'), authority.size());
    const auto host = percent_decoded(authority.substr(0, at));
    if (!host) return kMalformed;
    server.host = *host;
    port = authority.substr(at);
  }
  if (server.host.find('\0') != std::string::npos) return kMalformed;
  if (server.host.empty()) return "there is no host";
  return set_port(port, server);
}

std::string_view set_tls(const UriParts& parts, ServerAddress& server) {
  server.tls = tls_files_in(parts.query);
  if (!server.tls) return "what it says about TLS is malformed";
  return {};
}

/// Of use to TLS alone.
std::string_view set_user(const UriParts& parts, ServerAddress& server) {
  if (!parts.has_user) return {};
  const auto user = percent_decoded(parts.user);
  if (!user || user->find('\0') != std::string::npos) return "the user is malformed";
  if (server.tls) server.tls->user = *user;
  return {};
}

std::string_view set_name(const UriParts& parts, ServerAddress& server) {
  const auto name = percent_decoded(parts.path);
  if (!name || !is_request_string(*name)) return "the name is malformed";
  server.name = *name;
  return {};
}

std::string_view set_all(const UriParts& parts, ServerAddress& server) {
  if (!parts.scheme.starts_with("nbd")) return "this is no URI of NBD";
  const bool has_tls = parts.scheme.starts_with("nbds");
  const std::string_view transport = parts.scheme.substr(has_tls ? 4 : 3);
  if (!transport.empty() && transport != "+unix") return "this is no URI of NBD";
  std::string_view wrong = has_tls ? set_tls(parts, server) : "";
  if (wrong.empty()) wrong = set_user(parts, server);
  if (wrong.empty()) wrong = set_name(parts, server);
  if (!wrong.empty()) return wrong;
  if (!transport.empty()) return set_socket(parts, server);
  wrong = set_host_and_port(parts.authority, server);
  if (server.tls && server.tls->server_name.empty()) server.tls->server_name = server.host;
  return wrong;
}

}  // namespace

Result<ServerAddress> parse_uri(std::string_view uri) {
  const std::optional<UriParts> parts = split_uri(uri);
  ServerAddress server;
  const std::string_view wrong = parts ? set_all(*parts, server) : "this is no URI";
  if (wrong.empty()) return server;
  return fail(Errc::usage, fmt::format("{}: {} (nbd://HOST:PORT/NAME, "
                                       "nbd+unix:///NAME?socket=PATH)",
                                       uri, wrong));
}

}  // namespace mkvirtfs::nbd
