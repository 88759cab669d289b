// SPDX-License-Identifier: BSD-3-Clause
//
// An image seen through a sorted list of patches. A range without a patch is mapped by the image
// alone; else each of its extents is cut where a patch begins or ends, and the patch put between.
#include "fsgen/image/patched_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <span>
#include <string_view>
#include <utility>

namespace mkvirtfs {
namespace {

constexpr std::string_view kPatchCount = "patch_count";

std::uint64_t end_of(const Patch& patch) noexcept { return patch.offset + patch.bytes.size(); }

class PatchedImage final : public PlannedImage {
 public:
  PatchedImage(std::shared_ptr<const PlannedImage> image, std::vector<Patch> patches)
      : image_(std::move(image)), patches_(std::move(patches)) {}

  std::uint64_t size_bytes() const noexcept override { return image_->size_bytes(); }
  std::uint32_t block_bytes() const noexcept override { return image_->block_bytes(); }
  std::uint32_t minimum_block_bytes() const noexcept override {
    return image_->minimum_block_bytes();
  }
  std::uint32_t preferred_block_bytes() const noexcept override {
    return image_->preferred_block_bytes();
  }
  void map(Range range, ExtentSink& sink) const override;
  Result<void> compute(std::uint64_t offset, std::span<std::byte> out,
                       ContentStore& contents) const override {
    return image_->compute(offset, out, contents);
  }
  bool has_derived() const noexcept override { return image_->has_derived(); }
  void derived_from(Range range, ContentRangeSink& sink) const override {
    image_->derived_from(range, sink);
  }
  std::string describe(std::uint64_t offset) const override;
  std::uint64_t described_end(std::uint64_t offset) const override;
  std::string volume_id() const override { return image_->volume_id(); }
  std::vector<ImageFact> facts() const override;
  std::string remark() const override { return image_->remark(); }
  std::string gave_way() const override { return image_->gave_way(); }
  std::string switched_on() const override { return image_->switched_on(); }
  void differences(DifferenceSink& sink) const override { image_->differences(sink); }
  std::vector<Setting> unmatched() const override { return image_->unmatched(); }

  const SourceTree& tree() const noexcept override { return image_->tree(); }
  DataPlacement data_at(std::string_view path) const override { return image_->data_at(path); }
  std::vector<Range> structure(std::string_view name, std::uint64_t number) const override {
    return image_->structure(name, number);
  }
  std::span<const std::string_view> structure_names() const noexcept override {
    return image_->structure_names();
  }

 private:
  using Iterator = std::vector<Patch>::const_iterator;

  /// The first patch that ends behind `offset`.
  Iterator first_behind(std::uint64_t offset) const noexcept {
    return std::ranges::upper_bound(patches_, offset, {}, end_of);
  }

  std::shared_ptr<const PlannedImage> image_;
  std::vector<Patch> patches_;  // sorted, disjoint, none is empty
};

void PatchedImage::map(Range range, ExtentSink& sink) const {
  Iterator patch = first_behind(range.offset);
  std::uint64_t at = range.offset;
  bool goes_on = true;
  while (goes_on && at < range.end()) {
    if (patch != patches_.end() && patch->offset <= at) {
      const Extent memory{.offset = patch->offset,
                          .length = patch->bytes.size(),
                          .kind = ExtentKind::memory,
                          .memory = patch->bytes.data()};
      const Extent part = memory.clipped(at, range.end());
      goes_on = sink.extent(part);
      at = part.end();
      ++patch;
      continue;
    }
    const std::uint64_t end =
        patch == patches_.end() ? range.end() : std::min(patch->offset, range.end());
    for_each_extent(*image_, {at, end - at},
                    [&](const Extent& extent) { return goes_on = sink.extent(extent); });
    at = end;
  }
}

std::string PatchedImage::describe(std::uint64_t offset) const {
  const Iterator patch = first_behind(offset);
  if (patch == patches_.end() || patch->offset > offset) return image_->describe(offset);
  return fmt::format("patch{}{}, at {}", patch->what.empty() ? "" : ": ", patch->what,
                     offset - patch->offset);
}

std::uint64_t PatchedImage::described_end(std::uint64_t offset) const {
  const Iterator patch = first_behind(offset);
  if (patch == patches_.end()) return image_->described_end(offset);
  return patch->offset > offset ? std::min(image_->described_end(offset), patch->offset)
                                : end_of(*patch);
}

std::vector<ImageFact> PatchedImage::facts() const {
  std::vector<ImageFact> facts = image_->facts();
  const auto count = std::ranges::find(facts, kPatchCount, &ImageFact::name);
  std::uint64_t patches = patches_.size();
  if (count == facts.end()) {
    facts.push_back({std::string(kPatchCount), patches});
  } else {
    count->value = std::get<std::uint64_t>(count->value) + patches;
  }
  return facts;
}

}  // namespace

Result<std::shared_ptr<const PlannedImage>> patched(std::shared_ptr<const PlannedImage> image,
                                                    std::vector<Patch> patches) {
  std::erase_if(patches, [](const Patch& patch) { return patch.bytes.empty(); });
  std::ranges::sort(patches, {}, &Patch::offset);
  const std::uint64_t size_bytes = image->size_bytes();
  std::uint64_t done = 0;
  for (const Patch& patch : patches) {
    if (patch.offset < done || patch.offset > size_bytes ||
        patch.bytes.size() > size_bytes - patch.offset) {
      return fail(Errc::usage, fmt::format("a patch of {} bytes at {} lies over another one, or "
                                           "behind the image's end at {}",
                                           patch.bytes.size(), patch.offset, size_bytes));
    }
    done = end_of(patch);
  }
  return std::make_shared<PatchedImage>(std::move(image), std::move(patches));
}

}  // namespace mkvirtfs
