// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mkvirtfs {

/// Raw bytes made fit for one line of a terminal or log: printable ASCII and valid UTF-8 stay,
/// everything else (control characters, broken UTF-8, backslash) becomes \xNN.
std::string printable(std::string_view raw);

/// Whether `bytes` is well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms). NUL is
/// allowed.
bool is_valid_utf8(std::string_view bytes) noexcept;

/// Length of the well-formed UTF-8 sequence at the start of `bytes`, which is not empty; 0 when
/// there is none (RFC 3629, section 4).
std::size_t utf8_sequence_length(std::string_view bytes) noexcept;

/// The code point of one well-formed UTF-8 sequence, which is all of `sequence`.
char32_t code_point(std::string_view sequence) noexcept;

/// "1536" -> 1536, "64M" and "64Mi" and "64MiB" -> 64 * 2^20. Units K M G T P E are binary, as in
/// qemu-img, nbdkit and mke2fs; no sign, no fraction. nullopt when malformed or beyond 64 bits.
std::optional<std::uint64_t> parse_size(std::string_view text) noexcept;

/// 1610612736 -> "1.5 GiB": for people. Programs get the plain number.
std::string human_size(std::uint64_t size_bytes);

/// Lower-case hexadecimal of `bytes`.
std::string hex(std::string_view bytes);

}  // namespace mkvirtfs
