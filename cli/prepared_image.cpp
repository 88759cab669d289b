// SPDX-License-Identifier: BSD-3-Clause
#include "cli/prepared_image.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/source_base.h"
#include "fsgen/oci/image_name.h"
#include "fsgen/tree/merge.h"
#include "support/message.h"

namespace mkvirtfs::cli {
namespace {

void tell_what_was_passed_over(const ScanReport& report, LogSink& log) {
  if (report.unreadable_count != 0) {
    std::string message = fmt::format(
        "{} left out because they could not be read:",
        report.unreadable_count == 1 ? std::string("1 entry was")
                                     : fmt::format("{} entries were", report.unreadable_count));
    for (const std::string& path : report.unreadable_paths) message += " " + path + ",";
    message.pop_back();
    if (report.unreadable_paths.size() < report.unreadable_count) message += ", ...";
    log.write(LogLevel::warning, message);
  }
  if (report.vanished_count != 0) {
    log.write(LogLevel::warning,
              fmt::format("{} entries vanished during the scan", report.vanished_count));
  }
  if (report.mount_points_not_entered != 0) {
    log.write(LogLevel::info, fmt::format("{} mounted file systems were not entered "
                                          "(--no-one-file-system does)",
                                          report.mount_points_not_entered));
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

/// Whoever shows the blobs of a container image may have meant its files.
void hint_at_image(const std::string& source, const SourceTree& tree, LogSink& log) {
  const auto has = [&](std::string_view name) { return tree.find_path(name) != nullptr; };
  const char* prefix = has("oci-layout") && has("index.json") && has("blobs") ? "oci"
                       : has("manifest.json") && has("repositories")          ? "docker-archive"
                                                                              : nullptr;
  if (prefix == nullptr || oci::parse_image_name(source)) return;
  log.write(LogLevel::info,
            fmt::format("{} is a container image, shown as the files that it is made of ({}:{} "
                        "shows its root file system)",
                        source, prefix, source));
}

/// An archive that changes can only be read wrongly: every member's place may be another. Who asked
/// for something else than errors is told so. No error by itself: other sources and other exports
/// may have the option for good reason.
void tell_of_archives(const SourceOptions& options, LogSink& log) {
  if (options.change_rules().on_change == OnChange::error) return;
  for (const PlacedSource& placed : options.sources) {
    if (is_directory_source(placed.source)) continue;
    log.write(LogLevel::warning, fmt::format("{} is an archive: once it changes, reads of it are "
                                             "errors, whatever --on-change says",
                                             placed.source));
  }
}

void add_new(std::vector<std::string> options, std::vector<std::string>& all) {
  for (std::string& option : options) {
    if (std::ranges::find(all, option) == all.end()) all.push_back(std::move(option));
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

}  // namespace

void raise_open_file_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // if not, there are fewer open files, and that is all
}

namespace {

/// The smallest --threads of all parts; 0 when none has one.
unsigned least_threads(std::span<const SourceOptions* const> parts) {
  unsigned least = 0;
  for (const SourceOptions* part : parts) {
    const unsigned threads = part->threads();
    if (threads != 0) least = least == 0 ? threads : std::min(least, threads);
  }
  return least;
}

/// `doing` says at any time what is being done, for who catches an exception.
Result<PreparedImage> prepare(std::span<const SourceOptions* const> parts,
                              const ImageOptions& image, LogSink& log,
                              const std::atomic<bool>* cancel, std::string& doing) {
  // All of the command line first: a typing error must not wait for a scan.
  std::vector<ScanOptions> scan_options;
  for (const SourceOptions* part : parts) {
    Result<ScanOptions> options = part->scan_options();
    if (!options) return propagate(options);
    options->entries.lists_lost_xattrs = options->entries.xattrs;
    if (!image.holds().xattrs) options->entries.xattrs = false;
    scan_options.push_back(std::move(*options));
  }
  const Result<Planner> planner = image.planner();
  if (!planner) return propagate(planner);
  const Result<std::optional<std::int64_t>> made_at_s = source_date_epoch();
  if (!made_at_s) return propagate(made_at_s);
  raise_open_file_limit();

  PreparedImage prepared;
  const Stopwatch scan_time;
  LayerStack layers;
  const auto base = std::make_shared<SourceBase>();
  bool keep_base = false;
  for (std::size_t at = 0; at < parts.size(); ++at) {
    tell_of_archives(*parts[at], log);
    keep_base |= parts[at]->keep_base;
    if (parts[at]->keep_base) add_new(parts[at]->given(), base->options);
    for (const PlacedSource& placed : parts[at]->sources) {
      doing = "read " + placed.source;
      Result<LoadedSource> loaded =
          load_source(placed, *parts[at], scan_options[at],
                      prepared.sources.empty() ? nullptr : &layers, log, cancel);
      if (!loaded) return propagate(loaded);
      add(loaded->report, prepared.report);
      hint_at_image(placed.source, *loaded->layer.tree, log);
      base->sources.push_back(
          {{placed.source, plain_place(placed.at), root_of_source(placed.source)},
           std::move(loaded->containers)});
      prepared.sources.push_back(std::move(loaded->facts));
      Result<void> good = layers.add({std::move(loaded->layer), placed.at, placed.source});
      if (!good) return propagate(good);
    }
  }
  doing = "merge the sources";
  Result<Layer> merged = std::move(layers).merge();
  if (!merged) return propagate(merged);
  prepared.tree = std::move(merged->tree);
  const std::shared_ptr<ContentStore> store = std::move(merged->contents);
  prepared.scan_seconds = scan_time.seconds();
  tell_what_was_passed_over(prepared.report, log);

  const Stopwatch plan_time;
  doing = "plan the image";
  Result<std::shared_ptr<const Image>> planned = (*planner)({.tree = prepared.tree,
                                                             .contents = store,
                                                             .made_at_s = *made_at_s,
                                                             .threads = least_threads(parts)});
  if (!planned) return propagate(planned);
  prepared.image = std::move(*planned);
  prepared.plan_seconds = plan_time.seconds();
  if (const std::string remark = prepared.image->remark(); !remark.empty()) {
    log.write(LogLevel::warning, remark + " (mkvirtfs inspect --differences lists them)");
  }
  log.write(LogLevel::debug,
            fmt::format("scanned {} nodes in {:.3f} s, planned in {:.3f} s",
                        prepared.tree->node_count(), prepared.scan_seconds, prepared.plan_seconds));
  if (keep_base) {
    base->tree = prepared.tree;
    base->contents = store;
    prepared.device = std::make_shared<PreparedDevice>(prepared.image, store, base);
  } else {
    prepared.device = std::make_shared<ImageDevice>(prepared.image, store);
  }
  return prepared;
}

}  // namespace

Result<PreparedImage> prepare_image(const SourceOptions& source, const ImageOptions& image,
                                    LogSink& log, const std::atomic<bool>* cancel) {
  const SourceOptions* const part = &source;
  return prepare_image(std::span(&part, 1), image, log, cancel);
}

Result<PreparedImage> prepare_image(std::span<const SourceOptions* const> parts,
                                    const ImageOptions& image, LogSink& log,
                                    const std::atomic<bool>* cancel) {
  std::string doing = "prepare the image";
  try {
    return prepare(parts, image, log, cancel, doing);
  } catch (...) {
    return std::unexpected(error_of_exception(doing));
  }
}

}  // namespace mkvirtfs::cli
