// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "support/error.h"

namespace mkvirtfs::nbd {

/// What a server may lack. All are there unless they are taken away, to see how a client fares with
/// a poorer server.
enum class Feature : std::uint8_t {
  structured,        ///< NBD_OPT_STRUCTURED_REPLY
  extended_headers,  ///< NBD_OPT_EXTENDED_HEADERS, and all that needs them
  meta_context,      ///< NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT
  extents,           ///< the context base:allocation
  list,              ///< listing names, in whatever way: NBD_OPT_LIST is refused by policy
  hier,              ///< LIST_HIER and the contexts that stand in for it
  multi_conn,        ///< NBD_FLAG_CAN_MULTI_CONN
  df,                ///< NBD_CMD_FLAG_DF
  flush,             ///< NBD_CMD_FLUSH
  fua,               ///< NBD_CMD_FLAG_FUA
  trim,              ///< NBD_CMD_TRIM
  zeroes,            ///< NBD_CMD_WRITE_ZEROES
  fast_zero,         ///< NBD_CMD_FLAG_FAST_ZERO
  cache,             ///< NBD_CMD_CACHE
};

/// The features that a server offers to its clients, as far as its devices have them. What is
/// missing is not advertised, and answered as a server would that never heard of it. A value.
class Features {
 public:
  /// All there are.
  constexpr Features() noexcept = default;

  constexpr bool has(Feature feature) const noexcept { return (missing_ & bit(feature)) == 0; }
  constexpr void remove(Feature feature) noexcept { missing_ |= bit(feature); }

  friend bool operator==(const Features&, const Features&) = default;

 private:
  static constexpr std::uint32_t bit(Feature feature) noexcept {
    return std::uint32_t{1} << static_cast<unsigned>(feature);
  }

  std::uint32_t missing_ = 0;
};

/// The feature of that name ("fast-zero"). Errc::usage, with all the names, when there is none.
Result<Feature> parse_feature(std::string_view name);
/// "structured, extended-headers, ..."
std::string feature_names();

}  // namespace mkvirtfs::nbd
