// SPDX-License-Identifier: BSD-3-Clause
// One request at a time, answered by simple replies, which every server has: structured ones are
// not negotiated. Reads are cut into pieces, and widened to the alignment that the server wants.
#include "nbd/client/remote_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>
#include <vector>

#include "nbd/client/dial.h"
#include "nbd/wire/codec.h"
#include "nbd/wire/protocol.h"
#include "support/byte_order.h"

namespace mkvirtfs::nbd {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
constexpr std::uint32_t kMostAlignmentBytes = 64U << 10;  // "Block size constraints"

}  // namespace

Result<std::unique_ptr<RemoteExport>> RemoteExport::open(const ServerAddress& server,
                                                         std::chrono::milliseconds patience) {
  std::shared_ptr<const net::TlsCredentials> credentials;
  if (server.tls) {
    auto loaded = net::TlsCredentials::load_client(*server.tls);
    if (!loaded) return propagate(loaded);
    credentials = *std::move(loaded);
  }
  Result<UniqueFd> socket = connect_to(server, patience);
  if (!socket) return propagate(socket);
  Result<HandshakeClient> client =
      HandshakeClient::start(*std::move(socket), patience, std::move(credentials));
  if (!client) return propagate(client);
  std::unique_ptr<RemoteExport> made(new RemoteExport(*std::move(client)));
  if (Result<void> good = made->go(server); !good) return propagate(good);
  return made;
}

RemoteExport::~RemoteExport() {
  const MutexLock lock(mutex_);
  if (lost_) return;
  // The server may be gone: nobody waits for an answer.
  [[maybe_unused]] const Result<void> sent =
      client_.send_all(encode_request({0, Command::disc, 0, 0, 0}));
}

Result<void> RemoteExport::go(const ServerAddress& server) {
  const MutexLock lock(mutex_);
  std::vector<std::byte> data;
  const auto add = [&](std::span<const std::byte> bytes) {
    data.insert(data.end(), bytes.begin(), bytes.end());
  };
  add(pack(static_cast<std::uint32_t>(server.name.size())));
  add(as_bytes(server.name));
  add(pack(std::uint16_t{1}, std::to_underlying(Info::block_size)));
  const Result<HandshakeClient::Verdict> verdict =
      client_.ask(Option::go, data, [&](OptionReply reply, std::span<const std::byte> body) {
        return reply == OptionReply::info ? take_info(body)
                                          : protocol_violation("an answer to GO that is none");
      });
  if (!verdict) {
    lost_ = verdict.error();
    return propagate(verdict);
  }
  if (*verdict) {
    client_.abort();
    lost_ = Error{Errc::unreadable, 0, "the server refused the export"};
    return fail(Errc::unreadable,
                fmt::format("the server has no export '{}' for us{}{}", server.name,
                            (*verdict)->text.empty() ? "" : ": ", (*verdict)->text));
  }
  if (!has_size_) {
    Result<void> bad = protocol_violation("an export without a size");
    lost_ = bad.error();
    return bad;
  }
  if (size_bytes_ % alignment_bytes_ != 0) size_bytes_ -= size_bytes_ % alignment_bytes_;
  return {};
}

Result<void> RemoteExport::take_info(std::span<const std::byte> info) {
  if (info.size() < 2) return protocol_violation("information of no kind");
  switch (Info{load_be<std::uint16_t>(info)}) {
    case Info::export_:
      if (info.size() != 12) return protocol_violation("a size that is none");
      size_bytes_ = load_be<std::uint64_t>(info, 2);
      if (size_bytes_ > std::uint64_t{INT64_MAX}) return protocol_violation("a size of 2^63");
      has_size_ = true;
      return {};
    case Info::block_size:
      if (info.size() != 14) return protocol_violation("block sizes that are none");
      alignment_bytes_ = load_be<std::uint32_t>(info, 2);
      if (!std::has_single_bit(alignment_bytes_) || alignment_bytes_ > kMostAlignmentBytes) {
        return protocol_violation("a block size that is none");
      }
      return {};
    default:
      return {};
  }
}

Result<void> RemoteExport::read(std::uint64_t offset, std::span<std::byte> out) {
  const MutexLock lock(mutex_);
  std::vector<std::byte> wider;
  while (!out.empty()) {
    const std::uint64_t skipped = offset % alignment_bytes_;
    const std::size_t length = std::min<std::size_t>(out.size(), kPieceBytes - skipped);
    const std::uint64_t whole =
        (skipped + length + alignment_bytes_ - 1) / alignment_bytes_ * alignment_bytes_;
    const bool is_aligned = skipped == 0 && whole == length;
    if (!is_aligned) wider.resize(whole);
    Result<void> read =
        read_piece(offset - skipped, is_aligned ? out.first(length) : std::span(wider));
    if (!read) return read;
    if (!is_aligned) std::ranges::copy(std::span(wider).subspan(skipped, length), out.begin());
    out = out.subspan(length);
    offset += length;
  }
  return {};
}

std::unexpected<Error> RemoteExport::lose(Error error) {
  lost_ = error;
  return std::unexpected(std::move(error));
}

Result<void> RemoteExport::read_piece(std::uint64_t offset, std::span<std::byte> out) {
  if (lost_) return std::unexpected(*lost_);
  const std::uint64_t cookie = ++cookie_;
  Result<void> sent =
      client_.send_all(encode_request({0, Command::read, cookie, offset, out.size()}));
  if (!sent) return lose(std::move(sent).error());
  std::array<std::byte, kSimpleReplyBytes> reply{};
  if (Result<void> got = client_.receive_all(reply); !got) {
    return lose(std::move(got).error());
  }
  if (load_be<std::uint32_t>(reply) != kSimpleReplyMagic ||
      load_be<std::uint64_t>(reply, 8) != cookie) {
    return lose(protocol_violation("an answer to nothing that was asked").error());
  }
  // The protocol's numbers of errors are those of Linux.
  if (const auto error = load_be<std::uint32_t>(reply, 4); error != 0) {
    return fail_errno(Errc::unreadable, static_cast<int>(error & 0xff),
                      fmt::format("the server cannot read {} bytes at {}", out.size(), offset));
  }
  if (Result<void> got = client_.receive_all(out); !got) return lose(std::move(got).error());
  return {};
}

}  // namespace mkvirtfs::nbd
