// SPDX-License-Identifier: BSD-3-Clause
// Workers take tasks from a stack (Walk): one lists a directory, or looks at some of its names
// (WalkWorker). What each finds becomes packed records in memory of its own, and xattrs in a pool
// of its own; the numbering comes later, by names alone, so that no trace of the order is left.
#include "fsgen/host/scan_walk.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>

#include "fsgen/host/walk.h"
#include "fsgen/host/walk_worker.h"
#include "support/parallel.h"
#include "support/worker_pool.h"

namespace mkvirtfs {
namespace {

constexpr unsigned kMostThreads = 16;  // more only meet on the kernel's locks

/// The one line that names what could not be read.
std::string unreadable_message(const ScanReport& report) {
  std::string what = fmt::format("{} {} cannot be read: ", report.unreadable_count,
                                 report.unreadable_count == 1 ? "entry" : "entries");
  what += fmt::format("{}", fmt::join(report.unreadable_paths, "; "));
  const std::uint64_t unnamed = report.unreadable_count - report.unreadable_paths.size();
  if (unnamed != 0) what += fmt::format("; and {} more", unnamed);
  return what;
}

ScanReport report_of(Walk& walk, const std::deque<WalkWorker>& workers) {
  ScanReport report;
  walk.report_troubles(report);
  if (walk.sync) report.unsynced = walk.sync->blind();
  report.outputs_met.resize(walk.options.outputs.size());
  for (const WalkWorker& worker : workers) {
    for (std::size_t i = 0; i < report.outputs_met.size(); ++i) {
      if (worker.outputs_met()[i]) report.outputs_met[i] = true;
    }
    report.vanished_count += worker.vanished;
    report.mount_points_not_entered += worker.mount_points;
    report.excluded_count += worker.excluded;
  }
  return report;
}

}  // namespace

WalkCounts& WalkCounts::operator+=(const WalkCounts& more) noexcept {
  entries += more.entries;
  directories += more.directories;
  linked += more.linked;
  name_bytes += more.name_bytes;
  symlinks += more.symlinks;
  target_bytes += more.target_bytes;
  data_runs += more.data_runs;
  return *this;
}

Result<WalkResult> walk_directory(UniqueFd root, const std::string& name,
                                  const ScanOptions& options, const EntryRules& rules,
                                  const ConfinedOpener& opener, const ScanTuning& tuning) {
  Walk walk(options, rules, opener, tuning, std::move(root));
  std::vector<WalkTask> first(1);
  first[0].directory = walk.root_directory.get();
  walk.add(std::move(first));

  const unsigned threads = thread_count(options.threads, kMostThreads);
  std::deque<WalkWorker> workers;
  for (std::uint32_t number = 0; number < threads; ++number) workers.emplace_back(walk, number);
  {
    WorkerPool pool(threads);
    const auto work = [&](unsigned number) { workers[number].run(WorkerThread::own); };
    if (start_crew(pool, threads, work) == 0) workers.front().run(WorkerThread::callers);
  }

  const Result<WalkCounts> counts = walk.counts();
  if (!counts) return std::unexpected(with_context(name, counts.error()));
  WalkResult result;
  result.report = report_of(walk, workers);
  if (result.report.unreadable_count != 0 && !options.skip_unreadable) {
    return fail(Errc::unreadable, fmt::format("{}: {}", name, unreadable_message(result.report)),
                {{{}, "as root"}, {"exclude"}, {"skip-unreadable"}});
  }
  result.counts = *counts;
  result.root_record = walk.root_record;
  result.root = std::move(walk.root_directory);
  for (WalkWorker& worker : workers) {
    result.own_directories = result.own_directories && worker.has_own_directory();
    result.directories.push_back(std::move(worker.directories()));
    result.xattrs.push_back(std::move(worker.xattrs()));
  }
  return result;
}

}  // namespace mkvirtfs
