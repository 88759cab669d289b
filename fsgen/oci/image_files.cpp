// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/oci/image_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "fsgen/stream/file_source.h"
#include "fsgen/tree/symlink_way.h"
#include "fsgen/tree/tree_path.h"
#include "support/confined_open.h"
#include "support/unique_fd.h"

namespace mkvirtfs::oci {
namespace {

/// A path without "." and empty components; nullopt when ".." leads out.
std::optional<std::string> normal_path(std::string_view path) {
  std::vector<std::string_view> parts;
  for (const std::string_view part : components_of(path)) {
    if (part != "..") {
      parts.push_back(part);
    } else if (parts.empty()) {
      return std::nullopt;
    } else {
      parts.pop_back();
    }
  }
  return join_path(parts);
}

class DirectoryFiles final : public ImageFiles {
 public:
  DirectoryFiles(UniqueFd directory, std::string path, ChangeCheck check, LogSink& log)
      : directory_(std::move(directory)), path_(std::move(path)), check_(check), log_(log) {}

  Result<std::shared_ptr<ByteSource>> open(std::string_view path) const override {
    const std::string wanted(path);
    const std::string shown = path_ + "/" + wanted;
    std::expected<UniqueFd, int> fd =
        opener_.open(directory_.get(), wanted.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!fd && (fd.error() == ENOENT || fd.error() == ENOTDIR)) {
      // A symlink on the way is an ENOTDIR, too; it is no more than a file that is not there.
      return std::shared_ptr<ByteSource>();
    }
    if (!fd) {
      return fail_errno(Errc::unreadable, fd.error(),
                        fmt::format("open {} without following links out of the layout", shown));
    }
    return open_file_source(std::move(*fd), shown, {OnChange::error, check_}, log_);
  }
  std::string name() const override { return path_; }

 private:
  const UniqueFd directory_;
  const std::string path_;
  const ChangeCheck check_;
  LogSink& log_;
  const ConfinedOpener opener_{/*cross_mounts=*/true};
};

class TarFiles final : public ImageFiles {
 public:
  TarFiles(std::shared_ptr<ByteSource> tar, TarIndex index)
      : tar_(std::move(tar)), index_(std::move(index)) {}

  Result<std::shared_ptr<ByteSource>> open(std::string_view path) const override {
    const std::optional<Range> bytes = index_.find(path);
    if (!bytes) return std::shared_ptr<ByteSource>();
    return make_window(tar_, *bytes, fmt::format("{}:{}", tar_->name(), path));
  }
  std::string name() const override { return tar_->name(); }

 private:
  const std::shared_ptr<ByteSource> tar_;
  const TarIndex index_;
};

}  // namespace

Result<std::unique_ptr<ImageFiles>> open_directory(const std::string& path, ChangeCheck check,
                                                   LogSink& log) {
  UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return fail_errno(Errc::unreadable, errno, fmt::format("open {}", path));
  return std::make_unique<DirectoryFiles>(std::move(directory), path, check, log);
}

void TarIndex::add_file(std::string_view path, Range bytes) {
  if (auto normal = normal_path(path)) entries_[std::move(*normal)] = {bytes, ""};
}

void TarIndex::add_hard_link(std::string_view path, std::string_view target) {
  auto normal = normal_path(path);
  if (!normal) return;
  // What leads out leads nowhere.
  entries_[std::move(*normal)] = {std::nullopt, normal_path(target).value_or("")};
}

void TarIndex::add_symlink(std::string_view path, std::string_view target) {
  const auto normal = normal_path(path);
  if (!normal) return;
  const std::string_view from = target.starts_with('/') ? std::string_view() : parent_path(*normal);
  add_hard_link(*normal, join_path(from, target));
}

std::optional<Range> TarIndex::find(std::string_view path) const {
  const auto normal = normal_path(path);
  if (!normal) return std::nullopt;
  auto at = entries_.find(*normal);
  for (int links = 0; at != entries_.end() && links < SymlinkWay::kMostSymlinks; ++links) {
    if (at->second.bytes) return at->second.bytes;
    at = entries_.find(at->second.target);
  }
  return std::nullopt;
}

std::unique_ptr<ImageFiles> make_tar_files(std::shared_ptr<ByteSource> tar, TarIndex index) {
  return std::make_unique<TarFiles>(std::move(tar), std::move(index));
}

}  // namespace mkvirtfs::oci
