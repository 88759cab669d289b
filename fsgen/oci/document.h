// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fsgen/stream/digest.h"
#include "support/error.h"

// The JSON of container images: OCI Image Specification 1.1 (image-index.md, manifest.md,
// config.md, descriptor.md), Docker's image manifests version 2, schema 2, which say the same in
// other media types, and the manifest.json of `docker save`. Texts come from anywhere: sizes,
// depth, types and digests are checked, and nothing that is not known here is looked at. All errors
// are Errc::unreadable or Errc::unsupported and begin with `name`, which is the text's.

namespace mkvirtfs::oci {

/// No document of an image is larger.
inline constexpr std::uint64_t kMostDocumentBytes = 8u << 20;

/// What an image runs on, in the words of Go: "linux", "arm64", "v8".
struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;

  friend bool operator==(const Platform&, const Platform&) = default;
};
/// "linux/arm64/v8", "linux/amd64"; Errc::usage when malformed.
Result<Platform> parse_platform(std::string_view text);
std::string to_string(const Platform& platform);
/// Linux on this machine's processor.
Platform host_platform();

/// Where a layout has the blob: "blobs/sha256/...".
std::string blob_path(const Digest& digest);

/// What names a blob.
struct Descriptor {
  std::string media_type;
  Digest digest;
  std::uint64_t size_bytes = 0;
  std::optional<Platform> platform;
  std::vector<std::string> names;  ///< annotations that name an image: "latest", "docker.io/app:1"
  bool has_urls = false;           ///< its bytes may be elsewhere: a foreign layer
  bool is_image = true;            ///< else what belongs to one: an attestation, a signature
};

struct Index {
  std::vector<Descriptor> manifests;
};
struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;  ///< the lowest first
};
using Document = std::variant<Index, Manifest>;

/// An index or a manifest.
Result<Document> parse_document(std::string_view text, std::string_view name);

/// What a container of the image runs, as the configuration has it.
struct Process {
  std::vector<std::string> entrypoint{};
  std::vector<std::string> command{};      ///< "Cmd": what stands behind the entrypoint
  std::vector<std::string> environment{};  ///< "NAME=value"
  std::string user{};                      ///< "user", "user:group": names or numbers
  std::string directory{};

  friend bool operator==(const Process&, const Process&) = default;
};

/// The configuration: what the image runs on, the digests of its layers when they are unpacked,
/// and what a container runs.
struct Config {
  Platform platform;
  std::vector<Digest> diff_ids;
  Process process;
};
Result<Config> parse_config(std::string_view text, std::string_view name);

/// One image of a `docker save`: paths in the archive.
struct DockerImage {
  std::string config;
  std::vector<std::string> tags;  ///< "app:latest"
  std::vector<std::string> layers;
};
Result<std::vector<DockerImage>> parse_docker_images(std::string_view text, std::string_view name);

}  // namespace mkvirtfs::oci
