// SPDX-License-Identifier: BSD-3-Clause
// A file is opened by its directory's descriptor and its name. The directory comes from the
// nearest one that is kept open, else from the root down; a few are kept, the longest unused is
// replaced.
#include "fsgen/host/scanned_files.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <string_view>
#include <utility>

namespace mkvirtfs {
namespace {

// Enough for the directories that a few clients read in at a time; searched one by one, which takes
// less than the open() that follows.
constexpr std::size_t kMostKept = 64;

}  // namespace

ScannedFiles::ScannedFiles(std::shared_ptr<const SourceTree> tree, std::vector<Mark> marks,
                           std::vector<Facts> facts, UniqueFd root, const ConfinedOpener& opener)
    : tree_(std::move(tree)),
      marks_(std::move(marks)),
      facts_(std::move(facts)),
      root_(std::make_shared<const UniqueFd>(std::move(root))),
      opener_(opener),
      kept_(kMostKept) {
  assert(marks_.size() == tree_->node_count());
  assert(facts_.empty() || facts_.size() == marks_.size());
}

FileIdentity ScannedFiles::identity(ContentNo file) const {
  const auto no = node_no(file);
  const Mark& mark = marks_[no];
  return {mark.inode, tree_->node(no).size_bytes, mark.mtime_ns, mark.ctime_ns};
}

std::string ScannedFiles::path(ContentNo file) const { return tree_->path(node_no(file)); }

std::optional<FileFacts> ScannedFiles::facts(ContentNo file) const {
  const auto no = node_no(file);
  if (no >= facts_.size()) return std::nullopt;
  const Facts& kept = facts_[no];
  return FileFacts{kept.device, kept.inode, tree_->node(no).size_bytes, kept.mtime, kept.ctime};
}

Result<UniqueFd> ScannedFiles::open(ContentNo file) const {
  const Node& node = tree_->node(node_no(file));
  assert(node.is_regular());
  const Directory& parent = tree_->directory(node.parent);
  const std::string name(tree_->name(parent, tree_->entries(parent)[node.entry]));
  int os_errno = 0;
  // A directory that was kept may have been replaced by one that has the file: two tries.
  for (const WayFrom from : {WayFrom::nearest_kept, WayFrom::root}) {
    const auto directory = open_directory(node.parent, from);
    auto opened = directory ? opener_.open((*directory)->get(), name.c_str(), O_RDONLY | O_NONBLOCK)
                            : propagate(directory);
    if (opened) return std::move(*opened);
    os_errno = opened.error();
    if (os_errno != ENOENT) break;
  }
  return fail_errno(Errc::unreadable, os_errno, fmt::format("open {}", path(file)));
}

std::expected<ScannedFiles::Handle, int> ScannedFiles::open_directory(DirectoryNo directory,
                                                                      WayFrom from) const {
  std::vector<std::string_view> names;  // from the wanted directory up
  Handle start;
  for (DirectoryNo at = directory; !start;) {
    start = at == kRootDirectory ? root_ : from == WayFrom::root ? nullptr : find(at);
    if (start) break;
    const Node& node = tree_->node(tree_->directory(at).node);
    const Directory& parent = tree_->directory(node.parent);
    names.push_back(tree_->name(parent, tree_->entries(parent)[node.entry]));
    at = node.parent;
  }
  if (names.empty()) return start;
  std::ranges::reverse(names);
  auto fd = opener_.open_chain(start->get(), names, O_PATH);
  if (!fd) return propagate(fd);
  auto handle = std::make_shared<const UniqueFd>(std::move(*fd));
  keep(directory, handle);
  return handle;
}

ScannedFiles::Handle ScannedFiles::find(DirectoryNo directory) const {
  const MutexLock lock(mutex_);
  const auto kept = std::ranges::find(kept_, directory, &Kept::directory);
  if (kept == kept_.end()) return nullptr;
  kept->last_use = ++clock_;
  return kept->handle;
}

void ScannedFiles::keep(DirectoryNo directory, Handle handle) const {
  Kept given_up;  // closed after the lock is left
  const MutexLock lock(mutex_);
  const auto known = std::ranges::find(kept_, directory, &Kept::directory);
  const auto place =
      known != kept_.end() ? known : std::ranges::min_element(kept_, {}, &Kept::last_use);
  given_up = std::exchange(*place, Kept{directory, ++clock_, std::move(handle)});
}

}  // namespace mkvirtfs
