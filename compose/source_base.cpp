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

BaseHead SourceBase::head(const ImageId& id) const {
  BaseHead head{id, options, {}};
  for (const Source& source : sources) head.sources.push_back(source.place);
  return head;
}

Result<bool> SourceBaseEntries::next(BaseEntry& entry) {
  entry = BaseEntry();
  given_ = nullptr;
  if (next_container(entry)) return true;
  if (next_node_ >= base_.tree->node_count()) return false;
  read_node(next_node_, entry);
  ++next_node_;
  return true;
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

void SourceBaseEntries::read_node(NodeNo no, BaseEntry& entry) {
  const SourceTree& tree = *base_.tree;
  const Node& node = tree.node(no);
  if (no != kRootNode) {
    if (node.parent != directory_) {
      directory_ = node.parent;
      prefix_ = tree.path(tree.directories()[directory_].node);
      if (!prefix_.empty()) prefix_ += '/';
    }
    const Directory& parent = tree.parent_of(no);
    entry.path = prefix_;
    entry.path += tree.name(parent, tree.entries(parent)[node.entry]);
  }
  entry.mode = node.mode;
  entry.uid = node.uid;
  entry.gid = node.gid;
  entry.mtime = {node.mtime().seconds, node.mtime().nanoseconds};
  entry.size_bytes = node.size_bytes;
  const auto content = content_no(no);
  const std::uint32_t source = base_.contents->source_of(content);
  entry.source = static_cast<std::uint16_t>(source < base_.sources.size() ? source : 0);
  if (auto file = base_.contents->host_file(content)) {
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
  const NodeNo no{next_node_ - 1};
  return digest_of(base_.tree->node(no).size_bytes,
                   [&](std::uint64_t offset, std::span<std::byte> out) {
                     return base_.contents->read(content_no(no), offset, out);
                   });
}

bool is_directory_source(const std::string& path) {
  if (path == "-" || oci::parse_image_name(path)) return false;
  // What is not there, or cannot be looked at, is reported by the scan.
  struct stat status{};
  return ::stat(split_archive_path(path).file.c_str(), &status) != 0 || S_ISDIR(status.st_mode);
}

std::string root_of_source(const std::string& path) {
  const auto image = oci::parse_image_name(path);
  const std::string file = image ? image->path : split_archive_path(path).file;
  if (file == "-") return {};
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
