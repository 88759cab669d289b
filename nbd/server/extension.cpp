// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/extension.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "nbd/server/allocation.h"

namespace mkvirtfs::nbd {
namespace {

/// Numbers up to this one are the protocol's own, or may become so.
constexpr std::uint32_t kLastReservedOption = 255;
constexpr std::uint32_t kErrorBit = 1U << 31;

bool is_namespace_name(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 3> kKnown = {"base", "nbd-server", "qemu"};
  if (std::ranges::find(kKnown, name) != kKnown.end()) return true;
  return name.size() > 2 && name.starts_with("x-") &&
         std::ranges::all_of(name, [](char c) { return c > ' ' && c <= '~' && c != ':'; });
}

}  // namespace

Extensions::Extensions() { namespaces_.push_back(make_base_namespace()); }

const Extensions& Extensions::standard() {
  static const Extensions extensions;
  return extensions;
}

Result<void> Extensions::add_option(OptionExtension extension) {
  const OptionRule& rule = extension.rule;
  const std::uint32_t number = std::to_underlying(rule.option);
  if (number <= kLastReservedOption || (number & kErrorBit) != 0) {
    return fail(Errc::usage, fmt::format("option {} is not free: 256 to 2147483647 are", number));
  }
  if (rule.least_bytes > rule.most_bytes || rule.most_bytes > kLongestOption) {
    return fail(Errc::usage, fmt::format("option {} cannot have {} to {} bytes of data", number,
                                         rule.least_bytes, rule.most_bytes));
  }
  if (!extension.handler) {
    return fail(Errc::usage, fmt::format("option {} has no handler", number));
  }
  const auto place =
      std::ranges::lower_bound(options_, rule.option, {}, [](auto& o) { return o.rule.option; });
  if (place != options_.end() && place->rule.option == rule.option) {
    return fail(Errc::usage, fmt::format("option {} was added already", number));
  }
  options_.insert(place, std::move(extension));
  return {};
}

Result<void> Extensions::add_namespace(std::shared_ptr<const MetaNamespace> added) {
  if (added == nullptr || !is_namespace_name(added->name())) {
    return fail(Errc::usage, fmt::format("\"{}\" cannot be the name of a metadata namespace: only "
                                         "x-... is free",
                                         added == nullptr ? "" : added->name()));
  }
  if (find_namespace(added->name()) != nullptr) {
    return fail(Errc::usage, fmt::format("namespace \"{}\" was added already", added->name()));
  }
  namespaces_.push_back(std::move(added));
  return {};
}

const OptionExtension* Extensions::find_option(Option option) const noexcept {
  const auto found =
      std::ranges::lower_bound(options_, option, {}, [](auto& o) { return o.rule.option; });
  return found != options_.end() && found->rule.option == option ? &*found : nullptr;
}

const MetaNamespace* Extensions::find_namespace(std::string_view name) const noexcept {
  const auto found =
      std::ranges::find(namespaces_, name, [](const auto& known) { return known->name(); });
  return found != namespaces_.end() ? found->get() : nullptr;
}

}  // namespace mkvirtfs::nbd
