// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/ext2/testing/read_back.h"

#include <ext2fs/ext2fs.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "fsgen/ext2/inode_time.h"
#include "support/arithmetic.h"
#include "support/text.h"

namespace mkvirtfs::ext2::testing {
namespace {

void check(errcode_t code, std::string_view what) {
  if (code != 0) throw std::runtime_error(fmt::format("{}: libext2fs error {}", what, code));
}

/// Everything a reader can see of one inode, as text, and where its data lies.
struct Shown {
  std::string attributes;
  std::vector<Range> runs;  // of blocks, in bytes
  ext2_ino_t inode = 0;     // of the image
  NodeNo node;              // of the source
};
using ByPath = std::map<std::string, Shown>;

std::string to_text(Timestamp time) {
  return fmt::format("{}.{:09}", time.seconds, time.nanoseconds);
}

class ImageReader {
 public:
  explicit ImageReader(const std::filesystem::path& image) {
    check(ext2fs_open(image.c_str(), EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs_), "open");
  }
  ~ImageReader() { ext2fs_close_free(&fs_); }
  ImageReader(const ImageReader&) = delete;
  ImageReader& operator=(const ImageReader&) = delete;

  ByPath read() {
    ByPath shown;
    visit("", EXT2_ROOT_INO, shown);
    return shown;
  }
  ext2_filsys fs() const noexcept { return fs_; }

 private:
  struct Child {
    std::string name;
    ext2_ino_t inode;
    int file_type;
  };

  void visit(const std::string& path, ext2_ino_t number, ByPath& shown) {
    std::vector<char> buffer(static_cast<std::size_t>(EXT2_INODE_SIZE(fs_->super)));
    buffer.resize(std::max(buffer.size(), sizeof(ext2_inode_large)));
    auto* inode = reinterpret_cast<ext2_inode_large*>(buffer.data());
    check(ext2fs_read_inode_full(fs_, number, reinterpret_cast<ext2_inode*>(inode),
                                 EXT2_INODE_SIZE(fs_->super)),
          path);
    shown[path] = show(number, *inode);
    if (!LINUX_S_ISDIR(inode->i_mode)) return;
    std::vector<Child> children;
    const auto collect = [](ext2_ino_t, int, ext2_dir_entry* entry, int, int, char*, void* list) {
      const std::string name(entry->name, static_cast<std::size_t>(ext2fs_dirent_name_len(entry)));
      if (name != "." && name != "..") {
        static_cast<std::vector<Child>*>(list)->push_back(
            {name, entry->inode, ext2fs_dirent_file_type(entry)});
      }
      return 0;
    };
    check(ext2fs_dir_iterate2(fs_, number, 0, nullptr, collect, &children), path);
    for (const Child& child : children) {
      visit(path.empty() ? child.name : path + "/" + child.name, child.inode, shown);
    }
  }

  Shown show(ext2_ino_t number, const ext2_inode_large& inode) {
    Shown made;
    made.inode = number;
    const bool large = EXT2_INODE_SIZE(fs_->super) > EXT2_GOOD_OLD_INODE_SIZE;
    Timestamp mtime{static_cast<std::int32_t>(inode.i_mtime), 0};
    if (large) {
      mtime.seconds += static_cast<std::int64_t>(inode.i_mtime_extra & EXT4_EPOCH_MASK) << 32;
      mtime.nanoseconds = inode.i_mtime_extra >> EXT4_EPOCH_BITS;
    }
    const std::uint64_t size = EXT2_I_SIZE(&inode);
    const bool directory = LINUX_S_ISDIR(inode.i_mode);
    made.attributes = fmt::format("mode={:o} owner={}:{} size={} mtime={} links={}", inode.i_mode,
                                  inode_uid(inode), inode_gid(inode), directory ? 0 : size,
                                  to_text(mtime), directory ? 1 : inode.i_links_count);
    if (LINUX_S_ISLNK(inode.i_mode))
      made.attributes += " to=" + printable(target(number, inode, size));
    if (LINUX_S_ISCHR(inode.i_mode) || LINUX_S_ISBLK(inode.i_mode)) {
      const std::uint32_t first = inode.i_block[0];
      const std::uint32_t second = inode.i_block[1];
      made.attributes += first != 0 ? fmt::format(" device={}:{}", first >> 8, first & 0xFF)
                                    : fmt::format(" device={}:{}", (second >> 8) & 0xFFF,
                                                  (second & 0xFF) | ((second >> 12) & 0xFFF00));
    }
    made.attributes += xattrs(number);
    if (LINUX_S_ISREG(inode.i_mode)) made.runs = runs(number);
    return made;
  }

  std::string target(ext2_ino_t number, const ext2_inode_large& inode, std::uint64_t size) {
    if (size < sizeof inode.i_block) return {reinterpret_cast<const char*>(inode.i_block), size};
    return read_file(number, 0, size);
  }

  std::string xattrs(ext2_ino_t number) {
    ext2_xattr_handle* handle = nullptr;
    check(ext2fs_xattrs_open(fs_, number, &handle), "xattrs_open");
    const std::unique_ptr<ext2_xattr_handle, void (*)(ext2_xattr_handle*)> closer(
        handle, [](ext2_xattr_handle* open) { ext2fs_xattrs_close(&open); });
    check(ext2fs_xattrs_read(handle), "xattrs_read");
    std::vector<std::string> names;
    const auto collect = [](char* name, char*, size_t, void* into) {
      static_cast<std::vector<std::string>*>(into)->emplace_back(name);
      return 0;
    };
    check(ext2fs_xattrs_iterate(handle, collect, &names), "xattrs_iterate");
    std::map<std::string, std::string> found;
    for (const std::string& name :
         names) {  // xattr_get turns ACLs into the kernel's form, iterate does not
      void* value = nullptr;
      size_t length = 0;
      check(ext2fs_xattr_get(handle, name.c_str(), &value, &length), name);
      found[name] = std::string(static_cast<const char*>(value), length);
      ext2fs_free_mem(static_cast<void*>(&value));
      // libext2fs leaves ids that mean nothing at 0, the kernel says -1.
      if (name.starts_with("system.posix_acl_")) set_undefined_ids(found[name]);
    }
    std::string text;
    for (const auto& [name, value] : found) text += fmt::format(" {}={}", name, hex(value));
    return text;
  }

  static void set_undefined_ids(std::string& acl) {
    for (std::size_t at = 4; at + 8 <= acl.size(); at += 8) {
      const bool has_id = acl[at] == 0x02 || acl[at] == 0x08;
      if (!has_id) acl.replace(at + 4, 4, "\xff\xff\xff\xff");
    }
  }

  std::vector<Range> runs(ext2_ino_t number) {
    struct Walk {
      std::vector<Range> runs;
      std::uint64_t block_bytes;
    } walk{{}, fs_->blocksize};
    const auto collect = [](ext2_filsys, blk64_t*, e2_blkcnt_t logical, blk64_t, int, void* state) {
      auto& [found, bytes] = *static_cast<Walk*>(state);
      if (logical < 0) return 0;
      const std::uint64_t at = static_cast<std::uint64_t>(logical) * bytes;
      if (!found.empty() && found.back().end() == at) {
        found.back().length += bytes;
      } else {
        found.push_back({at, bytes});
      }
      return 0;
    };
    check(ext2fs_block_iterate3(fs_, number, BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY, nullptr,
                                collect, &walk),
          "block_iterate");
    return walk.runs;
  }

 public:
  std::string read_file(ext2_ino_t number, std::uint64_t offset, std::uint64_t length) {
    ext2_file_t file = nullptr;
    check(ext2fs_file_open(fs_, number, 0, &file), "file_open");
    const std::unique_ptr<ext2_file, void (*)(ext2_file_t)> closer(
        file, [](ext2_file_t open) { ext2fs_file_close(open); });
    std::string bytes(length, '\0');
    check(ext2fs_file_llseek(file, offset, EXT2_SEEK_SET, nullptr), "file_llseek");
    std::size_t done = 0;
    while (done < length) {
      unsigned got = 0;
      check(ext2fs_file_read(file, bytes.data() + done, static_cast<unsigned>(length - done), &got),
            "file_read");
      if (got == 0) throw std::runtime_error("file_read: short");
      done += got;
    }
    return bytes;
  }

 private:
  ext2_filsys fs_ = nullptr;
};

/// The same of the source, as ext is expected to show it.
ByPath expected(const SourceTree& tree, const ext2_super_block& superblock) {
  ByPath shown;
  const bool large = EXT2_INODE_SIZE(&superblock) > EXT2_GOOD_OLD_INODE_SIZE;
  const auto block_bytes = static_cast<std::uint64_t>(EXT2_BLOCK_SIZE(&superblock));
  const auto show = [&](NodeNo no) {
    const Node& node = tree.node(no);
    Shown made;
    made.node = no;
    Timestamp mtime = node.mtime();
    if (large) {
      mtime = std::clamp(mtime, Timestamp{kOldestInodeSecond, 0},
                         Timestamp{kNewestInodeSecond, 999'999'999});
      const Timestamp mistrusted{kFirstMistrustedSecond, 0};
      if (mtime >= mistrusted && mtime.seconds <= kLastMistrustedSecond) {
        mtime = {kFirstMistrustedSecond - 1, 999'999'999};
      }
    } else {
      mtime = {std::clamp(mtime.seconds, kOldestInodeSecond, kNewestSmallInodeSecond), 0};
    }
    made.attributes =
        fmt::format("mode={:o} owner={}:{} size={} mtime={} links={}", node.mode, node.uid,
                    node.gid, node.size_bytes, to_text(mtime), node.link_count);
    if (node.is_symlink()) made.attributes += " to=" + printable(tree.symlink_target(no));
    if (node.is_device()) {
      const DeviceNumber number = tree.device_number(no);
      made.attributes += fmt::format(" device={}:{}", number.major, number.minor);
    }
    for (const Xattr& xattr : tree.xattrs(node.xattrs)) {
      made.attributes += fmt::format(" {}={}", xattr.name, hex(xattr.value));
    }
    Range dense;
    if (node.is_regular()) {
      for (const Range& run : tree.data_runs(no, dense)) {
        const std::uint64_t start = round_down(run.offset, block_bytes);
        const std::uint64_t end = round_up(run.end(), block_bytes);
        if (!made.runs.empty() && start <= made.runs.back().end()) {
          made.runs.back().length = end - made.runs.back().offset;
        } else {
          made.runs.push_back({start, end - start});
        }
      }
    }
    return made;
  };
  shown[""] = show(kRootNode);
  for (const Directory& directory : tree.directories()) {
    std::string parent = tree.path(directory.node);
    if (!parent.empty()) parent += '/';
    for (const Entry entry : tree.entries(directory)) {
      shown[fmt::format("{}{}", parent, tree.name(directory, entry))] = show(entry.node);
    }
  }
  return shown;
}

}  // namespace

std::string differences(const std::filesystem::path& image, const BuiltTree& source) {
  ImageReader reader(image);
  ByPath got = reader.read();
  const ByPath want = expected(*source.tree, *reader.fs()->super);
  if (!want.contains("lost+found")) got.erase("lost+found");
  std::string report;
  const auto differ = [&](const std::string& path, std::string_view what) {
    if (report.size() < 10'000) report += fmt::format("/{}: {}\n", printable(path), what);
  };
  std::map<NodeNo, ext2_ino_t> inode_of;
  std::set<ext2_ino_t> inodes;
  for (const auto& [path, shown] : got) {
    if (!want.contains(path)) differ(path, "not in the source");
    inodes.insert(shown.inode);
  }
  for (const auto& [path, shown] : want) {
    const auto found = got.find(path);
    if (found == got.end()) {
      differ(path, "not in the image");
      continue;
    }
    const Shown& is = found->second;
    if (is.attributes != shown.attributes)
      differ(path, fmt::format("{} became {}", shown.attributes, is.attributes));
    if (is.runs != shown.runs) differ(path, "its holes are elsewhere");
    const auto [known, first] = inode_of.try_emplace(shown.node, is.inode);
    if (known->second != is.inode) differ(path, "the hard link is broken");
    if (!first || is.runs != shown.runs) continue;
    const std::uint64_t size = source.tree->node(shown.node).size_bytes;
    constexpr std::uint64_t kPieceBytes = 1 << 20;
    std::string piece;
    for (const Range& run : shown.runs) {
      const std::uint64_t end = std::min(run.end(), size);
      for (std::uint64_t at = run.offset; at < end; at += piece.size()) {
        piece.resize(std::min(end - at, kPieceBytes));
        const auto bytes = std::as_writable_bytes(std::span(piece));
        if (!source.store->read(content_no(shown.node), at, bytes))
          throw std::runtime_error("read source");
        if (reader.read_file(is.inode, at, piece.size()) != piece)
          differ(path, fmt::format("other bytes at {}", at));
      }
    }
  }
  if (inodes.size() != inode_of.size()) differ("", "two nodes share an inode");
  return report;
}

}  // namespace mkvirtfs::ext2::testing
