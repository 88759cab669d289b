// SPDX-License-Identifier: BSD-3-Clause
#include "compose/source_base.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "compose/source_name.h"
#include "fsgen/oci/image_name.h"
#include "fsgen/tree/tree_path.h"
#include "support/path.h"
#include "support/sha256.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;

/// What the host says of the file behind a source of bytes.
std::optional<FileFacts> facts_behind(ByteSource& bytes) {
  struct stat status{};
  const Result<ContentStore::Pin> pin = bytes.pin();
  if (!pin || !pin->file || ::fstat(pin->file.fd(), &status) != 0) return std::nullopt;
  return facts_of(status);
}

class StoredFile final : public ByteSource {
 public:
  StoredFile(std::shared_ptr<ContentStore> store, ContentNo content, std::uint64_t size_bytes)
      : store_(std::move(store)), content_(content), size_bytes_(size_bytes) {}

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    return store_->read(content_, offset, out);
  }
  Result<ContentStore::Pin> pin() override { return store_->pin(content_); }
  Result<void> recheck(const PinnedFile& file) override { return store_->recheck(content_, file); }
  std::string name() const override { return store_->name(content_); }

 private:
  const std::shared_ptr<ContentStore> store_;
  const ContentNo content_;
  const std::uint64_t size_bytes_;
};

Result<ContentDigest> digest_of(
    std::uint64_t size_bytes,
    const std::function<Result<void>(std::uint64_t offset, std::span<std::byte> out)>& read) {
  Sha256 sha;
  std::vector<std::byte> buffer(static_cast<std::size_t>(std::min(size_bytes, kPieceBytes)));
  for (std::uint64_t at = 0; at < size_bytes; at += kPieceBytes) {
    const auto piece =
        std::span(buffer).first(static_cast<std::size_t>(std::min(size_bytes - at, kPieceBytes)));
    if (Result<void> got = read(at, piece); !got) return propagate(got);
    sha.update(piece);
  }
  return sha.finish();
}

}  // namespace

ContainerFile container_of(std::string path, std::shared_ptr<ContentStore> store, ContentNo content,
                           std::uint64_t size_bytes) {
  return {std::move(path), std::make_shared<StoredFile>(std::move(store), content, size_bytes),
          true};
}

BaseHead SourceBase::head(const ImageId& id) const {
  BaseHead head{id, options, {}};
  for (const Source& source : sources) head.sources.push_back(source.place);
  return head;
}

void SourceBase::add(std::vector<Source> of_volume, Volume volume) {
  volume.first_source = sources.size();
  volume.source_count = of_volume.size();
  for (Source& source : of_volume) {
    source.place.at = join_path(volume.prefix, source.place.at);
    sources.push_back(std::move(source));
  }
  volumes.push_back(std::move(volume));
}

SourceBaseEntries::SourceBaseEntries(const SourceBase& base) : base_(base) {
  for (const SourceBase::Volume& volume : base_.volumes) {
    step(walks_.emplace_back(Walk{.volume = &volume, .directory_path = {}, .entry = {}}));
  }
}

/// Each volume has its entries in the manifest's order, so the first one of all of them is the
/// next.
Result<bool> SourceBaseEntries::next(BaseEntry& entry) {
  entry = BaseEntry();
  given_ = nullptr;
  if (next_container(entry)) return true;
  Walk* first = nullptr;
  for (Walk& walk : walks_) {
    if (walk.has_entry && (first == nullptr || stands_before(walk.entry, first->entry))) {
      first = &walk;
    }
  }
  if (first == nullptr) return false;
  entry = std::move(first->entry);
  given_from_ = first;
  given_node_ = NodeNo{first->next_node - 1};
  step(*first);
  return true;
}

void SourceBaseEntries::step(Walk& walk) const {
  walk.entry = BaseEntry();
  walk.has_entry = walk.next_node < walk.volume->tree->node_count();
  if (!walk.has_entry) return;
  read_node(walk, walk.next_node);
  ++walk.next_node;
}

bool SourceBaseEntries::next_container(BaseEntry& entry) {
  while (source_ < base_.sources.size() && container_ >= base_.sources[source_].containers.size()) {
    ++source_;
    container_ = 0;
  }
  if (source_ >= base_.sources.size()) return false;
  given_ = &base_.sources[source_].containers[container_++];
  entry.is_container = true;
  entry.source = static_cast<std::uint16_t>(source_);
  entry.path = given_->path;
  entry.size_bytes = given_->bytes->size_bytes();
  if (given_->is_lasting) entry.host = facts_behind(*given_->bytes);
  return true;
}

void SourceBaseEntries::read_node(Walk& walk, NodeNo no) const {
  const SourceTree& tree = *walk.volume->tree;
  const Node& node = tree.node(no);
  BaseEntry& entry = walk.entry;
  const auto below_prefix = [&](const std::string& path) {
    const std::string& prefix = walk.volume->prefix;
    return prefix.empty() || path.empty() ? prefix + path : prefix + '/' + path;
  };
  if (no == kRootNode) {
    entry.path = walk.volume->prefix;
    walk.directory_path = below_prefix("");
    if (!walk.directory_path.empty()) walk.directory_path += '/';
  } else {
    if (node.parent != walk.directory) {
      walk.directory = node.parent;
      walk.directory_path = below_prefix(tree.path(tree.directories()[walk.directory].node));
      if (!walk.directory_path.empty()) walk.directory_path += '/';
    }
    const Directory& parent = tree.parent_of(no);
    entry.path = walk.directory_path;
    entry.path += tree.name(parent, tree.entries(parent)[node.entry]);
  }
  entry.mode = node.mode;
  entry.uid = node.uid;
  entry.gid = node.gid;
  entry.mtime = {node.mtime().seconds, node.mtime().nanoseconds};
  entry.size_bytes = node.size_bytes;
  const auto content = content_no(no);
  ContentStore& contents = *walk.volume->contents;
  const std::uint32_t of_volume = contents.source_of(content);
  entry.source = static_cast<std::uint16_t>(
      walk.volume->first_source + (of_volume < walk.volume->source_count ? of_volume : 0));
  if (auto file = contents.host_file(content)) {
    entry.host = file->facts;
    entry.host_path = std::move(file->path);
  }
}

bool SourceBaseEntries::is_lasting() const { return given_ == nullptr || given_->is_lasting; }

Result<ContentDigest> SourceBaseEntries::digest() const {
  if (given_ != nullptr) {
    return digest_of(given_->bytes->size_bytes(),
                     [&](std::uint64_t offset, std::span<std::byte> out) {
                       return given_->bytes->read(offset, out);
                     });
  }
  const SourceBase::Volume& volume = *given_from_->volume;
  return digest_of(volume.tree->node(given_node_).size_bytes,
                   [&](std::uint64_t offset, std::span<std::byte> out) {
                     return volume.contents->read(content_no(given_node_), offset, out);
                   });
}

bool is_directory_source(const std::string& path) {
  if (path == "-" || is_address(path) || oci::parse_image_name(path)) return false;
  // What is not there, or cannot be looked at, is reported by the scan.
  struct stat status{};
  return ::stat(split_archive_path(path).file.c_str(), &status) != 0 || S_ISDIR(status.st_mode);
}

std::string root_of_source(const std::string& path) {
  const auto image = oci::parse_image_name(path);
  const std::string file = image ? image->path : split_archive_path(path).file;
  if (file == "-" || is_address(file)) return {};
  struct stat status{};
  const bool is_directory = ::stat(file.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  const std::string directory = is_directory ? file : directory_of(file);
  std::error_code error;
  const auto absolute =
      std::filesystem::canonical(directory.empty() ? "." : directory.c_str(), error);
  return error ? directory : absolute.string();
}

std::string plain_place(const std::string& at) {
  std::string plain;
  for (const char c : at) {
    if (c != '/') {
      plain += c;
    } else if (!plain.empty() && plain.back() != '/') {
      plain += '/';
    }
  }
  if (plain.ends_with('/')) plain.pop_back();
  return plain;
}

}  // namespace mkvirtfs
