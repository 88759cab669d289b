// SPDX-License-Identifier: BSD-3-Clause
#include "block/dump_output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "support/path.h"

namespace mkvirtfs {
namespace {

std::unexpected<Error> exists(const std::string& path) {
  return std::unexpected(
      Error{Errc::io, EEXIST, fmt::format("{} exists already", path), {}, {{"force"}}});
}

/// Where a descriptor can be found by name; "" when /proc is not there.
std::string proc_path(int fd) {
  std::string path = fmt::format("/proc/self/fd/{}", fd);
  return ::access(path.c_str(), F_OK) == 0 ? path : std::string();
}

/// A name beside `path` that nobody has. Not derived from path's own name, which may be as long as
/// names can be.
std::string temporary_name(const std::string& path, unsigned attempt) {
  return fmt::format("{}/.mkvirtfs-{}-{}", directory_of(path), ::getpid(), attempt);
}

constexpr unsigned kMostAttempts = 100;
constexpr mode_t kMode = 0666;  // less the umask, as every program's output

}  // namespace

DumpOutput::~DumpOutput() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<std::unique_ptr<DumpOutput>> DumpOutput::open(const DumpOptions& options,
                                                     std::uint64_t size_bytes) {
  std::unique_ptr<DumpOutput> output(new DumpOutput);
  output->cancel_ = options.cancel;
  output->wait_ = {options.log, options.cancel};
  Result<void> opened;
  if (const auto* stream = std::get_if<DumpStream>(&options.output)) {
    output->name_ = stream->name;
    opened = output->open_stream(stream->fd);
  } else {
    const DumpFile& file = std::get<DumpFile>(options.output);
    output->name_ = file.path;
    output->overwrite_ = file.overwrite;
    opened = output->open_path(file, size_bytes);
  }
  if (!opened) return propagate(opened);
  return output;
}

Result<void> DumpOutput::open_path(const DumpFile& where, std::uint64_t size_bytes) {
  struct stat status;
  if (::stat(where.path.c_str(), &status) != 0) {
    // Nothing there, unless it is a symbolic link to nowhere.
    if (!overwrite_ && ::lstat(where.path.c_str(), &status) == 0) return exists(where.path);
    return open_new_file(size_bytes);
  }
  if (S_ISDIR(status.st_mode)) {
    return std::unexpected(
        Error{Errc::io, EISDIR,
              fmt::format("{} is a directory; the image needs the name of a file", where.path)});
  }
  if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
    Result<UniqueFd> opened = open_pipe_to_write(where.path, wait_);
    if (!opened) return propagate(opened);
    owned_fd_ = std::move(*opened);
    return open_stream(owned_fd_.get());
  }
  if (!overwrite_ && S_ISBLK(status.st_mode)) {
    return std::unexpected(
        Error{Errc::io, EEXIST, fmt::format("{} is a block device", where.path), {}, {{"force"}}});
  }
  if (!overwrite_) return exists(where.path);
  if (S_ISBLK(status.st_mode)) return open_block_device(size_bytes);
  if (S_ISREG(status.st_mode)) return open_new_file(size_bytes);
  return std::unexpected(
      Error{Errc::io, ENOTSUP, fmt::format("{} is not a regular file", where.path)});
}

Result<void> DumpOutput::open_stream(int fd) {
  if (::isatty(fd) == 1) {
    return fail(Errc::usage,
                fmt::format("{} is a terminal; an image needs a file or a pipe", name_));
  }
  // Fewer turns between us and the reader; no harm where it is refused.
  ::fcntl(fd, F_SETPIPE_SZ, 1 << 20);
  kind_ = Kind::stream;
  fd_ = fd;
  return {};
}

Result<void> DumpOutput::open_block_device(std::uint64_t size_bytes) {
  // On a block device O_EXCL means: not while it is mounted.
  kind_ = Kind::block_device;
  owned_fd_.reset(::open(name_.c_str(), O_WRONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK));
  if (!owned_fd_) return fail_errno(errno, fmt::format("open {}", name_));
  fd_ = owned_fd_.get();
  std::uint64_t room_bytes = 0;
  if (::ioctl(fd_, BLKGETSIZE64, &room_bytes) != 0) {
    return fail_errno(errno, fmt::format("ask the size of {}", name_));
  }
  if (room_bytes < size_bytes) {
    return fail(Errc::no_space,
                fmt::format("{} has {} bytes, the image {}", name_, room_bytes, size_bytes),
                {{"size"}});
  }
  return {};
}

Result<void> DumpOutput::open_new_file(std::uint64_t size_bytes) {
  kind_ = Kind::new_file;
  path_ = name_;
  struct stat status;
  if (::lstat(path_.c_str(), &status) == 0 && S_ISLNK(status.st_mode)) {
    // Replace what the link leads to, not the link.
    const std::unique_ptr<char, decltype(&std::free)> target(::realpath(path_.c_str(), nullptr),
                                                             &std::free);
    if (!target) return fail_errno(errno, fmt::format("follow {}", name_));
    path_ = target.get();
  }

  // A file without a name vanishes with us, however we end.
  owned_fd_.reset(::open(directory_of(path_).c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kMode));
  if (owned_fd_ && proc_path(owned_fd_.get()).empty()) owned_fd_.reset();
  for (unsigned attempt = 0; !owned_fd_; ++attempt) {
    std::string name = temporary_name(path_, attempt);
    owned_fd_.reset(::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, kMode));
    if (owned_fd_) {
      temporary_ = std::move(name);
    } else if (errno != EEXIST || attempt == kMostAttempts) {
      return fail_errno(errno, fmt::format("create {}", name_));
    }
  }
  fd_ = owned_fd_.get();
  if (::ftruncate(fd_, static_cast<off_t>(size_bytes)) != 0) {
    return fail_errno(errno, fmt::format("make {} {} bytes long", name_, size_bytes));
  }
  return {};
}

std::unexpected<Error> DumpOutput::write_error(int os_errno) const {
  return fail_errno(os_errno, fmt::format("write {}", name_));
}

Result<void> DumpOutput::write_at(std::uint64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return write_error(errno);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return {};
}

Result<void> DumpOutput::append(std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
    if (count >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {  // somebody made the pipe non-blocking
      pollfd ready{fd_, POLLOUT, 0};
      ::poll(&ready, 1, 1000);
    } else if (errno != EINTR) {
      return write_error(errno);
    }
    // A reader that never reads must not keep us from stopping.
    if (cancel_ != nullptr && *cancel_) return write_error(ECANCELED);
  }
  return {};
}

Result<void> DumpOutput::publish() {
  if (kind_ == Kind::stream) return {};
  // Some hosts (NFS, quotas) tell only at a close that there was no room; a copy's close will do,
  // and the file can still vanish then.
  const int copy = ::fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (copy < 0 || ::close(copy) != 0) return write_error(errno);
  return kind_ == Kind::new_file ? give_name() : Result<void>();
}

Result<void> DumpOutput::give_name() {
  if (temporary_.empty()) {
    const std::string unnamed = proc_path(fd_);
    const auto link_as = [&](const std::string& name) {
      return ::linkat(AT_FDCWD, unnamed.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
    };
    if (link_as(path_)) return {};
    if (errno != EEXIST) return fail_errno(errno, fmt::format("name {}", name_));
    if (!overwrite_) return exists(name_);
    // Only rename() replaces a file in one step, and it needs a name to begin with.
    for (unsigned attempt = 0; temporary_.empty(); ++attempt) {
      std::string name = temporary_name(path_, attempt);
      if (link_as(name)) {
        temporary_ = std::move(name);
      } else if (errno != EEXIST || attempt == kMostAttempts) {
        return fail_errno(errno, fmt::format("name {}", name_));
      }
    }
  }
  int status = ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(),
                           overwrite_ ? 0 : RENAME_NOREPLACE);
  if (status != 0 && (errno == EINVAL || errno == ENOSYS)) {
    // This host cannot refuse to replace: look first, and lose only a race.
    struct stat there;
    if (::lstat(path_.c_str(), &there) == 0) return exists(name_);
    status = ::rename(temporary_.c_str(), path_.c_str());
  }
  if (status != 0) {
    if (errno == EEXIST) return exists(name_);
    return fail_errno(errno, fmt::format("name {}", name_));
  }
  temporary_.clear();
  return {};
}

}  // namespace mkvirtfs
