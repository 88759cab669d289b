// SPDX-License-Identifier: BSD-3-Clause
#include "cli/prepared_image.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <utility>

#include "fsgen/iso9660/duplicates.h"

namespace mkvirtfs::cli {
namespace {

void raise_open_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // if not, there are fewer open files, and that is all
}

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

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

Result<PreparedImage> prepare_image(const SourceOptions& source, const ImageOptions& image,
                                    LogSink& log) {
  // All of the command line first: a typing error must not wait for a scan.
  Result<ScanOptions> scan_options = source.scan_options();
  if (!scan_options) return std::unexpected(scan_options.error());
  Result<PlanOptions> plan_options = image.plan_options();
  if (!plan_options) return std::unexpected(plan_options.error());
  if (!image.has_xattrs()) scan_options->xattrs = false;
  raise_open_file_limit();

  PreparedImage prepared;
  const Stopwatch scan_time;
  Result<LoadedSource> loaded = load_source(source.source, source, *scan_options, log);
  if (!loaded) return std::unexpected(std::move(loaded.error()));
  prepared.source = std::move(*loaded);
  prepared.scan_seconds = scan_time.seconds();
  tell_what_was_passed_over(prepared.source.report, log);

  const std::shared_ptr<const SourceTree>& tree = prepared.source.layer.tree;
  const std::shared_ptr<ContentStore>& store = prepared.source.layer.contents;
  const Stopwatch plan_time;
  if (image.dedupe()) {
    Result<std::vector<iso9660::Duplicate>> duplicates = iso9660::find_duplicates(*tree, *store);
    if (!duplicates) return std::unexpected(std::move(duplicates.error()));
    std::get<iso9660::Options>(*plan_options).duplicates = std::move(*duplicates);
  }
  Result<std::shared_ptr<const Image>> planned =
      std::visit([&](const auto& options) { return plan(tree, options); }, *plan_options);
  if (!planned) return std::unexpected(std::move(planned.error()));
  prepared.image = std::move(*planned);
  prepared.plan_seconds = plan_time.seconds();
  if (const std::string remark = prepared.image->remark(); !remark.empty()) {
    log.write(LogLevel::warning, remark + " (mkvirtfs inspect --differences lists them)");
  }
  log.write(LogLevel::debug,
            fmt::format("scanned {} nodes in {:.3f} s, planned in {:.3f} s", tree->node_count(),
                        prepared.scan_seconds, prepared.plan_seconds));
  prepared.device = std::make_shared<ImageDevice>(prepared.image, store);
  return prepared;
}

}  // namespace mkvirtfs::cli
