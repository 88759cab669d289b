// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>

#include "fsgen/oci/document.h"

namespace mkvirtfs {

/// What a source turned out to be.
struct SourceFacts {
  std::string kind = "directory";  ///< or "archive", "disk image", "container image", "file"
  // Of an archive; of a disk image `format`, `access` and `spool_bytes`:
  std::string format{};           ///< "POSIX pax interchange format", "ext4"
  std::string compression{};      ///< "gzip", "none"
  std::string access{};           ///< how members are read: "direct", "indexed", "spooled"
  bool kept_index = false;        ///< found in the directory of kept indexes
  std::uint64_t index_bytes = 0;  ///< in memory, of a compressed stream
  std::uint64_t spool_bytes = 0;  ///< unpacked on disk because it cannot be made again
  // Of a container image, besides index_bytes and spool_bytes:
  std::string image_id{};  ///< the digest of its configuration
  std::string platform{};  ///< "linux/amd64"
  oci::Process process{};  ///< what a container runs
  std::uint64_t layer_count = 0;
  std::uint64_t packed_bytes = 0;  ///< of all layers, as they lie in the image
};

}  // namespace mkvirtfs
