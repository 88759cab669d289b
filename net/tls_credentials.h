// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/error.h"

namespace mkvirtfs::net {

/// TLS 1.2 is what the protocol asks for at least ("TLS versions"). The server chooses the cipher:
/// clients whose key is bound to SHA-256, as pre-shared ones are, would have ChaCha20 before
/// AES-128, which costs ten times as much where processors have instructions for AES.
inline constexpr const char* kDefaultTlsPriority =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM:"
    "+CHACHA20-POLY1305:+AES-256-CCM:+AES-128-CCM:%SERVER_PRECEDENCE";

/// Where a server's secrets are. Certificates, pre-shared keys or both: the client chooses.
struct TlsFiles {
  /// A directory with server-cert.pem (the chain, our own certificate first) and server-key.pem (no
  /// password); to verify clients also ca-cert.pem and, if there is one, ca-crl.pem. "" for none.
  std::string certificates_directory;
  /// Lines of USER:HEXKEY, as psktool(1) writes them; "" for none.
  std::string psk_file;
  /// Clients that come with no key must have a certificate that an authority in ca-cert.pem issued.
  /// Where there are keys alone, every client has one.
  bool verify_peer = false;
  /// What GnuTLS calls a priority string. Key exchange by pre-shared key is added where there are
  /// such keys.
  std::string priority = kDefaultTlsPriority;
};

/// What a client trusts, and what proves its own identity; by libnbd's rules.
struct TlsClientFiles {
  /// A directory with ca-cert.pem, if there is one ca-crl.pem, and for servers that verify their
  /// clients client-cert.pem and client-key.pem. "": the system's authorities, no certificate.
  std::string certificates_directory;
  /// Lines of USER:HEXKEY. With such a key, certificates are of no use. "" for none.
  std::string psk_file;
  /// Whose key it is; "": the only one in the file.
  std::string user;
  /// The name or address that the server's certificate must have; "": any.
  std::string server_name;
  /// Without, any certificate will do: an attacker on the way can read and change everything.
  bool verify_peer = true;

  friend bool operator==(const TlsClientFiles&, const TlsClientFiles&) = default;
};

/// The certificates and keys of a server or a client: read and checked once, then shared by all its
/// connections. Immutable, so every method may run on several threads. Forgets its keys when it is
/// destroyed.
class TlsCredentials {
 public:
  /// Reads the files. An error names the file; Errc::usage when the files contradict each other.
  static Result<std::shared_ptr<const TlsCredentials>> load(const TlsFiles& files);
  static Result<std::shared_ptr<const TlsCredentials>> load_client(const TlsClientFiles& files);

  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  /// The files of a server by which a client on this machine can connect: absolute paths, and the
  /// first user of the pre-shared keys. Empty where clients need none, or have no use for them.
  const TlsClientFiles& local_client_files() const noexcept { return local_client_files_; }

  /// The library's objects, for connections.
  struct Loaded;
  const Loaded& loaded() const noexcept { return *loaded_; }

 private:
  TlsCredentials();
  Result<void> load_server_certificates(const std::string& directory, bool verify_peer);
  Result<void> load_client_certificates(const TlsClientFiles& files);
  Result<void> load_identity(const std::string& chain_path, const std::string& key_path);
  Result<void> load_authorities(const std::string& directory);
  Result<void> load_server_keys(const std::string& path);
  Result<void> load_client_key(const std::string& path, const std::string& user);
  /// Fills Loaded::keys; gives the user of the first line.
  Result<std::string> load_keys(const std::string& path);
  Result<void> load_priority(const std::string& text);

  std::unique_ptr<Loaded> loaded_;
  TlsClientFiles local_client_files_;
};

}  // namespace mkvirtfs::net
