// SPDX-License-Identifier: BSD-3-Clause
#include "net/tls_credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "net/tls_gnutls.h"
#include "support/open_file.h"
#include "support/unique_fd.h"

namespace mkvirtfs::net {
namespace {

/// Of a file with certificates or keys. Lists of revoked certificates can be long.
constexpr std::size_t kLongestFile = 16U << 20;
/// What psktool(1) makes at most.
constexpr std::size_t kLongestKey = 512;
/// The key exchanges that use pre-shared keys, those with forward secrecy first.
constexpr const char* kPskKeyExchanges = ":+ECDHE-PSK:+DHE-PSK:+PSK";

Result<Secret> read_file(const std::string& path) {
  const Result<UniqueFd> opened = open_regular_file(path, O_RDONLY, fmt::format("read {}", path));
  if (!opened) {
    Error error = opened.error();
    error.code = Errc::unreadable;
    return std::unexpected(std::move(error));
  }
  const UniqueFd& file = *opened;
  Secret content(4096);
  std::size_t used = 0;
  while (true) {
    const std::span<std::byte> room = content.bytes().subspan(used);
    const ssize_t count = ::read(file.get(), room.data(), room.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(Errc::unreadable, errno, fmt::format("read {}", path));
    used += static_cast<std::size_t>(count);
    if (count != 0 && used < content.bytes().size()) continue;
    if (used >= kLongestFile) {
      return fail(Errc::unreadable, fmt::format("{} is longer than {} bytes", path, kLongestFile));
    }
    Secret other(count == 0 ? used : used * 4);
    std::ranges::copy(content.bytes().first(used), other.bytes().begin());
    content = std::move(other);
    if (count == 0) return content;
  }
}

bool exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

gnutls_datum_t datum(const Secret& secret) noexcept {
  // GnuTLS only reads; its type has no const form.
  auto* const bytes = const_cast<std::byte*>(secret.bytes().data());
  return {reinterpret_cast<unsigned char*>(bytes), static_cast<unsigned>(secret.bytes().size())};
}

std::unexpected<Error> fail_file(const std::string& path, std::string_view what, int error) {
  return fail(Errc::unreadable, fmt::format("{} {} ({})", path, what, gnutls_text(error)));
}

std::optional<unsigned> hex_digit(char digit) noexcept {
  if (digit >= '0' && digit <= '9') return static_cast<unsigned>(digit - '0');
  if (digit >= 'a' && digit <= 'f') return static_cast<unsigned>(digit - 'a' + 10);
  if (digit >= 'A' && digit <= 'F') return static_cast<unsigned>(digit - 'A' + 10);
  return std::nullopt;
}

std::optional<Secret> from_hex(std::string_view text) {
  if (text.empty() || text.size() % 2 != 0 || text.size() / 2 > kLongestKey) return std::nullopt;
  Secret bytes(text.size() / 2);
  for (std::size_t i = 0; i < bytes.bytes().size(); ++i) {
    const auto high = hex_digit(text[2 * i]);
    const auto low = hex_digit(text[2 * i + 1]);
    if (!high || !low) return std::nullopt;
    bytes.bytes()[i] = static_cast<std::byte>(*high << 4 | *low);
  }
  return bytes;
}

/// GnuTLS's callback: what key does this user have? It may not throw.
int find_key(gnutls_session_t session, const gnutls_datum_t* user, gnutls_datum_t* key) noexcept {
  const auto* const loaded =
      static_cast<const TlsCredentials::Loaded*>(gnutls_session_get_ptr(session));
  const auto found =
      loaded->keys.find(std::string_view(reinterpret_cast<const char*>(user->data), user->size));
  const bool known = found != loaded->keys.end();
  // Unknown users get a key that is in no file: the answer does not reveal whether a user exists.
  const std::size_t size = known ? found->second.bytes().size() : 32;
  key->data = static_cast<unsigned char*>(gnutls_malloc(size));
  if (key->data == nullptr) return -1;
  key->size = static_cast<unsigned>(size);
  if (known) {
    std::ranges::copy(found->second.bytes(), reinterpret_cast<std::byte*>(key->data));
    return 0;
  }
  return gnutls_rnd(GNUTLS_RND_KEY, key->data, size) == 0 ? 0 : -1;
}

}  // namespace

std::string gnutls_text(int error) {
  const char* const text = gnutls_strerror(error);
  std::string result = text != nullptr ? text : fmt::format("GnuTLS error {}", error);
  while (result.ends_with('.')) result.pop_back();
  return result;
}

TlsCredentials::Loaded::~Loaded() {
  if (priority != nullptr) gnutls_priority_deinit(priority);
  if (psk != nullptr) gnutls_psk_free_server_credentials(psk);
  if (client_psk != nullptr) gnutls_psk_free_client_credentials(client_psk);
  if (certificates != nullptr) gnutls_certificate_free_credentials(certificates);
}

TlsCredentials::TlsCredentials() : loaded_(std::make_unique<Loaded>()) {}

TlsCredentials::~TlsCredentials() = default;

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::load(const TlsFiles& files) {
  if (files.certificates_directory.empty() && files.psk_file.empty()) {
    return fail(Errc::usage, "TLS needs a directory of certificates or a file of pre-shared keys");
  }
  std::shared_ptr<TlsCredentials> credentials(new TlsCredentials);
  Result<void> done =
      credentials->load_priority(files.priority + (files.psk_file.empty() ? "" : kPskKeyExchanges));
  if (done && !files.certificates_directory.empty()) {
    done = credentials->load_server_certificates(files.certificates_directory, files.verify_peer);
  }
  if (done && !files.psk_file.empty()) done = credentials->load_server_keys(files.psk_file);
  if (!done) return propagate(done);
  return credentials;
}

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::load_client(
    const TlsClientFiles& files) {
  std::shared_ptr<TlsCredentials> credentials(new TlsCredentials);
  Loaded& loaded = *credentials->loaded_;
  loaded.is_client = true;
  loaded.verify_peer = files.verify_peer;
  loaded.server_name = files.server_name;
  const bool by_key = !files.psk_file.empty();
  // A client with a key offers nothing else: a server without that key could come with any
  // certificate.
  Result<void> done = credentials->load_priority(
      std::string(kDefaultTlsPriority) +
      (by_key ? fmt::format(":-KX-ALL{}", kPskKeyExchanges) : std::string()));
  if (done) {
    done = by_key ? credentials->load_client_key(files.psk_file, files.user)
                  : credentials->load_client_certificates(files);
  }
  if (!done) return propagate(done);
  return credentials;
}

Result<void> TlsCredentials::load_priority(const std::string& text) {
  const char* wrong = nullptr;
  const int status = gnutls_priority_init2(&loaded_->priority, text.c_str(), &wrong, 0);
  if (status == 0) return {};
  return fail(Errc::usage,
              fmt::format("\"{}\" cannot be a TLS priority, from \"{}\" on ({})", text,
                          wrong != nullptr ? wrong : text.c_str(), gnutls_text(status)));
}

Result<void> TlsCredentials::load_server_certificates(const std::string& directory,
                                                      bool verify_peer) {
  const std::filesystem::path root(directory);
  if (auto done = load_identity(root / "server-cert.pem", root / "server-key.pem"); !done) {
    return done;
  }
  gnutls_certificate_set_known_dh_params(loaded_->certificates, GNUTLS_SEC_PARAM_MEDIUM);
  if (verify_peer) {
    if (auto done = load_authorities(directory); !done) return done;
    loaded_->verify_peer = true;
  }
  // libnbd wants the authority there, and would complain otherwise.
  if (exists(root / "ca-cert.pem")) {
    local_client_files_.certificates_directory = std::filesystem::absolute(root).string();
  }
  return {};
}

Result<void> TlsCredentials::load_client_certificates(const TlsClientFiles& files) {
  if (files.certificates_directory.empty()) {
    int status = gnutls_certificate_allocate_credentials(&loaded_->certificates);
    if (status < 0) return fail(Errc::no_space, gnutls_text(status));
    if (!files.verify_peer) return {};
    status = gnutls_certificate_set_x509_system_trust(loaded_->certificates);
    if (status > 0) return {};
    return fail(Errc::unreadable,
                "this system has no certificate authorities (tls-certificates=DIR names others)");
  }
  const std::filesystem::path root(files.certificates_directory);
  if (exists(root / "client-cert.pem")) {
    if (auto done = load_identity(root / "client-cert.pem", root / "client-key.pem"); !done) {
      return done;
    }
  } else {
    const int status = gnutls_certificate_allocate_credentials(&loaded_->certificates);
    if (status < 0) return fail(Errc::no_space, gnutls_text(status));
  }
  return files.verify_peer ? load_authorities(files.certificates_directory) : Result<void>{};
}

/// Makes the certificate credentials, with a certificate and its key.
Result<void> TlsCredentials::load_identity(const std::string& chain_path,
                                           const std::string& key_path) {
  int status = gnutls_certificate_allocate_credentials(&loaded_->certificates);
  if (status < 0) return fail(Errc::no_space, gnutls_text(status));
  const Result<Secret> chain_file = read_file(chain_path);
  if (!chain_file) return propagate(chain_file);
  const Result<Secret> key_file = read_file(key_path);
  if (!key_file) return propagate(key_file);

  struct Chain {
    gnutls_x509_crt_t* list = nullptr;
    unsigned count = 0;
    ~Chain() {
      for (unsigned i = 0; i < count; ++i) gnutls_x509_crt_deinit(list[i]);
      gnutls_free(static_cast<void*>(list));
    }
  } chain;
  gnutls_datum_t data = datum(*chain_file);
  status = gnutls_x509_crt_list_import2(&chain.list, &chain.count, &data, GNUTLS_X509_FMT_PEM, 0);
  if (status < 0) return fail_file(chain_path, "holds no certificates in PEM", status);

  struct Key {
    gnutls_x509_privkey_t key = nullptr;
    ~Key() {
      if (key != nullptr) gnutls_x509_privkey_deinit(key);
    }
  } key;
  status = gnutls_x509_privkey_init(&key.key);
  if (status < 0) return fail(Errc::no_space, gnutls_text(status));
  data = datum(*key_file);
  status = gnutls_x509_privkey_import2(key.key, &data, GNUTLS_X509_FMT_PEM, nullptr, 0);
  if (status < 0) return fail_file(key_path, "holds no key in PEM without a password", status);
  status = gnutls_certificate_set_x509_key(loaded_->certificates, chain.list,
                                           static_cast<int>(chain.count), key.key);
  if (status < 0)
    return fail_file(
        key_path,
        fmt::format("does not belong to {}", std::filesystem::path(chain_path).filename().native()),
        status);
  return {};
}

Result<void> TlsCredentials::load_authorities(const std::string& directory) {
  const std::string authority_path = std::filesystem::path(directory) / "ca-cert.pem";
  const std::string revoked_path = std::filesystem::path(directory) / "ca-crl.pem";
  const Result<Secret> authority = read_file(authority_path);
  if (!authority) return propagate(authority);
  gnutls_datum_t data = datum(*authority);
  int status =
      gnutls_certificate_set_x509_trust_mem(loaded_->certificates, &data, GNUTLS_X509_FMT_PEM);
  if (status <= 0) return fail_file(authority_path, "holds no certificates in PEM", status);
  if (!exists(revoked_path)) return {};
  const Result<Secret> revoked = read_file(revoked_path);
  if (!revoked) return propagate(revoked);
  data = datum(*revoked);
  status = gnutls_certificate_set_x509_crl_mem(loaded_->certificates, &data, GNUTLS_X509_FMT_PEM);
  if (status > 0) return {};
  return fail_file(revoked_path, "holds no list of revoked certificates in PEM", status);
}

Result<std::string> TlsCredentials::load_keys(const std::string& path) {
  const Result<Secret> file = read_file(path);
  if (!file) return propagate(file);
  std::string_view rest = file->text();
  std::string first_user;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::size_t colon = line.find(':');
    const std::string user(line.substr(0, colon));
    std::optional<Secret> key;
    if (colon != std::string_view::npos && !user.empty()) key = from_hex(line.substr(colon + 1));
    // The line itself is left out: it may hold a key.
    if (!key) {
      return fail(Errc::unreadable,
                  fmt::format("{} line {} is not USER:HEXKEY with a key of up to {} bytes", path,
                              number, kLongestKey));
    }
    if (first_user.empty()) first_user = user;
    if (!loaded_->keys.try_emplace(user, *std::move(key)).second) {
      return fail(Errc::unreadable,
                  fmt::format("{} line {} gives {} a second key", path, number, user));
    }
  }
  if (loaded_->keys.empty()) {
    return fail(Errc::unreadable, fmt::format("{} has no line of USER:HEXKEY", path));
  }
  return first_user;
}

Result<void> TlsCredentials::load_client_key(const std::string& path, const std::string& user) {
  Result<std::string> first = load_keys(path);
  if (!first) return propagate(first);
  if (user.empty() && loaded_->keys.size() > 1) {
    return fail(Errc::usage,
                fmt::format("{} has several users: which one? (nbds://USER@...)", path));
  }
  const auto found = loaded_->keys.find(user.empty() ? *first : user);
  if (found == loaded_->keys.end()) {
    return fail(Errc::unreadable, fmt::format("{} has no key of {}", path, user));
  }
  int status = gnutls_psk_allocate_client_credentials(&loaded_->client_psk);
  if (status < 0) return fail(Errc::no_space, gnutls_text(status));
  const gnutls_datum_t key = datum(found->second);
  status = gnutls_psk_set_client_credentials(loaded_->client_psk, found->first.c_str(), &key,
                                             GNUTLS_PSK_KEY_RAW);
  if (status < 0) return fail_file(path, "holds a key that cannot be used", status);
  loaded_->keys.clear();
  return {};
}

Result<void> TlsCredentials::load_server_keys(const std::string& path) {
  Result<std::string> first_user = load_keys(path);
  if (!first_user) return propagate(first_user);
  const int status = gnutls_psk_allocate_server_credentials(&loaded_->psk);
  if (status < 0) return fail(Errc::no_space, gnutls_text(status));
  gnutls_psk_set_server_known_dh_params(loaded_->psk, GNUTLS_SEC_PARAM_MEDIUM);
  gnutls_psk_set_server_credentials_function2(loaded_->psk, find_key);
  // A client that is given a key file has no use for certificates.
  local_client_files_ = {};
  local_client_files_.user = *std::move(first_user);
  local_client_files_.psk_file = std::filesystem::absolute(path).string();
  return {};
}

}  // namespace mkvirtfs::net
