// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/tree_path.h"

namespace mkvirtfs {
namespace {

/// The component at the start of `path`, taken off it.
std::string_view take_component(std::string_view& path) noexcept {
  const std::size_t slash = path.find('/');
  const std::string_view component = path.substr(0, slash);
  path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  return component;
}

}  // namespace

std::vector<std::string_view> components_of(std::string_view path) {
  std::vector<std::string_view> components;
  while (!path.empty()) {
    const std::string_view component = take_component(path);
    if (!component.empty() && component != ".") components.push_back(component);
  }
  return components;
}

std::optional<std::vector<std::string_view>> plain_components_of(std::string_view path) {
  std::vector<std::string_view> components;
  while (!path.empty()) {
    const std::string_view component = take_component(path);
    if (component == "." || component == "..") return std::nullopt;
    if (!component.empty()) components.push_back(component);
  }
  return components;
}

std::string join_path(std::span<const std::string_view> components) {
  std::string path;
  for (const std::string_view component : components) {
    if (!path.empty()) path += '/';
    path += component;
  }
  return path;
}

std::string join_path(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!directory.empty() && !name.empty()) path += '/';
  return path.append(name);
}

std::string_view parent_path(std::string_view path) noexcept {
  const std::size_t slash = path.rfind('/');
  return path.substr(0, slash == std::string_view::npos ? 0 : slash);
}

}  // namespace mkvirtfs
