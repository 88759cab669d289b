// SPDX-License-Identifier: BSD-3-Clause
#include "compose/source_name.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/oci/image_name.h"

namespace mkvirtfs {
namespace {

struct Address {
  std::string_view prefix;
  std::string_view why;
  /// What would help; "{0}" is the address, "{1}" what follows the prefix. May be empty.
  std::string_view help;
};

constexpr std::string_view kRegistry = "images in a registry are not read";
constexpr std::string_view kDaemon = "images of a daemon are not read";
constexpr std::string_view kCopy = "skopeo copy {0} oci:DIR, and oci:DIR";
constexpr std::string_view kPlain = "a path follows the first colon as it is";
constexpr std::string_view kNetwork = "sources are not read over the network";
constexpr std::string_view kPipe = "curl -L {0}, and - as the source";

constexpr auto kAddresses = std::to_array<Address>({
    {"docker://", kRegistry, kCopy},
    {"docker-daemon:", kDaemon, kCopy},
    {"containers-storage:", "images of Podman's storage are not read", kCopy},
    {"docker:", "the forms are oci:PATH, oci-archive:PATH and docker-archive:PATH", ""},
    {"oci-layout:", "the form is oci:PATH", "oci:{1}"},
    {"oci://", kPlain, "oci:{1}"},
    {"oci-archive://", kPlain, "oci-archive:{1}"},
    {"docker-archive://", kPlain, "docker-archive:{1}"},
    {"dir:", "a directory is named by its path", "{1}"},
    {"file://", "a source is named by its path", "{1}"},
    {"http://", kNetwork, kPipe},
    {"https://", kNetwork, kPipe},
    {"ftp://", kNetwork, kPipe},
});

bool is_there(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

/// "disk.img:2"; nullopt where that is no such word.
std::optional<ArchivePath> split_partition(const std::string& word) {
  if (is_there(word)) return std::nullopt;
  for (std::size_t at = word.find(':'); at != std::string::npos; at = word.find(':', at + 1)) {
    struct stat status{};
    std::string file = word.substr(0, at);
    if (at + 1 < word.size() && ::stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode)) {
      return ArchivePath{std::move(file), word.substr(at + 1), ""};
    }
  }
  return std::nullopt;
}

}  // namespace

Result<void> check_source_path(const std::string& path) {
  if (path.empty()) {
    return fail(Errc::usage, "the path of a source is empty");
  }
  if (::access(path.c_str(), F_OK) == 0) return {};
  for (const Address& address : kAddresses) {
    if (!path.starts_with(address.prefix)) continue;
    std::vector<Setting> hints;
    if (!address.help.empty()) {
      hints.push_back(
          {"", fmt::format(fmt::runtime(address.help), path, path.substr(address.prefix.size()))});
    }
    return fail(Errc::unsupported, fmt::format("{}: {}", path, address.why), std::move(hints));
  }
  const std::optional<oci::ImageName> image = oci::parse_image_name(path);
  if (image && !image->path.empty() && image->path != "-" &&
      ::access(image->path.c_str(), F_OK) != 0) {
    return fail(Errc::unreadable, fmt::format("{}: {} does not exist", path, image->path));
  }
  return {};
}

bool is_address(std::string_view path) {
  return path.starts_with("nbd://") || path.starts_with("nbds://") ||
         path.starts_with("nbd+unix://") || path.starts_with("nbds+unix://");
}

ArchivePath split_archive_path(const std::string& path) {
  if (is_address(path)) {
    const std::size_t hash = path.find('#');
    if (hash == std::string::npos) return {path, "", ""};
    return {path.substr(0, hash), path.substr(hash + 1), ""};
  }
  for (std::size_t at = path.find("//"); at != std::string::npos; at = path.find("//", at + 1)) {
    std::string file = path.substr(0, at);
    struct stat status{};
    std::optional<ArchivePath> split;
    if (!file.empty() && ::stat(file.c_str(), &status) == 0) {
      if (!S_ISDIR(status.st_mode)) split = ArchivePath{std::move(file), "", ""};
    } else {
      split = split_partition(file);
    }
    if (!split) continue;
    const std::size_t begin = path.find_first_not_of('/', at);
    const std::size_t last = path.find_last_not_of('/');
    if (begin != std::string::npos) split->subtree = path.substr(begin, last + 1 - begin);
    return *std::move(split);
  }
  return split_partition(path).value_or(ArchivePath{path, "", ""});
}

}  // namespace mkvirtfs
