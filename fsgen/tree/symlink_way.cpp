// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/symlink_way.h"

#include <fmt/format.h>

namespace mkvirtfs {

std::unexpected<Error> refused_symlink(std::string_view link, std::string_view target) {
  return fail(
      Errc::unreadable,
      fmt::format("lies below {}, which is a symlink to {} in the layers before", link, target),
      {{"layer-symlinks", "follow"}, {"layer-symlinks", "replace"}});
}

std::unexpected<Error> endless_symlinks(std::string_view link) {
  return fail(Errc::unreadable,
              fmt::format("lies below {}, from where symlinks lead on without an end", link));
}

}  // namespace mkvirtfs
