// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/allocation_depth.h"

#include <algorithm>

namespace mkvirtfs::nbd {
namespace {

class AllocationDepth final : public MetaContext {
 public:
  std::string_view name() const noexcept override { return kAllocationDepth; }

  void append_status(const BlockDevice& device, Range request, const StatusLimits& limits,
                     std::vector<StatusRun>& runs) const override {
    const std::size_t before = runs.size();
    std::size_t extents_left = limits.most_extents;
    for_each_extent(device, request, [&](const Extent& extent) {
      const std::uint32_t depth = extent.layer + 1U;
      if (runs.size() > before && runs.back().flags == depth) {
        runs.back().range.length += extent.length;
      } else if (runs.size() - before == limits.most_runs) {
        return false;
      } else {
        runs.push_back({{extent.offset, extent.length}, depth});
      }
      return --extents_left > 0;
    });
  }
};

class QemuNamespace final : public MetaNamespace {
 public:
  std::string_view name() const noexcept override {
    return kAllocationDepth.substr(0, kAllocationDepth.find(':'));
  }
  void list(std::string_view query, QueriedExport& exported,
            ContextListing& listing) const override {
    if ((query.empty() || query == leaf()) && is_layered(exported)) listing.tell(kAllocationDepth);
  }
  std::shared_ptr<const MetaContext> select(std::string_view query,
                                            QueriedExport& exported) const override {
    return query == leaf() && is_layered(exported) ? depth_ : nullptr;
  }

 private:
  static std::string_view leaf() { return kAllocationDepth.substr(kAllocationDepth.find(':') + 1); }
  static bool is_layered(QueriedExport& exported) {
    const Result<Export> opened = exported.open();
    return opened && opened->device->geometry().overlays > 0;
  }

  const std::shared_ptr<const MetaContext> depth_ = make_allocation_depth();
};

}  // namespace

std::shared_ptr<const MetaContext> make_allocation_depth() {
  return std::make_shared<AllocationDepth>();
}

Result<void> add_allocation_depth(Extensions& extensions) {
  return extensions.add_namespace(std::make_shared<QemuNamespace>());
}

}  // namespace mkvirtfs::nbd
