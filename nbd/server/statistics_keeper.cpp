// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/statistics_keeper.h"

#include <new>
#include <utility>

namespace mkvirtfs::nbd {

void StatisticsKeeper::add(const RequestMeter& meter) {
  const MutexLock lock(mutex_);
  open_.insert(&meter);
}

void StatisticsKeeper::remove(const RequestMeter& meter) noexcept {
  const MutexLock lock(mutex_);
  if (open_.erase(&meter) == 0 || !meter.has_begun()) return;
  try {
    keep(meter);
  } catch (const std::bad_alloc&) {
    // Where there is no memory, the numbers of one client are the least that is lost.
  }
}

void StatisticsKeeper::keep(const RequestMeter& meter) {
  ExportStatistics gone = meter.statistics();
  gone.connections_open = 0;
  const auto found = kept_.find(gone.name);
  if (found != kept_.end()) {
    found->second += gone;
  } else if (kept_.size() < ServerStatistics::kMostExports) {
    std::string name = gone.name;
    kept_.emplace(std::move(name), std::move(gone));
  } else {
    others_ += gone;
  }
}

ServerStatistics StatisticsKeeper::statistics() const {
  ServerStatistics result;
  std::map<std::string, ExportStatistics> exports;
  {
    const MutexLock lock(mutex_);
    result.others = others_;
    exports = kept_;
    for (const RequestMeter* const meter : open_) {
      if (!meter->has_begun()) continue;
      ExportStatistics& exported = exports[meter->export_name()];
      exported.name = meter->export_name();
      exported += meter->statistics();
    }
  }
  result.exports.reserve(exports.size());
  for (auto& [name, exported] : exports) result.exports.push_back(std::move(exported));
  return result;
}

}  // namespace mkvirtfs::nbd
