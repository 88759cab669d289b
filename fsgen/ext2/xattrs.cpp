// SPDX-License-Identifier: BSD-3-Clause
//
// Nodes with equal attributes share a set, so each set is encoded once. Attributes go to the inode
// if all of them fit there, else to a block if all of them fit there, else the inode takes what it
// can, in the order of a block's entries, and a block takes the rest. Inodes with the same set
// share a block, up to the 1024 that one may have: of a set with more users each 1024, in the order
// of their numbers, have a block of their own, so which block a node has is arithmetic.
#include "fsgen/ext2/xattrs.h"

#include <ext2fs/ext2_ext_attr.h>
#include <ext2fs/ext2fs.h>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "fsgen/ext2/crc32c.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint32_t kMostSharers =
    EXT2_EXT_ATTR_REFCOUNT_MAX;             // e2fsck and the kernel agree on 1024
constexpr std::uint32_t kListEndBytes = 4;  // the zero that ends the entries

/// Attribute name prefixes, and the number that stands for each on disk. The longest that matches
/// counts.
struct Prefix {
  std::string_view text;
  std::uint8_t index;
};
constexpr Prefix kPrefixes[] = {
    {"system.posix_acl_access", 2},
    {"system.posix_acl_default", 3},
    {"system.richacl", 8},
    {"user.", 1},
    {"trusted.", 4},
    {"security.", 6},
    {"system.", 7},
};

/// One attribute in ext's words.
struct Attribute {
  std::uint8_t index;
  std::string name;  // behind the prefix
  std::string value;

  /// The order in which entries stand in an attribute block.
  friend bool operator<(const Attribute& a, const Attribute& b) noexcept {
    if (a.index != b.index) return a.index < b.index;
    if (a.name.size() != b.name.size()) return a.name.size() < b.name.size();
    return a.name < b.name;
  }
  std::uint32_t entry_bytes() const noexcept {
    return static_cast<std::uint32_t>(EXT2_EXT_ATTR_LEN(name.size()));
  }
  std::uint32_t value_bytes() const noexcept {
    return static_cast<std::uint32_t>(EXT2_EXT_ATTR_SIZE(value.size()));
  }
  std::uint32_t bytes() const noexcept { return entry_bytes() + value_bytes(); }
};

/// The kernel's xattr form of a POSIX ACL (version 2, an id in each entry) to ext's (version 1, ids
/// only where they mean something). nullopt when malformed.
std::optional<std::string> to_ext_acl(std::string_view value) {
  constexpr std::uint32_t kKernelVersion = 2;
  constexpr std::uint32_t kExtVersion = 1;
  constexpr std::size_t kKernelEntryBytes = 8;
  constexpr std::uint16_t kUser = 0x02;
  constexpr std::uint16_t kGroup = 0x08;
  const auto bytes = std::as_bytes(std::span(value));
  if (bytes.size() < 4 || (bytes.size() - 4) % kKernelEntryBytes != 0) return std::nullopt;
  if (load_le<std::uint32_t>(bytes) != kKernelVersion) return std::nullopt;
  std::string out;
  const auto append = [&](auto number) {
    number = to_le(number);
    out.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  append(kExtVersion);
  for (std::size_t at = 4; at < bytes.size(); at += kKernelEntryBytes) {
    const auto tag = load_le<std::uint16_t>(bytes, at);
    append(tag);
    append(load_le<std::uint16_t>(bytes, at + 2));
    if (tag == kUser || tag == kGroup) append(load_le<std::uint32_t>(bytes, at + 4));
  }
  return out;
}

Result<Attribute> to_attribute(const Xattr& xattr, const std::string& path) {
  for (const Prefix& prefix : kPrefixes) {
    if (!xattr.name.starts_with(prefix.text)) continue;
    Attribute attribute{prefix.index, xattr.name.substr(prefix.text.size()), xattr.value};
    if (prefix.index == 2 || prefix.index == 3) {
      std::optional<std::string> acl = to_ext_acl(xattr.value);
      if (!acl) {
        return fail(Errc::unsupported,
                    fmt::format("{}: {} is not a POSIX ACL of version 2", path, xattr.name),
                    {{"no-xattrs"}});
      }
      attribute.value = std::move(*acl);
    }
    return attribute;
  }
  return fail(Errc::unsupported,
              fmt::format("{}: ext has no place for the attribute {}", path, xattr.name),
              {{"no-xattrs"}});
}

/// Entries in blocks have a hash, those in an inode have none.
enum class EntryHash : std::uint8_t { none, of_name_and_value };

/// Entries from `entries_at` on, values from the end of `area` down; offsets count from
/// `offsets_from`.
void put_attributes(std::span<const Attribute> attributes, std::span<std::byte> area,
                    std::size_t entries_at, std::size_t offsets_from, EntryHash hash) {
  std::size_t entry_at = entries_at;
  std::size_t value_at = area.size();
  for (const Attribute& attribute : attributes) {
    value_at -= attribute.value_bytes();
    ext2_ext_attr_entry entry{};
    entry.e_name_len = narrow<std::uint8_t>(attribute.name.size());
    entry.e_name_index = attribute.index;
    entry.e_value_offs =
        to_le(attribute.value.empty() ? std::uint16_t{0}
                                      : narrow<std::uint16_t>(value_at - offsets_from));
    entry.e_value_size = to_le(narrow<std::uint32_t>(attribute.value.size()));
    std::memcpy(area.data() + entry_at, &entry, sizeof entry);
    std::memcpy(area.data() + entry_at + sizeof entry, attribute.name.data(),
                attribute.name.size());
    std::memcpy(area.data() + value_at, attribute.value.data(), attribute.value.size());
    if (hash == EntryHash::of_name_and_value) {
      auto* placed = reinterpret_cast<ext2_ext_attr_entry*>(area.data() + entry_at);
      placed->e_hash = ext2fs_ext_attr_hash_entry(placed, area.data() + value_at);
    }
    entry_at += attribute.entry_bytes();
  }
  assert(entry_at + kListEndBytes <= value_at);
}

std::vector<std::byte> encode_in_inode(std::span<const Attribute> attributes, std::uint32_t bytes) {
  std::vector<std::byte> area(bytes);
  store_le(area, 0, std::uint32_t{EXT2_EXT_ATTR_MAGIC});
  put_attributes(attributes, area, 4, 4, EntryHash::none);
  return area;
}

std::vector<std::byte> encode_block(std::span<const Attribute> attributes,
                                    std::uint32_t block_bytes) {
  std::vector<std::byte> block(block_bytes);
  ext2_ext_attr_header header{};
  header.h_magic = to_le<std::uint32_t>(EXT2_EXT_ATTR_MAGIC);
  header.h_blocks = to_le<std::uint32_t>(1);
  std::memcpy(block.data(), &header, sizeof header);
  put_attributes(attributes, block, sizeof header, 0, EntryHash::of_name_and_value);
  ext2fs_ext_attr_block_rehash(
      reinterpret_cast<ext2_ext_attr_header*>(block.data()),
      reinterpret_cast<ext2_ext_attr_entry*>(block.data() + sizeof header));
  return block;
}

}  // namespace

Result<Xattrs> Xattrs::make(const SourceTree& tree, const Parameters& parameters) {
  Xattrs made;
  made.sets_.resize(tree.xattr_set_count());
  if (made.sets_.size() == 1) return made;

  constexpr NodeNo kNobody{~0U};
  std::vector<NodeNo> first_user(made.sets_.size(), kNobody);
  for (std::uint32_t no = tree.node_count(); no-- > 0;) {
    first_user[tree.node(NodeNo{no}).xattrs] = NodeNo{no};
  }

  const std::uint32_t inode_room = parameters.inode_xattr_bytes();
  const std::uint32_t inode_most = inode_room > 0 ? inode_room - 4 - kListEndBytes : 0;
  const auto block_most = static_cast<std::uint32_t>(parameters.block_bytes -
                                                     sizeof(ext2_ext_attr_header) - kListEndBytes);
  for (XattrSetNo no = 1; no < made.sets_.size(); ++no) {
    if (first_user[no] == kNobody) continue;
    const std::string path = tree.path(first_user[no]);
    std::vector<Attribute> attributes;
    std::uint32_t total = 0;
    for (const Xattr& xattr : tree.xattrs(no)) {
      Result<Attribute> attribute = to_attribute(xattr, path);
      if (!attribute) return propagate(attribute);
      total += attribute->bytes();
      attributes.push_back(std::move(*attribute));
    }
    std::sort(attributes.begin(), attributes.end());

    // All in the inode if they fit, else all in a block, else the inode takes what it can.
    std::uint32_t inode_left = total <= inode_most || total > block_most ? inode_most : 0;
    std::uint32_t block_bytes_needed = 0;
    std::vector<Attribute> in_inode;
    std::vector<Attribute> in_block;
    for (Attribute& attribute : attributes) {
      if (attribute.bytes() <= inode_left) {
        inode_left -= attribute.bytes();
        in_inode.push_back(std::move(attribute));
      } else {
        block_bytes_needed += attribute.bytes();
        in_block.push_back(std::move(attribute));
      }
    }
    if (block_bytes_needed > block_most) {
      return fail(
          Errc::does_not_fit,
          fmt::format("{}: its extended attributes need {} bytes, a block has room for {}", path,
                      block_bytes_needed, block_most),
          {parameters.block_bytes < 4096 ? Setting{"block-size", "4096"} : Setting{"no-xattrs"}});
    }
    Set& set = made.sets_[no];
    if (!in_inode.empty()) set.in_inode = encode_in_inode(in_inode, inode_room);
    if (!in_block.empty()) set.block = encode_block(in_block, parameters.block_bytes);
  }

  for (NodeNo no; no < tree.node_count(); ++no) {
    Set& set = made.sets_[tree.node(no).xattrs];
    if (!set.block.empty()) set.users.push_back(no);
  }
  for (XattrSetNo no = 1; no < made.sets_.size(); ++no) {
    Set& set = made.sets_[no];
    set.first_block = made.block_count_;
    const auto blocks = ceil_div(static_cast<std::uint32_t>(set.users.size()), kMostSharers);
    made.block_count_ += blocks;
    made.set_of_block_.insert(made.set_of_block_.end(), blocks, no);
  }
  return made;
}

std::uint32_t Xattrs::block_of(NodeNo node, XattrSetNo no) const noexcept {
  const Set& set = sets_[no];
  const auto user = std::ranges::lower_bound(set.users, node) - set.users.begin();
  return set.first_block + static_cast<std::uint32_t>(user) / kMostSharers;
}

void Xattrs::write_block(std::uint32_t index, BlockNo block, const Parameters& parameters,
                         std::span<std::byte> out) const {
  const Set& set = sets_[set_of_block_[index]];
  std::ranges::copy(set.block, out.begin());
  const std::uint32_t users_before = (index - set.first_block) * kMostSharers;
  const auto sharers =
      std::min(static_cast<std::uint32_t>(set.users.size()) - users_before, kMostSharers);
  store_le(out, offsetof(ext2_ext_attr_header, h_refcount), sharers);
  if (parameters.metadata_csum) {
    const std::uint32_t seed = crc32c_of<std::uint64_t>(parameters.checksum_seed, block.value());
    store_le(out, offsetof(ext2_ext_attr_header, h_checksum), crc32c(seed, out));
  }
}

}  // namespace mkvirtfs::ext2
