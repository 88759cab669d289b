// SPDX-License-Identifier: BSD-3-Clause
//
// An attribute, name and value, is shared where that saves bytes: it stands once in the shared
// area, and 4 bytes for it in each inode. So all inodes are counted first, by their sets. What
// remains of a set stands in the body of each of its inodes. A body has room for 256 KiB; where
// that is too little, the largest attributes are shared, too, whoever else has them.
#include "fsgen/erofs/xattrs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "fsgen/erofs/numbers.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::erofs {
namespace {

/// The count of an inode has 16 bits: the header, and units of 4 bytes.
constexpr std::uint32_t kMostBodyBytes = kXattrHeaderBytes + 4 * (0xFFFF - 1);
constexpr std::size_t kMostShared = 0xFF;  // of a set: the header counts them in a byte
constexpr std::size_t kMostValueBytes = 0xFFFF;
constexpr std::uint32_t kShareBytes = 4;
constexpr std::size_t kSharedCountAt = 4;  // in the header

/// The namespaces, and the number that stands for each. The longest that matches counts.
struct Prefix {
  std::string_view text;
  std::uint8_t index;
};
constexpr std::array<Prefix, 5> kPrefixes{{
    {"system.posix_acl_access", 2},
    {"system.posix_acl_default", 3},
    {"user.", 1},
    {"trusted.", 4},
    {"security.", 6},
}};

const Prefix* prefix_of(std::string_view name) {
  const auto prefix = std::ranges::find_if(
      kPrefixes, [&](const Prefix& each) { return name.starts_with(each.text); });
  return prefix == kPrefixes.end() ? nullptr : &*prefix;
}

std::uint32_t entry_bytes(const Xattr& xattr) {
  const std::size_t name_bytes = xattr.name.size() - prefix_of(xattr.name)->text.size();
  const std::size_t bytes = kXattrEntryBytes + name_bytes + xattr.value.size();
  return round_up(static_cast<std::uint32_t>(bytes), 4u);
}

void append_entry(const Xattr& xattr, std::vector<std::byte>& out) {
  const Prefix& prefix = *prefix_of(xattr.name);
  const std::string_view name = std::string_view(xattr.name).substr(prefix.text.size());
  const std::size_t at = out.size();
  out.resize(at + entry_bytes(xattr));
  out[at] = static_cast<std::byte>(name.size());
  out[at + 1] = std::byte{prefix.index};
  store_le(out, at + 2, narrow<std::uint16_t>(xattr.value.size()));
  auto put = [&, to = at + kXattrEntryBytes](std::string_view text) mutable {
    std::ranges::copy(std::as_bytes(std::span(text)),
                      out.begin() + static_cast<std::ptrdiff_t>(to));
    to += text.size();
  };
  put(name);
  put(xattr.value);
}

}  // namespace

/// Makes the bodies of all sets. Runs once.
class Xattrs::Maker {
 public:
  explicit Maker(const SourceTree& tree) : tree_(tree) {}

  Result<Xattrs> run() &&;

 private:
  /// An attribute that some inodes have; where it is shared, its number.
  struct Attribute {
    const Xattr* xattr = nullptr;
    std::uint64_t users = 0;
    bool is_shared = false;
    std::uint32_t number = 0;
  };
  using Key = std::pair<std::string_view, std::string_view>;

  Result<void> check(XattrSetNo set, NodeNo first_user) const;
  Result<void> count();
  Result<void> make_room(XattrSetNo set, NodeNo first_user);
  Attribute& attribute(const Xattr& xattr) { return attributes_.at({xattr.name, xattr.value}); }

  const SourceTree& tree_;
  std::vector<NodeNo> first_users_;  // by set; the number of nodes: none
  std::map<Key, Attribute> attributes_;
  Xattrs made_;
};

Result<void> Xattrs::Maker::check(XattrSetNo set, NodeNo first_user) const {
  for (const Xattr& xattr : tree_.xattrs(set)) {
    if (prefix_of(xattr.name) == nullptr) {
      return fail(Errc::unsupported,
                  fmt::format("{}: EROFS has no place for the attribute {}", tree_.path(first_user),
                              xattr.name),
                  {{"no-xattrs"}});
    }
    if (xattr.value.size() > kMostValueBytes) {
      return fail(
          Errc::does_not_fit,
          fmt::format("{}: the attribute {} is {} bytes; those of EROFS end at {}",
                      tree_.path(first_user), xattr.name, xattr.value.size(), kMostValueBytes),
          {{"no-xattrs"}});
    }
  }
  return {};
}

Result<void> Xattrs::Maker::count() {
  const NodeNo none{tree_.node_count()};
  first_users_.assign(tree_.xattr_set_count(), none);
  std::vector<std::uint64_t> users(tree_.xattr_set_count());
  for (NodeNo no; no < tree_.node_count(); ++no) {
    const XattrSetNo set = tree_.node(no).xattrs;
    if (set == 0) continue;
    if (users[set]++ == 0) first_users_[set] = no;
  }
  for (XattrSetNo set = 1; set < users.size(); ++set) {
    if (users[set] == 0) continue;
    if (Result<void> good = check(set, first_users_[set]); !good) return good;
    for (const Xattr& xattr : tree_.xattrs(set)) {
      Attribute& attribute = attributes_[{xattr.name, xattr.value}];
      attribute.xattr = &xattr;
      attribute.users += users[set];
    }
  }
  for (auto& [key, attribute] : attributes_) {
    const std::uint64_t bytes = entry_bytes(*attribute.xattr);
    attribute.is_shared = attribute.users * bytes > bytes + attribute.users * kShareBytes;
  }
  return {};
}

/// Shares what would make the body of a set too big.
Result<void> Xattrs::Maker::make_room(XattrSetNo set, NodeNo first_user) {
  std::uint64_t bytes = kXattrHeaderBytes;
  std::size_t shared = 0;
  std::vector<Attribute*> own;
  for (const Xattr& xattr : tree_.xattrs(set)) {
    Attribute& each = attribute(xattr);
    // Those beyond what the header counts stand in the body, shared or not.
    const bool is_shared = each.is_shared && shared < kMostShared;
    if (is_shared) ++shared;
    if (!is_shared && !each.is_shared) own.push_back(&each);
    bytes += is_shared ? kShareBytes : entry_bytes(xattr);
  }
  std::ranges::sort(own, [](const Attribute* a, const Attribute* b) {
    const std::uint64_t a_bytes = entry_bytes(*a->xattr);
    const std::uint64_t b_bytes = entry_bytes(*b->xattr);
    return a_bytes != b_bytes ? a_bytes > b_bytes : a->xattr->name < b->xattr->name;
  });
  for (Attribute* each : own) {
    if (bytes <= kMostBodyBytes || shared == kMostShared) break;
    each->is_shared = true;
    ++shared;
    bytes -= entry_bytes(*each->xattr) - kShareBytes;
  }
  if (bytes <= kMostBodyBytes) return {};
  return fail(Errc::does_not_fit,
              fmt::format("the attributes of {} are {} bytes; EROFS has room for {}",
                          tree_.path(first_user), bytes, kMostBodyBytes),
              {{"no-xattrs"}});
}

Result<Xattrs> Xattrs::Maker::run() && {
  made_.bodies_.resize(tree_.xattr_set_count());
  if (Result<void> counted = count(); !counted) return propagate(counted);
  const auto is_used = [&](XattrSetNo set) { return first_users_[set] < tree_.node_count(); };
  for (XattrSetNo set = 1; set < first_users_.size(); ++set) {
    if (!is_used(set)) continue;
    if (Result<void> good = make_room(set, first_users_[set]); !good) return propagate(good);
  }
  for (auto& [key, each] : attributes_) {
    if (!each.is_shared) continue;
    if (made_.shared_.size() / 4 > std::numeric_limits<std::uint32_t>::max()) {
      return fail(Errc::does_not_fit, "the shared attributes are more than EROFS can number",
                  {{"no-xattrs"}});
    }
    each.number = static_cast<std::uint32_t>(made_.shared_.size() / 4);
    append_entry(*each.xattr, made_.shared_);
    ++made_.shared_count_;
  }
  for (XattrSetNo set = 1; set < first_users_.size(); ++set) {
    if (!is_used(set)) continue;
    std::vector<std::byte>& body = made_.bodies_[set];
    std::vector<std::byte> own;
    body.resize(kXattrHeaderBytes);
    std::size_t shared = 0;
    for (const Xattr& xattr : tree_.xattrs(set)) {
      const Attribute& each = attribute(xattr);
      if (!each.is_shared || shared == kMostShared) {
        append_entry(xattr, own);
        continue;
      }
      body.resize(body.size() + kShareBytes);
      store_le(body, body.size() - kShareBytes, each.number);
      ++shared;
    }
    body[kSharedCountAt] = static_cast<std::byte>(shared);
    body.insert(body.end(), own.begin(), own.end());
  }
  return std::move(made_);
}

Result<Xattrs> Xattrs::make(const SourceTree& tree) { return Maker(tree).run(); }

std::uint16_t Xattrs::body_count(XattrSetNo set) const noexcept {
  const std::size_t bytes = bodies_[set].size();
  return bytes == 0 ? std::uint16_t{0} : narrow<std::uint16_t>(1 + (bytes - kXattrHeaderBytes) / 4);
}

}  // namespace mkvirtfs::erofs
