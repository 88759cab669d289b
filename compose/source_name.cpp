// SPDX-License-Identifier: BSD-3-Clause
#include "compose/source_name.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <string_view>

#include "fsgen/oci/image_name.h"

namespace mkvirtfs {
namespace {

struct Address {
  std::string_view prefix;
  std::string_view advice;  ///< "{0}" is the address, "{1}" what follows the prefix
};

constexpr auto kAddresses = std::to_array<Address>({
    {"docker://", "images in a registry are not read: skopeo copy {0} oci:DIR, then oci:DIR"},
    {"docker-daemon:", "a daemon's images are not read: skopeo copy {0} oci:DIR, then oci:DIR"},
    {"containers-storage:", "images of Podman are not read: skopeo copy {0} oci:DIR, then oci:DIR"},
    {"docker:", "the forms are oci:PATH, oci-archive:PATH and docker-archive:PATH"},
    {"oci-layout:", "the form is oci:{1}"},
    {"oci://", "a path follows oci: as it is: oci:{1}"},
    {"oci-archive://", "a path follows oci-archive: as it is: oci-archive:{1}"},
    {"docker-archive://", "a path follows docker-archive: as it is: docker-archive:{1}"},
    {"dir:", "a directory is named as it is: {1}"},
    {"file://", "a source is named by its path: {1}"},
    {"http://", "sources are not read over the network: curl -L {0} | mkvirtfs ... -"},
    {"https://", "sources are not read over the network: curl -L {0} | mkvirtfs ... -"},
    {"ftp://", "sources are not read over the network: curl -L {0} | mkvirtfs ... -"},
    {"nbd://", "the address of a server is no source: mkvirtfs list shows its exports"},
    {"nbds://", "the address of a server is no source: mkvirtfs list shows its exports"},
    {"nbd+unix:", "the address of a server is no source: mkvirtfs list shows its exports"},
});

}  // namespace

Result<void> check_source_path(const std::string& path) {
  if (path.empty()) {
    return fail(Errc::usage, "a source is empty (is a variable of the shell not set?)");
  }
  if (::access(path.c_str(), F_OK) == 0) return {};
  for (const Address& address : kAddresses) {
    if (!path.starts_with(address.prefix)) continue;
    return fail(Errc::unsupported, fmt::format("{}: {}", path,
                                               fmt::format(fmt::runtime(address.advice), path,
                                                           path.substr(address.prefix.size()))));
  }
  const std::optional<oci::ImageName> image = oci::parse_image_name(path);
  if (image && !image->path.empty() && image->path != "-" &&
      ::access(image->path.c_str(), F_OK) != 0) {
    return fail(Errc::unreadable, fmt::format("{}: {} does not exist", path, image->path));
  }
  return {};
}

}  // namespace mkvirtfs
