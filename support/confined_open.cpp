// SPDX-License-Identifier: BSD-3-Clause
#include "support/confined_open.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string>
#include <utility>

namespace mkvirtfs {
namespace {

int openat2(int directory, const char* path, int flags, std::uint64_t resolve) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags);
  how.resolve = resolve;
  // glibc 2.36 has no wrapper.
  return static_cast<int>(::syscall(SYS_openat2, directory, path, &how, sizeof how));
}

/// Old kernels lack openat2; container runtimes with an old filter answer EPERM for it.
bool openat2_works() {
  const UniqueFd fd(
      openat2(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, RESOLVE_NO_MAGICLINKS));
  return fd || (errno != ENOSYS && errno != EPERM);
}

/// Whether two descriptors are on one mount. Where the kernel has no mount ids, devices must do;
/// but only of directories, since overlayfs files have the device of the layer that holds them.
bool same_mount(int a, int b) {
  struct statx of_a{};
  struct statx of_b{};
  constexpr unsigned kWanted = STATX_TYPE | STATX_MNT_ID;
  if (::statx(a, "", AT_EMPTY_PATH, kWanted, &of_a) != 0 ||
      ::statx(b, "", AT_EMPTY_PATH, kWanted, &of_b) != 0) {
    return false;
  }
  if ((of_a.stx_mask & of_b.stx_mask & STATX_MNT_ID) != 0)
    return of_a.stx_mnt_id == of_b.stx_mnt_id;
  if (!S_ISDIR(of_b.stx_mode)) return true;
  return of_a.stx_dev_major == of_b.stx_dev_major && of_a.stx_dev_minor == of_b.stx_dev_minor;
}

}  // namespace

ConfinedOpener::ConfinedOpener(bool cross_mounts, bool use_openat2)
    : cross_mounts_(cross_mounts), use_openat2_(use_openat2 && openat2_works()) {}

std::expected<UniqueFd, int> ConfinedOpener::open(int directory, const char* path,
                                                  int flags) const {
  flags |= O_NOFOLLOW | O_CLOEXEC;
  int fd = -1;
  if ((flags & O_PATH) == 0) {
    fd = open_once(directory, path, flags | O_NOATIME);
    // Only the owner and the privileged may ask for O_NOATIME.
    if (fd < 0 && errno == EPERM) fd = open_once(directory, path, flags);
  } else {
    fd = open_once(directory, path, flags);
  }
  if (fd < 0) return std::unexpected(errno);
  return UniqueFd(fd);
}

std::expected<UniqueFd, int> ConfinedOpener::open_chain(int directory,
                                                        std::span<const std::string_view> names,
                                                        int flags) const {
  if (names.empty()) return open(directory, ".", flags | O_DIRECTORY);
  UniqueFd reached;
  while (true) {
    std::string path(names.front());
    names = names.subspan(1);
    while (!names.empty() && path.size() + 1 + names.front().size() < PATH_MAX) {
      path += '/';
      path += names.front();
      names = names.subspan(1);
    }
    const int from = reached ? reached.get() : directory;
    auto opened = open(from, path.c_str(), O_DIRECTORY | (names.empty() ? flags : O_PATH));
    if (!opened || names.empty()) return opened;
    reached = std::move(*opened);
  }
}

int ConfinedOpener::open_once(int directory, const char* path, int flags) const {
  if (!use_openat2_) return open_by_components(directory, path, flags);
  const std::uint64_t resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
                                (cross_mounts_ ? 0 : RESOLVE_NO_XDEV);
  int fd = -1;
  do {
    fd = openat2(directory, path, flags, resolve);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

int ConfinedOpener::open_by_components(int directory, std::string_view path, int flags) const {
  UniqueFd reached;
  while (true) {
    const std::size_t slash = path.find('/');
    const std::string component(path.substr(0, slash));
    const bool last = slash == std::string_view::npos;
    if (component.empty() || component == "..") {
      errno = EXDEV;  // what RESOLVE_BENEATH answers
      return -1;
    }
    const int from = reached ? reached.get() : directory;
    const int component_flags = last ? flags : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = -1;
    do {
      fd = ::openat(from, component.c_str(), component_flags);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return -1;
    UniqueFd opened(fd);
    if (!cross_mounts_ && !same_mount(from, fd)) {
      errno = EXDEV;
      return -1;
    }
    if (last) return opened.release();
    reached = std::move(opened);
    path.remove_prefix(slash + 1);
  }
}

}  // namespace mkvirtfs
