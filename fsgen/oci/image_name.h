// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mkvirtfs::oci {

/// How a source names an image.
struct ImageName {
  enum class Form : std::uint8_t { oci, docker };
  Form form = Form::oci;
  std::string path;  ///< a layout directory, or a tar of one; of `docker save` a tar; "-": a tar on
                     ///< standard input
  std::string reference;  ///< "app:latest", a digest, "@0" (the first one); empty: the only one
};

/// "oci:PATH[:REF]", "oci-archive:PATH[:REF]", "docker-archive:PATH[:REF]"; nullopt for anything
/// else. What stands before the second colon is PATH, unless all of it is a file that is there.
std::optional<ImageName> parse_image_name(std::string_view source);

/// Whether both are one image's, of which people leave parts out: "app" is
/// "docker.io/library/app:latest".
bool is_same_reference(std::string_view a, std::string_view b);

}  // namespace mkvirtfs::oci
