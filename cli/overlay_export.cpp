// SPDX-License-Identifier: BSD-3-Clause
#include "cli/overlay_export.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "block/device.h"
#include "block/overlay/file.h"
#include "block/overlay/overlay.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;

/// What an overlay lies over when its image is not there: nobody reads it, its extents say that
/// nothing was written.
class UnknownBase final : public BlockDevice {
 public:
  explicit UnknownBase(std::uint64_t size_bytes) { geometry_.size_bytes = size_bytes; }
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t, std::span<std::byte>) override {
    return fail(Errc::unsupported, "the image below the overlay is not open");
  }
  void map(Range range, ExtentSink& sink) const override {
    if (range.length == 0) return;
    Extent extent;
    extent.offset = range.offset;
    extent.length = range.length;
    extent.kind = ExtentKind::computed;
    sink.extent(extent);
  }

 private:
  Geometry geometry_;
};

/// A file that is removed unless it was finished.
class Output {
 public:
  static Result<Output> create(const std::string& path, bool force) {
    const int flags =
        O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (force ? 0 : O_EXCL);
    UniqueFd file(::open(path.c_str(), flags, 0666));
    if (!file && errno == EEXIST) {
      return fail(Errc::usage, fmt::format("{} exists already", path), {{"force"}});
    }
    struct stat status{};
    if (!file || ::fstat(file.get(), &status) != 0) {
      return fail_errno(errno, fmt::format("open {} for writing", path));
    }
    if (!S_ISREG(status.st_mode)) {
      return fail(Errc::usage, fmt::format("{} is not a regular file", path));
    }
    if (::ftruncate(file.get(), 0) != 0) return fail_errno(errno, fmt::format("truncate {}", path));
    return Output(std::move(file), path);
  }
  Output(Output&&) = default;
  Output& operator=(Output&&) = delete;
  ~Output() {
    if (file_) ::unlink(path_.c_str());
  }

  Result<void> resize(std::uint64_t size_bytes) {
    if (::ftruncate(file_.get(), static_cast<off_t>(size_bytes)) == 0) return {};
    return fail_errno(errno, fmt::format("make {} {} bytes long", path_, size_bytes));
  }
  Result<void> write(std::uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count =
          ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return fail_errno(count < 0 ? errno : ENOSPC, fmt::format("write {}", path_));
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
    return {};
  }
  Result<void> finish() {
    // A disk that is full may say so only now.
    if (::fsync(file_.get()) != 0) return fail_errno(errno, fmt::format("write {}", path_));
    file_ = UniqueFd();
    return {};
  }

 private:
  Output(UniqueFd file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}

  UniqueFd file_;
  std::string path_;
};

Result<void> copy(BlockDevice& from, Range range, Output& to, std::vector<std::byte>& buffer) {
  while (range.length > 0) {
    buffer.resize(static_cast<std::size_t>(std::min(range.length, kPieceBytes)));
    if (Result<void> got = from.read(range.offset, buffer); !got) return got;
    if (Result<void> put = to.write(range.offset, buffer); !put) return put;
    range = {range.offset + buffer.size(), range.length - buffer.size()};
  }
  return {};
}

}  // namespace

Result<void> export_overlay(const std::string& overlay, const std::string& output, bool force,
                            const std::function<bool(const ExportedRange&)>& visit) {
  auto file = OverlayFile::open_read_only(overlay);
  if (!file) return propagate(file);
  const std::uint64_t size_bytes = (*file)->header().size_bytes;
  Overlay::Options options;
  options.read_only = true;
  Overlay disk(std::make_shared<UnknownBase>(size_bytes), std::move(*file), options);
  Result<Output> to = Output::create(output, force);
  if (!to) return propagate(to);
  Result<void> done = to->resize(size_bytes);
  if (!done) return done;
  std::vector<std::byte> buffer;
  std::optional<ExportedRange> held;  // until it is known that the next is of another kind
  const auto tell = [&] {
    if (!held || visit(*held)) return Result<void>();
    return Result<void>(fail(Errc::io, "standard output cannot be written"));
  };
  for_each_extent(disk, {0, size_bytes}, [&](const Extent& extent) {
    if (extent.kind == ExtentKind::computed) return true;
    const bool is_zero = extent.kind == ExtentKind::hole;
    if (!is_zero) done = copy(disk, {extent.offset, extent.length}, *to, buffer);
    if (held && held->is_zero == is_zero && held->offset + held->length_bytes == extent.offset) {
      held->length_bytes += extent.length;
      return done.has_value();
    }
    if (done) done = tell();
    held = ExportedRange{extent.offset, extent.length, is_zero};
    return done.has_value();
  });
  if (done) done = tell();
  if (!done) return done;
  return to->finish();
}

}  // namespace mkvirtfs::cli
