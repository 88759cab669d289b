// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <set>
#include <string>

#include "nbd/server/statistics.h"
#include "support/mutex.h"

namespace mkvirtfs::nbd {

/// Sums up what the connections of a server count, those that are gone included. Any thread.
class StatisticsKeeper {
 public:
  /// `meter` counts until it is removed.
  void add(const RequestMeter& meter);
  /// Keeps its numbers.
  void remove(const RequestMeter& meter) noexcept;

  /// By exports; the connections_ fields are not set.
  ServerStatistics statistics() const;

 private:
  void keep(const RequestMeter& meter) REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::set<const RequestMeter*> open_ GUARDED_BY(mutex_);
  // Of connections that are gone.
  std::map<std::string, ExportStatistics> kept_ GUARDED_BY(mutex_);
  ExportStatistics others_ GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs::nbd
