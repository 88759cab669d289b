// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "exports/export_tree.h"
#include "nbd/wire/codec.h"
#include "nbd/wire/protocol.h"
#include "net/tls_channel.h"
#include "net/tls_credentials.h"
#include "support/error.h"
#include "support/unique_fd.h"

// The client's side of a handshake, as far as it takes to list what a server offers. The server is
// not trusted: what it sends is checked, and the memory it can cause is bounded.

namespace mkvirtfs::nbd {

/// Where a server is, and a name there ("NBD URI specification", doc/uri.md).
struct ServerAddress {
  std::string unix_socket;  ///< "": TCP
  std::string host;
  std::uint16_t port = 10809;
  std::string name;  ///< decoded: an export or a directory of exports
  /// Nothing: without TLS.
  std::optional<net::TlsClientFiles> tls;

  friend bool operator==(const ServerAddress&, const ServerAddress&) = default;
};

/// nbd://HOST[:PORT][/NAME] or nbd+unix:///[NAME]?socket=PATH. With TLS nbds:// and nbds+unix://,
/// USER@ before the host, and libnbd's parameters: tls-certificates=DIR, tls-psk-file=FILE,
/// tls-username=USER, tls-hostname=NAME and tls-verify-peer=0|1; the certificate must be the
/// host's, and over a Unix socket that of tls-hostname, if there is one. Errc::usage.
Result<ServerAddress> parse_uri(std::string_view uri);

Result<UniqueFd> connect_to(const ServerAddress& server, std::chrono::milliseconds patience);

/// One connection in its handshake. Belongs to one thread.
class HandshakeClient {
 public:
  /// Takes the greeting, and answers it. Errc::bad_peer: that is no NBD server of the kind that has
  /// options.
  /// With credentials (a client's), everything behind that goes through TLS, or it fails.
  static Result<HandshakeClient> start(
      UniqueFd connected, std::chrono::milliseconds patience,
      std::shared_ptr<const net::TlsCredentials> credentials = nullptr);

  /// What an option was answered with in the end: nothing is ACK. The text is the server's, raw.
  using Verdict = std::optional<OptionRefusal>;
  /// Sends an option and takes its replies. Those before the last one go to `visit`, which can find
  /// them wrong. Fails with Errc::bad_peer for what breaks the protocol, with Errc::io for a
  /// connection that ended or took longer than the client's patience for one option.
  Result<Verdict> ask(
      Option option, std::span<const std::byte> data,
      const std::function<Result<void>(OptionReply, std::span<const std::byte>)>& visit);

  /// Takes leave, politely and without waiting.
  void abort() noexcept;

 private:
  HandshakeClient(UniqueFd socket, std::chrono::milliseconds patience)
      : socket_(std::move(socket)), patience_(patience) {}

  using Deadline = std::chrono::steady_clock::time_point;
  Result<void> send(std::span<const std::byte> bytes, Deadline deadline);
  Result<void> receive(std::span<std::byte> room, Deadline deadline);
  Result<void> wait_for(short events, Deadline deadline);
  Result<void> start_tls(std::shared_ptr<const net::TlsCredentials> credentials, Deadline deadline);
  Result<void> send_raw(std::span<const std::byte> bytes, Deadline deadline);
  /// At least one byte.
  Result<std::size_t> receive_raw(std::span<std::byte> room, Deadline deadline);
  /// Lets TLS take what has come and say what it has to; how many plain bytes it gave.
  Result<std::size_t> turn_tls(std::span<std::byte> room, Deadline deadline);

  UniqueFd socket_;
  std::chrono::milliseconds patience_;
  std::unique_ptr<net::TlsChannel> tls_;
  std::vector<std::byte> cipher_;  // received, and not yet taken by TLS
};

/// Lists the exports of any server: with LIST_HIER, by the contexts x-mkvirtfs:, or from the flat
/// list, whichever the server has (docs/list-hier.md). Belongs to one thread.
class ExportLister {
 public:
  using Connect = std::function<Result<UniqueFd>()>;
  /// Entries in the order of a walk: a directory's own follow it. A failure ends the walk.
  using Visit = std::function<Result<void>(const ExportEntry&)>;

  /// `connect` is called again when a server ends a connection that has answered something.
  /// `credentials` as for HandshakeClient.
  explicit ExportLister(Connect connect,
                        std::chrono::milliseconds patience = std::chrono::seconds(30),
                        std::shared_ptr<const net::TlsCredentials> credentials = nullptr);
  ~ExportLister();
  ExportLister(const ExportLister&) = delete;
  ExportLister& operator=(const ExportLister&) = delete;

  /// The entries directly in `directory` ("": the root), or all below it.
  Result<void> list(const std::string& directory, bool recursive, const Visit& visit);

 private:
  enum class Way : std::uint8_t { unknown, option, contexts, flat };
  struct Page {
    std::vector<ExportEntry> entries;
    std::string next;  ///< the cursor; "": this was the last page
  };
  class PageMaker;

  Result<HandshakeClient::Verdict> ask(
      Option option, std::span<const std::byte> data,
      const std::function<Result<void>(OptionReply, std::span<const std::byte>)>& visit);
  /// Nothing when the server does not know this way.
  Result<std::optional<Page>> page_by_option(const std::string& directory,
                                             const std::string& cursor);
  Result<std::optional<Page>> page_by_contexts(const std::string& directory,
                                               const std::string& cursor);
  Result<Page> page(const std::string& directory, const std::string& cursor);
  Result<void> walk(const std::string& directory, bool recursive, std::size_t depth,
                    const Visit& visit);
  Result<void> list_flat(const std::string& directory, bool recursive, const Visit& visit);

  const Connect connect_;
  const std::chrono::milliseconds patience_;
  const std::shared_ptr<const net::TlsCredentials> credentials_;
  std::optional<HandshakeClient> client_;
  Way way_ = Way::unknown;
};

}  // namespace mkvirtfs::nbd
