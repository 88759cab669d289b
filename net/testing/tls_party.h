// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "net/tls_channel.h"
#include "net/tls_credentials.h"
#include "support/testing/bytes.h"
#include "tests/support/temp_dir.h"

// Certificates that live as long as a test, and a TLS client over memory. Tests only.

namespace mkvirtfs::net::testing {

using namespace mkvirtfs::testing;

inline void tls_require(int status) {
  if (status < 0) throw std::runtime_error(gnutls_strerror(status));
}

using Crt = std::unique_ptr<gnutls_x509_crt_int, decltype(&gnutls_x509_crt_deinit)>;
using PrivateKey = std::unique_ptr<gnutls_x509_privkey_int, decltype(&gnutls_x509_privkey_deinit)>;

inline std::string text_and_free(gnutls_datum_t& data) {
  std::string text(reinterpret_cast<const char*>(data.data), data.size);
  gnutls_free(data.data);
  return text;
}

/// A certificate and its key.
struct Identity {
  Crt crt{nullptr, &gnutls_x509_crt_deinit};
  PrivateKey key{nullptr, &gnutls_x509_privkey_deinit};

  std::string crt_pem() const {
    gnutls_datum_t data;
    tls_require(gnutls_x509_crt_export2(crt.get(), GNUTLS_X509_FMT_PEM, &data));
    return text_and_free(data);
  }
  /// Encrypted, if there is a password.
  std::string key_pem(const char* password = nullptr) const {
    gnutls_datum_t data;
    tls_require(gnutls_x509_privkey_export2_pkcs8(
        key.get(), GNUTLS_X509_FMT_PEM, password,
        password != nullptr ? GNUTLS_PKCS_PBES2_AES_256 : GNUTLS_PKCS_PLAIN, &data));
    return text_and_free(data);
  }
};

/// Issues certificates.
class Authority {
 public:
  explicit Authority(const char* name = "the authority") {
    start(self_, name);
    tls_require(gnutls_x509_crt_set_ca_status(self_.crt.get(), 1));
    tls_require(gnutls_x509_crt_set_key_usage(self_.crt.get(),
                                              GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
    sign(self_);
  }

  /// `purpose` is GNUTLS_KP_TLS_WWW_SERVER, GNUTLS_KP_TLS_WWW_CLIENT or nullptr for any.
  Identity issue(const char* name, const char* purpose = nullptr) {
    Identity issued;
    start(issued, name);
    tls_require(gnutls_x509_crt_set_key_usage(issued.crt.get(), GNUTLS_KEY_DIGITAL_SIGNATURE));
    tls_require(gnutls_x509_crt_set_subject_alt_name(issued.crt.get(), GNUTLS_SAN_DNSNAME, name,
                                                     static_cast<unsigned>(std::strlen(name)),
                                                     GNUTLS_FSAN_SET));
    if (purpose != nullptr) {
      tls_require(gnutls_x509_crt_set_key_purpose_oid(issued.crt.get(), purpose, 0));
    }
    sign(issued);
    return issued;
  }

  /// A list with one revoked certificate.
  std::string crl_pem(const Identity& revoked) const {
    gnutls_x509_crl_t crl;
    tls_require(gnutls_x509_crl_init(&crl));
    const std::unique_ptr<gnutls_x509_crl_int, decltype(&gnutls_x509_crl_deinit)> owner(
        crl, &gnutls_x509_crl_deinit);
    const std::time_t now = std::time(nullptr);
    tls_require(gnutls_x509_crl_set_version(crl, 2));
    tls_require(gnutls_x509_crl_set_crt(crl, revoked.crt.get(), now - 3600));
    tls_require(gnutls_x509_crl_set_this_update(crl, now - 3600));
    tls_require(gnutls_x509_crl_set_next_update(crl, now + 3600 * 24));
    tls_require(gnutls_x509_crl_sign2(crl, self_.crt.get(), self_.key.get(), GNUTLS_DIG_SHA256, 0));
    gnutls_datum_t data;
    tls_require(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &data));
    return text_and_free(data);
  }

  const Identity& self() const { return self_; }

 private:
  void start(Identity& identity, const char* name) {
    gnutls_x509_privkey_t key;
    tls_require(gnutls_x509_privkey_init(&key));
    identity.key.reset(key);
    tls_require(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                             GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    gnutls_x509_crt_t crt;
    tls_require(gnutls_x509_crt_init(&crt));
    identity.crt.reset(crt);
    const std::time_t now = std::time(nullptr);
    const unsigned char serial = ++serial_;
    tls_require(gnutls_x509_crt_set_version(crt, 3));
    tls_require(gnutls_x509_crt_set_serial(crt, &serial, 1));
    tls_require(gnutls_x509_crt_set_activation_time(crt, now - 3600 * 24));
    tls_require(gnutls_x509_crt_set_expiration_time(crt, now + 3600 * 24));
    tls_require(gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, name,
                                              static_cast<unsigned>(std::strlen(name))));
    tls_require(gnutls_x509_crt_set_key(crt, key));
  }
  void sign(Identity& identity) const {
    tls_require(gnutls_x509_crt_sign2(identity.crt.get(), self_.crt.get(), self_.key.get(),
                                      GNUTLS_DIG_SHA256, 0));
  }

  unsigned char serial_ = 0;
  Identity self_;
};

/// What a client has, and believes.
struct ClientFiles {
  std::string priority = "NORMAL";
  std::string authority_pem;  ///< or "": any server is believed
  const Identity* identity = nullptr;
  std::string psk_user;
  std::string psk_key;  ///< raw
  std::size_t most_record_bytes = 0;
};

inline constexpr const char* kTls12 = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
inline constexpr const char* kTls13 = "NORMAL:-VERS-ALL:+VERS-TLS1.3";
inline constexpr const char* kPsk = ":-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK";

/// The files of all parties, made once: the authority, the server, clients good and bad.
struct Party {
  Party() {
    write_file(root / "ca-cert.pem", authority.self().crt_pem());
    write_file(root / "ca-crl.pem", authority.crl_pem(revoked));
    write_file(root / "server-cert.pem", server.crt_pem());
    write_file(root / "server-key.pem", server.key_pem());
    write_file(root / "keys.psk", "alice:" + std::string(64, '7') + "\nbob:0102030405060708\n");
  }

  std::shared_ptr<const TlsCredentials> credentials(bool verify_peer, bool keys = true,
                                                    bool certificates = true) const {
    TlsFiles files;
    if (certificates) files.certificates_directory = root.path().string();
    if (keys) files.psk_file = (root / "keys.psk").string();
    files.verify_peer = verify_peer;
    const auto loaded = TlsCredentials::load(files);
    if (!loaded) throw std::runtime_error(loaded.error().what);
    return *loaded;
  }
  ClientFiles with_certificate(const Identity* identity = nullptr,
                               const char* priority = kTls13) const {
    ClientFiles files;
    files.priority = priority;
    files.authority_pem = authority.self().crt_pem();
    files.identity = identity;
    return files;
  }
  static ClientFiles with_key(const char* user = "alice", std::string key = std::string(32, '\x77'),
                              const char* priority = kTls13) {
    ClientFiles files;
    files.priority = std::string(priority) + kPsk;
    files.psk_user = user;
    files.psk_key = std::move(key);
    return files;
  }

  TempDir root;
  Authority authority;
  Authority other{"another authority"};
  Identity server = authority.issue("localhost", GNUTLS_KP_TLS_WWW_SERVER);
  Identity client = authority.issue("client", GNUTLS_KP_TLS_WWW_CLIENT);
  Identity plain = authority.issue("no purpose");
  Identity revoked = authority.issue("revoked", GNUTLS_KP_TLS_WWW_CLIENT);
  Identity stranger = other.issue("stranger", GNUTLS_KP_TLS_WWW_CLIENT);
};

/// A TLS client whose other end is a pair of byte queues.
class TlsClient {
 public:
  explicit TlsClient(const ClientFiles& files) {
    tls_require(gnutls_init(&session_, GNUTLS_CLIENT | GNUTLS_NONBLOCK));
    tls_require(gnutls_priority_set_direct(session_, files.priority.c_str(), nullptr));
    tls_require(gnutls_certificate_allocate_credentials(&certificates_));
    if (!files.authority_pem.empty()) {
      const gnutls_datum_t data = datum(files.authority_pem);
      tls_require(gnutls_certificate_set_x509_trust_mem(certificates_, &data, GNUTLS_X509_FMT_PEM));
      gnutls_session_set_verify_cert(session_, nullptr, 0);
    }
    if (files.identity != nullptr) {
      gnutls_x509_crt_t crt = files.identity->crt.get();
      tls_require(
          gnutls_certificate_set_x509_key(certificates_, &crt, 1, files.identity->key.get()));
      // Shown also to servers that name other authorities.
      gnutls_certificate_set_flags(certificates_, 0);
    }
    tls_require(gnutls_credentials_set(session_, GNUTLS_CRD_CERTIFICATE, certificates_));
    if (!files.psk_user.empty()) {
      tls_require(gnutls_psk_allocate_client_credentials(&psk_));
      const gnutls_datum_t key = datum(files.psk_key);
      tls_require(gnutls_psk_set_client_credentials(psk_, files.psk_user.c_str(), &key,
                                                    GNUTLS_PSK_KEY_RAW));
      tls_require(gnutls_credentials_set(session_, GNUTLS_CRD_PSK, psk_));
    }
    if (files.most_record_bytes != 0) {
      tls_require(static_cast<int>(gnutls_record_set_max_size(session_, files.most_record_bytes)));
    }
    gnutls_transport_set_ptr(session_, this);
    gnutls_transport_set_pull_function(session_, pull);
    gnutls_transport_set_pull_timeout_function(session_, [](gnutls_transport_ptr_t self, unsigned) {
      return static_cast<TlsClient*>(self)->incoming_.empty() ? 0 : 1;
    });
    gnutls_transport_set_push_function(session_, push);
  }
  ~TlsClient() {
    gnutls_deinit(session_);
    gnutls_certificate_free_credentials(certificates_);
    if (psk_ != nullptr) gnutls_psk_free_client_credentials(psk_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  /// Cipher bytes from the server.
  void give(std::span<const std::byte> bytes) { incoming_ += bytes; }
  /// Cipher bytes for the server.
  Bytes take() { return std::exchange(outgoing_, {}); }

  /// One step of the handshake; true when it is done. An error is kept.
  bool shake_hands() {
    const int status = gnutls_handshake(session_);
    done_ = status == 0;
    if (gnutls_error_is_fatal(status) != 0) {
      error_ = status;
      gnutls_alert_send_appropriate(session_, status);
    }
    return done_;
  }
  bool done() const { return done_; }
  /// 0, or what ended the session for the client.
  int error() const { return error_; }

  void write(std::span<const std::byte> plain) {
    while (!plain.empty()) {
      const ssize_t count = gnutls_record_send(session_, plain.data(), plain.size());
      tls_require(static_cast<int>(count));
      plain = plain.subspan(static_cast<std::size_t>(count));
    }
  }
  /// Everything that can be read by now.
  Bytes read() {
    Bytes plain;
    Bytes part(65536);
    while (true) {
      const std::size_t left = incoming_.size();
      const ssize_t count = gnutls_record_recv(session_, part.data(), part.size());
      if (count > 0) {
        plain += std::span(part).first(static_cast<std::size_t>(count));
        continue;
      }
      if (count == 0) closed_by_server_ = true;
      if (count < 0 && gnutls_error_is_fatal(static_cast<int>(count)) != 0) {
        error_ = static_cast<int>(count);
      } else if (count < 0 && !incoming_.empty() && incoming_.size() != left) {
        continue;  // it was no data
      }
      return plain;
    }
  }
  bool closed_by_server() const { return closed_by_server_; }
  gnutls_session_t session() { return session_; }

 private:
  static gnutls_datum_t datum(const std::string& text) {
    return {reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())),
            static_cast<unsigned>(text.size())};
  }
  static ssize_t pull(gnutls_transport_ptr_t self, void* to, std::size_t count) {
    auto& client = *static_cast<TlsClient*>(self);
    if (client.incoming_.empty()) {
      gnutls_transport_set_errno(client.session_, EAGAIN);
      return -1;
    }
    count = std::min(count, client.incoming_.size());
    std::memcpy(to, client.incoming_.data(), count);
    client.incoming_.erase(client.incoming_.begin(),
                           client.incoming_.begin() + static_cast<std::ptrdiff_t>(count));
    return static_cast<ssize_t>(count);
  }
  static ssize_t push(gnutls_transport_ptr_t self, const void* from, std::size_t count) {
    auto& client = *static_cast<TlsClient*>(self);
    client.outgoing_ += std::span(static_cast<const std::byte*>(from), count);
    return static_cast<ssize_t>(count);
  }

  gnutls_session_t session_ = nullptr;
  gnutls_certificate_credentials_t certificates_ = nullptr;
  gnutls_psk_client_credentials_t psk_ = nullptr;
  Bytes incoming_;
  Bytes outgoing_;
  bool done_ = false;
  bool closed_by_server_ = false;
  int error_ = 0;
};

/// The server's end: what it received, and everything it had to say.
class TlsServer {
 public:
  explicit TlsServer(std::shared_ptr<const TlsCredentials> credentials)
      : channel(std::move(credentials)) {}

  /// Cipher bytes come, `step` at a time.
  void give(std::span<const std::byte> cipher, std::size_t step = SIZE_MAX) {
    while (!cipher.empty()) {
      std::span<const std::byte> part = cipher.first(std::min(step, cipher.size()));
      cipher = cipher.subspan(part.size());
      while (true) {
        Bytes room(5000);
        const TlsChannel::Moved moved = channel.receive(part, room);
        part = part.subspan(moved.cipher_bytes);
        received += std::span(room).first(moved.plain_bytes);
        if (moved.cipher_bytes == 0 && moved.plain_bytes == 0) break;
      }
      if (channel.failed() || channel.closed_by_peer()) return;
      if (!part.empty()) throw std::runtime_error("the channel leaves bytes where they are");
    }
  }
  /// What waits to be sent, sent.
  Bytes take() {
    Bytes bytes;
    bytes += channel.cipher_out();
    channel.sent(bytes.size());
    return bytes;
  }

  TlsChannel channel;
  Bytes received;
};

/// Lets both talk until neither has anything more to say.
inline void converse(TlsServer& server, TlsClient& client, std::size_t step = SIZE_MAX) {
  while (true) {
    if (!client.done() && client.error() == 0) client.shake_hands();
    const Bytes to_server = client.take();
    server.give(to_server, step);
    const Bytes to_client = server.take();
    client.give(to_client);
    if (to_server.empty() && to_client.empty()) return;
  }
}

}  // namespace mkvirtfs::net::testing
