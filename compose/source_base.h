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

/// A file of the host that is no file of the sources, and of which the image is made all the same:
/// an archive, a layer of a container image, a loader of the user's own.
struct ContainerFile {
  std::string path;  ///< below the root of its source
  std::shared_ptr<ByteSource> bytes;
  bool is_lasting = true;  ///< a regular file of the host, and not what came through a pipe
};

/// A file of a store as one.
ContainerFile container_of(std::string path, std::shared_ptr<ContentStore> store, ContentNo content,
                           std::uint64_t size_bytes);

/// What an image was made of, for the manifest of an overlay that outlives its server.
struct SourceBase {
  struct Source {
    BaseSource place;
    std::vector<ContainerFile> containers;
  };
  /// A file system of the image, which is made of some of the sources.
  struct Volume {
    /// What stands before its paths: "" of an image that is one file system, "2" of a disk's second
    /// partition. All of one image are of the same depth.
    std::string prefix;
    std::shared_ptr<const SourceTree> tree;
    std::shared_ptr<ContentStore> contents;
    std::size_t first_source = 0;  ///< number 0 of its contents
    std::size_t source_count = 0;  ///< a higher number is of what was added to the sources
  };
  std::vector<std::string> options;  ///< as in BaseHead
  std::vector<Source> sources;
  std::vector<Volume> volumes;

  /// A volume of these sources, which stand below the prefix.
  void add(std::vector<Source> sources, Volume volume);

  BaseHead head(const ImageId& id) const;
};

/// The entries of a manifest as they are now.
class SourceBaseEntries final : public BaseEntries {
 public:
  /// `base` outlives it.
  explicit SourceBaseEntries(const SourceBase& base);

  Result<bool> next(BaseEntry& entry) override;
  /// Of what next() gave last: reads all of it. Errors: those of reading.
  Result<ContentDigest> digest() const;
  /// Whether what next() gave last can be found again, so that a change of it is seen.
  bool is_lasting() const;

 private:
  /// A way through the nodes of a volume.
  struct Walk {
    const SourceBase::Volume* volume = nullptr;
    NodeNo next_node{};
    std::uint32_t directory = 0;  // whose path is directory_path
    std::string directory_path;
    BaseEntry entry;  // of the node before next_node
    bool has_entry = false;
  };

  bool next_container(BaseEntry& entry);
  void step(Walk& walk) const;
  void read_node(Walk& walk, NodeNo no) const;

  const SourceBase& base_;
  std::size_t source_ = 0;
  std::size_t container_ = 0;  // of the source: the one that comes next
  const ContainerFile* given_ = nullptr;
  std::vector<Walk> walks_;
  const Walk* given_from_ = nullptr;
  NodeNo given_node_{};
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
