// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/file_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>

#include "block/page_cache.h"
#include "support/unique_fd.h"

namespace mkvirtfs {
namespace {

class FileSource final : public ByteSource {
 public:
  FileSource(UniqueFd fd, const FileIdentity& identity, std::string path, ChangeRules rules,
             LogSink& log)
      : fd_(std::make_shared<const UniqueFd>(std::move(fd))),
        identity_(identity),
        path_(std::move(path)),
        on_change_(rules.on_change),
        check_(rules.check),
        log_(log) {}

  std::uint64_t size_bytes() const noexcept override { return identity_.size_bytes; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override;
  Result<bool> read_at_once(std::uint64_t offset, std::span<std::byte> out) override;
  bool is_at_hand(Range range) override { return reader_.is_at_hand(fd_->get(), memo_, range); }
  void fetch(Range range) override { reader_.fetch(fd_->get(), memo_, range); }
  bool keeps_fetched() override { return reader_.keeps_fetched(fd_->get(), memo_); }
  Result<ContentStore::Pin> pin() override;
  Result<void> recheck(const PinnedFile& file) override;
  std::string name() const override { return path_; }

 private:
  /// Why the open file is not what was opened; nullopt when it is.
  std::optional<FileDifference> difference() const;
  /// Says so in the log, once, and makes the error that OnChange::error answers.
  Error changed(const FileDifference& how);
  Result<void> read_changed(const FileDifference& how, std::uint64_t offset,
                            std::span<std::byte> out);

  const std::shared_ptr<const UniqueFd> fd_;
  const FileIdentity identity_;
  const std::string path_;
  const OnChange on_change_;
  const ChangeCheck check_;
  LogSink& log_;
  HostReader reader_;
  HostReader::Memo memo_;
  std::atomic<bool> named_ = false;
};

Result<void> FileSource::read(std::uint64_t offset, std::span<std::byte> out) {
  if (out.empty()) return {};
  const Result<std::size_t> got = reader_.read(fd_->get(), offset, out);
  if (const std::optional<FileDifference> how = difference())
    return read_changed(*how, offset, out);
  if (!got) {
    return fail_errno(Errc::io, got.error().os_errno, fmt::format("read {} at {}", path_, offset));
  }
  if (*got < out.size()) {
    return read_changed({fmt::format("it ends at byte {} already", offset + *got)}, offset, out);
  }
  return {};
}

Result<bool> FileSource::read_at_once(std::uint64_t offset, std::span<std::byte> out) {
  if (out.empty()) return true;
  const HostReader::AtOnce outcome = reader_.read_at_once(fd_->get(), memo_, offset, out);
  // To examine the file may have to wait just as well.
  if (memo_.waits() == FileWaits::possible) return false;
  if (outcome != HostReader::AtOnce::failed && !difference()) {
    return outcome == HostReader::AtOnce::done;
  }
  // Whatever is wrong is said there.
  const Result<void> result = read(offset, out);
  if (!result) return propagate(result);
  return true;
}

Result<ContentStore::Pin> FileSource::pin() {
  const std::optional<FileDifference> how = difference();
  if (!how) return ContentStore::Pin{PinnedFile(fd_), 0};
  Error error = changed(*how);
  if (on_change_ == OnChange::error) return std::unexpected(std::move(error));
  return ContentStore::Pin{};  // read() knows what to make of it
}

Result<void> FileSource::recheck(const PinnedFile&) {
  if (const std::optional<FileDifference> how = difference()) return std::unexpected(changed(*how));
  return {};
}

std::optional<FileDifference> FileSource::difference() const {
  struct stat status;
  if (::fstat(fd_->get(), &status) != 0) {
    return FileDifference{fmt::format("it cannot be examined (errno {})", errno)};
  }
  return file_difference(identity_, status, check_);
}

Error FileSource::changed(const FileDifference& how) {
  Error error{Errc::source_changed,
              0,
              fmt::format("{} changed after it was opened: {}", path_, how.what),
              {},
              how.hints};
  if (!named_.exchange(true)) {
    log_.write_with_hints(LogLevel::warning, change_warning(error.what, on_change_), error.hints);
  }
  return error;
}

Result<void> FileSource::read_changed(const FileDifference& how, std::uint64_t offset,
                                      std::span<std::byte> out) {
  Error error = changed(how);
  std::size_t got = 0;
  switch (on_change_) {
    case OnChange::error:
      return std::unexpected(std::move(error));
    case OnChange::zero:
      break;
    case OnChange::stale:
      got = reader_.read(fd_->get(), offset, out).value_or(0);
      break;
  }
  std::ranges::fill(out.subspan(got), std::byte{0});
  return {};
}

class Window final : public ByteSource {
 public:
  Window(std::shared_ptr<ByteSource> below, Range range, std::string name)
      : below_(std::move(below)), range_(range), name_(std::move(name)) {}

  std::uint64_t size_bytes() const noexcept override { return range_.length; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    return below_->read(range_.offset + offset, out);
  }
  Result<bool> read_at_once(std::uint64_t offset, std::span<std::byte> out) override {
    return below_->read_at_once(range_.offset + offset, out);
  }
  bool is_at_hand(Range range) override {
    return below_->is_at_hand({range_.offset + range.offset, range.length});
  }
  void fetch(Range range) override { below_->fetch({range_.offset + range.offset, range.length}); }
  bool keeps_fetched() override { return below_->keeps_fetched(); }
  Result<ContentStore::Pin> pin() override {
    Result<ContentStore::Pin> pin = below_->pin();
    if (pin && pin->file) pin->file_offset += range_.offset;
    return pin;
  }
  Result<void> recheck(const PinnedFile& file) override { return below_->recheck(file); }
  std::string name() const override { return name_; }

 private:
  const std::shared_ptr<ByteSource> below_;
  const Range range_;
  const std::string name_;
};

}  // namespace

Result<std::shared_ptr<ByteSource>> open_file_source(const std::string& path, ChangeRules rules,
                                                     LogSink& log) {
  // Without O_NONBLOCK the opening of a pipe would wait for its other end.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return fail_errno(Errc::unreadable, errno, fmt::format("open {}", path));
  return open_file_source(std::move(fd), path, rules, log);
}

Result<std::shared_ptr<ByteSource>> open_file_source(UniqueFd file, std::string name,
                                                     ChangeRules rules, LogSink& log) {
  struct stat status;
  if (::fstat(file.get(), &status) != 0) {
    return fail_errno(Errc::unreadable, errno, fmt::format("examine {}", name));
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(Errc::unsupported, fmt::format("{} is no regular file", name));
  }
  return std::make_shared<FileSource>(std::move(file), identity_of(status), std::move(name), rules,
                                      log);
}

Result<std::shared_ptr<ByteSource>> make_window(std::shared_ptr<ByteSource> below, Range range,
                                                std::string name) {
  const std::uint64_t size_bytes = below->size_bytes();
  if (range.offset > size_bytes || range.length > size_bytes - range.offset) {
    return fail(Errc::unreadable,
                fmt::format("{} should be {} bytes from byte {} of {}, which has {} bytes", name,
                            range.length, range.offset, below->name(), size_bytes));
  }
  return std::make_shared<Window>(std::move(below), range, std::move(name));
}

}  // namespace mkvirtfs
