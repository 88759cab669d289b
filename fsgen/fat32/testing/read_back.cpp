// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/testing/read_back.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "fsgen/fat32/dos_time.h"
#include "fsgen/fat32/names.h"
#include "support/byte_order.h"
#include "support/text.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::fat32::testing {
namespace {

using Bytes = std::vector<std::byte>;

void demand(bool good, const std::string& what) {
  if (!good) throw std::runtime_error(what);
}

/// For what is demanded of every cluster: it makes no text of what is good.
void demand(bool good, fmt::format_string<std::uint32_t&> what, std::uint32_t number) {
  if (!good) throw std::runtime_error(fmt::format(what, number));
}

/// What a directory entry says.
struct Found {
  bool is_directory = false;
  bool read_only = false;
  DosTime time;
  std::uint32_t cluster = 0;
  std::uint32_t size_bytes = 0;
};

Found found_in(std::span<const std::byte> slot) {
  const auto attributes = static_cast<std::uint8_t>(slot[0x0B]);
  return {
      (attributes & 0x10) != 0,
      (attributes & 0x01) != 0,
      {load_le<std::uint16_t>(slot, 0x18), load_le<std::uint16_t>(slot, 0x16),
       static_cast<std::uint8_t>(slot[0x0D]), false},
      std::uint32_t{load_le<std::uint16_t>(slot, 0x14)} << 16 | load_le<std::uint16_t>(slot, 0x1A),
      load_le<std::uint32_t>(slot, 0x1C)};
}

/// The long entries before a short one: the last part of the name comes first.
class LongEntries {
 public:
  void take(std::span<const std::byte> slot, const std::string& directory) {
    const auto first = static_cast<std::uint8_t>(slot[0]);
    if ((first & 0x40) != 0) {
      name_.assign((first & 0x3Fu) * 13, u'\xFFFF');
      want_ = first & 0x3F;
      checksum_ = static_cast<std::uint8_t>(slot[0x0D]);
    }
    demand(
        (first & 0x3F) == want_ && want_ != 0 && static_cast<std::uint8_t>(slot[0x0D]) == checksum_,
        directory + ": long entries out of order");
    --want_;
    for (std::size_t i = 0; i < 13; ++i) {
      const std::size_t place = i < 5 ? 1 + 2 * i : i < 11 ? 14 + 2 * (i - 5) : 28 + 2 * (i - 11);
      name_[want_ * 13 + i] = static_cast<char16_t>(load_le<std::uint16_t>(slot, place));
    }
  }
  bool empty() const { return name_.empty(); }
  void clear() { name_.clear(); }

  /// In the source's bytes; `where` is the directory and the short name.
  std::string name(const ShortName& short_name, const std::string& where) const {
    demand(want_ == 0 && checksum_ == short_name_checksum(short_name),
           where + ": long entries of something else");
    const std::size_t end = std::min(name_.find(u'\0'), name_.size());
    demand(end > name_.size() - 13 && end <= 255, where + ": a wrong length");
    for (std::size_t i = end + 1; i < name_.size(); ++i) {
      demand(name_[i] == u'\xFFFF', where + ": no padding");
    }
    return source_name(std::span(name_).first(end));
  }

 private:
  std::u16string name_;
  std::uint32_t want_ = 0;
  std::uint8_t checksum_ = 0;
};

class Reader {
 public:
  explicit Reader(ImageDevice& device) : device_(device) {
    const Bytes boot = read(0, 512);
    const std::span<const std::byte> b(boot);
    demand(load_le<std::uint16_t>(b, 510) == 0xAA55, "no boot signature");
    sector_ = load_le<std::uint16_t>(b, 0x0B);
    cluster_ = sector_ * static_cast<std::uint32_t>(b[0x0D]);
    demand(cluster_ != 0, "no cluster size");
    const std::uint64_t reserved = load_le<std::uint16_t>(b, 0x0E);
    const std::uint64_t fats = static_cast<std::uint64_t>(b[0x10]);
    root_slots_ = load_le<std::uint16_t>(b, 0x11);
    std::uint64_t total = load_le<std::uint16_t>(b, 0x13);
    if (total == 0) total = load_le<std::uint32_t>(b, 0x20);
    std::uint64_t fat = load_le<std::uint16_t>(b, 0x16);
    const bool wide = fat == 0;
    if (wide) fat = load_le<std::uint32_t>(b, 0x24);
    root_at_ = (reserved + fats * fat) * sector_;
    data_at_ = root_at_ + root_slots_ * std::uint64_t{32};
    clusters_ = static_cast<std::uint32_t>((total - data_at_ / sector_) * sector_ / cluster_);
    claimed_.resize(std::size_t{clusters_} + 2);
    bits_ = clusters_ < 4085 ? 12 : clusters_ < 65525 ? 16 : 32;
    demand(wide == (bits_ == 32), "the FAT's length is in the wrong field");
    if (wide) root_cluster_ = load_le<std::uint32_t>(b, 0x2C);
    fat_ = read(reserved * sector_, fat * sector_);
    demand(fat_ == read((reserved + fat) * sector_, fat * sector_), "the FATs differ");
    if (wide) {
      demand(read(0, 3 * std::uint64_t{sector_}) ==
                 read(6 * std::uint64_t{sector_}, 3 * std::uint64_t{sector_}),
             "the copies of the boot sectors differ");
      info_ = read(sector_, 512);
    }
  }

  /// Calls `visit(path, entry)` for each entry, its path in the source's bytes.
  template <class Visit>
  void walk(Visit&& visit) {
    std::vector<Pending> pending = {{"", root_cluster_, 0}};
    while (!pending.empty()) {
      const Pending now = pending.back();
      pending.pop_back();
      const bool is_root = now.path.empty();
      walk_directory(now, [&](const std::string& name, const Found& found) {
        const std::string path = is_root ? name : now.path + "/" + name;
        visit(path, found);
        if (found.is_directory) {
          pending.push_back({path, found.cluster, is_root ? 0 : now.cluster});
        }
      });
    }
  }

  Bytes chain_bytes(std::uint32_t cluster) {
    Bytes bytes;
    for (const std::uint32_t each : chain(cluster)) {
      const Bytes part = read(data_at_ + std::uint64_t{each - 2} * cluster_, cluster_);
      bytes.insert(bytes.end(), part.begin(), part.end());
    }
    return bytes;
  }

  /// Claims the clusters of a file and returns where it lies.
  std::uint64_t file_at(const Found& file) {
    const std::vector<std::uint32_t> clusters =
        file.cluster == 0 ? std::vector<std::uint32_t>{} : chain(file.cluster);
    demand(clusters.size() == (file.size_bytes + std::uint64_t{cluster_} - 1) / cluster_,
           "a chain and a size differ");
    for (std::size_t i = 1; i < clusters.size(); ++i) {
      demand(clusters[i] == clusters[i - 1] + 1, "a file in pieces");
    }
    return clusters.empty() ? 0 : data_at_ + std::uint64_t{clusters[0] - 2} * cluster_;
  }

  /// To be asked at the end: everything that is used was met.
  void check_free() const {
    std::uint32_t free = 0;
    for (std::uint32_t c = 2; c < clusters_ + 2; ++c) {
      if (entry(c) == 0) {
        ++free;
      } else {
        demand(claimed_[c], "cluster {} is nobody's", c);
      }
    }
    if (bits_ == 32) demand(load_le<std::uint32_t>(info_, 0x1E8) == free, "a wrong free count");
  }

 private:
  /// A directory that is still to be walked.
  struct Pending {
    std::string path;
    std::uint32_t cluster;
    std::uint32_t parent;
  };

  /// Calls `visit(name, entry)` for each entry of one directory.
  template <class Visit>
  void walk_directory(const Pending& now, Visit&& visit) {
    const bool is_root = now.path.empty();
    const Bytes slots = is_root && bits_ != 32 ? read(root_at_, root_slots_ * std::uint64_t{32})
                                               : chain_bytes(now.cluster);
    std::set<std::string> shorts;
    LongEntries long_entries;
    for (std::size_t at = 0; at < slots.size(); at += 32) {
      const auto slot = std::span(slots).subspan(at, 32);
      if (slot[0] == std::byte{0}) {
        demand(std::ranges::all_of(std::span(slots).subspan(at),
                                   [](std::byte b) { return b == std::byte{0}; }),
               now.path + ": something behind the end");
        return;
      }
      const auto attributes = static_cast<std::uint8_t>(slot[0x0B]);
      if (attributes == 0x0F) {
        long_entries.take(slot, now.path);
        continue;
      }
      if ((attributes & 0x08) != 0) {
        demand(is_root && long_entries.empty(), now.path + ": a label");
        continue;
      }
      ShortName short_name;
      std::memcpy(short_name.data(), slot.data(), 11);
      const std::string text(short_name.begin(), short_name.end());
      const Found found = found_in(slot);
      if (text.starts_with('.')) {
        const bool self = text == ".          ";
        demand(!is_root && at == (self ? 0u : 32u) && found.is_directory &&
                   found.cluster == (self ? now.cluster : now.parent),
               now.path + ": wrong " + text);
        continue;
      }
      demand(shorts.insert(text).second, now.path + ": twice " + text);
      visit(long_entries.empty() ? short_text(text, static_cast<std::uint8_t>(slot[0x0C]))
                                 : long_entries.name(short_name, now.path + ", " + text),
            found);
      long_entries.clear();
    }
  }

  /// A short name without its padding, in the case that its bits say.
  static std::string short_text(const std::string& text, std::uint8_t case_bits) {
    std::string name = plain(text.substr(0, 8), (case_bits & 0x08) != 0);
    const std::string extension = plain(text.substr(8), (case_bits & 0x10) != 0);
    if (!extension.empty()) name += "." + extension;
    return name;
  }

  Bytes read(std::uint64_t offset, std::uint64_t length) {
    Bytes bytes(length);
    const auto got = device_.read(offset, bytes);
    if (!got) throw std::runtime_error(got.error().what);
    return bytes;
  }

  std::uint32_t entry(std::uint32_t cluster) const {
    if (bits_ == 32) return load_le<std::uint32_t>(fat_, cluster * std::size_t{4});
    if (bits_ == 16) return load_le<std::uint16_t>(fat_, cluster * std::size_t{2});
    const std::uint32_t both = load_le<std::uint16_t>(fat_, cluster * std::size_t{3} / 2);
    return cluster % 2 == 0 ? both & 0xFFF : both >> 4;
  }

  std::vector<std::uint32_t> chain(std::uint32_t cluster) {
    const std::uint32_t end = bits_ == 32 ? 0x0FFFFFF8 : bits_ == 16 ? 0xFFF8 : 0xFF8;
    std::vector<std::uint32_t> clusters;
    for (; cluster < end; cluster = entry(cluster)) {
      demand(cluster >= 2 && cluster < clusters_ + 2, "a chain to {}", cluster);
      demand(!claimed_[cluster], "cluster {} twice", cluster);
      claimed_[cluster] = true;
      clusters.push_back(cluster);
    }
    return clusters;
  }

  static std::string plain(std::string text, bool lower) {
    while (text.ends_with(' ')) text.pop_back();
    if (lower) {
      for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    return text;
  }

  ImageDevice& device_;
  std::uint32_t sector_ = 0;
  std::uint32_t cluster_ = 0;
  std::uint32_t root_slots_ = 0;
  std::uint32_t root_cluster_ = 0;
  std::uint32_t clusters_ = 0;
  int bits_ = 0;
  std::uint64_t root_at_ = 0;
  std::uint64_t data_at_ = 0;
  Bytes fat_;
  Bytes info_;
  std::vector<bool> claimed_;  // by cluster number
};

/// Files and directories of the source, by path.
std::map<std::string, NodeNo> expected_entries(const SourceTree& tree) {
  std::map<std::string, NodeNo> entries;
  std::vector<std::pair<std::string, std::uint32_t>> pending = {{"", 0}};
  while (!pending.empty()) {
    const auto [path, directory] = pending.back();
    pending.pop_back();
    const Directory& source = tree.directories()[directory];
    for (const Entry entry : tree.entries(source)) {
      const Node& node = tree.node(entry.node);
      if (!node.is_regular() && !node.is_directory()) continue;
      const std::string below =
          (path.empty() ? "" : path + "/") + std::string(tree.name(source, entry));
      entries.emplace(below, entry.node);
      if (node.is_directory()) pending.emplace_back(below, tree.directory_no(entry.node));
    }
  }
  return entries;
}

/// Whether the bytes of a node and `length` bytes elsewhere are equal. Where the node has a hole
/// and `is_hole(at, length)` says the same of the other side, nothing is read.
template <class ReadA, class ReadB, class IsHole>
bool equal_bytes(const SourceTree& tree, NodeNo node, ReadA&& a, ReadB&& b, IsHole&& is_hole) {
  const std::uint64_t length = tree.node(node).size_bytes;
  Range dense;
  const auto runs = tree.data_runs(node, dense);
  constexpr std::uint64_t kPiece = 1 << 20;
  Bytes ours(std::min(kPiece, length));
  Bytes theirs(ours.size());
  for (std::uint64_t at = 0; at < length; at += kPiece) {
    const std::uint64_t part = std::min(kPiece, length - at);
    const bool has_data = std::ranges::any_of(
        runs, [&](const Range& run) { return run.offset < at + part && run.end() > at; });
    if (!has_data && is_hole(at, part)) continue;
    a(at, std::span(ours).first(part));
    b(at, std::span(theirs).first(part));
    if (!std::equal(ours.begin(), ours.begin() + static_cast<std::ptrdiff_t>(part),
                    theirs.begin())) {
      return false;
    }
  }
  return true;
}

void read_source(const BuiltTree& source, NodeNo node, std::uint64_t at, std::span<std::byte> out) {
  const auto read = source.store->read(content_no(node), at, out);
  if (!read) throw std::runtime_error(read.error().what);
}

/// As mtools shows it.
std::string without_pairs(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    const std::size_t length = std::max<std::size_t>(utf8_sequence_length(name), 1);
    out += length == 4 ? "__" : name.substr(0, length);
    name.remove_prefix(length);
  }
  return out;
}

/// The source's bytes of a path that has UTF-8 names of the image.
std::string unmapped(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    const std::size_t length = std::max<std::size_t>(utf8_sequence_length(path), 1);
    if (length == 3) {
      const unsigned value = (static_cast<unsigned char>(path[0]) & 0x0Fu) << 12 |
                             (static_cast<unsigned char>(path[1]) & 0x3Fu) << 6 |
                             (static_cast<unsigned char>(path[2]) & 0x3Fu);
      if (value > 0xF000 && value <= 0xF0FF) {
        out += static_cast<char>(static_cast<unsigned char>(value - 0xF000));
        path.remove_prefix(3);
        continue;
      }
    }
    out += path.substr(0, length);
    path.remove_prefix(length);
  }
  return out;
}

}  // namespace

std::string differences(const std::shared_ptr<const Image>& image, const BuiltTree& source) {
  ImageDevice device(image, source.store);
  Reader reader(device);
  std::map<std::string, NodeNo> expected = expected_entries(*source.tree);
  std::string report;
  reader.walk([&](const std::string& path, const Found& found) {
    const auto at = expected.find(path);
    if (at == expected.end()) {
      report += printable(path) + " is not in the source\n";
      return;
    }
    const Node& node = source.tree->node(at->second);
    DosTime time = dos_time(node.mtime(), {});
    time.clamped = false;
    if (found.is_directory != node.is_directory() ||
        (!found.is_directory && found.size_bytes != node.size_bytes) || found.time != time ||
        (!found.is_directory && found.read_only != ((node.mode & 0222) == 0))) {
      report += printable(path) + " has another kind, size, time or mode\n";
    } else if (!found.is_directory) {
      const std::uint64_t start = reader.file_at(found);
      const bool same = equal_bytes(
          *source.tree, at->second,
          [&](std::uint64_t offset, std::span<std::byte> out) {
            if (!device.read(start + offset, out)) throw std::runtime_error("read " + path);
          },
          [&](std::uint64_t offset, std::span<std::byte> out) {
            read_source(source, at->second, offset, out);
          },
          [&](std::uint64_t offset, std::uint64_t length) {
            bool hole = true;
            for_each_extent(device, {start + offset, length}, [&](const Extent& extent) {
              hole = extent.kind == ExtentKind::hole;
              return hole;
            });
            return hole;
          });
      if (!same) report += printable(path) + " has other bytes\n";
    }
    expected.erase(at);
  });
  for (const auto& [path, node] : expected) report += printable(path) + " is missing\n";
  reader.check_free();
  return report;
}

std::string remarks_of_fsck(const std::shared_ptr<const Image>& image, const BuiltTree& source) {
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  ImageDevice device(image, source.store);
  write_image(device, file);
  const Ran fsck =
      run_tool({"fsck.fat", "-nv", fmt::format("/proc/{}/fd/{}", ::getpid(), file.get())});
  if (fsck.status != 0) return fsck.output;
  // With -v it describes the volume: numbers, and lines that are always the same.
  static constexpr std::array<std::string_view, 13> kDescription = {
      "fsck.fat ", "Checking ",  "Boot sector contents:",  "System ID ", "Media byte ",
      " ",         "First FAT ", "Root directory ",        "Data area ", "Reclaiming",
      "/proc/",    "Starting ",  "Logical sector size is "};
  std::string remarks;
  std::size_t from = 0;
  while (from < fsck.output.size()) {
    const std::size_t end = std::min(fsck.output.find('\n', from), fsck.output.size());
    const std::string_view line = std::string_view(fsck.output).substr(from, end - from);
    from = end + 1;
    const bool described =
        std::ranges::any_of(kDescription, [&](auto begin) { return line.starts_with(begin); }) ||
        line.find(" sectors/track, ") != line.npos;
    if (!described) remarks += std::string(line) + "\n";
  }
  return remarks;
}

std::string differences_by_mtools(const std::shared_ptr<const Image>& image,
                                  const BuiltTree& source) {
  namespace fs = std::filesystem;
  const TempDir place;
  fs::create_directory(place / "out");
  ImageDevice device(image, source.store);
  write_image(device, place / "image");
  const Ran copied = run_tool({"env", "LC_ALL=C.UTF-8", "TZ=UTC", "mcopy", "-s", "-n", "-m", "-i",
                               (place / "image").string(), "::*", (place / "out").string()});
  std::map<std::string, NodeNo> expected;
  for (const auto& [path, node] : expected_entries(*source.tree)) {
    // Two that mtools shows alike overwrite each other: nothing to compare then.
    if (!expected.emplace(without_pairs(path), node).second) return {};
  }
  if (expected.empty()) return {};
  if (copied.status != 0) return copied.output;
  std::string report;
  for (const auto& entry : fs::recursive_directory_iterator(place / "out")) {
    const std::string path = unmapped(fs::relative(entry.path(), place / "out").native());
    const auto at = expected.find(path);
    if (at == expected.end()) {
      report += printable(path) + " is not in the source\n";
      continue;
    }
    const Node& node = source.tree->node(at->second);
    if (entry.is_directory() != node.is_directory() ||
        (node.is_regular() && entry.file_size() != node.size_bytes)) {
      report += printable(path) + " has another kind or size\n";
    } else if (node.is_regular()) {
      const UniqueFd file(::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
      struct stat status{};
      ::fstat(file.get(), &status);
      const DosTime found = dos_time({status.st_mtim.tv_sec, 0}, {});
      const DosTime wanted = dos_time(node.mtime(), {});
      // mtools counts seconds in 32 bits.
      const bool same_time =
          (found.date == wanted.date && found.time == wanted.time) || node.mtime_s > 0xFFFF'0000;
      const bool same_bytes = equal_bytes(
          *source.tree, at->second,
          [&](std::uint64_t offset, std::span<std::byte> out) {
            if (::pread(file.get(), out.data(), out.size(), static_cast<off_t>(offset)) !=
                static_cast<ssize_t>(out.size())) {
              throw std::runtime_error("read " + path);
            }
          },
          [&](std::uint64_t offset, std::span<std::byte> out) {
            read_source(source, at->second, offset, out);
          },
          [](std::uint64_t, std::uint64_t) { return false; });
      if (!same_time || !same_bytes) report += printable(path) + " has another time or bytes\n";
    }
    expected.erase(at);
  }
  for (const auto& [path, node] : expected) report += printable(path) + " is missing\n";
  return report;
}

std::map<std::string, std::string> attributes_by_mtools(const std::shared_ptr<const Image>& image,
                                                        const BuiltTree& source) {
  const TempDir place;
  ImageDevice device(image, source.store);
  write_image(device, place / "image");
  const Ran shown = run_tool({"mattrib", "-/", "-i", (place / "image").string(), "::"});
  demand(shown.status == 0, shown.output);
  std::map<std::string, std::string> attributes;
  std::istringstream lines(shown.output);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t path = line.find("::/");
    demand(path != line.npos, "mattrib: " + line);
    std::string letters = line.substr(0, path);
    std::erase(letters, ' ');
    if (path + 3 != line.size()) attributes.emplace(line.substr(path + 3), std::move(letters));
  }
  return attributes;
}

}  // namespace mkvirtfs::fat32::testing
