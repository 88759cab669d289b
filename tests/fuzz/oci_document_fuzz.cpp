// SPDX-License-Identifier: BSD-3-Clause
// The JSON of container images. The first byte says as what the rest is read: an index or manifest,
// a configuration, the list of docker save, a platform, a source's name. What is taken must be
// whole, and what is refused must be reported on one line that names the text.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "fsgen/oci/document.h"
#include "fsgen/oci/image_name.h"
#include "fuzz_require.h"

using namespace mkvirtfs;
using namespace mkvirtfs::oci;

namespace {

constexpr std::string_view kName = "image:text";

void check_error(const Error& error) {
  FUZZ_REQUIRE(error.what.starts_with(kName));
  FUZZ_REQUIRE(error.code == Errc::unreadable || error.code == Errc::unsupported);
}

void check_descriptor(const Descriptor& descriptor) {
  const Result<Digest> again = parse_digest(to_string(descriptor.digest));
  FUZZ_REQUIRE(again && *again == descriptor.digest);
  FUZZ_REQUIRE(blob_path(descriptor.digest).size() ==
               std::string_view("blobs/sha256/").size() +
                   (descriptor.digest.algorithm == DigestAlgorithm::sha256 ? 64 : 128));
  for (const std::string& name : descriptor.names) FUZZ_REQUIRE(!name.empty());
}

void read_document(std::string_view text) {
  const Result<Document> document = parse_document(text, kName);
  if (!document) {
    check_error(document.error());
  } else if (const auto* index = std::get_if<Index>(&*document)) {
    for (const Descriptor& descriptor : index->manifests) check_descriptor(descriptor);
  } else {
    const auto& manifest = std::get<Manifest>(*document);
    check_descriptor(manifest.config);
    for (const Descriptor& descriptor : manifest.layers) check_descriptor(descriptor);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'd':
      read_document(text);
      break;
    case 'c':
      if (const auto config = parse_config(text, kName); !config) check_error(config.error());
      break;
    case 's':
      if (const auto images = parse_docker_images(text, kName); !images) {
        check_error(images.error());
      }
      break;
    case 'p':
      if (const auto platform = parse_platform(text)) {
        FUZZ_REQUIRE(to_string(*platform) == text);
      }
      break;
    default:
      if (const auto name = parse_image_name(text)) {
        FUZZ_REQUIRE(text.find(name->path) != std::string_view::npos);
        FUZZ_REQUIRE(text.ends_with(name->reference));
      }
      break;
  }
  return 0;
}
