// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/oci/find_image.h"

#include <fmt/format.h>

#include <span>
#include <utility>

#include "fsgen/oci/image_finder.h"

namespace mkvirtfs::oci {
namespace {

constexpr std::size_t kMostLayers = 4096;

}  // namespace

std::string ImageQuery::shown() const {
  return name_.reference.empty() ? files_.name()
                                 : fmt::format("{}:{}", files_.name(), name_.reference);
}

std::string ImageQuery::blob_name(const Descriptor& descriptor) const {
  return fmt::format("{}:{}", files_.name(), blob_path(descriptor.digest));
}

Result<std::shared_ptr<ByteSource>> ImageQuery::file(std::string_view path) const {
  Result<std::shared_ptr<ByteSource>> opened = files_.open(path);
  if (opened && !*opened) {
    return fail(Errc::unreadable, fmt::format("{}: there is no {}", files_.name(), path));
  }
  return opened;
}

Result<std::shared_ptr<ByteSource>> ImageQuery::blob(const Descriptor& descriptor) const {
  Result<std::shared_ptr<ByteSource>> opened = file(blob_path(descriptor.digest));
  if (!opened) return opened;
  if ((*opened)->size_bytes() != descriptor.size_bytes) {
    return fail(Errc::unreadable,
                fmt::format("{} has {} bytes, its descriptor says {}", (*opened)->name(),
                            (*opened)->size_bytes(), descriptor.size_bytes));
  }
  return opened;
}

Result<std::string> ImageQuery::text_of(const Descriptor& descriptor) const {
  const Result<std::shared_ptr<ByteSource>> opened = blob(descriptor);
  if (!opened) return propagate(opened);
  Result<std::string> text = read_document(**opened);
  if (!text) return text;
  if (const Digest found = digest_of(*text, descriptor.digest.algorithm);
      found != descriptor.digest) {
    return fail(Errc::unreadable,
                fmt::format("{} is damaged: it has the digest {}, not {}", (*opened)->name(),
                            to_string(found), to_string(descriptor.digest)));
  }
  return text;
}

Result<std::string> read_document(ByteSource& source) {
  if (source.size_bytes() > kMostDocumentBytes) {
    return fail(Errc::unreadable,
                fmt::format("{} has {} bytes, documents of images end at {}", source.name(),
                            source.size_bytes(), kMostDocumentBytes));
  }
  std::string text(static_cast<std::size_t>(source.size_bytes()), '\0');
  if (Result<void> read = source.read(0, std::as_writable_bytes(std::span(text))); !read) {
    return propagate(read);
  }
  return text;
}

bool fits(const Platform& wanted, const Platform& there) {
  return wanted.os == there.os && wanted.architecture == there.architecture &&
         (wanted.variant.empty() || there.variant.empty() || wanted.variant == there.variant);
}

Result<ImageDraft> ImageDraft::begin(const ImageQuery& query, const std::string& config_text,
                                     const std::string& config_name, std::string id,
                                     std::size_t layer_count) {
  Result<Config> config = parse_config(config_text, config_name);
  if (!config) return propagate(config);
  if (query.platform() && !fits(*query.platform(), config->platform)) {
    return fail(Errc::usage,
                fmt::format("{} is for {}, not for {}", query.shown(), to_string(config->platform),
                            to_string(*query.platform())));
  }
  if (layer_count > kMostLayers) {
    return fail(Errc::unreadable, fmt::format("{} has {} layers, more than {}", query.shown(),
                                              layer_count, kMostLayers));
  }
  if (!config->diff_ids.empty() && config->diff_ids.size() != layer_count) {
    return fail(Errc::unreadable, fmt::format("{} has {} layers, and its configuration lists {}",
                                              query.shown(), layer_count, config->diff_ids.size()));
  }
  ImageDraft draft;
  draft.image_.name = query.shown();
  draft.image_.platform = std::move(config->platform);
  draft.image_.process = std::move(config->process);
  draft.image_.id = std::move(id);
  draft.diff_ids_ = std::move(config->diff_ids);
  return draft;
}

void ImageDraft::add_layer(std::shared_ptr<ByteSource> bytes, std::optional<Digest> digest) {
  LayerBlob added{std::move(bytes), digest, std::nullopt};
  const std::size_t at = image_.layers.size();
  if (at < diff_ids_.size()) added.diff_id = diff_ids_[at];
  image_.layers.push_back(std::move(added));
}

Result<ContainerImage> find_image(const ImageFiles& files, const ImageName& name,
                                  const std::optional<Platform>& platform) {
  const ImageQuery query(files, name, platform);
  return name.form == ImageName::Form::docker ? find_in_docker_archive(query)
                                              : find_in_layout(query);
}

}  // namespace mkvirtfs::oci
