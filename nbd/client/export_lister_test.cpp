// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/client/export_lister.h"

#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <deque>
#include <thread>

#include <fmt/format.h>

#include "block/testing/memory_device.h"
#include "exports/testing/generated_tree.h"
#include "nbd/client/dial.h"
#include "nbd/client/server_address.h"
#include "nbd/server/list_hier.h"
#include "nbd/server/server.h"
#include "nbd/wire/testing/messages.h"
#include "net/testing/tls_party.h"
#include "support/text.h"

namespace mkvirtfs::nbd {
namespace {

using testing::Bytes;
using Depth = ExportLister::Depth;

constexpr std::chrono::milliseconds kPatience{5000};

Bytes greeting() {
  Bytes bytes;
  bytes += encode_greeting(kFixedNewstyle | kNoZeroes);
  return bytes;
}

Bytes reply(Option number, OptionReply type, std::span<const std::byte> data = {}) {
  Bytes bytes;
  bytes += encode_option_reply(number, type, static_cast<std::uint32_t>(data.size()));
  bytes += data;
  return bytes;
}
Bytes hier(OptionReply type, std::span<const std::byte> data = {}) {
  return reply(kListHier, type, data);
}

Bytes named(std::string_view name, std::string_view rest = {}) {
  Bytes data;
  data += pack(static_cast<std::uint32_t>(name.size()));
  data += testing::bytes_of(name);
  data += testing::bytes_of(rest);
  return data;
}
Bytes an_export(std::string_view name) { return hier(OptionReply::server, named(name)); }
Bytes a_directory(std::string_view name) {
  return hier(kServerDir, named(name, std::string_view("\0\0\0\0\xff\xff\xff\xff", 8)));
}
Bytes more(std::string_view cursor) { return hier(kHierMore, testing::bytes_of(cursor)); }
Bytes done() { return hier(OptionReply::ack); }

template <class... Parts>
Bytes join(const Parts&... parts) {
  Bytes all;
  ((all += parts), ...);
  return all;
}

/// A server that says what it was told to, whatever the client asks: one script a connection.
/// Behind its script it hangs up.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::deque<Bytes> scripts) : scripts_(std::move(scripts)) {}
  ~ScriptedServer() {
    for (std::thread& thread : threads_) thread.join();
  }
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  Result<UniqueFd> connect() {
    ++connections;
    if (scripts_.empty()) return fail(Errc::io, "no more connections");
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    threads_.emplace_back([server = UniqueFd(ends[0]), script = std::move(scripts_.front())] {
      std::span<const std::byte> left(script);
      while (!left.empty()) {
        const ssize_t sent = ::send(server.get(), left.data(), left.size(), MSG_NOSIGNAL);
        if (sent <= 0) return;
        left = left.subspan(static_cast<std::size_t>(sent));
      }
      ::shutdown(server.get(), SHUT_WR);
      std::array<std::byte, 4096> dropped;
      while (::recv(server.get(), dropped.data(), dropped.size(), 0) > 0) {
      }
    });
    scripts_.pop_front();
    return UniqueFd(ends[1]);
  }

  int connections = 0;

 private:
  std::deque<Bytes> scripts_;
  std::vector<std::thread> threads_;
};

std::string shown(const ExportEntry& entry) {
  std::string text = '"' + entry.name + '"';
  if (entry.is_directory) text += entry.is_export ? "+/" : "/";
  if (!entry.description.empty()) text += '(' + entry.description + ')';
  return text;
}

/// What a listing shows, or "ERROR: " and why it failed behind that.
std::string listing(ExportLister& lister, const std::string& directory,
                    Depth depth = Depth::directory) {
  std::string text;
  const auto result = lister.list(directory, depth, [&](const ExportEntry& entry) {
    text += (text.empty() ? "" : " ") + shown(entry);
    return Result<void>();
  });
  if (!result) {
    text += (text.empty() ? "ERROR: " : " ERROR: ") + printable(result.error().what);
  }
  return text;
}

std::string scripted(std::deque<Bytes> scripts, const std::string& directory = {},
                     Depth depth = Depth::directory) {
  ScriptedServer server(std::move(scripts));
  ExportLister lister([&] { return server.connect(); }, kPatience);
  return listing(lister, directory, depth);
}

/// A real server, with or without LIST_HIER and the contexts.
class RealServer {
 public:
  enum class Ways : std::uint8_t { both, contexts, flat };
  RealServer(std::shared_ptr<ExportTree> tree, Ways ways, ServerOptions options = {}) {
    Extensions with_list;
    REQUIRE(add_list_hier(with_list));
    auto extensions = std::make_shared<Extensions>();
    if (ways == Ways::both) REQUIRE(add_list_hier(*extensions));
    if (ways == Ways::contexts) REQUIRE(extensions->add_namespace(with_list.namespaces().back()));
    options.extensions = extensions;
    server_ = *Server::create(std::move(tree), options);
    thread_ = std::thread([this] { result_ = server_->run(); });
  }
  ~RealServer() {
    server_->request_stop();
    thread_.join();
    CHECK(result_);
  }
  RealServer(const RealServer&) = delete;
  RealServer& operator=(const RealServer&) = delete;

  Result<UniqueFd> connect() {
    ++connections;
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    REQUIRE(server_->adopt(UniqueFd(ends[0])));
    return UniqueFd(ends[1]);
  }

  int connections = 0;

 private:
  std::unique_ptr<Server> server_;
  Result<void> result_;  // of run(), when the thread has ended
  std::thread thread_;
};

std::shared_ptr<ExportTree> small_tree() {
  const auto device = std::make_shared<testing::MemoryDevice>(std::vector<std::byte>(512));
  std::vector<Export> exports;
  for (const char* name : {"a", "", "a-b", "a/b", "a/b/c", "a/d", "tools/deep/er", "z"}) {
    exports.push_back({name, name == std::string("a/d") ? "about" : "", device});
  }
  return *make_fixed_exports(exports);
}

}  // namespace

TEST_CASE("URIs of NBD say where a server is", "[list_client]") {
  const auto tcp = [](const char* host, std::uint16_t port, const char* name) {
    return ServerAddress{"", host, port, name, {}};
  };
  CHECK(parse_uri("nbd://host").value() == tcp("host", 10809, ""));
  CHECK(parse_uri("nbd://host/").value() == tcp("host", 10809, ""));
  CHECK(parse_uri("nbd://127.0.0.1:5/tools/b").value() == tcp("127.0.0.1", 5, "tools/b"));
  CHECK(parse_uri("nbd://[::1]:65535/a%20b?x=y").value() == tcp("::1", 65535, "a b"));
  CHECK(parse_uri("nbd://[::1]/a").value() == tcp("::1", 10809, "a"));
  CHECK(parse_uri("nbd+unix:///?socket=/tmp/s").value() ==
        ServerAddress{"/tmp/s", "", 10809, "", {}});
  CHECK(parse_uri("nbd+unix:///a/b?x=y&socket=/tmp/a%3db").value() ==
        ServerAddress{"/tmp/a=b", "", 10809, "a/b", {}});
  for (const char* uri : {"",
                          "host",
                          "http://host",
                          "nbd://",
                          "nbd:///name",
                          "nbd://host:/",
                          "nbd://host:65536",
                          "nbd://host:1x",
                          "nbd://host:-1",
                          "nbd://[::1",
                          "nbd://[::1]5",
                          "nbd://host/%",
                          "nbd://host/%4",
                          "nbd://host/%zz",
                          "nbd://host/%00",
                          "nbd://host/%ff",
                          "nbd+unix:///",
                          "nbd+unix:///?socket=",
                          "nbd+unix://host/?socket=/s",
                          "nbd+unix:///?socket=%00",
                          "nbd+tcp://host",
                          "nbdsx://host",
                          "nbds:///name",
                          "nbds+unix:///",
                          "nbds://%00@host",
                          "nbds://host/?tls-psk-file=%00",
                          "nbds://host/?tls-verify-peer=maybe"}) {
    CAPTURE(uri);
    const auto parsed = parse_uri(uri);
    REQUIRE_FALSE(parsed);
    CHECK_THAT(parsed.error().what, Catch::StartsWith(uri));
  }
  CHECK_FALSE(parse_uri("nbd+unix:///?socket=/" + std::string(200, 'x')));
}

TEST_CASE("URIs say what TLS shall be like", "[list_client][tls]") {
  CHECK_FALSE(parse_uri("nbd://alice@host")->tls);
  CHECK(parse_uri("nbd://alice@host")->host == "host");
  const auto plain = parse_uri("nbds://host:5/a").value();
  CHECK(plain.name == "a");
  CHECK(plain.port == 5);
  CHECK(plain.tls.value() == net::TlsClientFiles{"", "", "", "host", true});
  CHECK(parse_uri("nbds://a%40b@[::1]/?tls-psk-file=/k%26&tls-certificates=/pki")
            .value()
            .tls.value() == net::TlsClientFiles{"/pki", "/k&", "a@b", "::1", true});
  CHECK(parse_uri("nbds://host/?tls-hostname=other&tls-username=eve&tls-verify-peer=0")
            .value()
            .tls.value() == net::TlsClientFiles{"", "", "eve", "other", false});
  const auto local = parse_uri("nbds+unix://alice@/x?tls-psk-file=/k&socket=/s").value();
  CHECK(local.unix_socket == "/s");
  CHECK(local.tls.value() == net::TlsClientFiles{"", "/k", "alice", "", true});
}

TEST_CASE("a tree looks the same by whichever way a server has", "[list_client]") {
  using Ways = RealServer::Ways;
  const Ways ways = GENERATE(Ways::both, Ways::contexts, Ways::flat);
  CAPTURE(static_cast<int>(ways));
  RealServer server(small_tree(), ways);
  ExportLister lister([&] { return server.connect(); }, kPatience);
  const std::string about = ways == Ways::contexts ? "" : "(about)";
  CHECK(listing(lister, "") == R"("" "a"+/ "a-b" "tools"/ "z")");
  CHECK(listing(lister, "a") == R"("a/b"+/ "a/d")" + about);
  CHECK(listing(lister, "tools") == R"("tools/deep"/)");
  CHECK(listing(lister, "", Depth::subtree) ==
        R"("" "a"+/ "a/b"+/ "a/b/c" "a/d")" + about +
            R"( "a-b" "tools"/ "tools/deep"/ "tools/deep/er" "z")");
  CHECK(listing(lister, "a", Depth::subtree) == R"("a/b"+/ "a/b/c" "a/d")" + about);
  CHECK_THAT(listing(lister, "z"), Catch::StartsWith("ERROR: there is no directory \"z\""));
  CHECK_THAT(listing(lister, "none"), Catch::StartsWith("ERROR: there is no directory \"none\""));
  CHECK(server.connections == 1);
}

TEST_CASE("a hundred thousand exports are listed, by one connection", "[list_client]") {
  const auto tree = std::make_shared<testing::GeneratedTree>(100'000);
  RealServer server(tree, RealServer::Ways::both);
  ExportLister lister([&] { return server.connect(); }, kPatience);
  std::size_t count = 0;
  bool right = true;
  REQUIRE(lister.list("wide", Depth::directory, [&](const ExportEntry& entry) -> Result<void> {
    right = right && entry.name == tree->name(count++);
    return {};
  }));
  CHECK(right);
  CHECK(count == 100'000);
  CHECK(server.connections == 1);
  CHECK(tree->opens == 0);
}

TEST_CASE("a walk goes on when the server has had enough of a connection", "[list_client]") {
  // Contexts count as what they are, so that one connection does not do for so many directories.
  const auto device = std::make_shared<testing::MemoryDevice>(std::vector<std::byte>(512));
  std::vector<Export> exports;
  for (int i = 0; i < 3; ++i) {
    std::string name = fmt::format("root-{}", i);
    for (int depth = 0; depth < 100; ++depth) name += "/d";
    exports.push_back({name, "", device});
  }
  RealServer server(*make_fixed_exports(exports), RealServer::Ways::contexts);
  ExportLister lister([&] { return server.connect(); }, kPatience);
  std::size_t count = 0;
  REQUIRE(lister.list("", Depth::subtree, [&](const ExportEntry&) -> Result<void> {
    ++count;
    return {};
  }));
  CHECK(count == 3 * 101);
  CHECK(server.connections > 1);
  CHECK(server.connections < 12);
}

TEST_CASE("what a visitor refuses ends the walk", "[list_client]") {
  RealServer server(small_tree(), RealServer::Ways::both);
  ExportLister lister([&] { return server.connect(); }, kPatience);
  int seen = 0;
  const auto result = lister.list("", Depth::subtree, [&](const ExportEntry&) -> Result<void> {
    if (++seen == 3) return fail(Errc::io, "enough");
    return {};
  });
  REQUIRE_FALSE(result);
  CHECK(result.error().what == "enough");
  CHECK(seen == 3);
}

TEST_CASE("a tree is listed through TLS, or not at all", "[list_client][tls]") {
  static const net::testing::Party kParty;
  const TempDir known;  // what a client with a certificate has
  write_file(known / "ca-cert.pem", kParty.authority.self().crt_pem());
  write_file(known / "client-cert.pem", kParty.client.crt_pem());
  write_file(known / "client-key.pem", kParty.client.key_pem());
  const TempDir nobody;
  write_file(nobody / "ca-cert.pem", kParty.authority.self().crt_pem());
  const TempDir misled;
  write_file(misled / "ca-cert.pem", kParty.other.self().crt_pem());
  write_file(misled / "keys", "alice:" + std::string(64, '8') + "\nmallory:0102030405060708\n");

  const auto served = [&](TlsMode mode, bool verify_peer, bool keys, bool certificates) {
    ServerOptions options;
    options.tls = mode;
    if (mode != TlsMode::off) {
      options.tls_credentials = kParty.credentials(verify_peer, keys, certificates);
    }
    return std::make_unique<RealServer>(small_tree(), RealServer::Ways::both, options);
  };
  const auto listed = [&](RealServer& server, const net::TlsClientFiles& files) -> std::string {
    const auto credentials = net::TlsCredentials::load_client(files);
    if (!credentials) return credentials.error().what;
    ExportLister lister([&] { return server.connect(); }, kPatience, *credentials);
    return listing(lister, "a");
  };
  const auto refused = [&](RealServer& server, const net::TlsClientFiles& files, const char* why) {
    CHECK_THAT(listed(server, files), Catch::Contains("ERROR: ") && Catch::Contains(why));
  };
  const std::string expected = R"("a/b"+/ "a/d"(about))";
  net::TlsClientFiles certificate{known.path().string(), "", "", "localhost", true};
  net::TlsClientFiles key{"", (kParty.root / "keys.psk").string(), "alice", "", true};

  SECTION("certificates") {
    const auto server = served(TlsMode::require, true, false, true);
    CHECK(listed(*server, certificate) == expected);
    CHECK(listed(*server, {known.path().string(), "", "", "", true}) == expected);
    refused(*server, {nobody.path().string(), "", "", "localhost", true}, "TLS: ");
    certificate.server_name = "elsewhere";
    refused(*server, certificate, "name in the certificate does not match");
    certificate.server_name = "127.0.0.1";
    refused(*server, certificate, "name in the certificate does not match");
    certificate.verify_peer = false;
    CHECK(listed(*server, certificate) == expected);
    // Another authority's word does not count, and neither do the system's, if it knows any.
    const std::string by_system = listed(*server, {"", "", "", "localhost", true});
    CHECK_THAT(by_system, Catch::StartsWith("ERROR: TLS: ") ||
                              Catch::StartsWith("this system has no certificate authorities"));
    refused(*server, {misled.path().string(), "", "", "localhost", true}, "NOT trusted");
    refused(*server, key, "and no pre-shared keys");
  }
  SECTION("keys") {
    const auto server = served(TlsMode::require, false, true, false);
    CHECK(listed(*server, key) == expected);
    key.user = "bob";
    CHECK(listed(*server, key) == expected);
    const std::string wrong = (misled / "keys").string();
    refused(*server, {"", wrong, "alice", "", true}, "TLS: ");
    refused(*server, {"", wrong, "mallory", "", true}, "TLS: ");
    refused(*server, certificate, "TLS: the server refused");
  }
  SECTION("a server with a certificate and without the key does not get past a client with one") {
    const auto server = served(TlsMode::require, false, false, true);
    for (const bool verify_peer : {true, false}) {
      key.verify_peer = verify_peer;
      CHECK_THAT(listed(*server, key), Catch::StartsWith("ERROR: TLS: "));
    }
  }
  SECTION("a server without TLS is not listed without it") {
    const auto server = served(TlsMode::off, false, false, false);
    refused(*server, certificate, "the server has no TLS: ");
  }
  SECTION("a client without TLS") {
    const auto server = served(TlsMode::require, false, true, true);
    ExportLister lister([&] { return server->connect(); }, kPatience);
    CHECK_THAT(listing(lister, ""), Catch::StartsWith("ERROR: "));
  }
  SECTION("hostile servers") {
    const auto credentials = *net::TlsCredentials::load_client(key);
    const Bytes ack = reply(Option::starttls, OptionReply::ack);
    const auto against = [&](const Bytes& script) {
      ScriptedServer server({script});
      ExportLister lister([&] { return server.connect(); }, kPatience, credentials);
      return listing(lister, "");
    };
    CHECK_THAT(against(join(greeting(), ack)), Catch::Contains("closed the connection"));
    // What somebody put behind the ACK is no TLS, and is not taken for the server's word either.
    CHECK_THAT(against(join(greeting(), ack, an_export("evil"), done())),
               Catch::StartsWith("ERROR: TLS: "));
    CHECK_THAT(against(join(greeting(), ack, Bytes(300'000, std::byte{0x16}))),
               Catch::StartsWith("ERROR: TLS: "));
    CHECK_THAT(against(join(greeting(), reply(Option::starttls, OptionReply::server, Bytes(4)))),
               Catch::Contains("STARTTLS that is none"));
    CHECK_THAT(against(join(greeting(), reply(Option::starttls, OptionReply::err_policy,
                                              testing::bytes_of("no\x1b")))),
               Catch::Equals("ERROR: the server has no TLS: no\\x1b"));
  }
}

TEST_CASE("hostile answers are refused", "[list_client][A24]") {
  const Bytes root = join(greeting(), an_export("a"), a_directory("d"), done());
  const auto lists = [&](const std::string& directory, const Bytes& answer) {
    CAPTURE(directory);
    return scripted({join(root, answer)}, directory);
  };
  const auto refused = [&](const std::string& directory, const Bytes& answer, const char* why) {
    CHECK_THAT(lists(directory, answer), Catch::Contains("ERROR: ") && Catch::Contains(why));
  };
  CHECK(lists("d", join(an_export("d/x"), done())) == R"("d/x")");
  SECTION("names") {
    for (const char* name : {"x", "d", "d/", "d//x", "d/x/y", "d/..", "d/.", "e/x", "/d/x", "",
                             "d/\n", "d/\x1b[2J", "d/\xff"}) {
      CAPTURE(name);
      refused("d", join(an_export(name), done()), "cannot be in the directory");
      refused("d", join(a_directory(name), done()), "cannot be in the directory");
    }
    refused("d", join(an_export("d/" + std::string(4095, 'x')), done()), "cannot be in");
  }
  SECTION("order") {
    refused("d", join(an_export("d/b"), an_export("d/a"), done()), "order");
    refused("d", join(an_export("d/b"), an_export("d/b"), done()), "order");
    refused("d", join(a_directory("d/b"), a_directory("d/b"), done()), "twice");
    refused("d", join(an_export("d/b"), more("b"), done(), an_export("d/b"), done()), "order");
    refused("d", join(an_export("d/b"), more("b"), done(), an_export("d/a"), done()), "order");
  }
  SECTION("pages") {
    refused("d", join(more("x"), done()), "end as it should");
    refused("d", join(an_export("d/x"), more(""), done()), "end as it should");
    refused("d", join(an_export("d/x"), more("x"), more("x"), done()), "end as it should");
    refused("d", join(an_export("d/x"), more(std::string(4097, 'x')), done()), "end as it should");
    refused("d", join(an_export("d/x"), more("x"), an_export("d/y"), done()), "behind the end");
    Bytes flood;
    for (int i = 0; i < 257; ++i) flood += an_export(fmt::format("d/{:04}", i));
    refused("d", join(flood, done()), "more entries");
  }
  SECTION("framing") {
    refused("d", hier(OptionReply::ack, testing::bytes_of("x")), "ACK with data");
    refused("d", reply(Option::list, OptionReply::ack), "nothing that was asked");
    refused("d", Bytes(20), "nothing that was asked");
    Bytes huge;
    huge += encode_option_reply(kListHier, OptionReply::server, 0xffffffff);
    refused("d", huge, "longer than it may");
    refused("d", join(hier(OptionReply::info, Bytes(4)), done()), "unknown reply");
    refused("d", join(hier(OptionReply::server, Bytes(3)), done()), "too short");
    refused("d", join(hier(kServerDir, named("d/x")), done()), "too short");
    for (const std::uint32_t length : {4U, 0xffffffffU, 0x80000000U}) {
      Bytes lying = named("d/x");
      std::ranges::copy(pack(length), lying.begin());
      refused("d", join(hier(OptionReply::server, lying), done()), "longer than its reply");
    }
  }
  SECTION("refusals") {
    refused("d", hier(OptionReply::err_unknown, testing::bytes_of("no\n\x1b such")),
            "ERROR: no\\x0a\\x1b such");
    refused("d", hier(OptionReply::err_policy), "does not list");
    refused("d", hier(OptionReply::err_unsup), "no longer lists");
  }
}

TEST_CASE("a server that is none, or leaves, is reported as such", "[list_client]") {
  CHECK_THAT(scripted({testing::bytes_of("HTTP/1.1 400 Bad Request\r\n")}),
             Catch::Contains("not an NBD server"));
  CHECK_THAT(scripted({Bytes()}), Catch::Contains("closed"));
  Bytes old;
  old += encode_greeting(0);
  CHECK_THAT(scripted({old}), Catch::Contains("too old"));
  const Bytes whole = join(greeting(), an_export("a"), more("a"), done());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK_THAT(scripted({part}), Catch::Contains("ERROR: "));
  }
  SECTION("a connection that was of use is made again, once for each page") {
    ScriptedServer server(
        {join(greeting(), an_export("a"), done(), an_export("a"), more("a"), done()),
         join(greeting(), an_export("b"), done())});
    ExportLister lister([&] { return server.connect(); }, kPatience);
    CHECK(listing(lister, "") == R"("a" "b")");
    CHECK(server.connections == 2);
  }
  SECTION("one that was of none is not") {
    ScriptedServer server({join(greeting(), an_export("a"), done()), greeting(), greeting()});
    ExportLister lister([&] { return server.connect(); }, kPatience);
    CHECK_THAT(listing(lister, ""), Catch::Contains("closed"));
    CHECK(server.connections == 2);
  }
  SECTION("one that says nothing is left") {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    const UniqueFd silent(ends[0]);
    ExportLister lister([&] { return Result<UniqueFd>(UniqueFd(ends[1])); },
                        std::chrono::milliseconds(50));
    CHECK_THAT(listing(lister, ""), Catch::Contains("too long"));
  }
}

TEST_CASE("a tree without a bottom has an end", "[list_client]") {
  Bytes script = join(greeting(), done());
  std::string name;
  for (int i = 0; i < 400; ++i) {
    name += name.empty() ? "d" : "/d";
    script += join(a_directory(name), done());
  }
  CHECK_THAT(scripted({script}, "", Depth::subtree), Catch::Contains("ERROR: 257 levels"));
}

TEST_CASE("flat lists of any server become a tree", "[list_client]") {
  const auto flat = [](std::initializer_list<std::string_view> names, const std::string& directory,
                       Depth depth) {
    Bytes script = join(greeting(), hier(OptionReply::err_unsup),
                        reply(Option::list_meta_context, OptionReply::err_unsup));
    for (const std::string_view name : names) {
      script += reply(Option::list, OptionReply::server, named(name));
    }
    script += reply(Option::list, OptionReply::ack);
    return scripted({script}, directory, depth);
  };
  CHECK(flat({"z", "a/b/c", "a", "z", "a-", "a/b/d"}, "", Depth::directory) == R"("a"+/ "a-" "z")");
  CHECK(flat({"z", "a/b/c", "a", "z", "a-", "a/b/d"}, "", Depth::subtree) ==
        R"("a"+/ "a/b"/ "a/b/c" "a/b/d" "a-" "z")");
  CHECK(flat({"z", "a/b/c", "a/b/d"}, "a", Depth::directory) == R"("a/b"/)");
  CHECK(flat({"z", "a/b/c", "a/b/d"}, "a/b", Depth::subtree) == R"("a/b/c" "a/b/d")");
  CHECK(flat({}, "", Depth::subtree).empty());
  CHECK(flat({""}, "", Depth::subtree) == R"("")");
  // Others have names that are no paths.
  CHECK(flat({"/dev/sda", "a//b", "..", "x/"}, "", Depth::subtree) ==
        R"("/dev/sda" ".." "a//b" "x/")");
  CHECK_THAT(flat({"ab"}, "a", Depth::directory),
             Catch::Contains("ERROR: there is no directory \"a\""));
  CHECK_THAT(scripted({join(greeting(), hier(OptionReply::err_unsup),
                            reply(Option::list_meta_context, OptionReply::ack),
                            reply(Option::list, OptionReply::err_policy))}),
             Catch::Contains("does not list its exports"));
  Bytes endless = join(greeting(), hier(OptionReply::err_unsup),
                       reply(Option::list_meta_context, OptionReply::ack));
  const Bytes large = reply(Option::list, OptionReply::server,
                            named(std::string(4096, 'x'), std::string(4096, 'y')));
  for (int i = 0; i < 9000; ++i) endless += large;
  CHECK_THAT(scripted({endless}), Catch::Contains("has no end"));
}

}  // namespace mkvirtfs::nbd
