// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/random_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <ostream>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fsgen/tree/listing.h"
#include "support/byte_order.h"

namespace mkvirtfs::testing {
namespace {

/// Turns seeds into a tree. All that is random about an entry follows from its own seed, so that
/// leaving out other entries, which is how rapidcheck shrinks, changes little else of it than where
/// it lands.
class Grower {
 public:
  explicit Grower(const RandomTreeOptions& options) : options_(options) {}

  void grow(std::uint64_t seed) {
    random_.seed(seed);
    // Not always at random, else no directory would ever lie deep.
    const std::string parent = one_in(3) ? directories_.back() : one_of(directories_);
    switch (below(20)) {
      case 0:
      case 1:
      case 2:
      case 3:
        directory(parent);
        break;
      case 4:
      case 5:
      case 6:
        symlink(parent);
        break;
      case 7:
      case 8:
        sparse_file(parent);
        break;
      case 9:
      case 10:
      case 11:
        hard_link(parent);
        break;
      case 12:
        node(parent);
        break;
      case 13:
        if (one_in(8) && options_.most_in_a_crowd != 0) crowd(parent);
        break;
      default:
        file(parent);
        break;
    }
  }

  void root(std::uint64_t seed) {
    random_.seed(seed);
    builder_.root();
    attributes(Kind::directory);
  }

  TreeBuilder take() { return std::move(builder_); }

 private:
  enum class Kind : std::uint8_t { directory, file, symlink, other };

  std::uint64_t below(std::uint64_t limit) { return limit == 0 ? 0 : random_() % limit; }
  bool one_in(std::uint64_t count) { return below(count) == 0; }
  template <class T>
  const T& one_of(const std::vector<T>& values) {
    return values[below(values.size())];
  }

  std::string name() {
    switch (below(10)) {
      case 0: {
        static const std::vector<std::string> kSpecial = {
            "-rf", ".hidden",  "...",      " ",         "a\nb", "\\",          "\"",
            "*",   "\xff\xfe", "\xc3\xa9", "e\xcc\x81", "CON",  "a ",          "A",
            "a",   "~",        "#",        "\x7f",      "\x01", "\xed\xa0\x80"};
        return one_of(kSpecial);
      }
      case 1:
        return bytes(options_.most_name_bytes - below(2) * below(20));
      case 2:
        return bytes(1 + below(40));
      default:
        return fmt::format("{}{}", static_cast<char>('a' + below(26)), below(1000));
    }
  }

  /// Any bytes that a name may have.
  std::string bytes(std::uint64_t count) {
    std::string out;
    for (std::uint64_t i = 0; i < count; ++i) {
      char c = static_cast<char>(static_cast<unsigned char>(1 + below(255)));
      if (c == '/' || (c == '.' && count <= 2)) c = '_';
      out += c;
    }
    return out;
  }

  /// A path in `parent` that is not taken yet; empty when chance insists on one that is, or too
  /// long.
  std::string new_path(const std::string& parent) {
    const std::string path = parent.empty() ? name() : parent + "/" + name();
    if (path.size() > options_.most_path_bytes) return {};
    return taken_.insert(path).second ? path : std::string();
  }

  void directory(const std::string& parent) {
    // The name that e2fsck wants for itself.
    const bool special = one_in(20) && taken_.insert("lost+found").second;
    const std::string path = special ? "lost+found" : new_path(parent);
    if (path.empty()) return;
    builder_.directory(path);
    attributes(Kind::directory);
    directories_.push_back(path);
  }

  std::uint64_t size() {
    // The sizes where layouts change: blocks, twelve direct blocks, one indirect block's worth.
    constexpr std::uint64_t kKi = 1024;
    static const std::vector<std::uint64_t> kEdges = {
        0,          1,          59,        60,       61,    1023,      kKi,
        kKi + 1,    2 * kKi,    4095,      4 * kKi,  4097,  8 * kKi,   12 * kKi,
        12289,      48 * kKi,   49153,     64 * kKi, 65537, 268 * kKi, 268 * kKi + 1,
        1036 * kKi, 1048 * kKi, 2048 * kKi};
    const std::uint64_t any = one_in(2) ? one_of(kEdges) : below(one_in(10) ? 1 << 20 : 20000);
    return std::min(any, options_.most_file_bytes);
  }

  void file(const std::string& parent) {
    const std::string path = new_path(parent);
    if (path.empty()) return;
    if (one_in(4)) {
      builder_.file(path, bytes(below(200)));
    } else {
      builder_.patterned_file(path, size());
    }
    attributes(Kind::file);
    linkable_.push_back(path);
  }

  void sparse_file(const std::string& parent) {
    const std::string path = new_path(parent);
    if (path.empty()) return;
    const std::uint64_t size_bytes =
        1 + below(one_in(3) ? options_.most_sparse_bytes
                            : std::min<std::uint64_t>(options_.most_sparse_bytes, 4 << 20));
    const std::uint64_t unit = options_.run_unit_bytes;
    const std::uint64_t units = size_bytes / unit + 1;
    // Boundaries drawn at random and sorted: run, hole, run, hole...
    std::set<std::uint64_t> bounds;
    for (std::uint64_t i = 2 * below(options_.most_data_runs + 1); i > 0; --i) {
      const std::uint64_t from = below(units);
      bounds.insert(from);
      bounds.insert(std::min(from + 1 + below(20), units));
    }
    if (bounds.size() % 2 == 1) bounds.erase(bounds.begin());
    std::vector<Range> runs;
    for (auto at = bounds.begin(); at != bounds.end() && runs.size() < options_.most_data_runs;) {
      const std::uint64_t from = *at++ * unit;
      // However far the next boundary is, a run stays short: data costs time, holes do not.
      const std::uint64_t to = std::min({*at++ * unit, from + 20 * unit, size_bytes});
      if (from < to) runs.push_back({from, to - from});
    }
    builder_.sparse_file(path, size_bytes, std::move(runs));
    attributes(Kind::file);
    linkable_.push_back(path);
  }

  void symlink(const std::string& parent) {
    const std::string path = new_path(parent);
    if (path.empty()) return;
    // Up to 59 bytes stand in the inode.
    static const std::vector<std::uint64_t> kEdges = {1, 58, 59, 60, 61, 1000};
    const std::uint64_t length = one_in(2) ? one_of(kEdges) : 1 + below(300);
    std::string target = bytes(std::min<std::uint64_t>(length, options_.most_symlink_bytes));
    for (char& c : target) {
      if (one_in(12)) c = '/';
    }
    builder_.symlink(path, target);
    attributes(Kind::symlink);
    linkable_.push_back(path);
  }

  void hard_link(const std::string& parent) {
    if (linkable_.empty()) return;
    const std::string& existing = one_of(linkable_);
    const std::string path = new_path(parent);
    if (!path.empty()) builder_.hard_link(path, existing);
  }

  void node(const std::string& parent) {
    const std::string path = new_path(parent);
    if (path.empty()) return;
    static const std::vector<DeviceNumber> kNumbers = {
        {0, 0}, {1, 3}, {255, 255}, {256, 0}, {8, 256}, {259, 65536}, {4095, 1048575}};
    const std::uint64_t kind = below(options_.devices ? 4 : 2);
    if (kind == 0) builder_.fifo(path);
    if (kind == 1) builder_.socket(path);
    // A character device 0:0 is a whiteout, which overlayfs hosts will not show.
    if (kind >= 2) {
      const DeviceNumber number = one_of(kNumbers);
      builder_.device(path, kind == 2 || number == kNumbers[0] ? 'b' : 'c', number);
    }
    attributes(Kind::other);
    linkable_.push_back(path);
  }

  /// Many small files in one directory.
  void crowd(const std::string& parent) {
    const std::string path = new_path(parent);
    if (path.empty()) return;
    builder_.directory(path);
    directories_.push_back(path);
    const std::string stem =
        bytes(below(std::min<std::uint64_t>(options_.most_name_bytes - 20, 200)));
    std::uint64_t count = below(options_.most_in_a_crowd + 1);
    if (path.size() + stem.size() + 10 > options_.most_path_bytes) count = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
      builder_.file(fmt::format("{}/{}{}", path, stem, i), i % 7 == 0 ? "x" : "");
      taken_.insert(fmt::format("{}/{}{}", path, stem, i));
    }
  }

  void attributes(Kind kind) {
    static const std::vector<std::uint32_t> kIds = {0, 1, 1000, 65534, 65535, 65536, 4294967294};
    static const std::vector<std::int64_t> kTimes = {
        0,          -1,         -2147483648, 2147483647,  2147483648,
        2208988800, 4294967295, 4294967296,  14989622400, 15032385535};
    const auto permissions = static_cast<std::uint16_t>(below(010000));
    if (kind != Kind::symlink) builder_.mode(permissions);
    builder_.owner(one_of(kIds), one_of(kIds));
    const std::int64_t seconds =
        one_in(3) ? one_of(kTimes) : static_cast<std::int64_t>(below(4'000'000'000));
    // Linux has no fractions at the first and the last second of a file system.
    const bool whole = seconds == kTimes[2] || seconds == kTimes.back() || one_in(4);
    builder_.mtime({seconds, static_cast<std::uint32_t>(whole ? 0 : below(1'000'000'000))});
    if (options_.xattrs && one_in(4)) xattrs(kind, permissions);
  }

  void xattrs(Kind kind, std::uint16_t permissions) {
    std::size_t room = options_.most_xattr_bytes;
    std::set<std::string> names;
    const auto add = [&](const std::string& attribute, std::string value) {
      if (attribute.size() + value.size() > room || !names.insert(attribute).second) return;
      room -= attribute.size() + value.size();
      builder_.xattr(attribute, std::move(value));
    };
    const bool user_allowed = kind == Kind::file || kind == Kind::directory;
    for (std::uint64_t i = below(4); i > 0; --i) {
      const char* space = user_allowed && one_in(2) ? "user" : "trusted";
      add(fmt::format("{}.{}{}", space, bytes(1 + below(one_in(10) ? 200 : 10)), i),
          one_in(5) ? shared_value() : any_value(below(one_in(6) ? 500 : 40)));
    }
    if (kind == Kind::file && one_in(4)) add("security.capability", capability());
    if (kind != Kind::symlink && one_in(3)) add("system.posix_acl_access", acl(permissions));
    if (kind == Kind::directory && one_in(3)) {
      add("system.posix_acl_default", acl(static_cast<std::uint16_t>(below(01000))));
    }
  }

  std::string any_value(std::uint64_t count) {
    std::string value;
    while (value.size() < count) value += static_cast<char>(static_cast<unsigned char>(below(256)));
    return value;
  }

  /// Values that several nodes have, so that sets of attributes can be shared.
  std::string shared_value() { return std::string(100 + 100 * below(2), 'v'); }

  /// linux/capability.h: revision 2, effective, CAP_NET_RAW permitted.
  std::string capability() {
    std::string value(20, '\0');
    const auto to = std::as_writable_bytes(std::span(value));
    store_le(to, 0, std::uint32_t{0x02000001});
    store_le(to, 4, std::uint32_t{1} << 13);
    return value;
  }

  /// linux/posix_acl_xattr.h: a valid ACL that goes with the permission bits and says more than
  /// they.
  std::string acl(std::uint16_t permissions) {
    constexpr std::uint32_t kNoId = 0xffffffff;
    std::vector<std::array<std::uint32_t, 3>> entries = {{0x01, (permissions >> 6) & 7u, kNoId}};
    std::uint32_t id = 0;
    for (std::uint64_t i = 1 + below(3); i > 0; --i) {
      id += static_cast<std::uint32_t>(1 + below(70000));
      entries.push_back({0x02, static_cast<std::uint32_t>(below(8)), id});
    }
    entries.push_back({0x04, static_cast<std::uint32_t>(below(8)), kNoId});
    for (std::uint64_t i = below(3); i > 0; --i) {
      id += static_cast<std::uint32_t>(1 + below(70000));
      entries.push_back({0x08, static_cast<std::uint32_t>(below(8)), id});
    }
    entries.push_back({0x10, (permissions >> 3) & 7u, kNoId});
    entries.push_back({0x20, permissions & 7u, kNoId});
    std::string value(4 + 8 * entries.size(), '\0');
    const auto to = std::as_writable_bytes(std::span(value));
    store_le(to, 0, std::uint32_t{2});
    for (std::size_t i = 0; i < entries.size(); ++i) {
      store_le(to, 4 + 8 * i, static_cast<std::uint16_t>(entries[i][0]));
      store_le(to, 6 + 8 * i, static_cast<std::uint16_t>(entries[i][1]));
      store_le(to, 8 + 8 * i, entries[i][2]);
    }
    return value;
  }

  const RandomTreeOptions& options_;
  TreeBuilder builder_;
  std::mt19937_64 random_;
  std::vector<std::string> directories_ = {""};
  std::vector<std::string> linkable_;
  std::set<std::string> taken_;
};

}  // namespace

BuiltTree RandomTree::build_in_order(std::uint32_t seed) const {
  BuiltTree plain = build();
  if (seed == 0) return plain;
  std::mt19937 random(seed);
  std::vector<std::string> paths;
  for (NodeNo no; no < plain.tree->node_count(); ++no) {
    if (plain.tree->node(no).is_regular()) paths.push_back(plain.tree->path(no));
  }
  std::ranges::shuffle(paths, random);
  paths.resize(paths.size() - paths.size() / 4);
  TreeBuilder ordered = builder;
  return ordered.data_order(std::move(paths)).build();
}

std::ostream& operator<<(std::ostream& out, const RandomTree& tree) {
  return out << to_listing(*tree.build().tree);
}

rc::Gen<RandomTree> random_tree(const RandomTreeOptions& options) {
  using Seeds = std::vector<std::uint64_t>;
  // Small integers are no better seeds than large ones: no shrinking, and the full range always.
  const auto seed =
      rc::gen::noShrink(rc::gen::resize(rc::kNominalSize, rc::gen::arbitrary<std::uint64_t>()));
  const auto seeds = rc::gen::scale(options.scale, rc::gen::container<Seeds>(seed));
  return rc::gen::map(rc::gen::pair(seed, seeds),
                      [options](const std::pair<std::uint64_t, Seeds>& all) {
                        Grower grower(options);
                        for (const std::uint64_t one : all.second) grower.grow(one);
                        grower.root(all.first);
                        return RandomTree{grower.take()};
                      });
}

}  // namespace mkvirtfs::testing
