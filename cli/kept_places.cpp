// SPDX-License-Identifier: BSD-3-Clause
#include "cli/kept_places.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <boost/filesystem/operations.hpp>
#include <boost/filesystem/path.hpp>
#include <optional>
#include <utility>

#include "compose/source_base.h"
#include "fsgen/tree/entry_rules.h"

namespace mkvirtfs::cli {
namespace {

namespace fs = boost::filesystem;

/// A path without symlinks; what of it is not there yet stays as it is.
fs::path resolved(std::string text) {
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  const fs::path path(text);
  boost::system::error_code error;
  const fs::path real = fs::weakly_canonical(fs::absolute(path), error);
  return error ? fs::absolute(path).lexically_normal() : real;
}

/// `path` below `root`; nothing when it is not there or the root itself is not above it. "" is the
/// root.
std::optional<fs::path> below(const fs::path& path, const fs::path& root) {
  auto part = path.begin();
  for (const fs::path& of_root : root) {
    if (part == path.end() || *part != of_root) return std::nullopt;
    ++part;
  }
  fs::path rest;
  for (; part != path.end(); ++part) rest /= *part;
  return rest;
}

/// The number of the mount that a directory is on; 0 when the kernel does not tell.
std::uint64_t mount_of(const fs::path& path) {
  struct statx status{};
  if (::statx(AT_FDCWD, path.c_str(), AT_NO_AUTOMOUNT, STATX_MNT_ID, &status) != 0) return 0;
  return (status.stx_mask & STATX_MNT_ID) != 0 ? status.stx_mnt_id : 0;
}

/// Whether the scan of `root` shows the directory at `path` below it.
bool is_shown(const fs::path& root, const fs::path& path, const SourceSpec& source,
              const EntryRules& rules) {
  std::string directory;
  fs::path at = root;
  for (const fs::path& name : path) {
    if (!rules.takes(directory, name.string(), EntryKind::directory)) return false;
    directory += name.string() + '/';
    at /= name;
    if (source.one_file_system && mount_of(at) != 0 && mount_of(at) != mount_of(root)) return false;
  }
  return true;
}

/// The root of the source that shows the directory, the path of which is resolved.
Result<std::optional<fs::path>> source_around(std::span<const SourceSpec> sources,
                                              const fs::path& directory) {
  for (const SourceSpec& source : sources) {
    if (!is_directory_source(source.path)) continue;
    EntryOptions entries;
    entries.rules = source.rules;
    const Result<EntryRules> rules = EntryRules::make(entries);
    if (!rules) return propagate(rules);
    fs::path root = resolved(source.path);
    const auto path = below(directory, root);
    if (path && is_shown(root, *path, source, *rules)) return root;
  }
  return std::nullopt;
}

}  // namespace

Result<void> check_outside_source(std::span<const SourceSpec> sources,
                                  std::span<const KeptPlace> places) {
  for (const KeptPlace& place : places) {
    const fs::path path = resolved(place.path);
    const auto around = source_around(sources, place.is_directory ? path : path.parent_path());
    if (!around) return propagate(around);
    if (!*around) continue;
    const fs::path& root = **around;
    const fs::path parent = root.parent_path();
    const fs::path other =
        parent / (place.is_directory && path == root ? fs::path("overlays") : path.filename());
    bool is_free = !parent.empty() && other != path;
    if (is_free) {
      const auto around_other = source_around(sources, parent);
      is_free = around_other && !*around_other;
    }
    return fail(
        Errc::usage,
        fmt::format("{}={} lies in the source {}: each start changes the time of its directory, "
                    "so that the kept overlay would find another image; {}",
                    place.option, place.path, root.string(),
                    is_free ? fmt::format("use another place, such as {}{}", other.string(),
                                          place.is_directory ? "/" : "")
                            : "use a directory that --exclude leaves out"));
  }
  return {};
}

}  // namespace mkvirtfs::cli
