// SPDX-License-Identifier: BSD-3-Clause
#include "support/error.h"

#include <fmt/format.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace mkvirtfs {

Error with_context(std::string_view context, Error error) {
  error.what.insert(0, fmt::format("{}: ", context));
  return error;
}

std::unexpected<Error> fail_option(Setting at_fault, std::string what, std::vector<Setting> hints) {
  return std::unexpected(
      Error{Errc::usage, 0, std::move(what), std::move(at_fault), std::move(hints)});
}

std::unexpected<Error> fail_errno(int os_errno, std::string what, std::vector<Setting> hints) {
  const bool full = os_errno == ENOSPC || os_errno == EDQUOT || os_errno == EFBIG;
  return fail_errno(full ? Errc::no_space : Errc::io, os_errno, std::move(what), std::move(hints));
}

std::unexpected<Error> fail_errno(Errc code, int os_errno, std::string what,
                                  std::vector<Setting> hints) {
  std::string text = fmt::format("{}: {}", what, std::generic_category().message(os_errno));
  return std::unexpected(Error{code, os_errno, std::move(text), {}, std::move(hints)});
}

}  // namespace mkvirtfs
