// SPDX-License-Identifier: BSD-3-Clause
// What lists the exports of a server that is not trusted. The first byte chooses what is listed,
// and how, or that the rest is a URI. Otherwise the rest is what the server says, whatever it is
// asked: two bytes of length and so much for the first connection, and so on. The listing must end,
// and what it shows must be what was promised of it.
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>

#include "exports/export_tree.h"
#include "fuzz_require.h"
#include "nbd/client/dial.h"
#include "nbd/client/export_lister.h"
#include "nbd/client/server_address.h"
#include "support/text.h"

using namespace mkvirtfs;
using namespace mkvirtfs::nbd;

namespace {

void read_uri(std::string_view text) {
  const auto server = parse_uri(text);
  if (!server) {
    FUZZ_REQUIRE(!server.error().what.empty());
    return;
  }
  FUZZ_REQUIRE(server->name.size() <= kLongestString && is_valid_utf8(server->name));
  FUZZ_REQUIRE(server->name.find('\0') == std::string::npos);
  FUZZ_REQUIRE(server->host.empty() != server->unix_socket.empty());
  FUZZ_REQUIRE(server->host.find('\0') == std::string::npos);
  FUZZ_REQUIRE(server->unix_socket.size() < 108 &&
               server->unix_socket.find('\0') == std::string::npos);
}

/// Says one segment to each client, and hangs up behind it.
class Script {
 public:
  explicit Script(std::span<const std::byte> segments) : left_(segments) {}

  Result<UniqueFd> connect() {
    if (left_.size() < 2) return fail(Errc::io, "no more connections");
    const std::size_t length =
        std::to_integer<std::size_t>(left_[0]) << 8 | std::to_integer<std::size_t>(left_[1]);
    const auto segment = left_.subspan(2, std::min(length, left_.size() - 2));
    left_ = left_.subspan(2 + segment.size());
    int ends[2];
    FUZZ_REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    server_.reset(ends[0]);
    UniqueFd client(ends[1]);
    // What the kernel does not take at once is not said.
    [[maybe_unused]] const ssize_t sent =
        ::send(server_.get(), segment.data(), segment.size(), MSG_NOSIGNAL);
    ::shutdown(server_.get(), SHUT_WR);
    return client;
  }

 private:
  std::span<const std::byte> left_;
  UniqueFd server_;  // open, so that the client can say what it likes
};

void list(std::uint8_t how, std::span<const std::byte> input) {
  const std::string directory = (how & 2) == 0 ? "" : "a";
  const bool recursive = (how & 1) != 0;
  Script script(input);
  ExportLister lister([&] { return script.connect(); }, std::chrono::milliseconds(50));
  std::set<std::string> names;
  for (int again = 0; again < 2; ++again) {
    names.clear();
    const auto listed = lister.list(
        directory, recursive ? ExportLister::Depth::subtree : ExportLister::Depth::directory,
        [&](const ExportEntry& entry) {
          FUZZ_REQUIRE(entry.is_export || entry.is_directory);
          FUZZ_REQUIRE(!entry.is_directory || is_valid_export_name(entry.name));
          FUZZ_REQUIRE(directory.empty() || entry.name.starts_with(directory + '/'));
          if (!recursive && entry.is_directory) {
            FUZZ_REQUIRE(entry.name.find('/', directory.empty() ? 0 : directory.size() + 1) ==
                         std::string::npos);
          }
          FUZZ_REQUIRE(names.insert(entry.name).second);
          FUZZ_REQUIRE(names.size() <= input.size());
          return Result<void>();
        });
    FUZZ_REQUIRE(listed || !listed.error().what.empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto rest = std::as_bytes(std::span(data + 1, size - 1));
  if ((data[0] & 0x80) != 0) {
    read_uri({reinterpret_cast<const char*>(rest.data()), rest.size()});
  } else {
    list(data[0], rest);
  }
  return 0;
}
