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

#include "nbd/export_tree.h"
#include "nbd/extension.h"
#include "nbd/protocol.h"
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

  friend bool operator==(const ServerAddress&, const ServerAddress&) = default;
};

/// nbd://HOST[:PORT][/NAME] or nbd+unix:///[NAME]?socket=PATH. Errc::usage; Errc::unsupported for
/// schemes with TLS.
Result<ServerAddress> parse_uri(std::string_view uri);

Result<UniqueFd> connect_to(const ServerAddress& server, std::chrono::milliseconds patience);

/// One connection in its handshake. Belongs to one thread.
class HandshakeClient {
 public:
  /// Takes the greeting, and answers it. Errc::bad_peer: that is no NBD server of the kind that has
  /// options.
  static Result<HandshakeClient> start(UniqueFd connected, std::chrono::milliseconds patience);

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

  UniqueFd socket_;
  std::chrono::milliseconds patience_;
};

/// Lists the exports of any server: with LIST_HIER, by the contexts x-mkvirtfs:, or from the flat
/// list, whichever the server has (docs/list-hier.md). Belongs to one thread.
class ExportLister {
 public:
  using Connect = std::function<Result<UniqueFd>()>;
  /// Entries in the order of a walk: a directory's own follow it. A failure ends the walk.
  using Visit = std::function<Result<void>(const ExportEntry&)>;

  /// `connect` is called again when a server ends a connection that has answered something.
  explicit ExportLister(Connect connect,
                        std::chrono::milliseconds patience = std::chrono::seconds(30));
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
  std::optional<HandshakeClient> client_;
  Way way_ = Way::unknown;
};

}  // namespace mkvirtfs::nbd
