// SPDX-License-Identifier: BSD-3-Clause
// manifest.json lists the images of a `docker save`, each with the paths of its configuration and
// its layers. Newer versions of docker name the files by their digests, which are verified then.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "fsgen/oci/image_finder.h"

namespace mkvirtfs::oci {
namespace {

/// The digest that a file is named by: "9f2c....json", "blobs/sha256/9f2c...".
std::optional<Digest> digest_in(std::string_view path) {
  const bool is_sha512 = path.starts_with("blobs/sha512/");
  std::string_view name = path.substr(path.rfind('/') + 1);
  if (name.ends_with(".json")) name.remove_suffix(5);
  const Result<Digest> digest =
      parse_digest(fmt::format("{}:{}", is_sha512 ? "sha512" : "sha256", name));
  return digest ? std::optional(*digest) : std::nullopt;
}

Result<std::vector<DockerImage>> read_images(const ImageQuery& query) {
  const Result<std::shared_ptr<ByteSource>> opened = query.files().open("manifest.json");
  if (!opened) return propagate(opened);
  if (!*opened) {
    const Result<std::shared_ptr<ByteSource>> layout = query.files().open("index.json");
    std::vector<Setting> hints;
    if (layout && *layout) hints.push_back({{}, "oci:"});
    return fail(Errc::unreadable,
                fmt::format("{} is no archive of docker save: there is no manifest.json",
                            query.files().name()),
                std::move(hints));
  }
  const Result<std::string> text = read_document(**opened);
  if (!text) return propagate(text);
  return parse_docker_images(*text, (*opened)->name());
}

Result<const DockerImage*> choose(const ImageQuery& query, const std::vector<DockerImage>& images) {
  const std::string& wanted = query.name().reference;
  std::vector<const DockerImage*> all;
  std::string there;
  for (std::size_t at = 0; at < images.size(); ++at) {
    const std::string number = fmt::format("@{}", at);
    const auto is_wanted = [&](const std::string& tag) { return is_same_reference(tag, wanted); };
    const bool is_chosen =
        wanted.empty() || wanted == number || std::ranges::any_of(images[at].tags, is_wanted);
    if (is_chosen) all.push_back(&images[at]);
    if (!there.empty()) there += ", ";
    there += images[at].tags.empty() ? number : images[at].tags.front();
  }
  if (all.size() == 1) return all.front();
  const std::string files = query.files().name();
  if (all.empty()) {
    return fail(Errc::usage, fmt::format("{} has no image {}; it has {}", files, wanted,
                                         there.empty() ? "none" : there));
  }
  return fail(Errc::usage, fmt::format("{} has several images: {}", files, there),
              {{{}, fmt::format("docker-archive:{}:NAME", query.name().path)}});
}

}  // namespace

Result<ContainerImage> find_in_docker_archive(const ImageQuery& query) {
  const Result<std::vector<DockerImage>> images = read_images(query);
  if (!images) return propagate(images);
  const Result<const DockerImage*> chosen = choose(query, *images);
  if (!chosen) return propagate(chosen);
  const DockerImage& from = **chosen;

  const Result<std::shared_ptr<ByteSource>> config = query.file(from.config);
  if (!config) return propagate(config);
  const Result<std::string> config_text = read_document(**config);
  if (!config_text) return propagate(config_text);
  const std::optional<Digest> named = digest_in(from.config);
  const Digest id = digest_of(*config_text, named ? named->algorithm : DigestAlgorithm::sha256);
  if (named && *named != id) {
    return fail(Errc::unreadable, fmt::format("{} is damaged: it has the digest {}",
                                              (*config)->name(), to_string(id)));
  }
  Result<ImageDraft> draft =
      ImageDraft::begin(query, *config_text, (*config)->name(), to_string(id), from.layers.size());
  if (!draft) return propagate(draft);
  for (const std::string& path : from.layers) {
    Result<std::shared_ptr<ByteSource>> bytes = query.file(path);
    if (!bytes) return propagate(bytes);
    draft->add_layer(std::move(*bytes),
                     path.starts_with("blobs/") ? digest_in(path) : std::optional<Digest>());
  }
  return std::move(*draft).finish();
}

}  // namespace mkvirtfs::oci
