// SPDX-License-Identifier: BSD-3-Clause
#include "compose/read_tree.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "compose/read_sources.h"
#include "compose/source_name.h"
#include "fsgen/oci/image_name.h"
#include "fsgen/tree/symlink_target.h"
#include "support/message.h"

namespace mkvirtfs {
namespace {

bool is_source(const std::string& word) {
  if (word.empty()) return false;
  if (word == "-" || is_address(word)) return true;
  if (const std::optional<oci::ImageName> image = oci::parse_image_name(word)) {
    return ::access(image->path.c_str(), F_OK) == 0;
  }
  return ::access(split_archive_path(word).file.c_str(), F_OK) == 0;
}

Result<ReadTree> read(const SourceSpec& spec, Resources& resources, std::string& doing) {
  if (Result<void> good = check_source_path(spec.path); !good) return propagate(good);
  Remarks remarks(resources);
  SourceReader reader(resources, remarks, doing);
  Result<ReadSources> sources = reader.read(std::span(&spec, 1), ReadSettings());
  if (!sources) return propagate(sources);
  reader.finish();
  ReadTree made;
  made.tree = std::move(sources->tree);
  made.contents = std::move(sources->contents);
  made.facts = std::move(sources->facts.front());
  made.remarks = remarks.take();
  made.is_damaged = std::ranges::find(made.remarks, Remark::About::unreadable, &Remark::about) !=
                    made.remarks.end();
  return made;
}

}  // namespace

Result<ReadTree> read_tree(const SourceSpec& spec, Resources& resources) noexcept {
  std::string doing;  // no memory yet, so that nothing can throw out of here
  try {
    doing = "read the source";
    return read(spec, resources, doing);
  } catch (...) {
    return std::unexpected(error_of_exception(doing));
  }
}

ItemName split_item_name(const std::string& word) {
  if (::access(word.c_str(), F_OK) == 0) return {word, ""};
  const std::size_t scheme = is_address(word) ? word.find("://") + 3 : 0;
  for (std::size_t at = word.find(":/", scheme); at != std::string::npos;
       at = word.find(":/", at + 1)) {
    std::string source = word.substr(0, at);
    if (is_source(source)) return {std::move(source), word.substr(at + 1)};
  }
  return {word, ""};
}

Result<NodeNo> find_item(const SourceTree& tree, std::string_view path, bool follows_last) {
  const auto nothing = [&](std::string_view why) {
    return fail(Errc::unreadable, fmt::format("{} {}", path, why));
  };
  NodeNo at = kRootNode;
  for (std::string_view rest = path; !rest.empty();) {
    const std::size_t slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    rest.remove_prefix(slash == std::string_view::npos ? rest.size() : slash + 1);
    const bool is_last = slash == std::string_view::npos;
    if (name.empty() || name == ".") continue;
    if (!tree.node(at).is_directory()) return nothing("lies below what is no directory");
    if (name == "..") {
      at = tree.parent_of(at).node;
      continue;
    }
    const Entry* entry = tree.find(tree.directory(tree.directory_no(at)), name);
    if (entry == nullptr) return nothing("is not there");
    if (!tree.node(entry->node).is_symlink() || (is_last && !follows_last)) {
      at = entry->node;
      continue;
    }
    const auto leads_to = follow_symlink(tree, at, entry->node);
    if (!leads_to) return nothing(words_of(leads_to.error()));
    at = *leads_to;
  }
  return at;
}

}  // namespace mkvirtfs
