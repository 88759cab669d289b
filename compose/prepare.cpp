// SPDX-License-Identifier: BSD-3-Clause
// From a spec to an image: what can be wrong with the spec is looked for first, so that a typing
// error does not wait for a scan. Then each source is read, with a view of those below it, and laid
// over them; the merged tree is planned, and a device joins the plan and the files' bytes.
#include "compose/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compose/source_base.h"
#include "compose/source_loader.h"
#include "compose/source_name.h"
#include "compose/source_options.h"
#include "fsgen/oci/image_name.h"
#include "fsgen/tree/followed_symlinks.h"
#include "fsgen/tree/merge.h"
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

/// The path that a pattern may have meant, where it begins with that of a source or with "./"; ""
/// if it does not.
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

/// A pattern that no source has anything for was mistyped, or stands for a path of the host.
void remark_on_rules(const ImageSpec& spec, const std::vector<ScanOptions>& scans,
                     Remarks& remarks) {
  struct Use {
    const PathRule* rule;
    bool has_matched;
    std::string below;  // the path that the pattern may have meant
  };
  std::vector<Use> uses;
  for (std::size_t at = 0; at < scans.size(); ++at) {
    if (spec.sources[at].is_file) continue;
    const EntryOptions& entries = scans[at].entries;
    for (std::size_t no = 0; no < entries.rules.size(); ++no) {
      const PathRule& rule = entries.rules[no];
      auto use = std::ranges::find_if(uses, [&](const Use& known) { return *known.rule == rule; });
      if (use == uses.end()) use = uses.insert(uses.end(), {&rule, false, ""});
      use->has_matched = use->has_matched || entries.matches->has(no);
      if (std::string below = path_below(spec.sources[at].path, rule.glob); !below.empty()) {
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
void remark_on_archives(const ImageSpec& spec, Remarks& remarks) {
  for (const SourceSpec& source : spec.sources) {
    if (source.changes.on_change == OnChange::error || source.is_file ||
        is_directory_source(source.path)) {
      continue;
    }
    remarks.add(
        Remark::About::archive_changes, LogLevel::warning,
        fmt::format("{} is an archive: once it changes, reads of it are errors", source.path));
  }
}

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

ScanOptions scan_options(const SourceSpec& source, const ImageSpec& spec, bool format_has_xattrs,
                         const Resources& resources) {
  ScanOptions options;
  options.entries.rules = source.rules;
  options.entries.matches = std::make_shared<RuleMatches>(source.rules.size());
  options.entries.owner_uid = source.owner_uid;
  options.entries.owner_gid = source.owner_gid;
  options.entries.uid_map = source.uid_map;
  options.entries.gid_map = source.gid_map;
  options.entries.mode_mask = source.mode_mask;
  options.entries.xattrs = source.xattrs && format_has_xattrs;
  options.entries.lists_lost_xattrs = source.xattrs;
  options.entries.newest_mtime_s = spec.source_date_epoch_s;
  options.one_file_system = source.one_file_system;
  options.skip_unreadable = source.skip_unreadable;
  options.outputs = resources.outputs().find();
  options.sync_within = source.sync_within;
  options.threads = source.threads != 0 ? source.threads : resources.options().threads;
  options.keep_facts = spec.keep_base;
  return options;
}

/// The smallest number of threads that a source asks for.
unsigned planning_threads(const ImageSpec& spec, const Resources& resources) {
  unsigned least = 0;
  for (const SourceSpec& source : spec.sources) {
    if (source.threads != 0) {
      least = least == 0 ? source.threads : std::min(least, source.threads);
    }
  }
  return least != 0 ? least : resources.options().threads;
}

/// One call of prepare(). `doing` says at any time what is being done, for error_of_exception().
class Preparation {
 public:
  Preparation(const ImageSpec& spec, Resources& resources, std::string& doing)
      : spec_(spec), resources_(resources), remarks_(resources), doing_(doing) {}

  Result<PreparedImage> run();

 private:
  Result<void> check();
  Result<void> check_canceled() const;
  Result<void> read_sources(LayerStack& layers);
  Result<void> plan();
  void make_device();

  const ImageSpec& spec_;
  Resources& resources_;
  Remarks remarks_;
  std::string& doing_;

  bool format_has_xattrs_ = true;
  bool follows_symlinks_ = false;
  Planner planner_;
  std::optional<AttributeOverride> root_;
  std::shared_ptr<SourceBase> base_ = std::make_shared<SourceBase>();
  std::shared_ptr<ContentStore> contents_;
  PreparedImage prepared_;
};

Result<void> Preparation::check() {
  if (spec_.sources.empty()) return fail(Errc::usage, "an image needs a source");
  bool reads_standard_input = false;
  for (const SourceSpec& source : spec_.sources) {
    if (Result<void> good = check_source_path(source.path); !good) return good;
    if (Result<void> good = check_place(source.at); !good) return good;
    if (source.path == "-" && std::exchange(reads_standard_input, true)) {
      return fail(Errc::usage, "standard input can be read once, and two sources want it");
    }
  }
  const FormatRegistry& formats = *resources_.options().formats;
  const std::string_view name = formats.resolve(spec_.format, spec_.options);
  Result<Planner> planner = formats.configure(name, spec_.options);
  if (!planner) return propagate(planner);
  planner_ = std::move(*planner);
  const Format& format = *formats.find(name);
  format_has_xattrs_ = format.holds.xattrs;
  follows_symlinks_ = format.follows_symlinks != nullptr && format.follows_symlinks(spec_.options);
  Result<std::optional<AttributeOverride>> root = read_root(spec_.options);
  if (!root) return propagate(root);
  root_ = std::move(*root);
  return {};
}

Result<void> Preparation::check_canceled() const {
  if (!resources_.is_canceled()) return {};
  return fail_errno(Errc::io, ECANCELED, doing_);
}

Result<void> Preparation::read_sources(LayerStack& layers) {
  const Stopwatch time;
  std::vector<ScanOptions> scans;
  for (const SourceSpec& source : spec_.sources) {
    scans.push_back(scan_options(source, spec_, format_has_xattrs_, resources_));
  }
  remark_on_archives(spec_, remarks_);
  for (std::size_t at = 0; at < spec_.sources.size(); ++at) {
    const SourceSpec& source = spec_.sources[at];
    doing_ = "read " + source.path;
    if (Result<void> goes_on = check_canceled(); !goes_on) return goes_on;
    Result<LoadedSource> loaded =
        load_source(source, scans[at], at == 0 ? nullptr : &layers, resources_, remarks_);
    if (!loaded) return propagate(loaded);
    add(loaded->report, prepared_.report.passed_over);
    if (!source.is_file) remark_on_blobs(source.path, *loaded->layer.tree, remarks_);
    base_->sources.push_back(
        {{source.path, plain_place(loaded->at), loaded->root}, std::move(loaded->containers)});
    prepared_.report.sources.push_back(std::move(loaded->facts));
    Result<void> good = layers.add({std::move(loaded->layer), loaded->at, source.path});
    if (!good) return good;
  }
  if (root_) layers.set_root(*root_);
  doing_ = "merge the sources";
  Result<Layer> merged = std::move(layers).merge();
  if (!merged) return propagate(merged);
  // What an overlay's base is compared with are the sources, their symlinks included.
  base_->tree = merged->tree;
  base_->contents = merged->contents;
  if (follows_symlinks_) {
    doing_ = "follow symlinks";
    merged = follow_symlinks(*merged);
    if (!merged) return propagate(merged);
  }
  prepared_.tree = std::move(merged->tree);
  contents_ = std::move(merged->contents);
  prepared_.report.scan_seconds = time.seconds();
  remark_on_what_was_passed_over(prepared_.report.passed_over, remarks_);
  remark_on_rules(spec_, scans, remarks_);
  return {};
}

Result<void> Preparation::plan() {
  const Stopwatch time;
  doing_ = "plan the image";
  if (Result<void> goes_on = check_canceled(); !goes_on) return goes_on;
  Result<std::shared_ptr<const PlannedImage>> planned =
      planner_({.tree = prepared_.tree,
                .contents = contents_,
                .made_at_s = spec_.source_date_epoch_s,
                .threads = planning_threads(spec_, resources_),
                .remark = [this](std::string what) {
                  remarks_.add(Remark::About::seed_file, LogLevel::warning, std::move(what));
                }});
  if (!planned) return propagate(planned);
  for (const Setting& pattern : (*planned)->unmatched()) {
    std::string below;
    for (const SourceSpec& source : spec_.sources) {
      if (below.empty()) below = path_below(source.path, pattern.value);
    }
    remark_on_unmatched(pattern, below, remarks_);
  }
  const std::string gave_way = (*planned)->gave_way();
  std::string switched_on = (*planned)->switched_on();
  prepared_.image = std::move(*planned);
  prepared_.report.plan_seconds = time.seconds();
  if (std::string remark = prepared_.image->remark(); !remark.empty()) {
    remarks_.add(Remark::About::differences, LogLevel::warning, std::move(remark));
  }
  if (!switched_on.empty()) {
    remarks_.add(Remark::About::switched_on, LogLevel::warning, std::move(switched_on));
  }
  if (const std::string* size = spec_.options.find("size"); size != nullptr && !gave_way.empty()) {
    remarks_.add(Remark::About::gave_way, LogLevel::warning,
                 fmt::format("no room for what is there by default: {}", gave_way),
                 {"size", *size});
  }
  resources_.log().write(
      LogLevel::debug,
      fmt::format("scanned {} nodes in {:.3f} s, planned in {:.3f} s", prepared_.tree->node_count(),
                  prepared_.report.scan_seconds, prepared_.report.plan_seconds));
  return {};
}

void Preparation::make_device() {
  if (!spec_.keep_base) {
    prepared_.device = std::make_shared<ImageDevice>(prepared_.image, contents_);
    return;
  }
  base_->options = spec_.given_options;
  prepared_.device = std::make_shared<PreparedDevice>(prepared_.image, contents_, base_);
}

Result<PreparedImage> Preparation::run() {
  if (Result<void> good = check(); !good) return propagate(good);
  LayerStack layers;
  if (Result<void> good = read_sources(layers); !good) {
    return propagate(good);
  }
  if (Result<void> good = plan(); !good) return propagate(good);
  make_device();
  prepared_.report.remarks = remarks_.take();
  return std::move(prepared_);
}

}  // namespace

Result<PreparedImage> prepare(const ImageSpec& spec, Resources& resources) noexcept {
  std::string doing;  // no memory yet, so that nothing can throw out of here
  try {
    doing = "prepare the image";
    return Preparation(spec, resources, doing).run();
  } catch (...) {
    return std::unexpected(error_of_exception(doing));
  }
}

}  // namespace mkvirtfs
