// SPDX-License-Identifier: BSD-3-Clause
//
// A reader that shares no code with the planner but the numbers of the format. It begins with the
// superblock and goes where the image leads it; what it looks up in the source is only what it
// compares.
#include "fsgen/erofs/testing/read_back.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "support/byte_order.h"
#include "support/text.h"

namespace mkvirtfs::erofs::testing {
namespace {

using Bytes = std::vector<std::byte>;

void demand(bool good, const std::string& what) {
  if (!good) throw std::runtime_error(what);
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Bit by bit, as the polynomial is written down.
std::uint32_t crc32c_by_bits(std::span<const std::byte> bytes) {
  std::uint32_t value = 0xFFFFFFFF;
  for (const std::byte byte : bytes) {
    value ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? 0x82F63B78u : 0u);
  }
  return value;
}

struct Inode {
  std::uint64_t nid = 0;
  unsigned layout = 0;
  std::uint16_t mode = 0;
  std::uint32_t links = 0;
  std::uint64_t size = 0;
  std::uint32_t place = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  Timestamp mtime;
  std::uint64_t end = 0;  // of its fields
  std::uint64_t xattr_bytes = 0;
};

class Reader {
 public:
  explicit Reader(BlockDevice& device) : device_(device) {
    Bytes super = read(1024, 128);
    demand(load_le<std::uint32_t>(super, 0) == 0xE0F5E1E2, "no magic");
    block_ = std::uint64_t{1} << std::to_integer<unsigned>(super[12]);
    Bytes covered = read(1024, block_ > 1024 ? block_ - 1024 : block_);
    const auto checksum = load_le<std::uint32_t>(covered, 4);
    store_le(covered, 4, std::uint32_t{0});
    demand(checksum == crc32c_by_bits(covered), "the superblock's checksum is wrong");
    root_ = load_le<std::uint16_t>(super, 14);
    inodes_ = load_le<std::uint64_t>(super, 16);
    build_ = {static_cast<std::int64_t>(load_le<std::uint64_t>(super, 24)),
              load_le<std::uint32_t>(super, 32)};
    demand(load_le<std::uint32_t>(super, 36) * block_ == device.geometry().size_bytes,
           "the superblock has another size");
    meta_ = load_le<std::uint32_t>(super, 40) * block_;
    shared_ = load_le<std::uint32_t>(super, 44) * block_;
    features_ = load_le<std::uint32_t>(super, 80);
    demand((features_ & ~0x4u) == 0, "features that are not ours");
  }

  std::uint64_t root() const { return root_; }
  std::uint64_t inode_count() const { return inodes_; }
  bool may_have_chunks() const { return (features_ & 0x4) != 0; }

  Inode inode(std::uint64_t nid) {
    const std::uint64_t at = meta_ + nid * 32;
    Bytes b = read(at, 64);
    const auto format = load_le<std::uint16_t>(b, 0);
    demand((format & ~0xFu) == 0, "an unknown format of an inode");
    Inode inode;
    inode.nid = nid;
    inode.layout = format >> 1;
    const auto count = load_le<std::uint16_t>(b, 2);
    demand(count != 1, "an inode with an empty header of attributes");
    inode.xattr_bytes = count == 0 ? 0 : 12 + 4 * (std::uint64_t{count} - 1);
    inode.mode = load_le<std::uint16_t>(b, 4);
    inode.place = load_le<std::uint32_t>(b, 16);
    if ((format & 1) == 0) {
      inode.links = load_le<std::uint16_t>(b, 6);
      inode.size = load_le<std::uint32_t>(b, 8);
      inode.uid = load_le<std::uint16_t>(b, 24);
      inode.gid = load_le<std::uint16_t>(b, 26);
      inode.mtime = build_;
      inode.end = at + 32;
    } else {
      inode.size = load_le<std::uint64_t>(b, 8);
      inode.uid = load_le<std::uint32_t>(b, 24);
      inode.gid = load_le<std::uint32_t>(b, 28);
      inode.mtime = {static_cast<std::int64_t>(load_le<std::uint64_t>(b, 32)),
                     load_le<std::uint32_t>(b, 40)};
      inode.links = load_le<std::uint32_t>(b, 44);
      inode.end = at + 64;
      demand(at / block_ == (at + 63) / block_, "an inode crosses the end of a block");
    }
    return inode;
  }

  std::map<std::string, std::string> xattrs(const Inode& inode) {
    std::map<std::string, std::string> found;
    if (inode.xattr_bytes == 0) return found;
    const Bytes body = read(inode.end, inode.xattr_bytes);
    const auto shared = std::to_integer<std::size_t>(body[4]);
    demand(12 + 4 * shared <= body.size(), "too many shared attributes");
    const auto take = [&](std::span<const std::byte> at) {
      const auto name_bytes = std::to_integer<std::size_t>(at[0]);
      const auto value_bytes = std::size_t{load_le<std::uint16_t>(at, 2)};
      static constexpr std::string_view kPrefixes[] = {
          "", "user.",    "system.posix_acl_access", "system.posix_acl_default", "trusted.",
          "", "security."};
      const auto index = std::to_integer<std::size_t>(at[1]);
      demand(index < std::size(kPrefixes) && !kPrefixes[index].empty(), "an unknown namespace");
      const std::string name = std::string(kPrefixes[index]) + text_of(at.subspan(4, name_bytes));
      demand(found.emplace(name, text_of(at.subspan(4 + name_bytes, value_bytes))).second,
             "an attribute twice");
      return (4 + name_bytes + value_bytes + 3) / 4 * 4;
    };
    for (std::size_t i = 0; i < shared; ++i) {
      const std::uint64_t at =
          shared_ + std::uint64_t{4} * load_le<std::uint32_t>(body, 12 + 4 * i);
      const Bytes head = read(at, 4);
      take(read(at, 4 + std::to_integer<std::size_t>(head[0]) + load_le<std::uint16_t>(head, 2)));
    }
    for (std::size_t at = 12 + 4 * shared; at < body.size();) {
      at += take(std::span(body).subspan(at));
    }
    return found;
  }

  /// Where a byte of a file stands; 0 for a hole.
  std::uint64_t place_of(const Inode& inode, std::uint64_t offset) {
    if (inode.layout == 4) {
      demand(may_have_chunks(), "chunks without the feature");
      demand((inode.place & ~0x1Fu) == 0, "chunks of another form");
      const std::uint64_t chunk = block_ << (inode.place & 0x1F);
      const Bytes entry = read(inode.end + inode.xattr_bytes + 4 * (offset / chunk), 4);
      const auto block = load_le<std::uint32_t>(entry, 0);
      return block == 0xFFFFFFFF ? 0 : block * block_ + offset % chunk;
    }
    demand(inode.layout == 0 || inode.layout == 2, "an unknown layout");
    const std::uint64_t blocks = (inode.size + block_ - 1) / block_;
    if (inode.layout == 2 && offset / block_ == blocks - 1) {
      const std::uint64_t tail = inode.end + inode.xattr_bytes;
      demand(tail / block_ == (tail + (inode.size - 1) % block_) / block_,
             "an end of a file crosses the end of a block");
      return tail + offset % block_;
    }
    return inode.place * block_ + offset;
  }

  Bytes data(const Inode& inode, std::uint64_t offset, std::size_t length) {
    Bytes out(length);
    for (std::size_t done = 0; done < length;) {
      const std::size_t part =
          std::min<std::size_t>(length - done, block_ - (offset + done) % block_);
      if (const std::uint64_t at = place_of(inode, offset + done); at != 0) {
        const Bytes bytes = read(at, part);
        std::ranges::copy(bytes, out.begin() + static_cast<std::ptrdiff_t>(done));
      }
      done += part;
    }
    return out;
  }

  struct Dirent {
    std::string name;
    std::uint64_t nid;
    unsigned type;
  };
  std::vector<Dirent> entries(const Inode& inode) {
    std::vector<Dirent> found;
    for (std::uint64_t at = 0; at < inode.size; at += block_) {
      const std::size_t length = std::min(block_, inode.size - at);
      const Bytes b = data(inode, at, length);
      const std::size_t count = load_le<std::uint16_t>(b, 8) / 12;
      demand(count > 0 && load_le<std::uint16_t>(b, 8) % 12 == 0, "a broken block of a directory");
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t from = load_le<std::uint16_t>(b, 12 * i + 8);
        const std::size_t to = i + 1 < count ? load_le<std::uint16_t>(b, 12 * (i + 1) + 8) : length;
        demand(from < to && to <= length, "a broken entry");
        std::string name = text_of(std::span(b).subspan(from, to - from));
        if (i + 1 == count) name.resize(std::min(name.find('\0'), name.size()));
        demand(!name.empty() && name.size() <= 255 && name.find('\0') == name.npos,
               "a broken name");
        demand(found.empty() || found.back().name < name, "names out of order");
        found.push_back(
            {name, load_le<std::uint64_t>(b, 12 * i), std::to_integer<unsigned>(b[12 * i + 10])});
      }
    }
    return found;
  }

 private:
  Bytes read(std::uint64_t at, std::size_t length) {
    // The volume may end behind a short inode.
    const std::uint64_t size = device_.geometry().size_bytes;
    demand(at < size, "a place behind the end");
    Bytes bytes(length);
    const auto there = std::span(bytes).first(std::min<std::uint64_t>(length, size - at));
    const auto done = device_.read(at, there);
    if (!done) throw std::runtime_error(done.error().what);
    return bytes;
  }

  BlockDevice& device_;
  std::uint64_t block_ = 0;
  std::uint64_t root_ = 0;
  std::uint64_t inodes_ = 0;
  std::uint64_t meta_ = 0;
  std::uint64_t shared_ = 0;
  std::uint32_t features_ = 0;
  Timestamp build_;
};

class Comparison {
 public:
  Comparison(BlockDevice& device, const BuiltTree& source, TimesAre times)
      : reader_(device), tree_(*source.tree), store_(*source.store), times_(times) {}

  std::string run() {
    try {
      demand(reader_.inode_count() == tree_.node_count(), "another number of inodes");
      directory(reader_.root(), reader_.root(), kRootDirectory);
      demand(nodes_.size() == tree_.node_count(), "another number of nodes");
    } catch (const std::runtime_error& error) {
      report_ += printable(path_) + ": " + error.what() + "\n";
    }
    return report_;
  }

 private:
  void directory(std::uint64_t nid, std::uint64_t parent, DirectoryNo no) {
    const Directory& source = tree_.directory(no);
    const Inode inode = reader_.inode(nid);
    node(inode, source.node);
    std::vector<Reader::Dirent> found = reader_.entries(inode);
    const auto take = [&](std::string_view name, std::uint64_t want) {
      const auto at = std::ranges::find(found, name, &Reader::Dirent::name);
      demand(at != found.end() && at->nid == want && at->type == 2, "wrong or missing dots");
      found.erase(at);
    };
    take(".", nid);
    take("..", parent);
    const std::span<const Entry> entries = tree_.entries(source);
    demand(found.size() == entries.size(), "another number of entries");
    const std::string above = path_;
    std::uint32_t subdirectories = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const Entry entry = entries[i];
      path_ = above + "/" + std::string(tree_.name(source, entry));
      demand(found[i].name == tree_.name(source, entry), "another name");
      const Inode child = reader_.inode(found[i].nid);
      static constexpr mode_t kTypes[] = {0,       S_IFREG, S_IFDIR,  S_IFCHR,
                                          S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK};
      demand(found[i].type < std::size(kTypes) && kTypes[found[i].type] == (child.mode & S_IFMT),
             "another type in the entry");
      if (tree_.node(entry.node).is_directory()) {
        ++subdirectories;
        directory(found[i].nid, nid, tree_.directory_no(entry.node));
      } else {
        node(child, entry.node);
      }
    }
    path_ = above;
    demand(inode.links == 2 + subdirectories, "another number of links");
  }

  void node(const Inode& is, NodeNo no) {
    const Node& want = tree_.node(no);
    if (const auto known = nodes_.emplace(no, is.nid); !known.second) {
      demand(known.first->second == is.nid, "no hard link");
      return;
    }
    demand(nids_.insert(is.nid).second, "an inode of something else");
    demand(is.mode == want.mode, "another mode");
    demand(is.uid == want.uid && is.gid == want.gid, "another owner");
    if (times_ == TimesAre::kept) demand(is.mtime == want.mtime(), "another time");
    if (!want.is_directory()) demand(is.links == want.link_count, "another number of links");
    std::map<std::string, std::string> xattrs;
    for (const Xattr& xattr : tree_.xattrs(want.xattrs)) xattrs.emplace(xattr.name, xattr.value);
    demand(reader_.xattrs(is) == xattrs, "other attributes");
    if (want.is_directory()) return;
    demand(is.size == want.size_bytes, "another size");
    if (want.is_symlink()) {
      demand(text_of(reader_.data(is, 0, is.size)) == tree_.symlink_target(no), "another target");
    } else if (want.is_device()) {
      const DeviceNumber number = tree_.device_number(no);
      demand(is.place == ((number.minor & 0xFF) | number.major << 8 | (number.minor >> 8) << 20),
             "another device number");
    } else if (want.is_regular()) {
      content(is, no);
    }
  }

  /// The data runs byte for byte, and the first and last bytes of each hole.
  void content(const Inode& is, NodeNo no) {
    constexpr std::size_t kPiece = 1 << 17;
    Range dense;
    std::uint64_t at = 0;
    const auto zeroes = [&](std::uint64_t from, std::uint64_t to) {
      const std::uint64_t length = std::min<std::uint64_t>(to - from, 5000);
      for (const std::uint64_t begin : {from, to - length}) {
        for (const std::byte byte : reader_.data(is, begin, length)) {
          demand(byte == std::byte{0}, "bytes in a hole");
        }
      }
    };
    for (const Range& run : tree_.data_runs(no, dense)) {
      zeroes(at, run.offset);
      for (at = run.offset; at < run.end();) {
        Bytes want(std::min<std::uint64_t>(kPiece, run.end() - at));
        const auto read = store_.read(content_no(no), at, want);
        if (!read) throw std::runtime_error(read.error().what);
        demand(reader_.data(is, at, want.size()) == want, fmt::format("other bytes at {}", at));
        at += want.size();
      }
    }
    zeroes(at, is.size);
  }

  Reader reader_;
  const SourceTree& tree_;
  ContentStore& store_;
  TimesAre times_;
  std::map<NodeNo, std::uint64_t> nodes_;
  std::set<std::uint64_t> nids_;
  std::string path_;
  std::string report_;
};

}  // namespace

std::string differences(BlockDevice& device, const BuiltTree& source, TimesAre times) {
  try {
    return Comparison(device, source, times).run();
  } catch (const std::runtime_error& error) {
    return std::string(error.what()) + "\n";
  }
}

}  // namespace mkvirtfs::erofs::testing
