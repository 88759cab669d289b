// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsgen/oci/document.h"
#include "fsgen/oci/image_files.h"
#include "fsgen/oci/image_name.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/digest.h"
#include "support/error.h"

// Which layers a container image has, and where their bytes are: docs/oci.md.

namespace mkvirtfs::oci {

/// One layer's bytes as they lie in the image.
struct LayerBlob {
  std::shared_ptr<ByteSource> bytes;
  /// Of these bytes.
  std::optional<Digest> digest;
  /// Of what they unpack to.
  std::optional<Digest> diff_id;
};

struct ContainerImage {
  std::string name;  ///< "app.tar:latest"
  Platform platform;
  std::string id;  ///< the digest of the configuration
  Process process;
  std::vector<LayerBlob> layers;  ///< the lowest first
};

/// The layers of the image that `name` names. Of an index, the first image for `platform` is taken;
/// without a platform one for this host, or the only one that there is, for whatever it is made.
///
/// Manifests and configurations are read, and their digests verified. Layers are only opened: their
/// sizes are compared.
/// Errors: Errc::usage when the name or the platform leaves no choice or several (the text lists
/// them); Errc::unreadable for what is missing, damaged or contradicts itself; Errc::unsupported
/// for foreign layers and media types that are not known.
Result<ContainerImage> find_image(const ImageFiles& files, const ImageName& name,
                                  const std::optional<Platform>& platform);

}  // namespace mkvirtfs::oci
