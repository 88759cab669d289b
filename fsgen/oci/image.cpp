// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/oci/image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "fsgen/stream/file_source.h"
#include "support/confined_open.h"
#include "support/unique_fd.h"

namespace mkvirtfs::oci {
namespace {

constexpr std::size_t kMostLayers = 4096;
constexpr std::size_t kMostIndexDepth = 4;
constexpr int kMostLinks = 40;  // as the kernel follows

/// A path without "." and empty components; nullopt when ".." leads out.
std::optional<std::string> normal_path(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view{} : path.substr(slash + 1);
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      parts.push_back(part);
    } else if (parts.empty()) {
      return std::nullopt;
    } else {
      parts.pop_back();
    }
  }
  return fmt::format("{}", fmt::join(parts, "/"));
}

class DirectoryFiles final : public ImageFiles {
 public:
  DirectoryFiles(UniqueFd directory, std::string path, ChangeCheck check, LogSink& log)
      : directory_(std::move(directory)), path_(std::move(path)), check_(check), log_(log) {}

  Result<std::shared_ptr<ByteSource>> open(std::string_view path) const override {
    const std::string wanted(path);
    const std::string shown = path_ + "/" + wanted;
    std::expected<UniqueFd, int> fd =
        opener_.open(directory_.get(), wanted.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!fd && (fd.error() == ENOENT || fd.error() == ENOTDIR)) {
      // A symlink on the way is an ENOTDIR, too; it is no more than a file that is not there.
      return std::shared_ptr<ByteSource>();
    }
    if (!fd) {
      return fail_errno(Errc::unreadable, fd.error(),
                        fmt::format("open {} without following links out of the layout", shown));
    }
    return open_file_source(std::move(*fd), shown, {OnChange::error, check_}, log_);
  }
  std::string name() const override { return path_; }

 private:
  const UniqueFd directory_;
  const std::string path_;
  const ChangeCheck check_;
  LogSink& log_;
  const ConfinedOpener opener_{/*cross_mounts=*/true};
};

class TarFiles final : public ImageFiles {
 public:
  TarFiles(std::shared_ptr<ByteSource> tar, TarIndex index)
      : tar_(std::move(tar)), index_(std::move(index)) {}

  Result<std::shared_ptr<ByteSource>> open(std::string_view path) const override {
    const std::optional<Range> bytes = index_.find(path);
    if (!bytes) return std::shared_ptr<ByteSource>();
    return make_window(tar_, *bytes, fmt::format("{}:{}", tar_->name(), path));
  }
  std::string name() const override { return tar_->name(); }

 private:
  const std::shared_ptr<ByteSource> tar_;
  const TarIndex index_;
};

Result<std::string> read_all(ByteSource& source) {
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

/// A reference as people abbreviate it: "app" is "docker.io/library/app:latest".
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

/// Finds one image in its files.
class Finder {
 public:
  Finder(const ImageFiles& files, const ImageName& name, const std::optional<Platform>& platform)
      : files_(files), name_(name), platform_(platform) {}

  Result<Image> find() { return name_.form == ImageName::Form::docker ? of_docker() : of_layout(); }

 private:
  using Chosen = Result<const Descriptor*>;

  std::unexpected<Error> missing(std::string_view path) const {
    return fail(Errc::unreadable, fmt::format("{}: there is no {}", files_.name(), path));
  }

  Result<std::shared_ptr<ByteSource>> file(std::string_view path) const {
    Result<std::shared_ptr<ByteSource>> opened = files_.open(path);
    if (opened && !*opened) return missing(path);
    return opened;
  }

  Result<std::shared_ptr<ByteSource>> blob(const Descriptor& descriptor) const {
    Result<std::shared_ptr<ByteSource>> opened = file(blob_path(descriptor.digest));
    if (!opened) return opened;
    if ((*opened)->size_bytes() != descriptor.size_bytes) {
      return fail(Errc::unreadable,
                  fmt::format("{} has {} bytes, its descriptor says {}", (*opened)->name(),
                              (*opened)->size_bytes(), descriptor.size_bytes));
    }
    return opened;
  }

  /// The text of a blob, verified.
  Result<std::string> text_of(const Descriptor& descriptor) const {
    const Result<std::shared_ptr<ByteSource>> opened = blob(descriptor);
    if (!opened) return propagate(opened);
    Result<std::string> text = read_all(**opened);
    if (!text) return text;
    if (const Digest found = digest_of(*text, descriptor.digest.algorithm);
        found != descriptor.digest) {
      return fail(Errc::unreadable,
                  fmt::format("{} is damaged: it has the digest {}, not {}", (*opened)->name(),
                              to_string(found), to_string(descriptor.digest)));
    }
    return text;
  }

  std::string shown() const {
    return name_.reference.empty() ? files_.name()
                                   : fmt::format("{}:{}", files_.name(), name_.reference);
  }

  // A layout (image-layout.md).

  Result<Image> of_layout() {
    const Result<std::shared_ptr<ByteSource>> opened = files_.open("index.json");
    if (!opened) return propagate(opened);
    if (!*opened) {
      const Result<std::shared_ptr<ByteSource>> docker = files_.open("manifest.json");
      return fail(Errc::unreadable,
                  fmt::format("{} is no OCI layout: there is no index.json{}", files_.name(),
                              docker && *docker ? " (try docker-archive:)" : ""));
    }
    const Result<std::string> text = read_all(**opened);
    if (!text) return propagate(text);
    Result<Document> document = parse_document(*text, (*opened)->name());
    if (!document) return propagate(document);
    const auto* index = std::get_if<Index>(&*document);
    if (index == nullptr) {
      return fail(Errc::unreadable, fmt::format("{} is no index of images", (*opened)->name()));
    }
    const Chosen named = choose_by_name(*index);
    if (!named) return propagate(named);
    Descriptor at = **named;
    for (std::size_t depth = 0; depth < kMostIndexDepth; ++depth) {
      const Result<std::string> next = text_of(at);
      if (!next) return propagate(next);
      Result<Document> below = parse_document(*next, blob_name(at));
      if (!below) return propagate(below);
      if (const auto* manifest = std::get_if<Manifest>(&*below)) return of_manifest(*manifest);
      const auto& nested = std::get<Index>(*below);
      std::vector<const Descriptor*> all;
      for (const Descriptor& entry : nested.manifests) all.push_back(&entry);
      const Chosen chosen = choose_by_platform(all);
      if (!chosen) return propagate(chosen);
      at = **chosen;
    }
    return fail(Errc::unreadable, fmt::format("{}: indexes of indexes more than {} deep",
                                              files_.name(), kMostIndexDepth));
  }

  std::string blob_name(const Descriptor& descriptor) const {
    return fmt::format("{}:{}", files_.name(), blob_path(descriptor.digest));
  }

  /// Of the layout's own index: what the reference names, or the only one there is.
  Chosen choose_by_name(const Index& index) const {
    std::vector<const Descriptor*> all;
    const std::string& wanted = name_.reference;
    for (std::size_t at = 0; at < index.manifests.size(); ++at) {
      const Descriptor& entry = index.manifests[at];
      const auto is_wanted = [&](const std::string& name) {
        return name == wanted || full_reference(name) == full_reference(wanted);
      };
      // An entry that is no image must be named exactly.
      const bool is_meant = to_string(entry.digest) == wanted || fmt::format("@{}", at) == wanted;
      const bool is_named = wanted.empty() || std::ranges::any_of(entry.names, is_wanted);
      if (is_meant || (entry.is_image && is_named)) all.push_back(&entry);
    }
    if (all.empty()) {
      return fail(Errc::usage, fmt::format("{} has no image {}; it has {}", files_.name(), wanted,
                                           names_of(index)));
    }
    if (all.size() == 1) return all.front();
    // The same under one name for several platforms, or several images.
    const bool for_platforms = std::ranges::all_of(all, [&](const Descriptor* entry) {
      return entry->platform && entry->names == all.front()->names;
    });
    if (for_platforms) return choose_by_platform(all);
    return fail(Errc::usage, fmt::format("{} has several images: {} (try {}:{}:NAME)",
                                         files_.name(), names_of(index), "oci", name_.path));
  }

  static std::string names_of(const Index& index) {
    std::string text;
    for (std::size_t at = 0; at < index.manifests.size(); ++at) {
      const Descriptor& entry = index.manifests[at];
      if (!entry.is_image) continue;
      if (!text.empty()) text += ", ";
      text += entry.names.empty() ? fmt::format("@{}", at) : entry.names.front();
    }
    return text.empty() ? "none" : text;
  }

  Chosen choose_by_platform(const std::vector<const Descriptor*>& all) const {
    std::vector<const Descriptor*> images;
    std::string there;
    for (const Descriptor* entry : all) {
      if (!entry->is_image) continue;
      images.push_back(entry);
      if (!there.empty()) there += ", ";
      there += entry->platform ? to_string(*entry->platform) : "one that says nothing";
    }
    const Platform wanted = platform_.value_or(host_platform());
    const auto found = std::ranges::find_if(images, [&](const Descriptor* entry) {
      return entry->platform && fits(wanted, *entry->platform);
    });
    if (found != images.end()) return *found;
    // Whatever it is for: of the only one the configuration may say more.
    if (images.size() == 1 && (!platform_ || !images.front()->platform)) return images.front();
    return fail(Errc::usage,
                fmt::format("{} has no image for {}; it has {} (try --platform)", shown(),
                            to_string(wanted), there.empty() ? "none" : there));
  }

  Result<Image> of_manifest(const Manifest& manifest) {
    const Result<std::string> text = text_of(manifest.config);
    if (!text) return propagate(text);
    Result<Image> image =
        begin(*text, blob_name(manifest.config), to_string(manifest.config.digest));
    if (!image) return image;
    if (Result<void> good = check_layers(manifest.layers.size()); !good) {
      return propagate(good);
    }
    for (std::size_t at = 0; at < manifest.layers.size(); ++at) {
      const Descriptor& layer = manifest.layers[at];
      const bool is_foreign = layer.has_urls ||
                              layer.media_type.find("foreign") != std::string::npos ||
                              layer.media_type.find("nondistributable") != std::string::npos;
      const Result<std::shared_ptr<ByteSource>> here = files_.open(blob_path(layer.digest));
      if (here && !*here && is_foreign) {
        return fail(Errc::unsupported,
                    fmt::format("{}: layer {} is a foreign one, whose bytes are elsewhere", shown(),
                                to_string(layer.digest)));
      }
      const std::string_view type = layer.media_type;
      if (!type.empty() && (type.find("tar") == type.npos || type.ends_with("encrypted"))) {
        return fail(Errc::unsupported, fmt::format("{}: layer {} is {}, and no tar of files",
                                                   shown(), to_string(layer.digest), type));
      }
      Result<std::shared_ptr<ByteSource>> opened = blob(layer);
      if (!opened) return propagate(opened);
      LayerBlob added{std::move(*opened), layer.digest, std::nullopt};
      if (at < diff_ids_.size()) added.diff_id = diff_ids_[at];
      image->layers.push_back(std::move(added));
    }
    return image;
  }

  /// The image without its layers.
  Result<Image> begin(const std::string& config_text, const std::string& config_name,
                      std::string id) {
    Result<Config> config = parse_config(config_text, config_name);
    if (!config) return propagate(config);
    if (platform_ && !fits(*platform_, config->platform)) {
      return fail(Errc::usage, fmt::format("{} is for {}, not for {}", shown(),
                                           to_string(config->platform), to_string(*platform_)));
    }
    diff_ids_ = std::move(config->diff_ids);
    Image image;
    image.name = shown();
    image.platform = std::move(config->platform);
    image.id = std::move(id);
    return image;
  }

  Result<void> check_layers(std::size_t count) const {
    if (count > kMostLayers) {
      return fail(Errc::unreadable,
                  fmt::format("{} has {} layers, more than {}", shown(), count, kMostLayers));
    }
    if (!diff_ids_.empty() && diff_ids_.size() != count) {
      return fail(Errc::unreadable, fmt::format("{} has {} layers, and its configuration lists {}",
                                                shown(), count, diff_ids_.size()));
    }
    return {};
  }

  // What `docker save` writes.

  Result<Image> of_docker() {
    const Result<std::shared_ptr<ByteSource>> opened = files_.open("manifest.json");
    if (!opened) return propagate(opened);
    if (!*opened) {
      const Result<std::shared_ptr<ByteSource>> layout = files_.open("index.json");
      return fail(Errc::unreadable,
                  fmt::format("{} is no archive of docker save: there is no manifest.json{}",
                              files_.name(), layout && *layout ? " (try oci:)" : ""));
    }
    const Result<std::string> text = read_all(**opened);
    if (!text) return propagate(text);
    const Result<std::vector<DockerImage>> images = parse_docker_images(*text, (*opened)->name());
    if (!images) return propagate(images);
    const Result<const DockerImage*> chosen = choose(*images);
    if (!chosen) return propagate(chosen);
    const DockerImage& from = **chosen;

    const Result<std::shared_ptr<ByteSource>> config = file(from.config);
    if (!config) return propagate(config);
    const Result<std::string> config_text = read_all(**config);
    if (!config_text) return propagate(config_text);
    const std::optional<Digest> named = digest_in(from.config);
    const Digest id = digest_of(*config_text, named ? named->algorithm : DigestAlgorithm::sha256);
    if (named && *named != id) {
      return fail(Errc::unreadable, fmt::format("{} is damaged: it has the digest {}",
                                                (*config)->name(), to_string(id)));
    }
    Result<Image> image = begin(*config_text, (*config)->name(), to_string(id));
    if (!image) return image;
    if (Result<void> good = check_layers(from.layers.size()); !good) {
      return propagate(good);
    }
    for (std::size_t at = 0; at < from.layers.size(); ++at) {
      Result<std::shared_ptr<ByteSource>> layer = file(from.layers[at]);
      if (!layer) return propagate(layer);
      LayerBlob added{std::move(*layer), std::nullopt, std::nullopt};
      if (from.layers[at].starts_with("blobs/")) added.digest = digest_in(from.layers[at]);
      if (at < diff_ids_.size()) added.diff_id = diff_ids_[at];
      image->layers.push_back(std::move(added));
    }
    return image;
  }

  /// The digest that a file is named by: "9f2c....json", "blobs/sha256/9f2c...".
  static std::optional<Digest> digest_in(std::string_view path) {
    const bool is_sha512 = path.starts_with("blobs/sha512/");
    std::string_view name = path.substr(path.rfind('/') + 1);
    if (name.ends_with(".json")) name.remove_suffix(5);
    const Result<Digest> digest =
        parse_digest(fmt::format("{}:{}", is_sha512 ? "sha512" : "sha256", name));
    return digest ? std::optional(*digest) : std::nullopt;
  }

  Result<const DockerImage*> choose(const std::vector<DockerImage>& images) const {
    const std::string& wanted = name_.reference;
    std::vector<const DockerImage*> all;
    std::string there;
    for (std::size_t at = 0; at < images.size(); ++at) {
      const std::string number = fmt::format("@{}", at);
      const auto is_wanted = [&](const std::string& tag) {
        return tag == wanted || full_reference(tag) == full_reference(wanted);
      };
      const bool chosen =
          wanted.empty() || wanted == number || std::ranges::any_of(images[at].tags, is_wanted);
      if (chosen) all.push_back(&images[at]);
      if (!there.empty()) there += ", ";
      there += images[at].tags.empty() ? number : images[at].tags.front();
    }
    if (all.size() == 1) return all.front();
    return fail(Errc::usage,
                all.empty() ? fmt::format("{} has no image {}; it has {}", files_.name(), wanted,
                                          there.empty() ? "none" : there)
                            : fmt::format("{} has several images: {} (try docker-archive:{}:NAME)",
                                          files_.name(), there, name_.path));
  }

  const ImageFiles& files_;
  const ImageName& name_;
  const std::optional<Platform>& platform_;
  std::vector<Digest> diff_ids_;
};

}  // namespace

std::optional<ImageName> parse_image_name(std::string_view source) {
  struct Prefix {
    std::string_view text;
    ImageName::Form form;
  };
  constexpr std::array<Prefix, 3> kPrefixes = {{{"oci:", ImageName::Form::oci},
                                                {"oci-archive:", ImageName::Form::oci},
                                                {"docker-archive:", ImageName::Form::docker}}};
  for (const Prefix& prefix : kPrefixes) {
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

Result<std::unique_ptr<ImageFiles>> open_directory(const std::string& path, ChangeCheck check,
                                                   LogSink& log) {
  UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return fail_errno(Errc::unreadable, errno, fmt::format("open {}", path));
  return std::make_unique<DirectoryFiles>(std::move(directory), path, check, log);
}

void TarIndex::add_file(std::string_view path, Range bytes) {
  if (auto normal = normal_path(path)) entries_[std::move(*normal)] = {bytes, ""};
}

void TarIndex::add_link(std::string_view path, std::string_view target, bool is_symlink) {
  auto normal = normal_path(path);
  if (!normal) return;
  std::string from_root(target);
  if (is_symlink && !target.starts_with('/')) {
    const std::size_t slash = normal->rfind('/');
    if (slash != std::string::npos) from_root = normal->substr(0, slash + 1) + from_root;
  }
  // What leads out leads nowhere.
  const auto inside = normal_path(from_root);
  entries_[std::move(*normal)] = {std::nullopt, inside.value_or("")};
}

std::optional<Range> TarIndex::find(std::string_view path) const {
  const auto normal = normal_path(path);
  if (!normal) return std::nullopt;
  auto at = entries_.find(*normal);
  for (int links = 0; at != entries_.end() && links < kMostLinks; ++links) {
    if (at->second.bytes) return at->second.bytes;
    at = entries_.find(at->second.target);
  }
  return std::nullopt;
}

std::unique_ptr<ImageFiles> make_tar_files(std::shared_ptr<ByteSource> tar, TarIndex index) {
  return std::make_unique<TarFiles>(std::move(tar), std::move(index));
}

Result<Image> find_image(const ImageFiles& files, const ImageName& name,
                         const std::optional<Platform>& platform) {
  return Finder(files, name, platform).find();
}

}  // namespace mkvirtfs::oci
