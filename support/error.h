// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

/// An option by the name that it has in the tables of options ("fs", "size"), and a value of it.
/// The command line words it "--fs=ext4"; a library's caller sets the field of that name.
struct Setting {
  std::string option;      ///< empty: `value` says in words what to do, "a higher ulimit -n"
  std::string value = {};  ///< empty: a flag, or an option whose value is the user's to choose
};

/// Why an operation failed: `code` for programs, `what` for people.
///
/// `what` is one line that says what was tried, on what, and why it failed:
/// "vm/disk.img is 4294967296 bytes; FAT files end at 4294967295". It names no option: `at_fault`
/// and `hints` do, as data. Names stand in it as raw bytes: what prints it applies printable(),
/// once.
struct Error {
  Errc code = Errc::io;
  int os_errno = 0;  ///< 0 when the kernel had no part in it
  std::string what;
  /// The option whose value is wrong, of which `what` then speaks; no option: none is.
  Setting at_fault = {};
  /// What would help, each by itself: {"fs", "ext4"}, {"exclude"}.
  std::vector<Setting> hints = {};
};

/// `error` with what was being done before its text: "photos.tar: open: No such file".
Error with_context(std::string_view context, Error error);

/// Failures from outside us (host, peer, user) travel as a Result; our own mistakes are asserts.
template <class T>
using Result = std::expected<T, Error>;

/// Passes the failure of `failed` on to the caller: `if (!read) return propagate(read);`. What a
/// variable holds is moved out of it.
template <class T, class E>
std::unexpected<E> propagate(std::expected<T, E>& failed) {
  return std::unexpected<E>(std::move(failed).error());
}
template <class T, class E>
std::unexpected<E> propagate(const std::expected<T, E>& failed) {
  return std::unexpected<E>(failed.error());
}
template <class T, class E>
std::unexpected<E> propagate(std::expected<T, E>&& failed) {
  return std::unexpected<E>(std::move(failed).error());
}
/// The same with_context().
template <class T>
std::unexpected<Error> propagate(std::string_view context, std::expected<T, Error>& failed) {
  return std::unexpected(with_context(context, std::move(failed).error()));
}

inline std::unexpected<Error> fail(Errc code, std::string what, std::vector<Setting> hints = {}) {
  return std::unexpected(Error{code, 0, std::move(what), {}, std::move(hints)});
}

/// Errc::usage, of an option's value: fail_option({"label", "a?b"}, "FAT labels are ASCII").
std::unexpected<Error> fail_option(Setting at_fault, std::string what,
                                   std::vector<Setting> hints = {});

/// A failure of a system call: the text of `os_errno` is appended to `what`.
/// The code is chosen from the errno (ENOSPC and its kin are no_space) unless `code` says
/// otherwise.
std::unexpected<Error> fail_errno(int os_errno, std::string what, std::vector<Setting> hints = {});
std::unexpected<Error> fail_errno(Errc code, int os_errno, std::string what,
                                  std::vector<Setting> hints = {});

}  // namespace mkvirtfs
