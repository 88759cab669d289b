// SPDX-License-Identifier: BSD-3-Clause
#include "compose/boot_files.h"

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "fsgen/tree/tree_builder.h"
#include "fsgen/tree/tree_path.h"
#include "support/ascii_case.h"

namespace mkvirtfs {
namespace {

/// What a directory has under a name, whatever the case of its letters; null for nothing.
const Entry* find_entry(const SourceTree& tree, NodeNo directory_node, std::string_view name) {
  if (!tree.node(directory_node).is_directory()) return nullptr;
  const Directory& directory = tree.directory(tree.directory_no(directory_node));
  const auto entries = tree.entries(directory);
  const auto found = std::ranges::find_if(entries, [&](const Entry& entry) {
    return ascii_lower(tree.name(directory, entry)) == ascii_lower(name);
  });
  return found == entries.end() ? nullptr : &*found;
}

}  // namespace

void BootFiles::add(std::string path, std::vector<std::byte> bytes) {
  JoinedContent content{path, {}};
  if (!bytes.empty()) content.pieces.push_back(ContentPiece::memory(std::move(bytes)));
  add(std::move(path), std::move(content));
}

void BootFiles::add(std::string path, std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  add(std::move(path), std::vector<std::byte>(bytes.begin(), bytes.end()));
}

std::string BootFiles::add(std::string path, const ReadSources& from, NodeNo node) {
  JoinedContent content{path, {}};
  if (from.tree->node(node).size_bytes != 0) content.pieces.push_back(piece_of(from, node));
  add(path, std::move(content));
  return path;
}

void BootFiles::add(std::string path, JoinedContent content) {
  by_path_.insert_or_assign(std::move(path), std::move(content));
}

void BootFiles::add_from(const BootFiles& other, std::string_view path) {
  const auto found = other.by_path_.find(path);
  if (found != other.by_path_.end()) add(found->first, found->second);
}

Layer BootFiles::layer(Timestamp time) const {
  TreeBuilder builder;
  // Their bytes come from the joined contents; the builder's are never asked for.
  for (const auto& [path, content] : by_path_) {
    builder.patterned_file(path, content.size_bytes()).mode(0644).mtime(time);
  }
  Layer layer;
  layer.tree = builder.build().tree;
  std::map<ContentNo, JoinedContent> contents;
  for (const auto& [path, content] : by_path_) {
    const Node* const node = layer.tree->find_path(path);
    contents.emplace(content_no(layer.tree->number_of(*node)), content);
  }
  layer.contents = std::make_shared<JoinedContents>(std::move(contents));
  for (const Directory& directory : layer.tree->directories()) {
    layer.implied_directories.push_back(directory.node);
  }
  std::ranges::sort(layer.implied_directories);
  return layer;
}

ContentPiece piece_of(const ReadSources& from, NodeNo node) {
  return ContentPiece::of(from.contents, content_no(node), {0, from.tree->node(node).size_bytes});
}

std::optional<NodeNo> find_any_case(const SourceTree& tree, std::string_view path) {
  NodeNo at = kRootNode;
  for (const std::string_view component : components_of(path)) {
    const Entry* const entry = find_entry(tree, at, component);
    if (entry == nullptr) return std::nullopt;
    at = entry->node;
  }
  return at;
}

std::string spelled_as_in(const SourceTree& tree, std::string_view path) {
  std::string spelled;
  std::optional<NodeNo> at = kRootNode;
  for (const std::string_view component : components_of(path)) {
    const Entry* const entry = at ? find_entry(tree, *at, component) : nullptr;
    if (entry == nullptr) {
      at = std::nullopt;
      spelled = join_path(spelled, component);
      continue;
    }
    const Directory& directory = tree.directory(tree.directory_no(*at));
    spelled = join_path(spelled, tree.name(directory, *entry));
    at = entry->node;
  }
  return spelled;
}

}  // namespace mkvirtfs
