// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block/content.h"
#include "block/image.h"
#include "block/overlay/base_manifest.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs {

/// A file of a source that holds many files of the image: an archive, a layer of a container image.
struct ContainerFile {
  std::string path;  ///< below the root of its source
  std::shared_ptr<ByteSource> bytes;
  bool is_lasting = true;  ///< a regular file of the host, and not what came through a pipe
};

/// What an image was made of, for the manifest of an overlay that outlives its server.
struct SourceBase {
  struct Source {
    BaseSource place;
    std::vector<ContainerFile> containers;
  };
  std::vector<std::string> options;  ///< as in BaseHead
  std::vector<Source> sources;
  std::shared_ptr<const SourceTree> tree;
  std::shared_ptr<ContentStore> contents;

  BaseHead head(const ImageId& id) const;
};

/// The entries of a manifest as they are now.
class SourceBaseEntries final : public BaseEntries {
 public:
  /// `base` outlives it.
  explicit SourceBaseEntries(const SourceBase& base) : base_(base) {}

  Result<bool> next(BaseEntry& entry) override;
  /// Of what next() gave last: reads all of it. Errors: those of reading.
  Result<ContentDigest> digest() const;
  /// Whether what next() gave last can be found again, so that a change of it is seen.
  bool is_lasting() const;

 private:
  bool next_container(BaseEntry& entry);
  void read_node(NodeNo no, BaseEntry& entry);

  const SourceBase& base_;
  std::size_t source_ = 0;
  std::size_t container_ = 0;  // of the source: the one that comes next
  const ContainerFile* given_ = nullptr;
  NodeNo next_node_{};
  std::uint32_t directory_ = 0;  // whose path is prefix_
  std::string prefix_;
};

/// A device of an image that knows what the image was made of.
class PreparedDevice final : public ImageDevice {
 public:
  PreparedDevice(std::shared_ptr<const Image> image, std::shared_ptr<ContentStore> contents,
                 std::shared_ptr<const SourceBase> base)
      : ImageDevice(std::move(image), std::move(contents)), base_(std::move(base)) {}

  const SourceBase& base() const noexcept { return *base_; }

 private:
  const std::shared_ptr<const SourceBase> base_;
};

/// Whether prepare() takes the path of a source for a host directory: also what is not there.
bool is_directory_source(const std::string& path);
/// The host directory in which the files of a source lie, absolute; "" for standard input.
std::string root_of_source(const std::string& path);
/// A path in an image without slashes at either end, and without double ones.
std::string plain_place(const std::string& at);

}  // namespace mkvirtfs
