// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/oci/image_name.h"

#include <unistd.h>

#include <array>

namespace mkvirtfs::oci {
namespace {

std::string full_reference(std::string_view given) {
  std::string name(given);
  const std::size_t slash = name.find('/');
  const std::string_view host = std::string_view(name).substr(0, slash);
  const bool has_host = slash != std::string::npos &&
                        (host.find_first_of(".:") != std::string_view::npos || host == "localhost");
  if (!has_host) {
    name = (slash == std::string::npos ? "docker.io/library/" : "docker.io/") + name;
  }
  if (name.find(':', name.rfind('/')) == std::string::npos) name += ":latest";
  return name;
}

}  // namespace

std::optional<ImageName> parse_image_name(std::string_view source) {
  struct FormPrefix {
    std::string_view text;
    ImageName::Form form;
  };
  constexpr std::array<FormPrefix, 3> kPrefixes = {{{"oci:", ImageName::Form::oci},
                                                    {"oci-archive:", ImageName::Form::oci},
                                                    {"docker-archive:", ImageName::Form::docker}}};
  for (const FormPrefix& prefix : kPrefixes) {
    if (!source.starts_with(prefix.text)) continue;
    const std::string rest(source.substr(prefix.text.size()));
    ImageName name{prefix.form, rest, ""};
    const std::size_t colon = rest.find(':');
    if (colon != std::string::npos && ::access(rest.c_str(), F_OK) != 0) {
      name.path = rest.substr(0, colon);
      name.reference = rest.substr(colon + 1);
    }
    return name;
  }
  return std::nullopt;
}

bool is_same_reference(std::string_view a, std::string_view b) {
  return a == b || full_reference(a) == full_reference(b);
}

}  // namespace mkvirtfs::oci
