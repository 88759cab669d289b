// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/feature_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace mkvirtfs::nbd {
namespace {

constexpr std::array kNames = {
    std::pair{Feature::structured, std::string_view("structured")},
    std::pair{Feature::extended_headers, std::string_view("extended-headers")},
    std::pair{Feature::meta_context, std::string_view("meta-context")},
    std::pair{Feature::extents, std::string_view("extents")},
    std::pair{Feature::list, std::string_view("list")},
    std::pair{Feature::hier, std::string_view("hier")},
    std::pair{Feature::multi_conn, std::string_view("multi-conn")},
    std::pair{Feature::df, std::string_view("df")},
    std::pair{Feature::flush, std::string_view("flush")},
    std::pair{Feature::fua, std::string_view("fua")},
    std::pair{Feature::trim, std::string_view("trim")},
    std::pair{Feature::zeroes, std::string_view("zeroes")},
    std::pair{Feature::fast_zero, std::string_view("fast-zero")},
    std::pair{Feature::cache, std::string_view("cache")},
};

}  // namespace

Result<Feature> parse_feature(std::string_view name) {
  const auto* const found =
      std::ranges::find(kNames, name, [](const auto& each) { return each.second; });
  if (found == kNames.end()) {
    return fail(Errc::usage,
                fmt::format("\"{}\" is no feature that can be masked ({})", name, feature_names()));
  }
  return found->first;
}

std::string feature_names() {
  std::string names;
  for (const auto& [feature, name] : kNames) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
  }
  return names;
}

}  // namespace mkvirtfs::nbd
