// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/archive/extracted_paths.h"
#include "fsgen/archive/layer_tree.h"
#include "fsgen/archive/member_log.h"
#include "fsgen/archive/member_path.h"
#include "fsgen/archive/symlink_walk.h"
#include "fsgen/tree/layer.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::archive {

/// What extracting all members into an empty directory would leave, one after the other. `members`
/// and `options` outlive it.
class Extraction {
 public:
  Extraction(const MemberLog& members, std::string_view name, const LayerOptions& options)
      : members_(members), name_(name), options_(options) {}

  Result<void> run(LogSink& log);

  const ExtractedPaths& paths() const noexcept { return paths_; }
  /// The member that made what is no directory, by ExtractedFileNo.
  std::span<const MemberLog::Position> files() const noexcept { return files_; }
  MemberLog::Position file(ExtractedFileNo no) const noexcept { return files_[no]; }
  /// The member that is the root; nullopt: none is.
  std::optional<MemberLog::Position> root() const noexcept { return root_; }
  /// Members that only change what is there, or of which not all attributes are known.
  std::span<const MemberLog::Position> overrides() const noexcept { return overrides_; }
  const std::vector<OutwardLink>& outward_links() const noexcept { return outward_links_; }
  /// A path of the archive as it stands in the whole: where symlinks lead, as they are in the end.
  Result<std::string> settled(const MemberPath& path);

 private:
  Result<void> take(MemberLog::Position at);
  Result<void> take_root(MemberLog::Position at);
  bool is_directory_in_part() const noexcept;
  Result<PathNo> parent();
  Result<PathNo> parent_beside_the_last();
  /// What a hard link names.
  struct Target {
    PathNo no = kNoPath;  ///< kNoPath: it is not in the archive
    std::string path;     ///< then, without symlinks
  };
  Result<Target> find(std::string_view target);
  PathNo find(std::span<const std::string_view> components) const;
  Result<WalkEnd> walk(std::span<const std::string_view> way, MissingDirectories missing) {
    return SymlinkWalk(paths_, files_, members_, options_, missing).run(way);
  }
  Result<void> put_directory(PathNo no, MemberLog::Position at);
  Result<void> put_file(PathNo no, ExtractedFileNo file);
  Result<void> put_link(PathNo no, MemberLog::Position at);
  Result<void> check_replaced(PathNo no);
  Result<void> resolve_links();
  Result<PathNo> resolve(PathNo first, std::vector<PathNo>& chain);
  void make_file(PathNo no, ExtractedFileNo file);
  Result<void> make_outward(PathNo no);
  void report(LogSink& log) const;
  std::unexpected<Error> wrong(std::string_view member, std::string_view what,
                               std::vector<Setting> hints = {}) const;
  /// Of an error whose words follow a name: "lies below lib, which is a symlink".
  std::unexpected<Error> wrong(std::string_view member, Error error) const {
    return wrong(member, error.what, std::move(error.hints));
  }

  const MemberLog& members_;
  const std::string name_;
  const LayerOptions& options_;

  ExtractedPaths paths_;
  std::vector<MemberLog::Position> files_;
  std::optional<MemberLog::Position> root_;
  std::vector<MemberLog::Position> overrides_;
  std::vector<OutwardLink> outward_links_;

  Member member_;
  MemberPath path_;  // of member_
  std::vector<PathNo> links_;
  // The last member's directory, because the next one is mostly beside it.
  std::string last_directory_;
  PathNo last_parent_ = kNoPath;
  std::uint64_t replaced_ = 0;
  std::uint64_t absolute_ = 0;
  std::uint64_t stripped_ = 0;
};

}  // namespace mkvirtfs::archive
