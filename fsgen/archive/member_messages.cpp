// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/member_messages.h"

#include <fmt/format.h>

namespace mkvirtfs::archive {
namespace {

constexpr std::uint64_t kMostRemarks = 3;

}  // namespace

std::unexpected<Error> MemberMessages::wrong(std::string_view what, Errc code,
                                             std::vector<Setting> hints) const {
  return wrong(Error{code, 0, std::string(what), {}, std::move(hints)});
}

std::unexpected<Error> MemberMessages::wrong(Error error) const {
  const std::uint64_t offset = handle_->header_offset();
  const std::string where = member_.path.empty()
                                ? fmt::format("byte {}", offset)
                                : fmt::format("member {}, byte {}", member_.path, offset);
  return std::unexpected(with_context(archive_, with_context(where, std::move(error))));
}

void MemberMessages::remark(std::string_view what) {
  if (++remarks_ > kMostRemarks) return;
  log_.write(LogLevel::warning, fmt::format("{}: member {}: {}{}", archive_, member_.path, what,
                                            remarks_ == kMostRemarks ? " (and so on)" : ""));
}

void MemberMessages::warn(std::string_view what) const {
  log_.write(LogLevel::warning, fmt::format("{}: {}", archive_, what));
}

}  // namespace mkvirtfs::archive
