// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/materialise.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "support/confined_open.h"
#include "support/text.h"
#include "tests/support/privileges.h"

namespace mkvirtfs::testing {
namespace {

class Materialiser {
 public:
  Materialiser(const BuiltTree& built, const std::filesystem::path& root)
      : tree_(*built.tree),
        store_(*built.store),
        root_(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    if (!root_) fail(root.string());
  }

  void run(bool backwards) {
    // First directories, then what is in them, then what later steps would change again: the
    // attributes of directories, from the innermost outwards.
    for (const Directory& directory : tree_.directories().subspan(1)) {
      const UniqueFd parent = open(tree_.parent_of(directory.node).node);
      check(::mkdirat(parent.get(), name_of(directory.node).c_str(), 0700), directory.node);
    }
    std::vector<NodeNo> nodes;
    for (NodeNo no{1}; no < tree_.node_count(); ++no) {
      if (!tree_.node(no).is_directory()) nodes.push_back(no);
    }
    if (backwards) std::ranges::reverse(nodes);
    for (const NodeNo no : nodes) {
      const UniqueFd parent = open(tree_.parent_of(no).node);
      create(parent.get(), no);
    }
    link();
    for (const NodeNo no : nodes) {
      const UniqueFd parent = open(tree_.parent_of(no).node);
      set_attributes(parent.get(), name_of(no), no);
    }
    for (std::size_t i = tree_.directories().size(); i-- > 0;) {
      const NodeNo no = tree_.directories()[i].node;
      if (no == kRootNode) {
        set_attributes(root_.get(), ".", no);
      } else {
        const UniqueFd parent = open(tree_.parent_of(no).node);
        set_attributes(parent.get(), name_of(no), no);
      }
    }
  }

 private:
  [[noreturn]] static void fail(const std::string& what) {
    throw std::runtime_error(
        fmt::format("materialise {}: {}", printable(what), std::generic_category().message(errno)));
  }
  void check(int result, NodeNo no) const {
    if (result < 0) fail(tree_.path(no));
  }

  std::string name_of(NodeNo no) const {
    const Directory& parent = tree_.parent_of(no);
    return std::string(tree_.name(parent, tree_.entries(parent)[tree_.node(no).entry]));
  }

  UniqueFd open(NodeNo directory) const {
    std::vector<std::string> names;
    for (NodeNo at = directory; at != kRootNode; at = tree_.parent_of(at).node) {
      names.push_back(name_of(at));
    }
    std::ranges::reverse(names);
    const std::vector<std::string_view> chain(names.begin(), names.end());
    auto fd = opener_.open_chain(root_.get(), chain, O_PATH);
    if (!fd) {
      errno = fd.error();
      fail(tree_.path(directory));
    }
    return std::move(*fd);
  }

  void create(int parent, NodeNo no) {
    const Node& node = tree_.node(no);
    const std::string name = name_of(no);
    if (node.is_symlink()) {
      check(::symlinkat(std::string(tree_.symlink_target(no)).c_str(), parent, name.c_str()), no);
    } else if (node.is_regular()) {
      write(parent, name, no);
    } else {
      const DeviceNumber device = node.is_device() ? tree_.device_number(no) : DeviceNumber{};
      check(::mknodat(parent, name.c_str(), (node.mode & S_IFMT) | 0600u,
                      makedev(device.major, device.minor)),
            no);
    }
  }

  void write(int parent, const std::string& name, NodeNo no) {
    const UniqueFd file(
        ::openat(parent, name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
    check(file.get(), no);
    check(::ftruncate(file.get(), static_cast<off_t>(tree_.node(no).size_bytes)), no);
    Range dense;
    std::vector<std::byte> buffer;
    for (const Range& run : tree_.data_runs(no, dense)) {
      for (std::uint64_t done = 0; done < run.length; done += buffer.size()) {
        buffer.resize(std::min<std::uint64_t>(run.length - done, 1 << 20));
        const std::uint64_t at = run.offset + done;
        if (const auto read = store_.read(content_no(no), at, buffer); !read) {
          throw std::runtime_error(read.error().what);
        }
        if (::pwrite(file.get(), buffer.data(), buffer.size(), static_cast<off_t>(at)) !=
            static_cast<ssize_t>(buffer.size())) {
          fail(tree_.path(no));
        }
      }
    }
  }

  void link() {
    for (const Directory& directory : tree_.directories()) {
      const std::span<const Entry> entries = tree_.entries(directory);
      for (std::size_t i = 0; i < entries.size(); ++i) {
        const NodeNo no = entries[i].node;
        const Node& node = tree_.node(no);
        const bool first_name = &tree_.parent_of(no) == &directory && node.entry == i;
        if (node.is_directory() || first_name) continue;
        const UniqueFd from = open(tree_.parent_of(no).node);
        const UniqueFd to = open(directory.node);
        check(::linkat(from.get(), name_of(no).c_str(), to.get(),
                       std::string(tree_.name(directory, entries[i])).c_str(), 0),
              no);
      }
    }
  }

  void set_attributes(int parent, const std::string& name, NodeNo no) {
    const Node& node = tree_.node(no);
    // chown takes away capabilities and set-user-id bits, an ACL changes the mode: so this order.
    check(::fchownat(parent, name.c_str(), node.uid, node.gid, AT_SYMLINK_NOFOLLOW), no);
    if (!node.is_symlink()) check(::fchmodat(parent, name.c_str(), node.mode & 07777u, 0), no);
    const std::string path = fmt::format("/proc/self/fd/{}/{}", parent, name);
    for (const Xattr& xattr : tree_.xattrs(node.xattrs)) {
      check(
          ::lsetxattr(path.c_str(), xattr.name.c_str(), xattr.value.data(), xattr.value.size(), 0),
          no);
    }
    timespec time{};
    time.tv_sec = node.mtime_s;
    time.tv_nsec = node.mtime_ns;
    const std::array<timespec, 2> times = {time, time};
    check(::utimensat(parent, name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW), no);
  }

  const SourceTree& tree_;
  ContentStore& store_;
  const UniqueFd root_;
  const ConfinedOpener opener_{true};
};

/// Whether a user name space has this id: `map` is /proc/self/uid_map or gid_map.
bool is_mapped(const char* map, std::uint32_t id) {
  std::ifstream lines(map);
  std::uint64_t inside = 0;
  std::uint64_t outside = 0;
  std::uint64_t count = 0;
  while (lines >> inside >> outside >> count) {
    if (id >= inside && id - inside < count) return true;
  }
  return false;
}

bool may_give_to(std::uint32_t uid, std::uint32_t gid) {
  if (::geteuid() != 0) return uid == ::geteuid() && gid == ::getegid();
  return is_mapped("/proc/self/uid_map", uid) && is_mapped("/proc/self/gid_map", gid);
}

}  // namespace

bool may_materialise(const BuiltTree& built) {
  if (is_root()) return true;
  const SourceTree& tree = *built.tree;
  for (const Node& node : tree.nodes()) {
    if (node.is_device()) {
      skipped("device nodes");
      return false;
    }
    if (!may_give_to(node.uid, node.gid)) {
      skipped(::geteuid() != 0 ? "files of other users" : "files of ids that are not subordinate");
      return false;
    }
    for (const Xattr& xattr : tree.xattrs(node.xattrs)) {
      if (xattr.name.starts_with("trusted.")) {
        skipped("trusted attributes");
        return false;
      }
    }
  }
  return true;
}

void materialise(const BuiltTree& built, const std::filesystem::path& directory, bool backwards) {
  Materialiser(built, directory).run(backwards);
}

}  // namespace mkvirtfs::testing
