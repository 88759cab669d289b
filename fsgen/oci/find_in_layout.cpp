// SPDX-License-Identifier: BSD-3-Clause
// index.json lists what the layout holds. The reference chooses one entry of it; then each index on
// the way to the manifest is one of platforms, of which one is chosen. The manifest names the
// configuration and the layers.
#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "fsgen/oci/image_finder.h"

namespace mkvirtfs::oci {
namespace {

constexpr std::size_t kMostIndexDepth = 4;

using Candidates = std::vector<const Descriptor*>;
using Chosen = Result<const Descriptor*>;

std::string names_of(const Index& index) {
  std::string text;
  for (std::size_t at = 0; at < index.manifests.size(); ++at) {
    const Descriptor& entry = index.manifests[at];
    if (!entry.is_image) continue;
    if (!text.empty()) text += ", ";
    text += entry.names.empty() ? fmt::format("@{}", at) : entry.names.front();
  }
  return text.empty() ? "none" : text;
}

Chosen choose_by_platform(const ImageQuery& query, const Candidates& all) {
  Candidates images;
  std::string there;
  for (const Descriptor* entry : all) {
    if (!entry->is_image) continue;
    images.push_back(entry);
    if (!there.empty()) there += ", ";
    there += entry->platform ? to_string(*entry->platform) : "one that says nothing";
  }
  const Platform wanted = query.platform().value_or(host_platform());
  const auto found = std::ranges::find_if(images, [&](const Descriptor* entry) {
    return entry->platform && fits(wanted, *entry->platform);
  });
  if (found != images.end()) return *found;
  // Whatever it is for: of the only one the configuration may say more.
  if (images.size() == 1 && (!query.platform() || !images.front()->platform)) return images.front();
  return fail(Errc::usage,
              fmt::format("{} has no image for {}; it has {}", query.shown(), to_string(wanted),
                          there.empty() ? "none" : there),
              {{"platform"}});
}

/// Of the layout's own index: what the reference names, or the only one there is.
Chosen choose_by_name(const ImageQuery& query, const Index& index) {
  Candidates all;
  const std::string& wanted = query.name().reference;
  const std::string files = query.files().name();
  for (std::size_t at = 0; at < index.manifests.size(); ++at) {
    const Descriptor& entry = index.manifests[at];
    const auto is_wanted = [&](const std::string& name) { return is_same_reference(name, wanted); };
    // An entry that is no image must be named exactly.
    const bool is_meant = to_string(entry.digest) == wanted || fmt::format("@{}", at) == wanted;
    const bool is_named = wanted.empty() || std::ranges::any_of(entry.names, is_wanted);
    if (is_meant || (entry.is_image && is_named)) all.push_back(&entry);
  }
  if (all.empty()) {
    return fail(Errc::usage,
                fmt::format("{} has no image {}; it has {}", files, wanted, names_of(index)));
  }
  if (all.size() == 1) return all.front();
  // The same under one name for several platforms, or several images.
  const bool for_platforms = std::ranges::all_of(all, [&](const Descriptor* entry) {
    return entry->platform && entry->names == all.front()->names;
  });
  if (for_platforms) return choose_by_platform(query, all);
  return fail(Errc::usage, fmt::format("{} has several images: {}", files, names_of(index)),
              {{{}, fmt::format("oci:{}:NAME", query.name().path)}});
}

Result<Index> read_index(const ImageQuery& query) {
  const Result<std::shared_ptr<ByteSource>> opened = query.files().open("index.json");
  if (!opened) return propagate(opened);
  if (!*opened) {
    const Result<std::shared_ptr<ByteSource>> docker = query.files().open("manifest.json");
    std::vector<Setting> hints;
    if (docker && *docker) hints.push_back({{}, "docker-archive:"});
    return fail(Errc::unreadable,
                fmt::format("{} is no OCI layout: there is no index.json", query.files().name()),
                std::move(hints));
  }
  const Result<std::string> text = read_document(**opened);
  if (!text) return propagate(text);
  Result<Document> document = parse_document(*text, (*opened)->name());
  if (!document) return propagate(document);
  if (auto* index = std::get_if<Index>(&*document)) return std::move(*index);
  return fail(Errc::unreadable, fmt::format("{} is no index of images", (*opened)->name()));
}

/// Why the layer's bytes cannot be used; success when they can.
Result<void> check_layer(const ImageQuery& query, const Descriptor& layer) {
  const bool is_foreign = layer.has_urls || layer.media_type.contains("foreign") ||
                          layer.media_type.contains("nondistributable");
  const Result<std::shared_ptr<ByteSource>> here = query.files().open(blob_path(layer.digest));
  if (here && !*here && is_foreign) {
    return fail(Errc::unsupported,
                fmt::format("{}: layer {} is a foreign one, whose bytes are elsewhere",
                            query.shown(), to_string(layer.digest)));
  }
  const std::string_view type = layer.media_type;
  if (!type.empty() && (!type.contains("tar") || type.ends_with("encrypted"))) {
    return fail(Errc::unsupported, fmt::format("{}: layer {} is {}, and no tar of files",
                                               query.shown(), to_string(layer.digest), type));
  }
  return {};
}

Result<ContainerImage> image_of(const ImageQuery& query, const Manifest& manifest) {
  const Result<std::string> config = query.text_of(manifest.config);
  if (!config) return propagate(config);
  Result<ImageDraft> draft =
      ImageDraft::begin(query, *config, query.blob_name(manifest.config),
                        to_string(manifest.config.digest), manifest.layers.size());
  if (!draft) return propagate(draft);
  for (const Descriptor& layer : manifest.layers) {
    if (Result<void> good = check_layer(query, layer); !good) return propagate(good);
    Result<std::shared_ptr<ByteSource>> bytes = query.blob(layer);
    if (!bytes) return propagate(bytes);
    draft->add_layer(std::move(*bytes), layer.digest);
  }
  return std::move(*draft).finish();
}

}  // namespace

Result<ContainerImage> find_in_layout(const ImageQuery& query) {
  const Result<Index> index = read_index(query);
  if (!index) return propagate(index);
  const Chosen named = choose_by_name(query, *index);
  if (!named) return propagate(named);
  Descriptor at = **named;
  for (std::size_t depth = 0; depth < kMostIndexDepth; ++depth) {
    const Result<std::string> text = query.text_of(at);
    if (!text) return propagate(text);
    const Result<Document> document = parse_document(*text, query.blob_name(at));
    if (!document) return propagate(document);
    if (const auto* manifest = std::get_if<Manifest>(&*document)) {
      return image_of(query, *manifest);
    }
    Candidates all;
    for (const Descriptor& entry : std::get<Index>(*document).manifests) all.push_back(&entry);
    const Chosen chosen = choose_by_platform(query, all);
    if (!chosen) return propagate(chosen);
    at = **chosen;
  }
  return fail(Errc::unreadable, fmt::format("{}: indexes of indexes more than {} deep",
                                            query.files().name(), kMostIndexDepth));
}

}  // namespace mkvirtfs::oci
