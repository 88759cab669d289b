// SPDX-License-Identifier: BSD-3-Clause
#include "block/page_cache.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace mkvirtfs {
namespace {

/// How far apart one looks: what the kernel reads ahead at a time.
constexpr std::uint64_t kProbeBytes = 128U << 10;
constexpr std::uint64_t kMostProbes = 8;

}  // namespace

Result<std::size_t> read_fully(int fd, std::uint64_t offset, std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t count =
        ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read");
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

bool is_in_page_cache(int fd, Range range) noexcept {
  // Pages come and go in larger pieces than one, so a few of them speak for all.
  const std::uint64_t step = std::max<std::uint64_t>(kProbeBytes, range.length / kMostProbes + 1);
  std::byte byte;
  const iovec into{&byte, 1};
  for (std::uint64_t at = 0;; at += step) {
    const std::uint64_t probed = std::min(at, range.length - 1);
    if (::preadv2(fd, &into, 1, static_cast<off_t>(range.offset + probed), RWF_NOWAIT) < 0 &&
        errno == EAGAIN) {
      return false;
    }
    if (probed == range.length - 1) return true;
  }
}

void bring_into_page_cache(int fd, Range range) noexcept {
  ::posix_fadvise(fd, static_cast<off_t>(range.offset), static_cast<off_t>(range.length),
                  POSIX_FADV_WILLNEED);
  // The advice is only the beginning: what has been read is there.
  std::array<std::byte, 64U << 10> scratch;
  for (std::uint64_t done = 0; done < range.length;) {
    const auto part = std::span(scratch).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(range.length - done, scratch.size())));
    const Result<std::size_t> count = read_fully(fd, range.offset + done, part);
    if (!count || *count < part.size()) return;
    done += part.size();
  }
}

}  // namespace mkvirtfs
