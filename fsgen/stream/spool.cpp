// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/spool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "block/page_cache.h"
#include "support/text.h"

namespace mkvirtfs {

Result<UniqueFd> SpoolSpace::make_file() const {
  UniqueFd fd(::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd) return fd;
  // File systems that know no files without names say so in several ways.
  if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT) {
    std::string path = directory_ + "/mkvirtfs-spool-XXXXXX";
    fd.reset(::mkostemp(path.data(), O_CLOEXEC));
    if (fd) {
      ::unlink(path.c_str());
      return fd;
    }
  }
  return fail_errno(errno, fmt::format("make a spool in {}", directory_), {{"spool-dir"}});
}

bool SpoolSpace::reserve(std::uint64_t bytes) noexcept {
  std::uint64_t used = used_bytes_.load(std::memory_order_relaxed);
  do {
    if (used > limit_bytes_ || bytes > limit_bytes_ - used) return false;
  } while (!used_bytes_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  return true;
}

/// The file and its part of the space; lives as long as a writer or a source does.
struct SpoolWriter::File {
  File(std::shared_ptr<SpoolSpace> its_space, std::string its_name)
      : space(std::move(its_space)), name(std::move(its_name)) {}
  ~File() { space->release(reserved_bytes); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::shared_ptr<SpoolSpace> space;
  const std::string name;
  std::shared_ptr<const UniqueFd> fd;  // made before there is a source
  std::uint64_t reserved_bytes = 0;    // the writer's
  std::atomic<std::uint64_t> size_bytes = 0;
};

/// A finished spool. No other process has the file, so it need not be checked again.
class SpoolSource final : public ByteSource {
 public:
  explicit SpoolSource(std::shared_ptr<const SpoolWriter::File> file) : file_(std::move(file)) {}

  std::uint64_t size_bytes() const noexcept override {
    return file_->size_bytes.load(std::memory_order_acquire);
  }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    if (out.empty()) return {};
    const Result<std::size_t> got = reader_.read(fd(), offset, out);
    if (!got || *got < out.size()) {
      return fail_errno(Errc::io, got ? EIO : got.error().os_errno,
                        fmt::format("read the spool of {} at {}", file_->name, offset));
    }
    return {};
  }
  Result<bool> read_at_once(std::uint64_t offset, std::span<std::byte> out) override {
    if (out.empty()) return true;
    const HostReader::AtOnce outcome = reader_.read_at_once(fd(), memo_, offset, out);
    if (outcome != HostReader::AtOnce::failed) return outcome == HostReader::AtOnce::done;
    const Result<void> result = read(offset, out);
    if (!result) return propagate(result);
    return true;
  }
  bool is_at_hand(Range range) override { return reader_.is_at_hand(fd(), memo_, range); }
  void fetch(Range range) override { reader_.fetch(fd(), memo_, range); }
  bool keeps_fetched() override { return reader_.keeps_fetched(fd(), memo_); }
  Result<ContentStore::Pin> pin() override {
    return ContentStore::Pin{file_->fd ? PinnedFile(file_->fd) : PinnedFile(), 0};
  }
  std::string name() const override { return file_->name; }

 private:
  int fd() const noexcept { return file_->fd ? file_->fd->get() : -1; }

  const std::shared_ptr<const SpoolWriter::File> file_;
  HostReader reader_;
  HostReader::Memo memo_;
};

SpoolWriter::SpoolWriter(std::shared_ptr<SpoolSpace> space, std::string name)
    : file_(std::make_shared<File>(std::move(space), std::move(name))) {}
SpoolWriter::~SpoolWriter() = default;
SpoolWriter::SpoolWriter(SpoolWriter&& other) noexcept = default;

std::uint64_t SpoolWriter::size_bytes() const noexcept { return file_->size_bytes; }

Result<void> SpoolWriter::open_file() {
  if (file_->fd) return {};
  Result<UniqueFd> fd = file_->space->make_file();
  if (!fd) return propagate(fd);
  file_->fd = std::make_shared<const UniqueFd>(std::move(*fd));
  return {};
}

Result<std::shared_ptr<ByteSource>> SpoolWriter::source() {
  if (const Result<void> opened = open_file(); !opened) return propagate(opened);
  return std::make_shared<SpoolSource>(file_);
}

Result<void> SpoolWriter::append(std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  SpoolSpace& space = *file_->space;
  if (Result<void> opened = open_file(); !opened) return opened;
  if (!space.reserve(bytes.size())) {
    return fail(Errc::no_space,
                fmt::format("{} must be spooled, and all spools together may take {}", file_->name,
                            human_size(space.limit_bytes())),
                {{"spool-limit"}});
  }
  file_->reserved_bytes += bytes.size();
  std::uint64_t at = file_->size_bytes;
  while (!bytes.empty()) {
    const ssize_t count =
        ::pwrite(file_->fd->get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return fail_errno(count < 0 ? errno : ENOSPC,
                        fmt::format("write the spool of {} in {}", file_->name, space.directory()),
                        {{"spool-dir"}});
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    at += static_cast<std::uint64_t>(count);
  }
  file_->size_bytes.store(at, std::memory_order_release);
  return {};
}

Result<std::shared_ptr<ByteSource>> SpoolWriter::finish() {
  return std::make_shared<SpoolSource>(std::move(file_));
}

}  // namespace mkvirtfs
