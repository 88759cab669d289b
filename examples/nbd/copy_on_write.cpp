// SPDX-License-Identifier: BSD-3-Clause
// copy_on_write FILE SOCKET|PORT: FILE as a disk that can be written. What is written stays in
// memory, and FILE as it is; all clients see the same disk until the server ends. Prints the
// server's URI.
#include <mkvirtfs/nbd/server.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

using namespace mkvirtfs;

namespace {

/// A regular file or block device, read-only. A read may wait for the disk, as may_wait() says when
/// it is not overridden: the server makes such calls on threads of their own.
class FileDisk final : public BlockDevice {
 public:
  static Result<std::shared_ptr<BlockDevice>> open(const char* path) {
    UniqueFd file(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    const off_t size = file ? ::lseek(file.get(), 0, SEEK_END) : -1;
    if (size < 0) return fail_errno(Errc::unreadable, errno, path);
    return std::make_shared<FileDisk>(std::move(file), static_cast<std::uint64_t>(size));
  }
  FileDisk(UniqueFd file, std::uint64_t size_bytes)
      : file_(std::move(file)), geometry_{.size_bytes = size_bytes} {}

  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    while (!out.empty()) {
      const ssize_t count =
          ::pread(file_.get(), out.data(), out.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return fail_errno(Errc::io, errno, "read the file below");
      if (count == 0) return fail(Errc::source_changed, "the file below has become shorter");
      offset += static_cast<std::uint64_t>(count);
      out = out.subspan(static_cast<std::size_t>(count));
    }
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    if (range.length != 0) sink.extent({range.offset, range.length, ExtentKind::computed});
  }

 private:
  const UniqueFd file_;
  const Geometry geometry_;
};

/// A decorator: a writable device over any other, which it only reads.
///
/// Each block is in one of three states: below (not in the table), here (its bytes are) or zero
/// (the table has no bytes for it). A lock guards the table and the bytes, so that readers see a
/// block before a write or behind it. It is held while a block is read from below: all calls may
/// wait.
class CopyOnWrite final : public BlockDevice {
 public:
  explicit CopyOnWrite(std::shared_ptr<BlockDevice> below) : below_(std::move(below)) {
    geometry_ = below_->geometry();
    geometry_.writable = true;
    geometry_.zeroes_fast = true;
  }

  const Geometry& geometry() const noexcept override { return geometry_; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    const std::shared_lock lock(mutex_);
    return for_each_piece({offset, out.size()}, [&](const Piece& piece) -> Result<void> {
      const auto into = out.subspan(piece.range.offset - offset, piece.range.length);
      const auto found = blocks_.find(piece.block);
      if (found == blocks_.end()) return below_->read(piece.range.offset, into);
      if (found->second == nullptr) {
        std::ranges::fill(into, std::byte{0});
      } else {
        std::memcpy(into.data(), found->second.get() + piece.at, into.size());
      }
      return {};
    });
  }

  void map(Range range, ExtentSink& sink) const override {
    const std::shared_lock lock(mutex_);
    bool more = true;
    Range run{range.offset, 0};  // of blocks below, which are asked for together
    const auto flush_run = [&] {
      if (run.length != 0) {
        for_each_extent(*below_, run,
                        [&](const Extent& extent) { return more = sink.extent(extent); });
      }
    };
    const Result<void> walked = for_each_piece(range, [&](const Piece& piece) -> Result<void> {
      const auto found = blocks_.find(piece.block);
      if (found == blocks_.end()) {
        run.length += piece.range.length;
        return {};
      }
      flush_run();
      run = {piece.range.end(), 0};
      // Bytes that may change are not lent as `memory`: the server asks read() for them.
      const ExtentKind kind = found->second ? ExtentKind::computed : ExtentKind::hole;
      if (more) more = sink.extent({piece.range.offset, piece.range.length, kind});
      return more ? Result<void>{} : fail(Errc::io, "enough");
    });
    if (walked) flush_run();
  }

  Result<void> write(std::uint64_t offset, std::span<const std::byte> data) override {
    const std::unique_lock lock(mutex_);
    return for_each_piece({offset, data.size()}, [&](const Piece& piece) -> Result<void> {
      const Result<std::byte*> block = own(piece);
      if (!block) return std::unexpected(block.error());
      std::memcpy(*block + piece.at, data.data() + (piece.range.offset - offset),
                  piece.range.length);
      return {};
    });
  }

  Result<void> zero(Range range, bool keep_allocated) override {
    const std::unique_lock lock(mutex_);
    return for_each_piece(range, [&](const Piece& piece) -> Result<void> {
      if (is_whole(piece) && !keep_allocated) {
        blocks_[piece.block] = nullptr;
        return {};
      }
      const Result<std::byte*> block = own(piece);
      if (!block) return std::unexpected(block.error());
      std::memset(*block + piece.at, 0, piece.range.length);
      return {};
    });
  }

  /// What is trimmed may read as anything: whole blocks as zeroes, the rest as before.
  Result<void> trim(Range range) override {
    const std::unique_lock lock(mutex_);
    return for_each_piece(range, [&](const Piece& piece) -> Result<void> {
      if (is_whole(piece)) blocks_[piece.block] = nullptr;
      return {};
    });
  }

  /// Memory is as stable as it gets here.
  Result<void> flush() override { return {}; }

 private:
  static constexpr std::uint64_t kBlockBytes = 64U << 10;
  using Bytes = std::unique_ptr<std::byte[]>;

  /// The part of a range that lies in one block.
  struct Piece {
    std::uint64_t block = 0;
    std::uint64_t at = 0;  ///< in the block
    Range range;           ///< on the device
  };

  template <class Visit>
  Result<void> for_each_piece(Range range, Visit&& visit) const {
    while (range.length != 0) {
      const std::uint64_t at = range.offset % kBlockBytes;
      const std::uint64_t length = std::min(range.length, kBlockBytes - at);
      const Result<void> done =
          visit(Piece{range.offset / kBlockBytes, at, {range.offset, length}});
      if (!done) return done;
      range = {range.offset + length, range.length - length};
    }
    return {};
  }

  std::uint64_t block_length(std::uint64_t block) const noexcept {
    return std::min(kBlockBytes, geometry_.size_bytes - block * kBlockBytes);
  }
  bool is_whole(const Piece& piece) const noexcept {
    return piece.range.length == block_length(piece.block);
  }

  /// The bytes of the piece's block, ready to be written: what the piece will not cover is there.
  Result<std::byte*> own(const Piece& piece) {
    const auto found = blocks_.find(piece.block);
    if (found != blocks_.end() && found->second) return found->second.get();
    auto bytes = std::make_unique<std::byte[]>(kBlockBytes);  // zeroes
    if (found == blocks_.end() && !is_whole(piece)) {
      const Result<void> done =
          below_->read(piece.block * kBlockBytes, {bytes.get(), block_length(piece.block)});
      if (!done) return std::unexpected(done.error());
    }
    return (blocks_[piece.block] = std::move(bytes)).get();
  }

  const std::shared_ptr<BlockDevice> below_;
  Geometry geometry_;
  mutable std::shared_mutex mutex_;
  std::unordered_map<std::uint64_t, Bytes> blocks_;
};

nbd::Server* stopped_by_signal = nullptr;

Result<void> serve(const char* path, std::string_view where) {
  Result<std::shared_ptr<BlockDevice>> file = FileDisk::open(path);
  if (!file) return std::unexpected(file.error());
  auto exports = nbd::make_single_export(std::make_shared<CopyOnWrite>(*std::move(file)));
  if (!exports) return std::unexpected(exports.error());
  const auto server = nbd::Server::create(*std::move(exports), {.log = &stderr_log()});
  if (!server) return std::unexpected(server.error());

  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(where.data(), where.data() + where.size(), port);
  const bool is_port = error == std::errc() && end == where.data() + where.size();
  const Result<void> listening = is_port ? (*server)->listen_tcp("127.0.0.1", port)
                                         : (*server)->listen_unix(std::string(where));
  if (!listening) return listening;
  for (const std::string& uri : (*server)->uris()) std::printf("%s\n", uri.c_str());
  std::fflush(stdout);

  stopped_by_signal = server->get();
  struct sigaction action{};
  action.sa_handler = [](int) { stopped_by_signal->request_stop(); };
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
  return (*server)->run();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const Result<void> done = serve(argv[1], argv[2]);
  if (!done) std::fprintf(stderr, "%s\n", done.error().what.c_str());
  return done ? 0 : 1;
}
