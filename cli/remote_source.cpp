// SPDX-License-Identifier: BSD-3-Clause
#include "cli/remote_source.h"

#include <utility>

#include "nbd/client/remote_export.h"
#include "nbd/client/server_address.h"

namespace mkvirtfs::cli {
namespace {

class RemoteSource final : public ByteSource {
 public:
  RemoteSource(std::unique_ptr<nbd::RemoteExport> remote, std::string uri)
      : remote_(std::move(remote)), uri_(std::move(uri)) {}

  std::uint64_t size_bytes() const noexcept override { return remote_->size_bytes(); }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    Result<void> read = remote_->read(offset, out);
    return read ? Result<void>() : propagate(uri_, read);
  }
  std::string name() const override { return uri_; }

 private:
  const std::unique_ptr<nbd::RemoteExport> remote_;
  const std::string uri_;
};

}  // namespace

Result<std::shared_ptr<ByteSource>> open_remote_source(const std::string& uri) {
  const Result<nbd::ServerAddress> server = nbd::parse_uri(uri);
  if (!server) return propagate(server);
  Result<std::unique_ptr<nbd::RemoteExport>> remote = nbd::RemoteExport::open(*server);
  if (!remote) return propagate(uri, remote);
  return std::make_shared<RemoteSource>(*std::move(remote), uri);
}

}  // namespace mkvirtfs::cli
