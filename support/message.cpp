// SPDX-License-Identifier: BSD-3-Clause
#include "support/message.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <new>
#include <system_error>

#include "support/text.h"

namespace mkvirtfs {
namespace {

/// The first character of `text`, or its first byte, if that begins none; it is taken off.
std::string_view take_character(std::string_view& text) {
  const std::string_view taken =
      text.substr(0, std::max<std::size_t>(1, utf8_sequence_length(text)));
  text.remove_prefix(taken.size());
  return taken;
}

/// As many characters from the front of `raw` as have room in `most_bytes`, printable; they are
/// taken off.
std::string take_front(std::string_view& raw, std::size_t most_bytes) {
  std::string front;
  while (!raw.empty()) {
    std::string_view rest = raw;
    const std::string shown = printable(take_character(rest));
    if (front.size() + shown.size() > most_bytes) break;
    front += shown;
    raw = rest;
  }
  return front;
}

/// The same from the back.
std::string take_back(std::string_view& raw, std::size_t most_bytes) {
  std::string_view tail = raw.substr(raw.size() - std::min(raw.size(), most_bytes));
  // Not from the middle of a character on.
  for (int i = 0; i < 3 && !tail.empty() && (static_cast<unsigned char>(tail[0]) & 0xC0) == 0x80;
       ++i) {
    tail.remove_prefix(1);
  }
  std::string back = printable(tail);
  while (back.size() > most_bytes) back.erase(0, printable(take_character(tail)).size());
  raw.remove_suffix(tail.size());
  return back;
}

}  // namespace

std::string printable_message(std::string_view raw, std::size_t most_bytes) {
  if (raw.size() <= most_bytes) {
    std::string whole = printable(raw);
    if (whole.size() <= most_bytes) return whole;
  }
  // " [... N bytes ...] "
  constexpr std::size_t kMarkBytes = 40;
  const std::size_t half = (most_bytes - std::min(most_bytes, kMarkBytes)) / 2;
  std::string_view middle = raw;
  const std::string front = take_front(middle, half);
  const std::string back = take_back(middle, half);
  std::string message = fmt::format("{} [... {} bytes ...] {}", front, middle.size(), back);
  return message.size() <= most_bytes ? message : front;  // there may be no room for a mark
}

Error error_of_exception(std::string_view doing) noexcept {
  try {
    try {
      throw;
    } catch (const std::bad_alloc&) {
      return {Errc::io, ENOMEM, fmt::format("out of memory: {}", doing)};
    } catch (const std::system_error& error) {
      // From a thread that could not be started: what() names no call, the code has the errno.
      return {Errc::io, error.code().value(), fmt::format("{}: {}", doing, error.code().message())};
    } catch (const std::exception& exception) {
      return {Errc::io, 0, fmt::format("{}: {}", doing, exception.what())};
    } catch (...) {
      return {Errc::io, 0, fmt::format("{}: an unknown exception", doing)};
    }
  } catch (...) {
    // There is not even memory for the message. This one is short enough to need none.
    return {Errc::io, ENOMEM, std::string("out of memory")};
  }
}

}  // namespace mkvirtfs
