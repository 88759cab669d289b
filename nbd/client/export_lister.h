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
#include <vector>

#include "exports/export_tree.h"
#include "nbd/client/handshake_client.h"
#include "nbd/wire/protocol.h"
#include "net/tls_credentials.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::nbd {

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

  enum class Depth : std::uint8_t {
    directory,  ///< the entries directly in it
    subtree,    ///< all below it
  };
  /// "" is the root.
  Result<void> list(const std::string& directory, Depth depth, const Visit& visit);

 private:
  enum class Way : std::uint8_t { unknown, option, contexts, flat };
  struct Page {
    std::vector<ExportEntry> entries;
    std::string next;  ///< the cursor; "": this was the last page
  };
  class PageMaker;

  Result<HandshakeClient::Verdict> ask(Option option, std::span<const std::byte> data,
                                       const HandshakeClient::VisitReply& visit);
  /// Nothing when the server does not know this way.
  Result<std::optional<Page>> page_by_option(const std::string& directory,
                                             const std::string& cursor);
  Result<std::optional<Page>> page_by_contexts(const std::string& directory,
                                               const std::string& cursor);
  Result<Page> page(const std::string& directory, const std::string& cursor);
  Result<void> find_way();
  Result<void> walk(const std::string& directory, Depth depth, std::size_t level,
                    const Visit& visit);
  Result<std::vector<ExportEntry>> flat_list();

  const Connect connect_;
  const std::chrono::milliseconds patience_;
  const std::shared_ptr<const net::TlsCredentials> credentials_;
  std::optional<HandshakeClient> client_;
  Way way_ = Way::unknown;
};

}  // namespace mkvirtfs::nbd
