// SPDX-License-Identifier: BSD-3-Clause
// From a host directory to a SourceTree: the walk (scan_walk.h) finds everything, in any order;
// here its records are numbered.
#include "fsgen/host/scan.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "fsgen/host/scan_records.h"
#include "fsgen/host/scan_walk.h"
#include "fsgen/host/scanned_files.h"
#include "fsgen/tree/entry_rules.h"
#include "support/confined_open.h"

namespace mkvirtfs {
namespace {

/// Calls `visit(ScanRecord, worker)` for the entries of a directory in the order of their names.
template <class Visit>
void for_each_by_name(const std::vector<ScanSegment>& segments, Visit visit) {
  if (segments.size() == 1) {
    ScanRecord record(segments[0].first);
    for (std::uint32_t i = 0; i < segments[0].count; ++i, record = record.next()) {
      visit(record, segments[0].worker);
    }
    return;
  }
  struct Head {
    ScanRecord record;
    std::uint32_t left;
    std::uint32_t worker;
  };
  // A heap of the segments' first records; its comparison is turned round to have the least in
  // front.
  const auto later = [](const Head& a, const Head& b) { return a.record.name() > b.record.name(); };
  std::vector<Head> heads;
  heads.reserve(segments.size());
  for (const ScanSegment& segment : segments) {
    heads.push_back({ScanRecord(segment.first), segment.count, segment.worker});
  }
  std::ranges::make_heap(heads, later);
  while (!heads.empty()) {
    std::ranges::pop_heap(heads, later);
    Head& head = heads.back();
    visit(head.record, head.worker);
    if (--head.left == 0) {
      heads.pop_back();
    } else {
      head.record = head.record.next();
      std::ranges::push_heap(heads, later);
    }
  }
}

/// A host inode, which is what the names of one hard-link group share.
struct HostInode {
  std::uint64_t device;
  std::uint64_t inode;

  friend bool operator==(const HostInode&, const HostInode&) = default;
};
struct HostInodeHash {
  std::size_t operator()(const HostInode& key) const noexcept {
    return std::hash<std::uint64_t>{}(key.inode * 0x9e3779b97f4a7c15 + key.device);
  }
};

/// The workers' sets of attributes as the tree numbers them: in the order of its nodes.
class XattrNumbers {
 public:
  explicit XattrNumbers(std::vector<XattrPool> pools) {
    for (XattrPool& pool : pools) {
      sets_.push_back(std::move(pool).take());
      numbers_.emplace_back(sets_.back().size(), kNone);
    }
  }

  const std::vector<Xattr>& set(std::uint32_t worker, std::uint32_t no) const {
    return sets_[worker][no];
  }
  XattrSetNo number(TreeAssembler& assembler, std::uint32_t worker, std::uint32_t no) {
    XattrSetNo& number = numbers_[worker][no];
    if (number == kNone) number = assembler.intern(std::move(sets_[worker][no]));
    return number;
  }

 private:
  static constexpr XattrSetNo kNone = std::numeric_limits<XattrSetNo>::max();

  std::vector<std::vector<std::vector<Xattr>>> sets_;
  std::vector<std::vector<XattrSetNo>> numbers_;
};

NewNode node_of(ScanRecord record) {
  const ScanRecordHead& head = record.head();
  NewNode node;
  node.mode = head.mode;
  node.uid = head.uid;
  node.gid = head.gid;
  node.mtime = {head.mtime_s, head.mtime_ns};
  node.size_bytes = head.size_bytes;
  node.symlink_target = record.target();
  node.device = record.device_number();
  node.sparse = head.sparse;
  node.data_runs = record.data_runs();
  node.unshown = head.unshown;
  return node;
}

ScannedFiles::Mark mark_of(ScanRecord record) {
  const ScanRecordHead& head = record.head();
  return {head.inode, head.file_mtime_ns, head.file_ctime_ns};
}

/// Why the tree's 32-bit indexes cannot hold all of it; nullopt when they can.
std::optional<std::string> too_much(const WalkCounts& counts) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  constexpr std::uint64_t kTargetLengthBytes = 4;
  if (counts.target_bytes + kTargetLengthBytes * counts.symlinks > kMost) {
    return "the targets of its symlinks have more than 4 GiB";
  }
  if (counts.data_runs > kMost) return "its sparse files have more than 2^32 runs of data";
  return std::nullopt;
}

struct Numbered {
  SourceTree tree;
  std::vector<ScannedFiles::Mark> marks;
  std::vector<ScannedFiles::Facts> facts;  // none when they were not kept
};

/// Keeps what a record has of its node: the numbers of nodes grow with each call.
void keep_host_side(ScanRecord record, std::vector<ScannedFiles::Mark>& marks,
                    std::vector<ScannedFiles::Facts>& facts) {
  marks.push_back(mark_of(record));
  if (const auto kept = record.facts())
    facts.push_back({kept->device, kept->inode, kept->mtime, kept->ctime});
}

/// Numbers what a walk found. The records of a directory are given back as soon as they are in the
/// tree, so that memory hardly grows while the tree fills.
Result<Numbered> number(WalkResult& walk, const std::string& name) {
  if (const auto reason = too_much(walk.counts)) {
    return fail(Errc::does_not_fit, fmt::format("{}: {}", name, *reason), {{"exclude"}});
  }
  XattrNumbers xattrs(std::move(walk.xattrs));
  const ScanRecord root(walk.root_record.first);
  TreeAssembler assembler(node_of(root), xattrs.set(walk.root_record.worker, root.head().xattrs));
  assembler.reserve(walk.counts.entries + 1, walk.counts.entries, walk.counts.directories + 1,
                    walk.counts.name_bytes);
  std::vector<ScannedFiles::Mark> marks;
  marks.reserve(walk.counts.entries + 1);
  std::vector<ScannedFiles::Facts> facts;
  if (root.facts()) facts.reserve(walk.counts.entries + 1);
  keep_host_side(root, marks, facts);

  std::unordered_map<HostInode, NodeNo, HostInodeHash> linked;
  linked.reserve(walk.counts.linked / 2);
  std::vector<ScannedDirectory*> directories = {walk.root.get()};
  directories.reserve(walk.counts.directories + 1);
  for (DirectoryNo d; d < assembler.directory_count(); ++d) {
    assembler.open_directory(d);
    std::string_view last;
    std::uint64_t name_bytes = 0;
    for_each_by_name(directories[d]->segments, [&](ScanRecord record, std::uint32_t worker) {
      // A rename during the listing can make a name appear twice.
      if (record.name() == last) return;
      last = record.name();
      ScannedDirectory* directory = record.directory();
      if (directory != nullptr && directory->vanished) return;
      name_bytes += 1 + last.size();
      if (name_bytes > std::numeric_limits<std::uint32_t>::max()) return;

      const ScanRecordHead& head = record.head();
      if (head.linked) {
        const auto [known, is_new] = linked.try_emplace(
            {record.device(), head.inode}, NodeNo{static_cast<std::uint32_t>(marks.size())});
        if (!is_new) {
          assembler.add_link(last, known->second);
          return;
        }
      }
      NewNode node = node_of(record);
      node.xattrs = xattrs.number(assembler, worker, head.xattrs);
      assembler.add(last, node);
      keep_host_side(record, marks, facts);
      if (directory != nullptr) directories.push_back(directory);
    });
    if (name_bytes > std::numeric_limits<std::uint32_t>::max()) {
      return fail(Errc::does_not_fit,
                  fmt::format("{}: the names in one directory have more than 4 GiB", name),
                  {{"exclude"}});
    }
    directories[d]->segments = {};
  }
  return Numbered{std::move(assembler).finish(), std::move(marks), std::move(facts)};
}

/// Opens what the user named; a symlink to a directory is one here.
Result<UniqueFd> open_root(const std::string& path, int flags) {
  UniqueFd root(::open(path.c_str(), flags | O_DIRECTORY | O_CLOEXEC));
  if (root) return root;
  if (errno == ENOENT) {
    return fail(Errc::unreadable, fmt::format("{} does not exist", path));
  }
  if (errno == ENOTDIR) {
    return fail(Errc::unreadable, fmt::format("{} is not a directory", path));
  }
  return fail_errno(Errc::unreadable, errno, fmt::format("open the directory {}", path));
}

}  // namespace

Result<Scan> scan_directory(const std::string& path, const ScanOptions& options, LogSink& log,
                            const ScanTuning& tuning) {
  const auto rules = EntryRules::make(options.entries);
  if (!rules) return propagate(rules);
  const ConfinedOpener opener(!options.one_file_system, tuning.use_openat2);
  auto root = open_root(path, O_PATH);
  if (!root) return propagate(root);
  auto listed = opener.open(root->get(), ".", O_RDONLY | O_DIRECTORY);
  if (!listed) {
    return fail_errno(Errc::unreadable, listed.error(), fmt::format("list the directory {}", path));
  }

  if (!opener.uses_openat2()) {
    log.write(LogLevel::debug, "this host has no openat2(2): paths are walked step by step");
  }
  auto walk = walk_directory(std::move(*listed), path, options, *rules, opener, tuning);
  if (!walk) return propagate(walk);
  if (!walk->own_directories) {
    log.write(LogLevel::debug,
              "this host refuses unshare(2), or a thread: extended attributes are asked for "
              "through /proc");
  }
  auto numbered = number(*walk, path);
  if (!numbered) return propagate(numbered);

  Scan scan;
  scan.report = std::move(walk->report);
  scan.tree = std::make_shared<const SourceTree>(std::move(numbered->tree));
  scan.files = std::make_shared<ScannedFiles>(scan.tree, std::move(numbered->marks),
                                              std::move(numbered->facts), std::move(*root), opener);
  return scan;
}

Result<Scan> scan_directory(const std::string& path, const ScanOptions& options, LogSink& log) {
  return scan_directory(path, options, log, ScanTuning{});
}

}  // namespace mkvirtfs
