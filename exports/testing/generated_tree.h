// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "block/testing/memory_device.h"
#include "exports/export_tree.h"

namespace mkvirtfs::testing {

/// The exports wide/disk-000000 and so on, of which nothing is stored. Tests only.
class GeneratedTree final : public ExportTree {
 public:
  explicit GeneratedTree(std::size_t count) : count_(count) {}

  std::string name(std::size_t index) const { return fmt::format("wide/disk-{:06}", index); }

  Result<std::vector<ExportEntry>> list(std::string_view directory,
                                        std::optional<std::string_view> after,
                                        std::size_t most) override {
    largest_page = std::max(largest_page, most);
    std::vector<ExportEntry> page;
    if (directory.empty()) {
      if (!after || *after < "wide") {
        page.push_back({"wide", "", false, true, static_cast<std::uint32_t>(count_)});
      }
      return page;
    }
    if (directory != "wide") return fail(Errc::usage, "there is no such directory");
    std::size_t index = after ? index_of(*after) + 1 : 0;
    if (index > fail_behind) return fail(Errc::io, "the rest is gone");
    for (; index < count_ && page.size() < most; ++index) {
      page.push_back({name(index), "", true, false, std::nullopt});
    }
    return page;
  }

  Result<ExportEntry> find(std::string_view asked) override {
    const std::size_t index = index_of(asked);
    if (index >= count_ || asked != name(index))
      return fail(Errc::usage, "there is no such export");
    return ExportEntry{std::string(asked), "", true, false, std::nullopt};
  }

  Result<Export> open(std::string_view asked) override {
    ++opens;
    auto entry = find(asked);
    if (!entry) return propagate(entry);
    return Export{std::move(entry->name), "",
                  std::make_shared<MemoryDevice>(std::vector<std::byte>(512))};
  }

  std::size_t largest_page = 0;
  std::size_t opens = 0;
  std::size_t fail_behind = std::numeric_limits<std::size_t>::max();

 private:
  static std::size_t index_of(std::string_view name) {
    std::size_t index = std::numeric_limits<std::size_t>::max() - 1;
    const std::string_view digits = name.substr(name.find_last_of('-') + 1);
    std::from_chars(digits.data(), digits.data() + digits.size(), index);
    return index;
  }

  const std::size_t count_;
};

}  // namespace mkvirtfs::testing
