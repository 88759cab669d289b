// SPDX-License-Identifier: BSD-3-Clause
//
// Nodes with equal attributes share a set, so each set is encoded once. Attributes go to the inode
// if all of them fit there, else to a block if all of them fit there, else the inode takes what it
// can, in the order of a block's entries, and a block takes the rest. Inodes with the same set
// share a block, up to the 1024 that one may have: of a set with more users each 1024, in the order
// of their numbers, have a block of their own, so which block a node has is arithmetic. Where even
// that is too little room, ext4 makes files of the values, the largest first.
#include "fsgen/ext2/xattrs.h"

#include <ext2fs/ext2_ext_attr.h>
#include <ext2fs/ext2fs.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "fsgen/image/crc32c.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint32_t kMostSharers =
    EXT2_EXT_ATTR_REFCOUNT_MAX;             // e2fsck and the kernel agree on 1024
constexpr std::uint32_t kListEndBytes = 4;  // the zero that ends the entries
constexpr int kValueHashShift = 16;         // VALUE_HASH_SHIFT of e2fsprogs

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

/// A value that is a file of its own.
struct ValueFile {
  std::uint32_t number;  // of Xattrs::values()
  InodeNo inode;
  std::uint32_t hash;
};

/// One attribute in ext's words.
struct Attribute {
  std::uint8_t index;
  std::string name;  // behind the prefix
  std::string value;
  std::optional<ValueFile> file{};

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
    return file ? 0 : static_cast<std::uint32_t>(EXT2_EXT_ATTR_SIZE(value.size()));
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
    Attribute attribute{prefix.index, xattr.name.substr(prefix.text.size()), xattr.value, {}};
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

/// Entries in blocks have a hash, those in an inode have none, unless their value is a file.
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
        to_le(attribute.value_bytes() == 0 ? std::uint16_t{0}
                                           : narrow<std::uint16_t>(value_at - offsets_from));
    if (attribute.file) entry.e_value_inum = to_le(attribute.file->inode.value());
    entry.e_value_size = to_le(narrow<std::uint32_t>(attribute.value.size()));
    std::memcpy(area.data() + entry_at, &entry, sizeof entry);
    std::memcpy(area.data() + entry_at + sizeof entry, attribute.name.data(),
                attribute.name.size());
    auto* placed = reinterpret_cast<ext2_ext_attr_entry*>(area.data() + entry_at);
    if (attribute.file) {
      // Of the name, and over it of the value's own hash.
      const std::uint32_t of_name = ext2fs_ext_attr_hash_entry(placed, nullptr);
      placed->e_hash = to_le(std::rotl(of_name, kValueHashShift) ^ attribute.file->hash);
    } else {
      std::memcpy(area.data() + value_at, attribute.value.data(), attribute.value.size());
      if (hash == EntryHash::of_name_and_value) {
        placed->e_hash = ext2fs_ext_attr_hash_entry(placed, area.data() + value_at);
      }
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

/// How the attributes of a set are shared between an inode and a block.
struct Shares {
  std::vector<Attribute> in_inode;
  std::vector<Attribute> in_block;
  std::uint32_t block_bytes = 0;
};

}  // namespace

/// Makes the sets one after the other. Runs once.
class Xattrs::Maker {
 public:
  Maker(const SourceTree& tree, const Parameters& parameters, const InodeNumbers& numbers)
      : tree_(tree),
        parameters_(parameters),
        numbers_(numbers),
        inode_room_(parameters.inode_xattr_bytes()),
        inode_most_(inode_room_ > 0 ? inode_room_ - 4 - kListEndBytes : 0),
        block_most_(static_cast<std::uint32_t>(parameters.block_bytes -
                                               sizeof(ext2_ext_attr_header) - kListEndBytes)) {}

  Result<Xattrs> run() &&;

 private:
  /// A set some of whose values are files: which of them the inode and the block refer to.
  struct References {
    XattrSetNo set = 0;
    std::vector<std::uint32_t> from_inode;
    std::vector<std::uint32_t> from_block;
  };

  Result<void> add(XattrSetNo no, NodeNo first_user);
  Shares share(std::vector<Attribute> attributes) const;
  bool make_file_of_largest(std::vector<Attribute>& attributes);
  void note_files(XattrSetNo no, NodeNo first_user, const Shares& shares);
  void place_blocks();
  void count_references();

  const SourceTree& tree_;
  const Parameters& parameters_;
  const InodeNumbers& numbers_;
  const std::uint32_t inode_room_;
  const std::uint32_t inode_most_;
  const std::uint32_t block_most_;
  std::map<std::string, std::uint32_t, std::less<>> value_numbers_;
  std::vector<References> references_;
  Xattrs made_;
};

/// All in the inode if they fit, else all in a block, else the inode takes what it can.
Shares Xattrs::Maker::share(std::vector<Attribute> attributes) const {
  std::uint32_t total = 0;
  for (const Attribute& attribute : attributes) total += attribute.bytes();
  std::uint32_t inode_left = total <= inode_most_ || total > block_most_ ? inode_most_ : 0;
  Shares shares;
  for (Attribute& attribute : attributes) {
    if (attribute.bytes() <= inode_left) {
      inode_left -= attribute.bytes();
      shares.in_inode.push_back(std::move(attribute));
    } else {
      shares.block_bytes += attribute.bytes();
      shares.in_block.push_back(std::move(attribute));
    }
  }
  return shares;
}

/// The largest value that is no file yet becomes one; false if there is none.
bool Xattrs::Maker::make_file_of_largest(std::vector<Attribute>& attributes) {
  const auto largest = std::ranges::max_element(attributes, {}, &Attribute::value_bytes);
  if (largest->value_bytes() == 0) return false;
  const auto number = static_cast<std::uint32_t>(made_.values_.size());
  const auto [known, is_new] = value_numbers_.try_emplace(largest->value, number);
  if (is_new) {
    const auto bytes = std::as_bytes(std::span(largest->value));
    made_.values_.push_back({largest->value, crc32c(parameters_.checksum_seed, bytes), 0});
  }
  largest->file =
      ValueFile{known->second, numbers_.of_value(known->second), made_.values_[known->second].hash};
  return true;
}

Result<void> Xattrs::Maker::add(XattrSetNo no, NodeNo first_user) {
  const std::string path = tree_.path(first_user);
  std::vector<Attribute> attributes;
  for (const Xattr& xattr : tree_.xattrs(no)) {
    Result<Attribute> attribute = to_attribute(xattr, path);
    if (!attribute) return propagate(attribute);
    attributes.push_back(std::move(*attribute));
  }
  std::sort(attributes.begin(), attributes.end());

  Shares shares = share(attributes);
  const std::uint32_t needed = shares.block_bytes;
  while (shares.block_bytes > block_most_ && parameters_.may_have_ea_inode &&
         make_file_of_largest(attributes)) {
    shares = share(attributes);
  }
  if (shares.block_bytes > block_most_) {
    return fail(Errc::does_not_fit,
                fmt::format("{}: its extended attributes need {} bytes, a block has room for {}",
                            path, needed, block_most_),
                {parameters_.block_bytes < 4096         ? Setting{"block-size", "4096"}
                 : parameters_.variant != Variant::ext4 ? Setting{"fs", "ext4"}
                 : !parameters_.may_have_ea_inode       ? Setting{"features", "ea_inode"}
                                                        : Setting{"no-xattrs"}});
  }
  Set& set = made_.sets_[no];
  if (!shares.in_inode.empty()) set.in_inode = encode_in_inode(shares.in_inode, inode_room_);
  if (!shares.in_block.empty()) {
    set.block = encode_block(shares.in_block, parameters_.block_bytes);
  }
  note_files(no, first_user, shares);
  return {};
}

void Xattrs::Maker::note_files(XattrSetNo no, NodeNo first_user, const Shares& shares) {
  Set& set = made_.sets_[no];
  References references{no, {}, {}};
  for (const auto& [attributes, numbers] : {std::pair(&shares.in_inode, &references.from_inode),
                                            std::pair(&shares.in_block, &references.from_block)}) {
    for (const Attribute& attribute : *attributes) {
      if (!attribute.file) continue;
      numbers->push_back(attribute.file->number);
      ++set.value_count;
      set.value_blocks += ceil_div<std::uint64_t>(attribute.value.size(), parameters_.block_bytes);
    }
  }
  if (set.value_count == 0) return;
  references_.push_back(std::move(references));
  made_.first_with_value_ = std::min(made_.first_with_value_.value_or(first_user), first_user);
}

void Xattrs::Maker::place_blocks() {
  for (NodeNo no; no < tree_.node_count(); ++no) {
    Set& set = made_.sets_[tree_.node(no).xattrs];
    if (!set.block.empty()) set.users.push_back(no);
  }
  for (XattrSetNo no = 1; no < made_.sets_.size(); ++no) {
    Set& set = made_.sets_[no];
    set.first_block = made_.block_count_;
    const auto blocks = ceil_div(static_cast<std::uint32_t>(set.users.size()), kMostSharers);
    made_.block_count_ += blocks;
    made_.set_of_block_.insert(made_.set_of_block_.end(), blocks, no);
  }
}

/// An attribute block refers to a value once, however many inodes share the block.
void Xattrs::Maker::count_references() {
  if (references_.empty()) return;
  std::vector<std::uint32_t> users(made_.sets_.size());
  for (const Node& node : tree_.nodes()) ++users[node.xattrs];
  for (const References& references : references_) {
    for (const std::uint32_t value : references.from_inode) {
      made_.values_[value].references += users[references.set];
    }
    for (const std::uint32_t value : references.from_block) {
      made_.values_[value].references += ceil_div(users[references.set], kMostSharers);
    }
  }
}

Result<Xattrs> Xattrs::Maker::run() && {
  made_.sets_.resize(tree_.xattr_set_count());
  if (made_.sets_.size() == 1) return std::move(made_);

  constexpr NodeNo kNobody{~0U};
  std::vector<NodeNo> first_user(made_.sets_.size(), kNobody);
  for (std::uint32_t no = tree_.node_count(); no-- > 0;) {
    first_user[tree_.node(NodeNo{no}).xattrs] = NodeNo{no};
  }
  for (XattrSetNo no = 1; no < made_.sets_.size(); ++no) {
    if (first_user[no] == kNobody) continue;
    if (Result<void> added = add(no, first_user[no]); !added) return propagate(added);
  }
  place_blocks();
  count_references();
  return std::move(made_);
}

Result<Xattrs> Xattrs::make(const SourceTree& tree, const Parameters& parameters,
                            const InodeNumbers& numbers) {
  return Maker(tree, parameters, numbers).run();
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
