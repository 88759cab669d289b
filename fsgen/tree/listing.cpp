// SPDX-License-Identifier: BSD-3-Clause
// The text form of trees, both ways. The format is described in tests/images/README.md.
#include "fsgen/tree/listing.h"

#include <fmt/format.h>

#include <charconv>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "fsgen/tree/tree_builder.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

std::string escaped(std::string_view raw, std::string_view also = {}) {
  std::string out;
  for (const char c : raw) {
    const bool plain = c > ' ' && c < 0x7f && c != '\\' && c != '"' && !also.contains(c);
    if (plain) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::string escaped_path(std::string_view path) { return path.empty() ? "." : escaped(path); }

std::optional<unsigned> hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
  return std::nullopt;
}

std::optional<char> hex_byte(std::string_view two) {
  if (two.size() < 2) return std::nullopt;
  const auto high = hex_digit(two[0]);
  const auto low = hex_digit(two[1]);
  if (!high || !low) return std::nullopt;
  return static_cast<char>(static_cast<unsigned char>(*high << 4 | *low));
}

std::optional<std::string> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::string out;
  for (; !text.empty(); text.remove_prefix(2)) {
    const auto byte = hex_byte(text);
    if (!byte) return std::nullopt;
    out += *byte;
  }
  return out;
}

/// All of `text` as a number, nothing before or behind it.
template <class T>
std::optional<T> number(std::string_view text, int base = 10) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// "1000:100" -> (1000, 100)
template <class T>
std::optional<std::pair<T, T>> pair_of_numbers(std::string_view text, char between) {
  const std::size_t at = text.find(between);
  if (at == std::string_view::npos) return std::nullopt;
  const auto first = number<T>(text.substr(0, at));
  const auto second = number<T>(text.substr(at + 1));
  if (!first || !second) return std::nullopt;
  return std::pair(*first, *second);
}

/// "-5.000000001": the seconds may be negative, the nanoseconds always count forward.
std::optional<Timestamp> timestamp(std::string_view text) {
  const std::size_t dot = text.find('.');
  const auto seconds = number<std::int64_t>(text.substr(0, dot));
  if (!seconds) return std::nullopt;
  if (dot == std::string_view::npos) return Timestamp{*seconds, 0};
  const std::string_view fraction = text.substr(dot + 1);
  if (fraction.size() != 9) return std::nullopt;
  const auto nanoseconds = number<std::uint32_t>(fraction);
  if (!nanoseconds) return std::nullopt;
  return Timestamp{*seconds, *nanoseconds};
}

/// "0+4096,8192+100"; "none" is a file that is one hole.
std::optional<std::vector<Range>> ranges(std::string_view text) {
  std::vector<Range> out;
  if (text == "none") return out;
  while (true) {
    const std::size_t comma = text.find(',');
    const auto run = pair_of_numbers<std::uint64_t>(text.substr(0, comma), '+');
    if (!run) return std::nullopt;
    out.push_back({run->first, run->second});
    if (comma == std::string_view::npos) return out;
    text.remove_prefix(comma + 1);
  }
}

/// Cuts the next word off `line` and undoes its escapes; quotes join what they enclose. An empty
/// word is the end of the line; nullopt is a broken escape or an open quote.
std::optional<std::string> next_word(std::string_view& line) {
  while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
  std::string word;
  bool quoted = false;
  while (!line.empty() && (quoted || line.front() != ' ')) {
    const char c = line.front();
    line.remove_prefix(1);
    if (c == '"') {
      quoted = !quoted;
    } else if (c != '\\') {
      word += c;
    } else if (line.starts_with('n') || line.starts_with('t') || line.starts_with('\\') ||
               line.starts_with('"')) {
      word += line.front() == 'n' ? '\n' : line.front() == 't' ? '\t' : line.front();
      line.remove_prefix(1);
    } else {
      const auto byte = line.starts_with('x') ? hex_byte(line.substr(1)) : std::nullopt;
      if (!byte) return std::nullopt;
      word += *byte;
      line.remove_prefix(3);
    }
  }
  if (quoted) return std::nullopt;
  return word;
}

}  // namespace

std::string to_listing(const SourceTree& tree) {
  std::string out;
  std::vector<bool> seen(tree.node_count());

  const auto line = [&](std::string_view path, NodeNo no) {
    const Node& node = tree.node(no);
    if (seen[no]) {
      out += fmt::format("hardlink {} to={}\n", escaped_path(path), escaped(tree.path(no)));
      return;
    }
    seen[no] = true;
    const char* type = "file";
    if (S_ISDIR(node.mode)) type = "dir";
    if (S_ISLNK(node.mode)) type = "symlink";
    if (S_ISCHR(node.mode)) type = "char";
    if (S_ISBLK(node.mode)) type = "block";
    if (S_ISFIFO(node.mode)) type = "fifo";
    if (S_ISSOCK(node.mode)) type = "socket";
    out += fmt::format("{} {} mode={:04o} owner={}:{} mtime={}", type, escaped_path(path),
                       node.mode & 07777, node.uid, node.gid, node.mtime_s);
    if (node.mtime_ns != 0) out += fmt::format(".{:09}", node.mtime_ns);
    if (node.is_regular()) out += fmt::format(" size={}", node.size_bytes);
    if (tree.is_sparse(no)) {
      Range dense;
      std::string_view between = " runs=";
      for (const Range& run : tree.data_runs(no, dense)) {
        out += fmt::format("{}{}+{}", between, run.offset, run.length);
        between = ",";
      }
      if (between != ",") out += " runs=none";
    }
    if (node.is_symlink()) out += " to=" + escaped(tree.symlink_target(no));
    if (node.is_device()) {
      const DeviceNumber device = tree.device_number(no);
      out += fmt::format(" device={}:{}", device.major, device.minor);
    }
    for (const Xattr& xattr : tree.xattrs(node.xattrs)) {
      out += fmt::format(" {}={}", escaped(xattr.name, "="), hex(xattr.value));
    }
    out += '\n';
  };

  line("", kRootNode);
  for (const Directory& directory : tree.directories()) {
    std::string path = tree.path(directory.node);
    if (!path.empty()) path += '/';
    for (const Entry entry : tree.entries(directory)) {
      line(path + std::string(tree.name(directory, entry)), entry.node);
    }
  }
  return out;
}

/// Turns lines into a TreeBuilder's items. Each method answers what is wrong, or nullopt.
class ListingReader {
 public:
  Result<TreeBuilder> read(std::string_view listing) {
    for (std::size_t line_no = 1; !listing.empty(); ++line_no) {
      const std::size_t end = listing.find('\n');
      const auto wrong = read_line(listing.substr(0, end));
      if (wrong)
        return fail(Errc::usage, fmt::format("tree listing, line {}: {}", line_no, *wrong));
      listing = end == std::string_view::npos ? std::string_view{} : listing.substr(end + 1);
    }
    if (const auto wrong = builder_.objection_to_hard_links()) {
      return fail(Errc::usage, "tree listing: " + *wrong);
    }
    return std::move(builder_);
  }

 private:
  using Item = TreeBuilder::Item;
  using Objection = std::optional<std::string>;

  Objection read_line(std::string_view line) {
    const auto type = next_word(line);
    if (!type) return "an escape that is none of \\n \\t \\\\ \\\" \\xNN, or an open quote";
    if (type->empty() || type->starts_with('#')) return std::nullopt;
    static const std::map<std::string_view, std::uint16_t> kTypes = {
        {"dir", S_IFDIR | 0755},     {"file", S_IFREG | 0644},  {"symlink", S_IFLNK | 0777},
        {"char", S_IFCHR | 0644},    {"block", S_IFBLK | 0644}, {"fifo", S_IFIFO | 0644},
        {"socket", S_IFSOCK | 0644}, {"hardlink", S_IFREG}};
    const auto mode = kTypes.find(*type);
    if (mode == kTypes.end()) return fmt::format("no entry type {}", printable(*type));

    const auto path = next_word(line);
    if (!path || path->empty()) return "no path, or a broken escape in it";
    const bool is_root = *path == "." && *type == "dir";
    if (!is_root) {
      if (const auto wrong = builder_.objection_to(*path, mode->second)) {
        return printable(*path) + " " + *wrong;
      }
    }
    Item& item = is_root ? builder_.root().last() : builder_.add(*path, mode->second);
    item.hard_link = *type == "hardlink";

    given_.clear();
    while (true) {
      // The '=' is looked for before escapes are undone, so that a name may hold one as \x3d.
      while (line.starts_with(' ')) line.remove_prefix(1);
      const std::size_t equals = line.find('=');
      std::string_view raw_key = line.substr(0, equals);
      if (line.empty()) break;
      const auto key = next_word(raw_key);
      if (equals == std::string_view::npos || !key || key->empty() || !raw_key.empty()) {
        return fmt::format("{} is no key=value", printable(line));
      }
      line.remove_prefix(equals + 1);
      const auto value = line.starts_with(' ') ? std::optional<std::string>("") : next_word(line);
      if (!value) return fmt::format("a broken escape or an open quote behind {}=", *key);
      if (const auto wrong = set(item, *key, *value)) return wrong;
    }
    if (const auto wrong = check_given(item, *type)) return wrong;
    if (const auto wrong = TreeBuilder::objection_to(item)) return printable(*path) + " " + *wrong;
    return std::nullopt;
  }

  /// One `key=value`. Keys with a dot are extended attributes.
  Objection set(Item& item, const std::string& key, const std::string& value) {
    const auto malformed = [&] {
      return fmt::format("{} is no value for {}", printable(value), printable(key));
    };
    if (key.contains('.')) {
      auto bytes = from_hex(value);
      if (!bytes) return malformed();
      item.xattrs.push_back({key, std::move(*bytes)});
      given_.insert("xattr");
      return std::nullopt;
    }
    if (!given_.insert(key).second) return fmt::format("{} is there twice", printable(key));
    const bool is_file = S_ISREG(item.mode) && !item.hard_link;
    if (key == "mode") {
      const auto mode = number<std::uint16_t>(value, 8);
      if (!mode || *mode > 07777) return malformed();
      item.mode = static_cast<std::uint16_t>((item.mode & S_IFMT) | *mode);
    } else if (key == "owner") {
      const auto ids = pair_of_numbers<std::uint32_t>(value, ':');
      if (!ids) return malformed();
      std::tie(item.uid, item.gid) = *ids;
    } else if (key == "mtime") {
      const auto when = timestamp(value);
      if (!when) return malformed();
      item.mtime = *when;
    } else if (key == "size" && is_file) {
      const auto size = parse_size(value);
      if (!size) return malformed();
      item.size_bytes = *size;
    } else if (key == "content" && is_file) {
      item.bytes = value;
      item.size_bytes = value.size();
    } else if (key == "runs" && is_file) {
      item.data_runs = ranges(value);
      if (!item.data_runs) return malformed();
    } else if (key == "to" && (item.hard_link || S_ISLNK(item.mode))) {
      item.target = value;
    } else if (key == "device" && (S_ISCHR(item.mode) || S_ISBLK(item.mode))) {
      const auto device = pair_of_numbers<std::uint32_t>(value, ':');
      if (!device) return malformed();
      item.device = {device->first, device->second};
    } else {
      return fmt::format("{} says nothing of this type of entry", printable(key));
    }
    return std::nullopt;
  }

  /// Whether the keys that were given go together.
  Objection check_given(const Item& item, std::string_view type) {
    const auto has = [&](std::string_view key) { return given_.contains(key); };
    if (item.hard_link && (given_.size() != 1 || !has("to"))) {
      return "a hardlink has to= and nothing else";
    }
    if (type == "file" && has("size") == has("content")) return "a file has size= or content=";
    if (has("content") && has("runs")) return "runs= goes with size=";
    if (type == "symlink" && !has("to")) return "a symlink has to=";
    if ((type == "char" || type == "block") && !has("device")) return "a device has device=";
    return std::nullopt;
  }

  TreeBuilder builder_;
  std::set<std::string, std::less<>> given_;  // the keys of this line
};

Result<TreeBuilder> TreeBuilder::parse(std::string_view listing) {
  return ListingReader{}.read(listing);
}

}  // namespace mkvirtfs
