// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/member_path.h"

#include <fmt/format.h>

#include "fsgen/tree/node_limits.h"

namespace mkvirtfs::archive {
namespace {

// linux/limits.h: PATH_MAX without the NUL.
constexpr std::size_t kMostPathBytes = 4095;

}  // namespace

Result<void> MemberPath::parse(std::string_view raw, UnsafeNames unsafe) {
  components.clear();
  was_absolute = raw.starts_with('/');
  was_stripped = false;
  if (raw.size() > kMostPathBytes) {
    return fail(Errc::unreadable,
                fmt::format("has a name of {} bytes; {} is the most", raw.size(), kMostPathBytes));
  }
  if (raw.find('\0') != std::string_view::npos) {
    return fail(Errc::unreadable, "has a NUL byte in its name");
  }
  while (!raw.empty()) {
    const std::size_t slash = raw.find('/');
    const std::string_view component = raw.substr(0, slash);
    raw.remove_prefix(slash == std::string_view::npos ? raw.size() : slash + 1);
    if (component.empty() || component == ".") continue;
    if (component == "..") {
      if (unsafe == UnsafeNames::error) {
        return fail(Errc::unreadable, "has \"..\" in its name", {{"unsafe-names", "strip"}});
      }
      components.clear();
      was_stripped = true;
      continue;
    }
    if (component.size() > kMostNameBytes) {
      return fail(Errc::unreadable, fmt::format("has a component of {} bytes; {} is the most",
                                                component.size(), kMostNameBytes));
    }
    components.push_back(component);
  }
  return {};
}

std::string MemberPath::text() const {
  std::string text;
  for (const std::string_view component : components) {
    if (!text.empty()) text += '/';
    text += component;
  }
  return text;
}

}  // namespace mkvirtfs::archive
