// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/mtree_contents.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>
#include <unordered_map>
#include <utility>

#include "block/host_files.h"
#include "fsgen/archive/mtree.h"

namespace mkvirtfs::archive {
namespace {

/// The files that a manifest's tree has its bytes from, found again by their paths.
class MtreeFiles final : public HostFileTable {
 public:
  explicit MtreeFiles(ContentsDirectory directory) : directory_(std::move(directory)) {}

  Result<void> add(NodeNo no, const std::string& path, std::uint64_t size_bytes) {
    const Result<UniqueFd> file = directory_.open_file(path);
    if (!file) return propagate(file);
    struct stat status{};
    if (::fstat(file->get(), &status) != 0) {
      return fail_errno(Errc::unreadable, errno, fmt::format("look at {}", path));
    }
    const FileIdentity identity = identity_of(status);
    if (identity.size_bytes != size_bytes) {
      return fail(Errc::source_changed,
                  fmt::format("{} had {} bytes and has {}", path, size_bytes, identity.size_bytes));
    }
    files_.emplace(no, File{path, identity, facts_of(status)});
    return {};
  }

  FileIdentity identity(ContentNo file) const override { return at(file).identity; }
  Result<UniqueFd> open(ContentNo file) const override {
    return directory_.open_file(at(file).path);
  }
  std::string path(ContentNo file) const override { return at(file).path; }
  std::optional<FileFacts> facts(ContentNo file) const override { return at(file).facts; }
  std::size_t size() const noexcept { return files_.size(); }

 private:
  struct File {
    std::string path;
    FileIdentity identity;
    FileFacts facts;
  };

  const File& at(ContentNo file) const { return files_.at(node_no(file)); }

  const ContentsDirectory directory_;
  std::unordered_map<NodeNo, File> files_;
};

}  // namespace

Result<ContentsDirectory> ContentsDirectory::open(const std::string& path) {
  ContentsDirectory directory(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory.root_) return fail_errno(Errc::unreadable, errno, fmt::format("open {}", path));
  return directory;
}

Result<UniqueFd> ContentsDirectory::open_file(const std::string& path) const {
  if (path.starts_with('/')) {
    return fail(Errc::unreadable, fmt::format("{} is absolute, and contents are looked for "
                                              "beside the manifest alone",
                                              path));
  }
  auto file = opener_.open(root_.get(), path.c_str(), O_RDONLY | O_NONBLOCK);
  if (!file) return fail_errno(Errc::unreadable, file.error(), fmt::format("open {}", path));
  struct stat status{};
  if (::fstat(file->get(), &status) != 0) {
    return fail_errno(Errc::unreadable, errno, fmt::format("look at {}", path));
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(Errc::unreadable, fmt::format("{} is no regular file", path));
  }
  return std::move(*file);
}

Result<std::shared_ptr<ContentStore>> open_mtree_files(
    const std::shared_ptr<const SourceTree>& tree, const ContentPlaces& places,
    const std::string& directory, ChangeCheck check, LogSink& log) {
  Result<ContentsDirectory> contents = ContentsDirectory::open(directory);
  if (!contents) return propagate(contents);
  const auto files = std::make_shared<MtreeFiles>(std::move(*contents));
  for (NodeNo no; no < places.size(); ++no) {
    if (places.place(no) != MemberPlace::host) continue;
    Result<void> good = files->add(no, places.contents(no), tree->node(no).size_bytes);
    if (!good) {
      return propagate(good);
    }
  }
  return make_host_files(files, {OnChange::error, check}, log, files->size());
}

}  // namespace mkvirtfs::archive
