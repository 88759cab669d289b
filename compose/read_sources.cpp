// SPDX-License-Identifier: BSD-3-Clause
//
// Each source is read with a view of those below it, and laid over them. What can only be said once
// all sources of all volumes are read (a pattern that matched nothing anywhere) is said at the end.
#include "compose/read_sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>
#include <utility>

#include "compose/source_loader.h"
#include "fsgen/oci/image_name.h"
#include "fsgen/tree/followed_symlinks.h"
#include "fsgen/tree/source_differences.h"
#include "support/message.h"

namespace mkvirtfs {
namespace {

void remark_on_what_was_passed_over(const ScanReport& report, Remarks& remarks) {
  if (report.unreadable_count != 0) {
    std::string message =
        counted(report.unreadable_count, "entry was left out because it could not be read:",
                "entries were left out because they could not be read:");
    for (const std::string& path : report.unreadable_paths) message += " " + path + ",";
    message.pop_back();
    if (report.unreadable_paths.size() < report.unreadable_count) message += ", ...";
    remarks.add(Remark::About::unreadable, LogLevel::warning, std::move(message));
  }
  if (report.vanished_count != 0) {
    remarks.add(Remark::About::vanished, LogLevel::warning,
                counted(report.vanished_count, "entry", "entries") + " vanished during the scan");
  }
  if (report.mount_points_not_entered != 0) {
    remarks.add(Remark::About::mounts_not_entered, LogLevel::info,
                counted(report.mount_points_not_entered, "mounted file system was",
                        "mounted file systems were") +
                    " not entered");
  }
}

/// A pattern that no source has anything for was mistyped, or stands for a path of the host.
void remark_on_rules(const std::vector<ReadDirectory>& read, Remarks& remarks) {
  struct Use {
    const PathRule* rule;
    bool has_matched;
    std::string below;  // the path that the pattern may have meant
  };
  std::vector<Use> uses;
  for (const auto& [path, entries] : read) {
    for (std::size_t no = 0; no < entries.rules.size(); ++no) {
      const PathRule& rule = entries.rules[no];
      auto use = std::ranges::find_if(uses, [&](const Use& known) { return *known.rule == rule; });
      if (use == uses.end()) use = uses.insert(uses.end(), {&rule, false, ""});
      use->has_matched = use->has_matched || entries.matches->has(no);
      if (std::string below = path_below(path, rule.glob); !below.empty()) {
        use->below = std::move(below);
      }
    }
  }
  for (const Use& use : uses) {
    if (use.has_matched) continue;
    remark_on_unmatched({use.rule->include ? "include" : "exclude", use.rule->glob}, use.below,
                        remarks);
  }
}

/// Counts of several scans, and the first paths.
void add(const ScanReport& report, ScanReport& sum) {
  constexpr std::size_t kMostPaths = 100;
  sum.unreadable_count += report.unreadable_count;
  for (const std::string& path : report.unreadable_paths) {
    if (sum.unreadable_paths.size() == kMostPaths) break;
    sum.unreadable_paths.push_back(path);
  }
  sum.vanished_count += report.vanished_count;
  sum.mount_points_not_entered += report.mount_points_not_entered;
  sum.excluded_count += report.excluded_count;
}

/// A user who shows the blobs of a container image may have meant its files.
void remark_on_blobs(const std::string& source, const SourceTree& tree, Remarks& remarks) {
  const auto has = [&](std::string_view name) { return tree.find_path(name) != nullptr; };
  const char* prefix = has("oci-layout") && has("index.json") && has("blobs") ? "oci"
                       : has("manifest.json") && has("repositories")          ? "docker-archive"
                                                                              : nullptr;
  if (prefix == nullptr || oci::parse_image_name(source)) return;
  remarks.add(Remark::About::container_image, LogLevel::info,
              fmt::format("{} is a container image, shown as the files that it is made of ({}:{} "
                          "shows its root file system)",
                          source, prefix, source));
}

/// An archive that changes can only be read wrongly: every member's place may be another. It is a
/// remark and no error: other sources and other exports may have the rule for good reason.
void remark_on_archives(std::span<const SourceSpec> sources, Remarks& remarks) {
  for (const SourceSpec& source : sources) {
    if (source.changes.on_change == OnChange::error || source.is_file ||
        is_directory_source(source.path)) {
      continue;
    }
    remarks.add(
        Remark::About::archive_changes, LogLevel::warning,
        fmt::format("{} is an archive: once it changes, reads of it are errors", source.path));
  }
}

ScanOptions scan_options(const SourceSpec& source, const ReadSettings& settings,
                         const Resources& resources) {
  ScanOptions options;
  options.entries.rules = source.rules;
  options.entries.matches = std::make_shared<RuleMatches>(source.rules.size());
  options.entries.owner_uid = source.owner_uid;
  options.entries.owner_gid = source.owner_gid;
  options.entries.uid_map = source.uid_map;
  options.entries.gid_map = source.gid_map;
  options.entries.mode_mask = source.mode_mask;
  options.entries.xattrs = source.xattrs && settings.has_xattrs;
  options.entries.lists_lost_xattrs = source.xattrs;
  options.entries.newest_mtime_s = settings.source_date_epoch_s;
  options.one_file_system = source.one_file_system;
  options.skip_unreadable = source.skip_unreadable;
  options.outputs = resources.outputs().find();
  options.sync_within = source.sync_within;
  options.threads = source.threads != 0 ? source.threads : resources.options().threads;
  options.keep_facts = settings.keep_facts;
  return options;
}

}  // namespace

Result<void> ReadSources::add(Layer layer, std::string name) {
  layers.push_back({std::move(layer), "", std::move(name)});
  LayerStack stack;
  for (const PlacedLayer& each : layers) {
    if (Result<void> good = stack.add(each); !good) return good;
  }
  if (settings.root) stack.set_root(*settings.root);
  Result<Layer> merged = std::move(stack).merge();
  if (!merged) return propagate(merged);
  return take(*std::move(merged));
}

Result<void> ReadSources::take(Layer merged) {
  if (settings.follows_symlinks) {
    Result<FollowedTree> result = follow_symlinks(merged);
    if (!result) return propagate(result);
    merged = std::move(result->layer);
    followed = std::move(result->links);
  }
  tree = std::move(merged.tree);
  contents = std::move(merged.contents);
  return {};
}

std::string path_below(std::string_view source, std::string_view glob) {
  while (source.ends_with('/')) source.remove_suffix(1);
  if (glob.starts_with("./")) return std::string(glob.substr(1));
  const bool names_source = glob.starts_with(source) && glob.substr(source.size()).starts_with('/');
  return std::string(names_source ? glob.substr(source.size()) : "");
}

void remark_on_unmatched(const Setting& pattern, const std::string& below, Remarks& remarks) {
  std::string what = "no entry matches";
  if (!below.empty()) what += fmt::format(" (paths begin below the source, as in {})", below);
  remarks.add(Remark::About::unmatched_rule, LogLevel::warning, std::move(what), pattern);
}

SourceReader::SourceReader(Resources& resources, Remarks& remarks, std::string& doing)
    : resources_(resources), remarks_(remarks), doing_(doing) {}

Result<LoadedSource> SourceReader::load(const SourceSpec& source, const ReadSettings& settings,
                                        const LayersBelow* below) {
  doing_ = "read " + source.path;
  if (resources_.is_canceled()) return fail_errno(Errc::io, ECANCELED, doing_);
  ScanOptions scan = scan_options(source, settings, resources_);
  Result<LoadedSource> loaded = load_source(source, scan, below, resources_, remarks_);
  if (!loaded) return loaded;
  add(loaded->report, passed_over_);
  if (!source.is_file) directories_.push_back({source.path, std::move(scan.entries)});
  return loaded;
}

Result<ReadSources> SourceReader::read(std::span<const SourceSpec> sources,
                                       const ReadSettings& settings) {
  remark_on_archives(sources, remarks_);
  ReadSources read;
  LayerStack layers;
  for (const SourceSpec& source : sources) {
    Result<LoadedSource> loaded = load(source, settings, read.bases.empty() ? nullptr : &layers);
    if (!loaded) return propagate(loaded);
    if (!source.is_file) remark_on_blobs(source.path, *loaded->layer.tree, remarks_);
    read.bases.push_back(
        {{source.path, plain_place(loaded->at), loaded->root}, std::move(loaded->containers)});
    read.facts.push_back(std::move(loaded->facts));
    read.layers.push_back({std::move(loaded->layer), loaded->at, source.path});
    Result<void> good = layers.add(read.layers.back());
    if (!good) return propagate(good);
  }
  read.settings = settings;
  if (settings.root) layers.set_root(*settings.root);
  doing_ = "merge the sources";
  Result<Layer> merged = std::move(layers).merge();
  if (!merged) return propagate(merged);
  read.base_tree = merged->tree;
  read.base_contents = merged->contents;
  if (settings.follows_symlinks) doing_ = "follow symlinks";
  if (Result<void> good = read.take(*std::move(merged)); !good) return propagate(good);
  return read;
}

ScanReport SourceReader::finish() {
  remark_on_what_was_passed_over(passed_over_, remarks_);
  remark_on_rules(directories_, remarks_);
  return std::move(passed_over_);
}

}  // namespace mkvirtfs
