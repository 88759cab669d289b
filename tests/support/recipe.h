// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "fsgen/image/format_registry.h"

namespace mkvirtfs::testing {

/// A recipe's options: those of the format's rows, "fs" and "made-at".
struct Recipe {
  std::string format;
  OptionValues values{};
  std::optional<std::int64_t> made_at_s{};
};

inline Recipe parse_options(const std::string& text, const FormatRegistry& formats) {
  Recipe recipe{.format = std::string(formats.default_name())};
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with('#')) continue;
    const std::size_t equals = line.find('=');
    const std::string key = line.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : line.substr(equals + 1);
    if (key == "fs") {
      recipe.format = value;
    } else if (key == "made-at") {
      recipe.made_at_s = std::stoll(value);
    } else if (equals == std::string::npos) {
      recipe.values.add(key);
    } else {
      recipe.values.add(key, value);
    }
  }
  return recipe;
}

/// All of the folder, sorted. Other recipes than its own are for the test of scripts/new-golden.
inline std::vector<std::filesystem::path> all_recipes() {
  namespace fs = std::filesystem;
  const char* others = std::getenv("MKVIRTFS_IMAGES_DIR");
  std::vector<fs::path> recipes;
  for (const auto& entry :
       fs::directory_iterator(fs::absolute(others != nullptr ? others : MKVIRTFS_IMAGES_DIR))) {
    if (entry.is_directory()) recipes.push_back(entry.path());
  }
  std::ranges::sort(recipes);
  return recipes;
}

/// Its image is refused.
inline bool is_failure(const std::filesystem::path& recipe) {
  return recipe.filename().string().starts_with("should-fail-");
}

}  // namespace mkvirtfs::testing
