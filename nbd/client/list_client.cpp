// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/client/list_client.h"

#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>
#include <utility>

#include "nbd/wire/codec.h"
#include "nbd/wire/hier.h"

namespace mkvirtfs::nbd {
namespace {

using Clock = std::chrono::steady_clock;

/// No reply that we ask for is longer: a name, a description, and what stands around them.
constexpr std::uint32_t kLongestReply = 2 * kLongestString + 64;
/// So many entries are asked for at a time: a walk keeps one page for each level it is in.
constexpr std::uint32_t kPageEntries = 256;
/// A server may answer a query of contexts with as many as it likes, so there we set the limit.
constexpr std::size_t kMostContexts = 8192;
/// Of the flat list, which is kept as a whole.
constexpr std::size_t kMostFlatBytes = 64U << 20;
constexpr std::size_t kDeepest = 256;

std::span<const std::byte> as_bytes(std::string_view text) noexcept {
  return std::as_bytes(std::span(text));
}

std::string as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::unexpected<Error> broken(std::string_view what) {
  return fail(Errc::bad_peer, fmt::format("the server breaks the protocol: {}", what));
}

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

/// Waits until a socket that is connecting is connected.
Result<void> finish_connect(int fd, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return fail_errno(Errc::io, ETIMEDOUT, "connect");
    pollfd waited{fd, POLLOUT, 0};
    const int ready = ::poll(&waited, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000)));
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (ready <= 0) continue;
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return fail_errno(Errc::io, error, "connect");
    return {};
  }
}

Result<UniqueFd> connect_socket(int family, const sockaddr* address, socklen_t length,
                                Clock::time_point deadline) {
  UniqueFd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "make a socket");
  if (::connect(socket.get(), address, length) != 0) {
    if (errno != EINPROGRESS) return fail_errno(Errc::io, errno, "connect");
    if (Result<void> done = finish_connect(socket.get(), deadline); !done) {
      return propagate(done);
    }
  }
  return socket;
}

/// The last component of an entry's name; nullopt when the entry can not lie in `directory`.
std::optional<std::string_view> component_in(std::string_view directory, std::string_view name) {
  if (!is_valid_export_name(name)) return std::nullopt;
  if (!directory.empty()) {
    if (!name.starts_with(directory) || name.size() < directory.size() + 2 ||
        name[directory.size()] != '/') {
      return std::nullopt;
    }
    name.remove_prefix(directory.size() + 1);
  }
  return name.find('/') == std::string_view::npos ? std::optional(name) : std::nullopt;
}

/// Orders full names as a walk does; also those that are no paths.
bool walks_before(const ExportEntry& a, const ExportEntry& b) {
  const auto rank = [](char c) { return c == '/' ? 0U : static_cast<unsigned char>(c) + 1U; };
  return std::ranges::lexicographical_compare(
      a.name, b.name, [&](char left, char right) { return rank(left) < rank(right); });
}

}  // namespace

Result<ServerAddress> parse_uri(std::string_view uri) {
  const auto wrong = [&](std::string_view why) {
    return fail(Errc::usage, fmt::format("{}: {} (nbd://HOST:PORT/NAME, "
                                         "nbd+unix:///NAME?socket=PATH)",
                                         uri, why));
  };
  const std::size_t colon = uri.find("://");
  if (colon == std::string_view::npos) return wrong("this is no URI");
  const std::string_view scheme = uri.substr(0, colon);
  const bool has_tls = scheme.starts_with("nbds");
  const std::string_view transport =
      scheme.substr(std::min<std::size_t>(has_tls ? 4 : 3, scheme.size()));
  if (!scheme.starts_with("nbd") || (!transport.empty() && transport != "+unix")) {
    return wrong("this is no URI of NBD");
  }
  std::string_view rest = uri.substr(colon + 3);
  std::string_view query;
  if (const std::size_t mark = rest.find('?'); mark != std::string_view::npos) {
    query = rest.substr(mark + 1);
    rest = rest.substr(0, mark);
  }
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view authority = rest.substr(0, slash);
  ServerAddress server;
  if (has_tls) {
    server.tls = tls_files_in(query);
    if (!server.tls) return wrong("what it says about TLS is malformed");
  }
  if (const std::size_t at = authority.find('@'); at != std::string_view::npos) {
    const auto user = percent_decoded(authority.substr(0, at));
    if (!user || user->find('\0') != std::string::npos) return wrong("the user is malformed");
    // Of use to TLS alone.
    if (server.tls) server.tls->user = *user;
    authority.remove_prefix(at + 1);
  }
  const auto name = percent_decoded(rest.substr(std::min(slash + 1, rest.size())));
  if (!name || !is_request_string(*name)) return wrong("the name is malformed");
  server.name = *name;
  if (!transport.empty()) {
    const auto socket = parameter_in(query, "socket");
    if (!authority.empty()) return wrong("a Unix socket has no host");
    if (!socket || socket->empty()) return wrong("there is no socket=PATH");
    if (socket->size() >= sizeof sockaddr_un::sun_path || socket->find('\0') != std::string::npos) {
      return wrong("the socket's path is too long");
    }
    server.unix_socket = *socket;
    return server;
  }
  std::string_view port;
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos) return wrong("the host is malformed");
    server.host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
  } else {
    const std::size_t at = std::min(authority.find(':'), authority.size());
    const auto host = percent_decoded(authority.substr(0, at));
    if (!host) return wrong("the host is malformed");
    server.host = *host;
    port = authority.substr(at);
  }
  if (server.host.find('\0') != std::string::npos) return wrong("the host is malformed");
  if (server.host.empty()) return wrong("there is no host");
  if (server.tls && server.tls->server_name.empty()) server.tls->server_name = server.host;
  if (!port.empty()) {
    const char* const last = port.data() + port.size();
    const auto [end, error] = std::from_chars(port.data() + 1, last, server.port);
    if (port.front() != ':' || error != std::errc() || end != last) {
      return wrong("the port is malformed");
    }
  }
  return server;
}

Result<UniqueFd> connect_to(const ServerAddress& server, std::chrono::milliseconds patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  if (!server.unix_socket.empty()) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, server.unix_socket.data(),
                std::min(server.unix_socket.size(), sizeof address.sun_path - 1));
    auto socket = connect_socket(AF_UNIX, reinterpret_cast<const sockaddr*>(&address),
                                 sizeof address, deadline);
    if (!socket) socket.error().what = server.unix_socket + ": " + socket.error().what;
    return socket;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(server.port);
  const int status = ::getaddrinfo(server.host.c_str(), port.c_str(), &hints, &found);
  if (status != 0) {
    return fail(Errc::io, fmt::format("{}: {}", server.host, ::gai_strerror(status)));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  Result<UniqueFd> socket = fail(Errc::io, "no address");
  for (const addrinfo* address = found; address != nullptr && !socket; address = address->ai_next) {
    socket = connect_socket(address->ai_family, address->ai_addr, address->ai_addrlen, deadline);
  }
  if (!socket) {
    socket.error().what =
        fmt::format("{} port {}: {}", server.host, server.port, socket.error().what);
  }
  return socket;
}

// --- One connection ----------------------------------------------------------------------------

Result<HandshakeClient> HandshakeClient::start(
    UniqueFd connected, std::chrono::milliseconds patience,
    std::shared_ptr<const net::TlsCredentials> credentials) {
  HandshakeClient client(std::move(connected), patience);
  const Deadline deadline = Clock::now() + patience;
  std::array<std::byte, kGreetingBytes> greeting{};
  if (auto done = client.receive(greeting, deadline); !done) {
    return propagate(done);
  }
  if (load_be<std::uint64_t>(greeting) != kServerMagic) {
    return fail(Errc::bad_peer, "this is not an NBD server");
  }
  const auto flags = load_be<std::uint16_t>(greeting, 16);
  if (load_be<std::uint64_t>(greeting, 8) != kOptionMagic || (flags & kFixedNewstyle) == 0) {
    return fail(Errc::bad_peer, "the server is too old to list its exports");
  }
  const auto answer = pack(std::uint32_t{kFixedNewstyle});
  if (auto done = client.send(answer, deadline); !done) {
    return propagate(done);
  }
  if (credentials != nullptr) {
    if (auto done = client.start_tls(std::move(credentials), deadline); !done) {
      return propagate(done);
    }
  }
  return client;
}

Result<void> HandshakeClient::start_tls(std::shared_ptr<const net::TlsCredentials> credentials,
                                        Deadline deadline) {
  const auto unexpected_reply = [](OptionReply, std::span<const std::byte>) -> Result<void> {
    return broken("an answer to STARTTLS that is none");
  };
  const Result<Verdict> verdict = ask(Option::starttls, {}, unexpected_reply);
  if (!verdict) return propagate(verdict);
  if (*verdict) {
    return fail(Errc::bad_peer,
                fmt::format("the server has no TLS{}{}", (*verdict)->text.empty() ? "" : ": ",
                            (*verdict)->text));
  }
  tls_ = std::make_unique<net::TlsChannel>(std::move(credentials));
  while (true) {
    const Result<std::size_t> plain = turn_tls({}, deadline);
    if (!plain) return propagate(plain);
    if (tls_->handshake_done()) return {};
    std::array<std::byte, 4096> room{};
    const Result<std::size_t> count = receive_raw(room, deadline);
    if (!count) return propagate(count);
    cipher_.insert(cipher_.end(), room.begin(), room.begin() + static_cast<std::ptrdiff_t>(*count));
  }
}

Result<HandshakeClient::Verdict> HandshakeClient::ask(
    Option option, std::span<const std::byte> data,
    const std::function<Result<void>(OptionReply, std::span<const std::byte>)>& visit) {
  const Deadline deadline = Clock::now() + patience_;
  std::vector<std::byte> message;
  const auto header = encode_option_header({option, static_cast<std::uint32_t>(data.size())});
  message.insert(message.end(), header.begin(), header.end());
  message.insert(message.end(), data.begin(), data.end());
  if (auto done = send(message, deadline); !done) return propagate(done);
  std::vector<std::byte> body;
  while (true) {
    std::array<std::byte, kOptionReplyHeaderBytes> head{};
    if (auto done = receive(head, deadline); !done) return propagate(done);
    const auto reply = OptionReply{load_be<std::uint32_t>(head, 12)};
    const auto length = load_be<std::uint32_t>(head, 16);
    if (load_be<std::uint64_t>(head) != kOptionReplyMagic ||
        Option{load_be<std::uint32_t>(head, 8)} != option) {
      return broken("an answer to nothing that was asked");
    }
    if (length > kLongestReply) return broken("a reply is longer than it may be");
    body.resize(length);
    if (auto done = receive(body, deadline); !done) return propagate(done);
    if (reply == OptionReply::ack) {
      if (length != 0) return broken("an ACK with data");
      return std::nullopt;
    }
    if (std::to_underlying(reply) >> 31 != 0) return OptionRefusal{reply, as_text(body)};
    if (auto done = visit(reply, body); !done) return propagate(done);
  }
}

void HandshakeClient::abort() noexcept {
  const auto message = encode_option_header({Option::abort, 0});
  std::span<const std::byte> bytes = message;
  if (tls_ != nullptr) {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    if (tls_->write({&part, 1}) == 0) return;
    tls_->close();
    bytes = tls_->cipher_out();
  }
  [[maybe_unused]] const ssize_t sent =
      ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

Result<void> HandshakeClient::send(std::span<const std::byte> bytes, Deadline deadline) {
  if (tls_ == nullptr) return send_raw(bytes, deadline);
  while (!bytes.empty()) {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    const std::size_t taken = tls_->write({&part, 1});
    if (taken == 0) return fail(Errc::io, tls_->failure());
    bytes = bytes.subspan(taken);
    if (auto done = send_raw(tls_->cipher_out(), deadline); !done) {
      // A server that hung up may have said why: in TLS 1.3 it judges when we think that all is
      // well.
      tls_->sent(tls_->cipher_out().size());
      std::array<std::byte, 4096> room{};
      while (receive(room, deadline)) {
      }
      return tls_->failed() ? fail(Errc::bad_peer, tls_->failure()) : done;
    }
    tls_->sent(tls_->cipher_out().size());
  }
  return {};
}

Result<void> HandshakeClient::send_raw(std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const ssize_t count =
        ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      if (auto ready = wait_for(POLLOUT, deadline); !ready) return ready;
    } else if (errno != EINTR) {
      return fail_errno(Errc::io, errno, "send to the server");
    }
  }
  return {};
}

Result<void> HandshakeClient::receive(std::span<std::byte> room, Deadline deadline) {
  while (!room.empty()) {
    Result<std::size_t> count =
        tls_ == nullptr ? receive_raw(room, deadline) : turn_tls(room, deadline);
    if (count && tls_ != nullptr && *count == 0) {
      std::array<std::byte, 4096> cipher{};
      const Result<std::size_t> more = receive_raw(cipher, deadline);
      if (!more) return propagate(more);
      cipher_.insert(cipher_.end(), cipher.begin(),
                     cipher.begin() + static_cast<std::ptrdiff_t>(*more));
      continue;
    }
    if (!count) return propagate(count);
    room = room.subspan(*count);
  }
  return {};
}

Result<std::size_t> HandshakeClient::turn_tls(std::span<std::byte> room, Deadline deadline) {
  const net::TlsChannel::Moved moved = tls_->receive(cipher_, room);
  cipher_.erase(cipher_.begin(), cipher_.begin() + static_cast<std::ptrdiff_t>(moved.cipher_bytes));
  // A failed channel has an alert for the server: whether that arrives is another matter.
  Result<void> sent = send_raw(tls_->cipher_out(), deadline);
  if (sent) tls_->sent(tls_->cipher_out().size());
  if (tls_->failed()) return fail(Errc::bad_peer, tls_->failure());
  if (!sent) return propagate(sent);
  if (moved.plain_bytes == 0 && tls_->closed_by_peer()) {
    return fail(Errc::io, "the server closed the connection");
  }
  return moved.plain_bytes;
}

Result<std::size_t> HandshakeClient::receive_raw(std::span<std::byte> room, Deadline deadline) {
  while (true) {
    const ssize_t count = ::recv(socket_.get(), room.data(), room.size(), MSG_DONTWAIT);
    if (count > 0) return static_cast<std::size_t>(count);
    if (count == 0) return fail(Errc::io, "the server closed the connection");
    if (errno == EAGAIN) {
      if (auto ready = wait_for(POLLIN, deadline); !ready) {
        return propagate(ready);
      }
    } else if (errno != EINTR) {
      return fail_errno(Errc::io, errno, "receive from the server");
    }
  }
}

Result<void> HandshakeClient::wait_for(short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return fail(Errc::io, "the server takes too long to answer");
    pollfd waited{socket_.get(), events, 0};
    const int ready = ::poll(&waited, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
  }
}

// --- Listing -----------------------------------------------------------------------------------

/// Gathers the entries of one page, and checks what the specification promises of them.
class ExportLister::PageMaker {
 public:
  PageMaker(const std::string& directory, std::size_t most) : directory_(directory), most_(most) {}

  Result<void> add_export(std::string name, std::string description) {
    if (auto good = check(name); !good) return good;
    page_.entries.push_back({std::move(name), std::move(description), true, false, std::nullopt});
    return {};
  }
  Result<void> add_directory(std::string name, std::string description) {
    if (!page_.entries.empty() && page_.entries.back().name == name) {
      if (page_.entries.back().is_directory) return broken("an entry was told twice");
      page_.entries.back().is_directory = true;
      return {};
    }
    if (auto good = check(name); !good) return good;
    page_.entries.push_back({std::move(name), std::move(description), false, true, std::nullopt});
    return {};
  }
  Result<void> set_next(std::string cursor) {
    if (page_.entries.empty() || !page_.next.empty() || cursor.empty() ||
        cursor.size() > kLongestString) {
      return broken("a page that does not end as it should");
    }
    page_.next = std::move(cursor);
    return {};
  }
  Page take() { return std::move(page_); }

 private:
  Result<void> check(std::string_view name) const {
    const auto component = component_in(directory_, name);
    if (!component) {
      return broken(
          fmt::format("\"{}\" cannot be in the directory \"{}\"", name.substr(0, 80), directory_));
    }
    if (!page_.next.empty()) return broken("an entry behind the end of its page");
    if (page_.entries.size() >= most_) return broken("more entries than were asked for");
    if (!page_.entries.empty() && page_.entries.back().name >= name) {
      return broken("the entries are not in order");
    }
    return {};
  }

  const std::string& directory_;
  const std::size_t most_;
  Page page_;
};

ExportLister::ExportLister(Connect connect, std::chrono::milliseconds patience,
                           std::shared_ptr<const net::TlsCredentials> credentials)
    : connect_(std::move(connect)), patience_(patience), credentials_(std::move(credentials)) {}

ExportLister::~ExportLister() {
  if (client_) client_->abort();
}

Result<HandshakeClient::Verdict> ExportLister::ask(
    Option option, std::span<const std::byte> data,
    const std::function<Result<void>(OptionReply, std::span<const std::byte>)>& visit) {
  bool visited = false;
  const auto seen = [&](OptionReply reply, std::span<const std::byte> body) {
    visited = true;
    return visit(reply, body);
  };
  while (true) {
    const bool fresh = !client_.has_value();
    if (fresh) {
      Result<UniqueFd> socket = connect_();
      if (!socket) return propagate(socket);
      Result<HandshakeClient> client =
          HandshakeClient::start(*std::move(socket), patience_, credentials_);
      if (!client) return propagate(client);
      client_.emplace(*std::move(client));
    }
    Result<HandshakeClient::Verdict> verdict = client_->ask(option, data, seen);
    if (verdict) return verdict;
    client_.reset();
    // Servers limit what one connection may ask: when an old one ends, a new one may go on.
    if (fresh || visited || verdict.error().code != Errc::io) return verdict;
  }
}

Result<std::optional<ExportLister::Page>> ExportLister::page_by_option(const std::string& directory,
                                                                       const std::string& cursor) {
  std::vector<std::byte> data;
  const auto put = [&](std::span<const std::byte> bytes) {
    data.insert(data.end(), bytes.begin(), bytes.end());
  };
  put(pack(std::uint16_t{0}, std::uint16_t{0}, kPageEntries,
           static_cast<std::uint32_t>(directory.size())));
  put(as_bytes(directory));
  put(pack(static_cast<std::uint32_t>(cursor.size())));
  put(as_bytes(cursor));

  PageMaker maker(directory, kPageEntries);
  const auto take = [&](OptionReply reply, std::span<const std::byte> body) -> Result<void> {
    if (reply == kHierMore) return maker.set_next(as_text(body));
    if (reply != OptionReply::server && reply != kServerDir) return broken("an unknown reply");
    const std::size_t fixed_bytes = reply == kServerDir ? 12 : 4;
    if (body.size() < fixed_bytes) return broken("a reply is too short");
    const std::size_t name_bytes = load_be<std::uint32_t>(body);
    if (name_bytes > body.size() - fixed_bytes) return broken("a name is longer than its reply");
    std::string name = as_text(body.subspan(4, name_bytes));
    std::string description = as_text(body.subspan(fixed_bytes + name_bytes));
    return reply == kServerDir ? maker.add_directory(std::move(name), std::move(description))
                               : maker.add_export(std::move(name), std::move(description));
  };
  auto verdict = ask(kListHier, data, take);
  if (!verdict) return propagate(verdict);
  if (!*verdict) return maker.take();
  if ((*verdict)->error == OptionReply::err_unsup) return std::nullopt;
  return fail(Errc::io, (*verdict)->text.empty()
                            ? fmt::format("the server does not list \"{}\"", directory)
                            : (*verdict)->text);
}

Result<std::optional<ExportLister::Page>> ExportLister::page_by_contexts(
    const std::string& directory, const std::string& cursor) {
  const std::string query =
      cursor.empty() ? std::string(kListQuery) + directory : std::string(kListAfterQuery) + cursor;
  std::vector<std::byte> data;
  const auto put = [&](std::span<const std::byte> bytes) {
    data.insert(data.end(), bytes.begin(), bytes.end());
  };
  put(pack(std::uint32_t{0}, std::uint32_t{1}, static_cast<std::uint32_t>(query.size())));
  put(as_bytes(query));

  bool any = false;
  PageMaker maker(directory, kMostContexts);
  const auto take = [&](OptionReply reply, std::span<const std::byte> body) -> Result<void> {
    if (reply != OptionReply::meta_context || body.size() < 4) return broken("an unknown reply");
    const std::string name = as_text(body.subspan(4));
    const auto starts = [&](std::string_view prefix) { return name.starts_with(prefix); };
    any = any || starts(std::string(kListNamespace) + ':');
    if (starts(kListedExport)) return maker.add_export(name.substr(kListedExport.size()), {});
    if (starts(kListedDirectory)) {
      return maker.add_directory(name.substr(kListedDirectory.size()), {});
    }
    if (starts(kListedMore)) return maker.set_next(name.substr(kListedMore.size()));
    return {};  // a context of another kind: not ours to judge
  };
  auto verdict = ask(Option::list_meta_context, data, take);
  if (!verdict) return propagate(verdict);
  if (*verdict || (way_ == Way::unknown && !any)) return std::nullopt;
  return maker.take();
}

Result<ExportLister::Page> ExportLister::page(const std::string& directory,
                                              const std::string& cursor) {
  auto found =
      way_ == Way::option ? page_by_option(directory, cursor) : page_by_contexts(directory, cursor);
  if (!found) return propagate(found);
  if (!*found) return fail(Errc::io, "the server no longer lists its exports");
  // An empty page says of the contexts that there is no such directory.
  if (way_ == Way::contexts && cursor.empty() && (*found)->entries.empty()) {
    return fail(Errc::io, fmt::format("there is no directory \"{}\" of exports", directory));
  }
  return **std::move(found);
}

Result<void> ExportLister::list(const std::string& directory, bool recursive, const Visit& visit) {
  if (way_ == Way::unknown) {
    auto by_option = page_by_option("", "");
    if (!by_option) return propagate(by_option);
    if (*by_option) {
      way_ = Way::option;
    } else {
      auto by_contexts = page_by_contexts("", "");
      if (!by_contexts) return propagate(by_contexts);
      way_ = *by_contexts ? Way::contexts : Way::flat;
    }
  }
  if (way_ == Way::flat) return list_flat(directory, recursive, visit);
  if (!is_valid_export_name(directory)) {
    return fail(Errc::usage, fmt::format("\"{}\" cannot be a directory of exports", directory));
  }
  return walk(directory, recursive, 0, visit);
}

Result<void> ExportLister::walk(const std::string& directory, bool recursive, std::size_t depth,
                                const Visit& visit) {
  if (depth > kDeepest) {
    return fail(Errc::unsupported, fmt::format("{} levels are too many to walk", depth));
  }
  std::string cursor;
  std::optional<std::string> last;
  do {
    Result<Page> level = page(directory, cursor);
    if (!level) return propagate(level);
    // Names ascend over pages, too: that is what makes the walk end.
    if (last && !level->entries.empty() && level->entries.front().name <= *last) {
      return broken("the entries are not in order");
    }
    for (ExportEntry& entry : level->entries) {
      if (auto done = visit(entry); !done) return done;
      if (recursive && entry.is_directory) {
        if (auto done = walk(entry.name, true, depth + 1, visit); !done) return done;
      }
      last = std::move(entry.name);
    }
    cursor = std::move(level->next);
  } while (!cursor.empty());
  return {};
}

Result<void> ExportLister::list_flat(const std::string& directory, bool recursive,
                                     const Visit& visit) {
  std::vector<ExportEntry> all;
  std::size_t bytes = 0;
  const auto take = [&](OptionReply reply, std::span<const std::byte> body) -> Result<void> {
    if (reply != OptionReply::server || body.size() < 4) return broken("an unknown reply");
    const std::size_t name_bytes = load_be<std::uint32_t>(body);
    if (name_bytes > body.size() - 4) return broken("a name is longer than its reply");
    all.push_back({as_text(body.subspan(4, name_bytes)), as_text(body.subspan(4 + name_bytes)),
                   true, false, std::nullopt});
    bytes += body.size() + sizeof(ExportEntry);
    if (bytes > kMostFlatBytes) return fail(Errc::unsupported, "the list of exports has no end");
    return {};
  };
  auto verdict = ask(Option::list, {}, take);
  if (!verdict) return propagate(verdict);
  if (*verdict) {
    return fail(Errc::io,
                fmt::format("the server does not list its exports: {}",
                            (*verdict)->text.empty() ? "it gives no reason" : (*verdict)->text));
  }
  std::ranges::sort(all, walks_before);

  const std::string prefix = directory.empty() ? "" : directory + '/';
  bool any = directory.empty();
  std::string last;  // the entry that was visited last
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string& name = all[i].name;
    if (!name.starts_with(prefix)) continue;
    any = true;
    if (i > 0 && all[i - 1].name == name) continue;
    if (!is_valid_export_name(name)) {
      // No path, so it is in no directory but the root.
      if (prefix.empty()) {
        if (auto done = visit(all[i]); !done) return done;
      }
      continue;
    }
    // First the directories on the way that were not told yet, then the export.
    for (std::size_t slash = name.find('/', prefix.size()); slash != std::string::npos;
         slash = name.find('/', slash + 1)) {
      const std::string above = name.substr(0, slash);
      const bool is_told = last == above || last.starts_with(above + '/');
      if (!is_told) {
        if (auto done = visit({above, {}, false, true, std::nullopt}); !done) return done;
        last = above;
      }
      if (!recursive) break;
    }
    const bool is_direct = name.find('/', prefix.size()) == std::string::npos;
    if (!recursive && !is_direct) continue;
    std::size_t next = i + 1;
    while (next < all.size() && all[next].name == name) ++next;
    all[i].is_directory = next < all.size() && !name.empty() &&
                          all[next].name.starts_with(name + '/') &&
                          is_valid_export_name(all[next].name);
    if (auto done = visit(all[i]); !done) return done;
    last = name;
  }
  if (!any) {
    return fail(Errc::io, fmt::format("there is no directory \"{}\" of exports", directory));
  }
  return {};
}

}  // namespace mkvirtfs::nbd
