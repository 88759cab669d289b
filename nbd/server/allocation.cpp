// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/allocation.h"

#include <bit>

#include "support/arithmetic.h"

namespace mkvirtfs::nbd {
namespace {

/// Gathers extents into runs. A hole is held back until its end is known.
class RunMaker {
 public:
  RunMaker(Range request, std::uint32_t block_bytes, std::size_t most_runs,
           std::vector<StatusRun>& runs)
      : request_(request),
        block_bytes_(block_bytes),
        most_runs_(runs.size() + most_runs),
        runs_(runs),
        reported_(request.offset),
        hole_{request.offset, 0} {}

  /// False once there are enough runs.
  bool add(const Extent& extent) {
    if (extent.kind == ExtentKind::hole) {
      if (hole_.length == 0) hole_.offset = extent.offset;
      hole_.length += extent.length;
    } else if (hole_.length != 0) {
      end_hole();
    }
    seen_ = extent.end();
    return runs_.size() < most_runs_;
  }

  /// Reports the rest. Before the end of the request this cuts the last run where the walk stopped.
  void finish() {
    if (hole_.length != 0) end_hole();
    if (reported_ < seen_) add_run(seen_, false);
  }

 private:
  void end_hole() {
    const Range hole = reportable_hole(hole_, request_, block_bytes_);
    hole_.length = 0;
    if (hole.length == 0) return;
    if (reported_ < hole.offset) add_run(hole.offset, false);
    add_run(hole.end(), true);
  }

  void add_run(std::uint64_t until, bool is_hole) {
    if (runs_.size() < most_runs_) {
      runs_.push_back({{reported_, until - reported_}, is_hole ? kStateHole | kStateZero : 0U});
    }
    reported_ = until;
  }

  const Range request_;
  const std::uint32_t block_bytes_;
  const std::size_t most_runs_;
  std::vector<StatusRun>& runs_;
  std::uint64_t reported_;  // everything before it is in a run
  std::uint64_t seen_ = 0;
  Range hole_;  // the hole the walk is in; empty while it is in data
};

class BaseAllocation final : public MetaContext {
 public:
  std::string_view name() const noexcept override { return kBaseAllocation; }
  void append_status(const BlockDevice& device, Range request, const StatusLimits& limits,
                     std::vector<StatusRun>& runs) const override {
    append_allocation(device, request, limits, runs);
  }
};

class BaseNamespace final : public MetaNamespace {
 public:
  std::string_view name() const noexcept override { return "base"; }
  std::optional<Feature> feature() const noexcept override { return Feature::extents; }
  void list(std::string_view query, QueriedExport&, ContextListing& listing) const override {
    if (query.empty() || query == kLeaf) listing.tell(kBaseAllocation);
  }
  std::shared_ptr<const MetaContext> select(std::string_view query, QueriedExport&) const override {
    return query == kLeaf ? allocation_ : nullptr;
  }

 private:
  static constexpr std::string_view kLeaf = "allocation";
  const std::shared_ptr<const MetaContext> allocation_ = make_base_allocation();
};

}  // namespace

std::shared_ptr<const MetaContext> make_base_allocation() {
  return std::make_shared<BaseAllocation>();
}

std::shared_ptr<const MetaNamespace> make_base_namespace() {
  return std::make_shared<BaseNamespace>();
}

std::uint32_t minimum_block_bytes(const Geometry& geometry) noexcept {
  return std::clamp(std::bit_floor(geometry.minimum_block_bytes), 1U, 65536U);
}

std::uint32_t allocation_block_bytes(const Geometry& geometry) noexcept {
  const std::uint32_t least = std::max(minimum_block_bytes(geometry), 512U);
  return std::clamp(std::bit_floor(geometry.preferred_block_bytes), least, 65536U);
}

Range reportable_hole(Range hole, Range request, std::uint32_t block_bytes) noexcept {
  assert(hole.offset >= request.offset && hole.end() <= request.end());
  const std::uint64_t block = block_bytes;
  const std::uint64_t from =
      hole.offset == request.offset ? hole.offset : round_up(hole.offset, block);
  const std::uint64_t to = hole.end() == request.end() ? hole.end() : round_down(hole.end(), block);
  return from < to ? Range{from, to - from} : Range{hole.offset, 0};
}

void append_allocation(const BlockDevice& device, Range request, const StatusLimits& limits,
                       std::vector<StatusRun>& runs) {
  assert(request.length > 0 && limits.most_runs > 0 && limits.most_extents > 0);
  std::size_t most_extents = limits.most_extents;
  RunMaker maker(request, allocation_block_bytes(device.geometry()), limits.most_runs, runs);
  for_each_extent(device, request,
                  [&](const Extent& extent) { return maker.add(extent) && --most_extents > 0; });
  maker.finish();
}

}  // namespace mkvirtfs::nbd
