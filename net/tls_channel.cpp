// SPDX-License-Identifier: BSD-3-Clause
#include "net/tls_channel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fmt/format.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "net/tls_gnutls.h"

namespace mkvirtfs::net {
namespace {

/// The plain bytes of one record at most, and what TLS may put around them.
constexpr std::size_t kRecordBytes = 16U << 10;
constexpr std::size_t kRecordExtraBytes = 512;
/// Whatever the library wants to say by itself (handshake, alerts, key updates): it does not get
/// beyond this without being sent.
constexpr std::size_t kMostCipherBytes = 1U << 20;

/// Bytes that wait to be sent. Its functions do not throw: GnuTLS calls them.
class CipherBuffer {
 public:
  CipherBuffer() = default;
  CipherBuffer(const CipherBuffer&) = delete;
  CipherBuffer& operator=(const CipherBuffer&) = delete;
  ~CipherBuffer() { std::free(bytes_); }

  std::span<const std::byte> bytes() const noexcept { return {bytes_ + begin_, end_ - begin_}; }

  /// False when there is no memory, or too much in it already.
  bool append(const void* from, std::size_t count) noexcept {
    if (count == 0) return true;
    if (capacity_ - end_ < count && !make_room(count)) return false;
    std::memcpy(bytes_ + end_, from, count);
    end_ += count;
    return true;
  }

  void drop(std::size_t count) noexcept {
    assert(count <= end_ - begin_);
    begin_ += count;
    if (begin_ == end_) begin_ = end_ = 0;
  }

  /// Gives the memory back if nothing waits in it.
  void shrink() noexcept {
    if (end_ != 0) return;
    std::free(bytes_);
    bytes_ = nullptr;
    capacity_ = 0;
  }

 private:
  bool make_room(std::size_t count) noexcept {
    const std::size_t used = end_ - begin_;
    if (count > kMostCipherBytes - used) return false;
    if (begin_ != 0) std::memmove(bytes_, bytes_ + begin_, used);
    begin_ = 0;
    end_ = used;
    if (capacity_ - end_ >= count) return true;
    const std::size_t larger = std::max({used + count, capacity_ * 2, std::size_t{1024}});
    void* const grown = std::realloc(bytes_, larger);
    if (grown == nullptr) return false;
    bytes_ = static_cast<std::byte*>(grown);
    capacity_ = larger;
    return true;
  }

  std::byte* bytes_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

/// Names in a ClientHello are never addresses (RFC 6066, 3).
bool is_address(const std::string& name) {
  in_addr four{};
  in6_addr six{};
  return ::inet_pton(AF_INET, name.c_str(), &four) == 1 ||
         ::inet_pton(AF_INET6, name.c_str(), &six) == 1;
}

}  // namespace

struct TlsChannel::Engine {
  explicit Engine(std::shared_ptr<const TlsCredentials> tls_credentials)
      : credentials(std::move(tls_credentials)) {}
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine() {
    if (session != nullptr) gnutls_deinit(session);
  }

  void begin();
  void shake_hands();
  std::size_t read(std::span<std::byte> room);
  bool send_record(const std::byte* bytes, std::size_t count);
  void fail(int error);
  void fail(std::string text) {
    failed = true;
    failure = std::move(text);
  }
  std::string peer_identity() const;
  std::string why_not_verified() const;
  int set_peer_checks();
  const char* peer() const noexcept {
    return credentials->loaded().is_client ? "server" : "client";
  }

  static ssize_t pull(gnutls_transport_ptr_t self, void* to, std::size_t count) noexcept;
  static int pull_timeout(gnutls_transport_ptr_t self, unsigned milliseconds) noexcept;
  static ssize_t push(gnutls_transport_ptr_t self, const giovec_t* parts, int count) noexcept;

  const std::shared_ptr<const TlsCredentials> credentials;
  gnutls_session_t session = nullptr;
  std::span<const std::byte> input;  // during a receive()
  std::size_t handshake_bytes = 0;
  CipherBuffer out;
  std::size_t record_bytes = kRecordBytes;
  bool handshake_done = false;
  bool closed_by_peer = false;
  bool closed = false;
  bool failed = false;
  std::string failure;
  // Where small pieces are gathered, so that records are full; empty between calls of write().
  std::unique_ptr<std::byte[]> staged;
  std::size_t staged_bytes = 0;
  std::array<gnutls_typed_vdata_st, 2> checks{};  // of a client, which GnuTLS looks at later
};

// --- What GnuTLS calls: nothing here may throw. --------------------------------------------------

ssize_t TlsChannel::Engine::pull(gnutls_transport_ptr_t self, void* to,
                                 std::size_t count) noexcept {
  auto& engine = *static_cast<Engine*>(self);
  if (engine.input.empty()) {
    gnutls_transport_set_errno(engine.session, EAGAIN);
    return -1;
  }
  count = std::min(count, engine.input.size());
  std::memcpy(to, engine.input.data(), count);
  engine.input = engine.input.subspan(count);
  return static_cast<ssize_t>(count);
}

int TlsChannel::Engine::pull_timeout(gnutls_transport_ptr_t self, unsigned) noexcept {
  return static_cast<Engine*>(self)->input.empty() ? 0 : 1;
}

ssize_t TlsChannel::Engine::push(gnutls_transport_ptr_t self, const giovec_t* parts,
                                 int count) noexcept {
  auto& engine = *static_cast<Engine*>(self);
  ssize_t taken = 0;
  for (int i = 0; i < count; ++i) {
    if (!engine.out.append(parts[i].iov_base, parts[i].iov_len)) {
      gnutls_transport_set_errno(engine.session, ENOMEM);
      return -1;
    }
    taken += static_cast<ssize_t>(parts[i].iov_len);
  }
  return taken;
}

// --- The engine ----------------------------------------------------------------------------------

void TlsChannel::Engine::begin() {
  const TlsCredentials::Loaded& loaded = credentials->loaded();
  // Sessions are not resumed: clients stay for long, and a ticket would outlive the wiped state.
  const unsigned side = loaded.is_client ? GNUTLS_CLIENT : GNUTLS_SERVER;
  int status = gnutls_init(&session, side | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);
  if (status == 0) status = gnutls_priority_set(session, loaded.priority);
  if (status == 0 && loaded.certificates != nullptr) {
    status = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, loaded.certificates);
  }
  if (status == 0 && loaded.psk != nullptr) {
    status = gnutls_credentials_set(session, GNUTLS_CRD_PSK, loaded.psk);
  }
  if (status == 0 && loaded.client_psk != nullptr) {
    status = gnutls_credentials_set(session, GNUTLS_CRD_PSK, loaded.client_psk);
  }
  if (status == 0) status = set_peer_checks();
  if (status != 0) {
    fail(status);
    return;
  }
  gnutls_session_set_ptr(session, const_cast<TlsCredentials::Loaded*>(&loaded));
  gnutls_handshake_set_max_packet_length(session, kLongestHandshakeBytes);
  gnutls_transport_set_ptr(session, this);
  gnutls_transport_set_pull_function(session, pull);
  gnutls_transport_set_pull_timeout_function(session, pull_timeout);
  gnutls_transport_set_vec_push_function(session, push);
}

int TlsChannel::Engine::set_peer_checks() {
  const TlsCredentials::Loaded& loaded = credentials->loaded();
  // What was issued to a server must not open the door to a client, and the other way round. GnuTLS
  // keeps the pointer, and its type has no const form.
  const auto purpose = [](const char* of) {
    return gnutls_typed_vdata_st{GNUTLS_DT_KEY_PURPOSE_OID,
                                 reinterpret_cast<unsigned char*>(const_cast<char*>(of)), 0};
  };
  if (!loaded.is_client) {
    if (!loaded.verify_peer) return 0;
    static gnutls_typed_vdata_st of_clients = purpose(GNUTLS_KP_TLS_WWW_CLIENT);
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
    gnutls_session_set_verify_cert2(session, &of_clients, 1, 0);
    return 0;
  }
  // A client with a key takes no certificate at all: nothing of what it could show is believed.
  if (!loaded.verify_peer && loaded.client_psk == nullptr) return 0;
  const std::string& name = loaded.server_name;
  checks[0] = purpose(GNUTLS_KP_TLS_WWW_SERVER);
  checks[1] = {GNUTLS_DT_DNS_HOSTNAME,
               reinterpret_cast<unsigned char*>(const_cast<char*>(name.c_str())), 0};
  gnutls_session_set_verify_cert2(session, checks.data(), name.empty() ? 1 : 2, 0);
  if (name.empty() || is_address(name)) return 0;
  return gnutls_server_name_set(session, GNUTLS_NAME_DNS, name.data(), name.size());
}

void TlsChannel::Engine::shake_hands() {
  while (true) {
    const std::size_t before = input.size();
    const int status = gnutls_handshake(session);
    handshake_bytes += before - input.size();
    if (status == 0) {
      handshake_done = true;
      record_bytes = std::min(kRecordBytes, gnutls_record_get_max_size(session));
      return;
    }
    if (gnutls_error_is_fatal(status) != 0) return fail(status);
    if (handshake_bytes > kLongestHandshakeBytes) {
      return fail(
          fmt::format("TLS: the handshake did not end within {} bytes", kLongestHandshakeBytes));
    }
    // A warning, or a message of many records: there may be more of it.
    if (input.empty() || before == input.size()) return;
  }
}

std::size_t TlsChannel::Engine::read(std::span<std::byte> room) {
  std::size_t filled = 0;
  while (filled < room.size() && !closed_by_peer) {
    const std::size_t before = input.size();
    const ssize_t status = gnutls_record_recv(session, room.data() + filled, room.size() - filled);
    if (status > 0) {
      filled += static_cast<std::size_t>(status);
    } else if (status == 0) {
      closed_by_peer = true;
    } else if (status == GNUTLS_E_REHANDSHAKE) {
      // Of no use to NBD, and work that the client could ask for again and again.
      gnutls_alert_send(session, GNUTLS_AL_FATAL, GNUTLS_A_NO_RENEGOTIATION);
      fail(fmt::format("TLS: the {} asked for another handshake", peer()));
      break;
    } else if (gnutls_error_is_fatal(static_cast<int>(status)) != 0) {
      fail(static_cast<int>(status));
      break;
    } else if (input.empty() || input.size() == before) {
      break;
    }
  }
  return filled;
}

bool TlsChannel::Engine::send_record(const std::byte* bytes, std::size_t count) {
  while (count != 0) {
    // What it takes goes into the buffer at once, so there is nothing to try again later.
    const ssize_t status = gnutls_record_send(session, bytes, count);
    if (status <= 0) {
      fail(static_cast<int>(status));
      return false;
    }
    bytes += status;
    count -= static_cast<std::size_t>(status);
  }
  return true;
}

void TlsChannel::Engine::fail(int error) {
  if (failed) return;
  if (error == GNUTLS_E_FATAL_ALERT_RECEIVED) {
    const char* const name = gnutls_alert_get_name(gnutls_alert_get(session));
    return fail(
        fmt::format("TLS: the {} refused: {}", peer(), name != nullptr ? name : "unknown alert"));
  }
  std::string text = gnutls_text(error);
  if (error == GNUTLS_E_INSUFFICIENT_CREDENTIALS && credentials->loaded().client_psk != nullptr) {
    text = "the server has a certificate, and no pre-shared keys";
  }
  if (error == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) text += why_not_verified();
  // The peer shall know, too. Whether that can be sent is another matter.
  if (session != nullptr) gnutls_alert_send_appropriate(session, error);
  fail(fmt::format("TLS: {}", text));
}

std::string TlsChannel::Engine::peer_identity() const {
  if (session == nullptr) return {};
  // Before the end of the handshake it is what the peer says of itself.
  const char* const unverified = handshake_done ? "" : "unverified ";
  if (const char* const user = gnutls_psk_server_get_username(session)) {
    return fmt::format("{}key \"{}\"", unverified, user);
  }
  unsigned count = 0;
  const gnutls_datum_t* const chain = gnutls_certificate_get_peers(session, &count);
  if (chain == nullptr || count == 0) return {};
  gnutls_x509_crt_t certificate = nullptr;
  if (gnutls_x509_crt_init(&certificate) != 0) return {};
  std::string identity = "certificate of an unreadable name";
  gnutls_datum_t name{};
  if (gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) == 0 &&
      gnutls_x509_crt_get_dn3(certificate, &name, 0) == 0) {
    identity = fmt::format("{}certificate \"{}\"", unverified,
                           std::string_view(reinterpret_cast<const char*>(name.data), name.size));
    gnutls_free(name.data);
  }
  gnutls_x509_crt_deinit(certificate);
  return identity;
}

std::string TlsChannel::Engine::why_not_verified() const {
  gnutls_datum_t text{};
  if (gnutls_certificate_verification_status_print(gnutls_session_get_verify_cert_status(session),
                                                   GNUTLS_CRT_X509, &text, 0) != 0) {
    return {};
  }
  std::string result =
      fmt::format(": {}", std::string_view(reinterpret_cast<const char*>(text.data), text.size));
  gnutls_free(text.data);
  while (result.ends_with(' ') || result.ends_with('.') || result.ends_with('\0'))
    result.pop_back();
  return result;
}

// --- The channel ---------------------------------------------------------------------------------

TlsChannel::TlsChannel(std::shared_ptr<const TlsCredentials> credentials)
    : engine_(std::make_unique<Engine>(std::move(credentials))) {
  engine_->begin();
}

TlsChannel::~TlsChannel() = default;

TlsChannel::Moved TlsChannel::receive(std::span<const std::byte> cipher,
                                      std::span<std::byte> room) {
  Moved moved;
  if (engine_->failed || engine_->closed_by_peer) return moved;
  engine_->input = cipher;
  if (!engine_->handshake_done) engine_->shake_hands();
  if (engine_->handshake_done && !engine_->failed) moved.plain_bytes = engine_->read(room);
  moved.cipher_bytes = cipher.size() - engine_->input.size();
  engine_->input = {};
  return moved;
}

std::size_t TlsChannel::write(std::span<const iovec> plain) {
  Engine& engine = *engine_;
  assert(engine.handshake_done && !engine.closed && engine.staged_bytes == 0);
  std::size_t taken = 0;
  std::size_t at = 0;  // in the first of `plain`
  while (!engine.failed && !plain.empty() &&
         engine.out.bytes().size() + engine.record_bytes + kRecordExtraBytes <= kCipherBytes) {
    const auto* const from = static_cast<const std::byte*>(plain.front().iov_base) + at;
    const std::size_t count =
        std::min(plain.front().iov_len - at, engine.record_bytes - engine.staged_bytes);
    at += count;
    if (count == engine.record_bytes) {
      if (engine.send_record(from, count)) taken += count;
    } else {
      if (!engine.staged) {
        engine.staged = std::make_unique_for_overwrite<std::byte[]>(kRecordBytes);
      }
      std::memcpy(engine.staged.get() + engine.staged_bytes, from, count);
      engine.staged_bytes += count;
    }
    if (at == plain.front().iov_len) {
      plain = plain.subspan(1);
      at = 0;
    }
    // A record goes when it is full, and the last one as it is.
    if (engine.staged_bytes == engine.record_bytes || (plain.empty() && engine.staged_bytes != 0)) {
      if (engine.send_record(engine.staged.get(), engine.staged_bytes)) {
        taken += engine.staged_bytes;
      }
      engine.staged_bytes = 0;
    }
  }
  return engine.failed ? 0 : taken;
}

std::span<const std::byte> TlsChannel::cipher_out() const noexcept { return engine_->out.bytes(); }

void TlsChannel::sent(std::size_t count) noexcept { engine_->out.drop(count); }

void TlsChannel::trim() noexcept {
  engine_->out.shrink();
  engine_->staged.reset();
}

void TlsChannel::close() {
  if (!engine_->handshake_done || engine_->failed || engine_->closed) return;
  engine_->closed = true;
  gnutls_bye(engine_->session, GNUTLS_SHUT_WR);
}

bool TlsChannel::handshake_done() const noexcept { return engine_->handshake_done; }
std::string TlsChannel::peer_identity() const { return engine_->peer_identity(); }
bool TlsChannel::closed_by_peer() const noexcept { return engine_->closed_by_peer; }
bool TlsChannel::failed() const noexcept { return engine_->failed; }
const std::string& TlsChannel::failure() const noexcept { return engine_->failure; }

}  // namespace mkvirtfs::net
