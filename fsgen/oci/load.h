// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsgen/archive/index_cache.h"
#include "fsgen/archive/layer_tree.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/oci/document.h"
#include "fsgen/oci/image_name.h"
#include "fsgen/stream/compressed.h"
#include "fsgen/tree/layer.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::oci {

struct LoadOptions {
  std::optional<Platform> platform;
  /// Verify layers that are not compressed, whose bytes are read for nothing else. Layers that are
  /// unpacked are hashed as they go by in any case.
  bool verify_direct = true;
  archive::ReadOptions read;
  /// The memory for indexes, and the threads, are shared out among the layers.
  StreamOptions stream;
  archive::LayerOptions layer;
  /// For the indexes of compressed layers; none: they are made each time. Digests are verified
  /// either way.
  std::shared_ptr<const archive::IndexCache> index_cache;
};

/// The root file system of a container image: its layers, merged.
struct LoadedImage {
  Layer layer;
  std::string name;  ///< "app.tar:latest"
  std::string id;    ///< the digest of its configuration
  Platform platform;
  Process process;
  std::uint64_t layer_count = 0;
  std::uint64_t packed_bytes = 0;  ///< of all layers, as they lie in the image
  std::uint64_t index_bytes = 0;   ///< in memory, of the layers that are compressed
  std::uint64_t spool_bytes = 0;   ///< of layers, or of all, if it cannot be read otherwise
  std::uint64_t excluded_count = 0;
  /// The files of the host that it was read from: its layers, or the one file that holds it all.
  std::vector<std::shared_ptr<ByteSource>> files;
};

/// Finds the image, reads its layers, applies whiteouts and merges. Layers that are compressed are
/// decoded once, for their indexes; others stay where they lie. docs/oci.md has
/// the rules. `log` must outlive the layer.
///
/// As many layers as `options.stream.threads` says are read at a time, up to four; 0 stands for one
/// a processor. The lowest one's error is the result.
///
/// `options.layer.below` and `at` are what the image is laid over.
///
/// Errors: those of find_image(), read_archive(), make_layer() and LayerStack; a layer whose
/// digest is another is Errc::unreadable.
Result<LoadedImage> load_image(const ImageName& name, const LoadOptions& options, LogSink& log);

}  // namespace mkvirtfs::oci
