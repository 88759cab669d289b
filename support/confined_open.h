// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <expected>
#include <span>
#include <string_view>

#include "support/unique_fd.h"

namespace mkvirtfs {

/// Opens what lies below a directory without ever leaving it: no symlink is followed, not even the
/// last component's; no "..", no /proc magic link; no mount is crossed unless asked. By openat2(2)
/// where the host has it, else component by component to the same effect.
///
/// Failures are errnos: ELOOP or ENOTDIR for a symlink, EXDEV for a mount or a way out. Immutable:
/// any thread.
class ConfinedOpener {
 public:
  /// `use_openat2` false: as on a host without it.
  explicit ConfinedOpener(bool cross_mounts, bool use_openat2 = true);

  bool uses_openat2() const noexcept { return use_openat2_; }

  /// Opens `path`, relative to `directory`, with open(2)'s `flags`; O_NOFOLLOW and O_CLOEXEC are
  /// added, and O_NOATIME where the host permits it: looking at a source must not change it.
  std::expected<UniqueFd, int> open(int directory, const char* path, int flags) const;

  /// Opens the directory at the end of `names`, one component each, which together may be longer
  /// than the kernel takes a path. Without names that is `directory` again.
  std::expected<UniqueFd, int> open_chain(int directory, std::span<const std::string_view> names,
                                          int flags) const;

 private:
  int open_once(int directory, const char* path, int flags) const;
  int open_by_components(int directory, std::string_view path, int flags) const;

  bool cross_mounts_;
  bool use_openat2_;
};

}  // namespace mkvirtfs
