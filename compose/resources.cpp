// SPDX-License-Identifier: BSD-3-Clause
#include "compose/resources.h"

namespace mkvirtfs {

std::string installed_reader_path() { return MKVIRTFS_INSTALLED_READER; }

Resources::Resources(ResourceOptions options)
    : options_(std::move(options)), made_pieces_(options_.index_directory) {}

bool Resources::is_canceled() const noexcept {
  return options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed);
}

std::shared_ptr<ChunkCache> Resources::cache(std::uint64_t capacity_bytes) {
  const MutexLock lock(mutex_);
  std::weak_ptr<ChunkCache>& known = caches_[capacity_bytes];
  std::shared_ptr<ChunkCache> cache = known.lock();
  if (!cache) known = cache = std::make_shared<ChunkCache>(capacity_bytes);
  return cache;
}

std::shared_ptr<SpoolSpace> Resources::spool_space(const std::string& directory,
                                                   std::uint64_t limit_bytes) {
  const MutexLock lock(mutex_);
  std::weak_ptr<SpoolSpace>& known = spools_[{directory, limit_bytes}];
  std::shared_ptr<SpoolSpace> space = known.lock();
  if (!space) known = space = std::make_shared<SpoolSpace>(directory, limit_bytes);
  return space;
}

}  // namespace mkvirtfs
