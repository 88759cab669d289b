// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace mkvirtfs {

/// What kind of failure it was, for programs. One table maps it to an exit code (cli/), another to
/// an NBD errno (nbd/).
enum class Errc : std::uint8_t {
  usage,           ///< the caller asked for something contradictory or malformed
  unreadable,      ///< a source could not be read
  source_changed,  ///< a source is no longer what was scanned (law 5)
  does_not_fit,    ///< the format or the requested size cannot hold it
  unsupported,     ///< we, or the host, cannot do this
  bad_peer,        ///< the other side of a socket broke its protocol
  no_space,        ///< the host has no room left
  io,              ///< the host failed in another way
};

/// Why an operation failed: `code` for programs, `what` for people.
///
/// `what` is one line that says what was tried, on what, and what would help:
/// "vm/disk.img is 4294967296 bytes; FAT files end at 4294967295 (try --fs=ext4)".
/// Names stand in it as raw bytes: who prints it applies printable(), once.
struct Error {
  Errc code = Errc::io;
  int os_errno = 0;  ///< 0 when the kernel had no part in it
  std::string what;
};

/// Failures from outside us (host, peer, user) travel as a Result; our own mistakes are asserts.
template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Errc code, std::string what) {
  return std::unexpected(Error{code, 0, std::move(what)});
}

/// A failure of a system call: the text of `os_errno` is appended to `what`.
/// The code is chosen from the errno (ENOSPC and its kin are no_space) unless `code` says
/// otherwise.
std::unexpected<Error> fail_errno(int os_errno, std::string what);
std::unexpected<Error> fail_errno(Errc code, int os_errno, std::string what);

}  // namespace mkvirtfs
