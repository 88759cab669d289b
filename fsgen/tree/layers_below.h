// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>

namespace mkvirtfs {

/// What stands at a path, as far as a way down through it depends on that.
struct Standing {
  enum class Kind : std::uint8_t { nothing, directory, symlink, other };
  Kind kind = Kind::nothing;
  /// Of a symlink; valid as long as the layers are.
  std::string_view target;
};

/// The layers that a source is laid over, for a source that does not name all parents of its
/// entries.
class LayersBelow {
 public:
  /// `path` is '/'-separated raw bytes below the root of the whole, without "." and "..". No
  /// symlink on the way is followed: below one there is nothing. Any thread.
  virtual Standing look(std::string_view path) const = 0;

 protected:
  ~LayersBelow() = default;
};

/// What becomes of a directory that a source implies where the layers below have a symlink
/// (`--layer-symlinks`).
enum class LayerSymlinks : std::uint8_t {
  follow,   ///< the symlink leads on, as in a chroot of the whole
  replace,  ///< the directory takes the symlink's place
  error,    ///< refused
};

}  // namespace mkvirtfs
