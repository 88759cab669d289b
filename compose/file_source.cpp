// SPDX-License-Identifier: BSD-3-Clause
// A file by itself is a tree of two nodes: the root, which is only implied, and the file. A regular
// file is scanned where it lies, with all other names of its directory left out, so that its
// metadata, holes and changes are seen as in any directory. Anything else is read to its end into a
// spool, and has no metadata but its length.
#include "compose/file_source.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "block/host_files.h"
#include "compose/archive_settings.h"
#include "fsgen/archive/archive.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/tree/entry_rules.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs {
namespace {

constexpr std::uint16_t kRootMode = S_IFDIR | 0755;
constexpr std::uint16_t kPipeMode = S_IFREG | 0644;

/// The bytes of the one file of a tree, out of a source of bytes.
class OneFile final : public ContentStore {
 public:
  explicit OneFile(std::shared_ptr<ByteSource> bytes) : bytes_(std::move(bytes)) {}

  Result<void> read(ContentNo, std::uint64_t offset, std::span<std::byte> out) override {
    return bytes_->read(offset, out);
  }
  Result<bool> read_at_once(ContentNo, std::uint64_t offset, std::span<std::byte> out) override {
    return bytes_->read_at_once(offset, out);
  }
  bool is_at_hand(ContentNo, std::uint64_t offset, std::uint64_t length) override {
    return bytes_->is_at_hand({offset, length});
  }
  void fetch(ContentNo, std::uint64_t offset, std::uint64_t length) override {
    bytes_->fetch({offset, length});
  }
  bool keeps_fetched(ContentNo) override { return bytes_->keeps_fetched(); }
  Result<Pin> pin(ContentNo) override { return bytes_->pin(); }
  Result<void> recheck(ContentNo, const PinnedFile& file) override { return bytes_->recheck(file); }
  std::string name(ContentNo) const override { return bytes_->name(); }

 private:
  const std::shared_ptr<ByteSource> bytes_;
};

/// The one file of a tree, which has another name on the host.
class RenamedFile final : public ContentStore {
 public:
  explicit RenamedFile(std::shared_ptr<ContentStore> files) : files_(std::move(files)) {}

  Result<void> read(ContentNo file, std::uint64_t offset, std::span<std::byte> out) override {
    return files_->read(file, offset, out);
  }
  Result<bool> read_at_once(ContentNo file, std::uint64_t offset,
                            std::span<std::byte> out) override {
    return files_->read_at_once(file, offset, out);
  }
  bool is_at_hand(ContentNo file, std::uint64_t offset, std::uint64_t length) override {
    return files_->is_at_hand(file, offset, length);
  }
  void fetch(ContentNo file, std::uint64_t offset, std::uint64_t length) override {
    files_->fetch(file, offset, length);
  }
  bool keeps_fetched(ContentNo file) override { return files_->keeps_fetched(file); }
  Result<Pin> pin(ContentNo file) override { return files_->pin(file); }
  Result<void> recheck(ContentNo file, const PinnedFile& pinned) override {
    return files_->recheck(file, pinned);
  }
  std::string name(ContentNo file) const override { return files_->name(file); }
  std::optional<HostFile> host_file(ContentNo file) const override {
    std::optional<HostFile> found = files_->host_file(file);
    if (found) found->path = files_->name(file);
    return found;
  }

 private:
  const std::shared_ptr<ContentStore> files_;
};

/// `node` alone, under `name`.
Layer layer_of(const std::string& name, NewNode node, std::vector<Xattr> xattrs,
               std::shared_ptr<ContentStore> contents) {
  NewNode root;
  root.mode = kRootMode;
  TreeAssembler assembler(root);
  assembler.open_directory(DirectoryNo{0});
  node.xattrs = assembler.intern(std::move(xattrs));
  assembler.add(name, node);
  Layer layer;
  layer.tree = std::make_shared<const SourceTree>(std::move(assembler).finish());
  layer.contents = std::move(contents);
  layer.implied_directories = {kRootNode};
  return layer;
}

/// The pattern that matches this name in the root, and no other path.
std::string pattern_of(std::string_view name) {
  std::string glob = "/";
  for (const char c : name) {
    if (std::string_view("*?[]\\").contains(c)) glob += '\\';
    glob += c;
  }
  return glob;
}

Result<LoadedSource> load_regular(const SourceSpec& spec, ScanOptions scan,
                                  const Resources& resources) {
  LogSink& log = resources.log();
  std::error_code error;
  const std::filesystem::path file = std::filesystem::canonical(spec.path, error);
  if (error) return fail_errno(Errc::unreadable, error.value(), "find " + spec.path);
  scan.entries.rules = {{true, pattern_of(file.filename().string())}, {false, "*"}};
  scan.entries.matches = nullptr;
  // Nothing is entered; and the file itself may be mounted, as in containers.
  scan.one_file_system = false;
  scan.skip_unreadable = false;
  Result<Scan> scanned = scan_directory(file.parent_path().string(), scan, log);
  if (!scanned) return propagate(scanned);
  const SourceTree& tree = *scanned->tree;
  if (tree.node_count() != 2 || !tree.node(NodeNo{1}).is_regular()) {
    return fail(Errc::unreadable,
                fmt::format("{} is written by this run, or has just been replaced", spec.path));
  }
  const NodeNo no{1};
  const Node& found = tree.node(no);
  Range dense;
  NewNode node;
  node.mode = found.mode;
  node.uid = found.uid;
  node.gid = found.gid;
  node.mtime = found.mtime();
  node.size_bytes = found.size_bytes;
  node.sparse = tree.is_sparse(no);
  node.data_runs = tree.data_runs(no, dense);
  node.unshown = found.unshown;
  node.lost_xattrs = tree.lost_xattrs(no);
  const std::span<const Xattr> xattrs = tree.xattrs(found.xattrs);
  LoadedSource loaded;
  loaded.layer = layer_of(file_place(spec.at).name, node, {xattrs.begin(), xattrs.end()},
                          std::make_shared<RenamedFile>(make_host_files(
                              scanned->files, spec.changes, log, tree.node_count())));
  loaded.root = file.parent_path().string();
  return loaded;
}

Result<LoadedSource> load_stream(const SourceSpec& spec, const ScanOptions& scan,
                                 Resources& resources) {
  const Result<ArchiveSettings> settings = archive_settings(spec, resources);
  if (!settings) return propagate(settings);
  Result<std::shared_ptr<ByteSource>> bytes =
      archive::open_archive_file(spec.path, settings->stream, resources.log());
  if (!bytes) return propagate(bytes);
  const Result<EntryRules> rules = EntryRules::make(scan.entries);
  if (!rules) return propagate(rules);
  // Its time is no property of it: the same bytes are to give the same image.
  EntryAttributes attributes{.mode = kPipeMode,
                             .mtime = {scan.entries.newest_mtime_s.value_or(0), 0}};
  rules->apply(attributes);
  NewNode node;
  node.mode = attributes.mode;
  node.uid = attributes.uid;
  node.gid = attributes.gid;
  node.mtime = attributes.mtime;
  node.size_bytes = (*bytes)->size_bytes();
  LoadedSource loaded;
  loaded.facts.spool_bytes = node.size_bytes;
  loaded.containers = {{spec.path, *bytes, false}};
  loaded.layer =
      layer_of(file_place(spec.at).name, node, {}, std::make_shared<OneFile>(std::move(*bytes)));
  return loaded;
}

}  // namespace

bool is_regular_file(const std::string& path) {
  struct stat status{};
  return path != "-" && ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

FilePlace file_place(const std::string& at) {
  const std::string plain = plain_place(at);
  const std::size_t slash = plain.rfind('/');
  if (slash == std::string::npos) return {"", plain};
  return {plain.substr(0, slash), plain.substr(slash + 1)};
}

Result<LoadedSource> load_file(const SourceSpec& spec, const ScanOptions& scan,
                               const LayersBelow* below, Resources& resources) {
  const std::string place = plain_place(spec.at);
  if (place.empty()) {
    return fail(Errc::usage, fmt::format("{}: a file needs a path in the image", spec.path));
  }
  if (below != nullptr && below->look(place).kind == Standing::Kind::directory) {
    return fail(Errc::usage,
                fmt::format("{}: /{} is a directory in the sources before it, and a file needs a "
                            "path of its own",
                            spec.path, place));
  }
  const std::string directory = file_place(spec.at).directory;
  for (std::size_t end = 0; below != nullptr && end < directory.size(); ++end) {
    end = std::min(directory.find('/', end), directory.size());
    const std::string parent = directory.substr(0, end);
    const Standing::Kind kind = below->look(parent).kind;
    if (kind != Standing::Kind::symlink && kind != Standing::Kind::other) continue;
    return fail(Errc::usage,
                fmt::format("{}: /{} is no directory in the sources before it, but {}", spec.path,
                            parent, kind == Standing::Kind::symlink ? "a symlink" : "a file"));
  }
  struct stat status{};
  if (spec.path != "-" && ::stat(spec.path.c_str(), &status) != 0) {
    return fail(Errc::unreadable, fmt::format("{} does not exist", spec.path));
  }
  if (S_ISDIR(status.st_mode)) {
    return fail(Errc::usage, fmt::format("{} is a directory, and no file", spec.path));
  }
  Result<LoadedSource> loaded = is_regular_file(spec.path) ? load_regular(spec, scan, resources)
                                                           : load_stream(spec, scan, resources);
  if (loaded) loaded->facts.kind = "file";
  return loaded;
}

}  // namespace mkvirtfs
