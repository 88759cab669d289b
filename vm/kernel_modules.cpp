// SPDX-License-Identifier: BSD-3-Clause
//
// A line of modules.dep is "FILE: FILE FILE ...": a module and, whole, what it needs, the last of
// which is loaded first. A module's name is that of its file without ".ko" and what follows, where
// '-' and '_' are the same.
#include "vm/kernel_modules.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <utility>

namespace mkvirtfs::vm {
namespace {

std::string module_name(std::string_view file) {
  const std::size_t slash = file.rfind('/');
  if (slash != std::string_view::npos) file.remove_prefix(slash + 1);
  std::string name(file.substr(0, file.find(".ko")));
  std::ranges::replace(name, '-', '_');
  return name;
}

/// Calls `visit` with each part of `text` that is not empty.
template <class Visit>
void for_each_part(std::string_view text, char delimiter, Visit&& visit) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(delimiter), text.size());
    if (end != 0) visit(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

ModuleChoice choose_modules(std::span<const std::string_view> wanted, std::string_view dependencies,
                            std::string_view built_in) {
  std::map<std::string, std::vector<std::string_view>> lines;  // name -> files in order of loading
  for_each_part(dependencies, '\n', [&](std::string_view line) {
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) return;
    std::vector<std::string_view> files{line.substr(0, colon)};
    for_each_part(line.substr(colon + 1), ' ',
                  [&](std::string_view file) { files.push_back(file); });
    std::ranges::reverse(files);
    lines[module_name(line.substr(0, colon))] = std::move(files);
  });
  std::set<std::string> inside;
  for_each_part(built_in, '\n', [&](std::string_view file) { inside.insert(module_name(file)); });

  ModuleChoice choice;
  std::set<std::string_view> chosen;
  for (const std::string_view name : wanted) {
    const auto found = lines.find(module_name(name));
    if (found == lines.end()) {
      if (!inside.contains(module_name(name))) choice.missing.emplace_back(name);
      continue;
    }
    for (const std::string_view file : found->second) {
      if (chosen.insert(file).second) choice.files.emplace_back(file);
    }
  }
  return choice;
}

}  // namespace mkvirtfs::vm
