// SPDX-License-Identifier: BSD-3-Clause
//
// Options and tree become parameters, the tree its contents, and the contents are measured once.
// The sizer then finds a volume in which they have room, and the image shows it.
#include "fsgen/ext2/plan.h"

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "fsgen/ext2/ext2_image.h"
#include "fsgen/ext2/sizer.h"
#include "fsgen/ext2/volume.h"

namespace mkvirtfs::ext2 {

Result<std::shared_ptr<const PlannedImage>> plan(std::shared_ptr<const SourceTree> tree,
                                                 const Options& options) {
  const Result<Parameters> parameters = resolve(options, *tree);
  if (!parameters) return propagate(parameters);
  Result<std::unique_ptr<const Contents>> contents =
      Contents::make(std::move(tree), *parameters, options.threads);
  if (!contents) return propagate(contents);

  const Sizer sizer(**contents, options);
  const std::uint32_t block_bytes = parameters->block_bytes;
  if (options.inodes && *options.inodes < (*contents)->numbers.last().value()) {
    return std::unexpected(
        Error{Errc::does_not_fit,
              0,
              fmt::format("the source needs {}", (*contents)->numbers.last().value()),
              {"inodes", std::to_string(*options.inodes)}});
  }

  if (!options.size_bytes) {
    auto volume = options.smallest ? sizer.smallest() : sizer.with_free_space();
    if (!volume) return propagate(volume);
    const std::uint64_t size_bytes = (*volume)->layout().block_count() * block_bytes;
    return std::make_shared<Ext2Image>(std::move(*contents), std::move(*volume), size_bytes,
                                       std::string());
  }

  const std::uint64_t blocks = *options.size_bytes / block_bytes;
  if (blocks > sizer.most_blocks()) {
    std::vector<Setting> ways;
    if (parameters->variant != Variant::ext4) ways = {{"fs", "ext4"}};
    return std::unexpected(
        Error{Errc::does_not_fit,
              0,
              fmt::format("with {}-byte blocks and these features an image ends at {} bytes",
                          block_bytes, sizer.most_blocks() * block_bytes),
              {"size", std::to_string(*options.size_bytes)},
              std::move(ways)});
  }
  auto sized = sizer.exactly(blocks);
  if (!sized) return propagate(sized);
  return std::make_shared<Ext2Image>(std::move(*contents), std::move(sized->volume),
                                     *options.size_bytes, std::move(sized->gave_way));
}

}  // namespace mkvirtfs::ext2
