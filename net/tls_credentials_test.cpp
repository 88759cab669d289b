// SPDX-License-Identifier: BSD-3-Clause
#include "net/tls_credentials.h"

#include <catch2/catch.hpp>
#include <utility>

#include "net/testing/tls_party.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::net {
namespace {

using testing::Authority;
using testing::Identity;

/// A directory as nbdkit's manual has it.
struct Directory {
  Directory() {
    write_file(root / "ca-cert.pem", authority.self().crt_pem());
    write_file(root / "ca-crl.pem", authority.crl_pem(authority.issue("revoked")));
    write_file(root / "server-cert.pem", server.crt_pem());
    write_file(root / "server-key.pem", server.key_pem());
  }
  std::string path() const { return root.path().string(); }
  TlsFiles files(bool verify_peer = true) const {
    TlsFiles result;
    result.certificates_directory = path();
    result.verify_peer = verify_peer;
    return result;
  }

  TempDir root;
  Authority authority;
  Identity server = authority.issue("localhost", GNUTLS_KP_TLS_WWW_SERVER);
};

TlsFiles keys_in(const std::filesystem::path& path) {
  TlsFiles files;
  files.psk_file = path.string();
  return files;
}

}  // namespace

TEST_CASE("certificates and keys are loaded, and local clients learn where they are", "[tls]") {
  const Directory directory;
  const bool verify_peer = GENERATE(false, true);
  TlsFiles files = directory.files(verify_peer);
  const auto certificates = TlsCredentials::load(files);
  REQUIRE(certificates);
  TlsClientFiles expected;
  expected.certificates_directory = directory.path();
  CHECK((*certificates)->local_client_files() == expected);

  const TempDir other;
  write_file(other / "keys", "\nalice:00112233445566778899aabbccddeeff\r\nbob smith:FFFF");
  const auto keys = TlsCredentials::load(keys_in(other / "keys"));
  REQUIRE(keys);
  expected = {};
  expected.psk_file = (other / "keys").string();
  expected.user = "alice";
  CHECK((*keys)->local_client_files() == expected);

  files.psk_file = (other / "keys").string();
  const auto both = TlsCredentials::load(files);
  REQUIRE(both);
  CHECK((*both)->local_client_files() == expected);
}

TEST_CASE("authorities are needed to verify clients, and for nothing else", "[tls]") {
  const Directory directory;
  std::filesystem::remove(directory.root / "ca-crl.pem");
  CHECK(TlsCredentials::load(directory.files(true)));
  std::filesystem::remove(directory.root / "ca-cert.pem");
  const auto without = TlsCredentials::load(directory.files(false));
  REQUIRE(without);
  CHECK((*without)->local_client_files() == TlsClientFiles());
  const auto failed = TlsCredentials::load(directory.files(true));
  REQUIRE_FALSE(failed);
  CHECK_THAT(failed.error().what, Catch::Contains("ca-cert.pem: No such file"));
}

TEST_CASE("a file of a directory of certificates that is not what it should be is named", "[tls]") {
  Directory directory;
  struct Case {
    const char* file;
    std::string content;
    const char* message;
  };
  Authority other("another authority");
  const Identity stranger = other.issue("stranger");
  const auto cases = std::vector<Case>{
      {"server-cert.pem", "", "server-cert.pem holds no certificates"},
      {"server-cert.pem", "garbage", "server-cert.pem holds no certificates"},
      {"server-cert.pem", directory.server.crt_pem().substr(0, 300), "server-cert.pem holds no"},
      {"server-cert.pem", stranger.crt_pem(), "server-key.pem does not belong to server-cert.pem"},
      {"server-key.pem", "", "server-key.pem holds no key"},
      {"server-key.pem", directory.server.crt_pem(), "server-key.pem holds no key"},
      {"server-key.pem", directory.server.key_pem("secret"), "server-key.pem holds no key"},
      {"server-key.pem", stranger.key_pem(), "server-key.pem does not belong to server-cert.pem"},
      {"ca-cert.pem", "", "ca-cert.pem holds no certificates"},
      {"ca-cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
       "ca-cert.pem holds no certificates"},
      {"ca-crl.pem", "garbage", "ca-crl.pem holds no list"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.file, c.message);
    const std::string good = read_file(directory.root / c.file);
    write_file(directory.root / c.file, c.content);
    const auto failed = TlsCredentials::load(directory.files());
    write_file(directory.root / c.file, good);
    REQUIRE_FALSE(failed);
    CHECK(failed.error().code == Errc::unreadable);
    CHECK_THAT(failed.error().what, Catch::StartsWith(directory.path()));
    CHECK_THAT(failed.error().what, Catch::Contains(c.message));
    CHECK(failed.error().what.find('\n') == std::string::npos);
  }
  CHECK(TlsCredentials::load(directory.files()));
}

TEST_CASE("a missing file of a directory of certificates is named", "[tls]") {
  const Directory directory;
  const char* const file = GENERATE("server-cert.pem", "server-key.pem", "ca-cert.pem");
  std::filesystem::remove(directory.root / file);
  const auto failed = TlsCredentials::load(directory.files());
  REQUIRE_FALSE(failed);
  CHECK_THAT(failed.error().what,
             Catch::Contains(std::string(file) + ": No such file or directory"));
}

TEST_CASE("a wrong line in a file of keys is reported by its number, and not shown", "[tls]") {
  const TempDir directory;
  struct Case {
    std::string content;
    const char* message;
  };
  const auto c = GENERATE(values<Case>({
      {"", "has no line of USER:HEXKEY"},
      {"\n\n", "has no line of USER:HEXKEY"},
      {"secret", "line 1 is not USER:HEXKEY"},
      {"alice:00\nbob", "line 2 is not USER:HEXKEY"},
      {":00", "line 1 is not USER:HEXKEY"},
      {"alice:", "line 1 is not USER:HEXKEY"},
      {"alice:0", "line 1 is not USER:HEXKEY"},
      {"alice:0g", "line 1 is not USER:HEXKEY"},
      {"alice:00 ", "line 1 is not USER:HEXKEY"},
      {"alice:" + std::string(1026, '0'), "line 1 is not USER:HEXKEY"},
      {"alice:00\nalice:11", "line 2 gives alice a second key"},
      {std::string(17 << 20, 'x'), "is longer than 16777216 bytes"},
  }));
  write_file(directory / "keys", c.content);
  const auto failed = TlsCredentials::load(keys_in(directory / "keys"));
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == Errc::unreadable);
  CHECK_THAT(failed.error().what, Catch::StartsWith((directory / "keys").string()));
  CHECK_THAT(failed.error().what, Catch::Contains(c.message));
  CHECK(failed.error().what.size() < 300);
  CHECK(failed.error().what.find("secret") == std::string::npos);

  const auto missing = TlsCredentials::load(keys_in(directory / "no keys"));
  REQUIRE_FALSE(missing);
  CHECK_THAT(missing.error().what, Catch::Contains("no keys: No such file or directory"));
}

TEST_CASE("a long file of keys is read whole", "[tls]") {
  const TempDir directory;
  std::string content;
  for (int i = 0; i < 5000; ++i) content += "user" + std::to_string(i) + ":00112233\n";
  write_file(directory / "keys", content);
  CHECK(TlsCredentials::load(keys_in(directory / "keys")));
  write_file(directory / "keys", content + "user4999:00");
  CHECK_FALSE(TlsCredentials::load(keys_in(directory / "keys")));
}

TEST_CASE("options of TLS that contradict each other are wrong usage", "[tls]") {
  const TempDir directory;
  write_file(directory / "keys", "alice:00112233");
  const auto code_of = [](const TlsFiles& files) {
    const auto failed = TlsCredentials::load(files);
    REQUIRE_FALSE(failed);
    return failed.error().code;
  };
  CHECK(code_of({}) == Errc::usage);
  TlsFiles files = keys_in(directory / "keys");
  files.priority = GENERATE("", "ABNORMAL", "NORMAL:+NOTHING-LIKE-THAT");
  CHECK(code_of(files) == Errc::usage);
}

TEST_CASE("clients of a server with keys alone are verified by their keys", "[tls]") {
  const TempDir directory;
  write_file(directory / "keys", "alice:00112233");
  TlsFiles files = keys_in(directory / "keys");
  files.verify_peer = true;
  CHECK(TlsCredentials::load(files));
}

TEST_CASE("what a client has is checked as well", "[tls]") {
  const Directory directory;
  const auto failure = [](const TlsClientFiles& files) {
    const auto loaded = TlsCredentials::load_client(files);
    return loaded ? "" : loaded.error().what;
  };
  TlsClientFiles files;
  files.certificates_directory = directory.path();
  CHECK(failure(files).empty());
  write_file(directory.root / "client-cert.pem", directory.server.crt_pem());
  CHECK_THAT(failure(files), Catch::Contains("client-key.pem: No such file"));
  write_file(directory.root / "client-key.pem", Authority().self().key_pem());
  CHECK_THAT(failure(files), Catch::Contains("client-key.pem does not belong to client-cert.pem"));
  write_file(directory.root / "client-key.pem", directory.server.key_pem());
  CHECK(failure(files).empty());
  write_file(directory.root / "ca-crl.pem", "garbage");
  CHECK_THAT(failure(files), Catch::Contains("ca-crl.pem holds no list"));
  std::filesystem::remove(directory.root / "ca-cert.pem");
  CHECK_THAT(failure(files), Catch::Contains("ca-cert.pem: No such file"));
  files.verify_peer = false;
  CHECK(failure(files).empty());
  const auto loaded = *TlsCredentials::load_client(files);
  CHECK(loaded->local_client_files() == TlsClientFiles());

  TlsClientFiles key;
  key.psk_file = (directory.root / "keys").string();
  CHECK_THAT(failure(key), Catch::Contains("keys: No such file"));
  write_file(directory.root / "keys", "alice:0011\nbob:2233\n");
  CHECK_THAT(failure(key), Catch::Contains("several users"));
  key.user = "eve";
  CHECK_THAT(failure(key), Catch::Contains("has no key of eve"));
  key.user = "bob";
  CHECK(failure(key).empty());
  write_file(directory.root / "keys", "carol:0011\n");
  key.user = "";
  CHECK(failure(key).empty());
}

}  // namespace mkvirtfs::net
