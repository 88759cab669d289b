// SPDX-License-Identifier: BSD-3-Clause
// DocumentReader takes fields out of parsed JSON and keeps the first thing that is wrong; the
// functions behind it say which fields make a document.
#include "fsgen/oci/document.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

namespace mkvirtfs::oci {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostDepth = 32;
constexpr std::size_t kMostEntries = 10000;

/// How deep arrays and objects stand in each other; strings may hold anything.
std::size_t depth_of(std::string_view text) {
  std::size_t depth = 0;
  std::size_t most = 0;
  bool in_string = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') ++at;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      most = std::max(most, ++depth);
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return most;
}

/// Takes values out of one document, and remembers the first thing that was wrong with it.
class DocumentReader {
 public:
  explicit DocumentReader(std::string_view name) : name_(name) {}

  /// A discarded value when it is no JSON.
  Json parse(std::string_view text) {
    if (text.size() > kMostDocumentBytes) {
      wrong(fmt::format("has {} bytes, documents of images end at {}", text.size(),
                        kMostDocumentBytes));
      return Json::value_t::discarded;
    }
    if (depth_of(text) > kMostDepth) {
      wrong(fmt::format("is nested more than {} deep", kMostDepth));
      return Json::value_t::discarded;
    }
    Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) wrong("is no JSON");
    return json;
  }

  bool good() const noexcept { return !error_; }
  std::unexpected<Error> error() { return std::unexpected(std::move(*error_)); }
  void wrong(const std::string& what, Errc code = Errc::unreadable) {
    if (!error_) error_ = Error{code, 0, fmt::format("{} {}", name_, what)};
  }

  /// The member of an object; nullptr when there is none, or null.
  static const Json* find(const Json& object, const char* key) {
    if (!object.is_object()) return nullptr;
    const auto at = object.find(key);
    return at == object.end() || at->is_null() ? nullptr : &*at;
  }
  std::string text(const Json& object, const char* key, bool required) {
    const Json* value = find(object, key);
    if (value != nullptr && value->is_string()) return value->get<std::string>();
    if (required || value != nullptr) wrong(fmt::format("has no text as \"{}\"", key));
    return {};
  }
  /// Empty when there is no such array.
  const Json& array(const Json& object, const char* key, bool required) {
    static const Json kNone = Json::array();
    const Json* value = find(object, key);
    if (value == nullptr && !required) return kNone;
    if (value == nullptr || !value->is_array()) {
      wrong(fmt::format("has no list as \"{}\"", key));
      return kNone;
    }
    if (value->size() > kMostEntries) {
      wrong(fmt::format("lists {} as \"{}\", more than {}", value->size(), key, kMostEntries));
      return kNone;
    }
    return *value;
  }
  std::vector<std::string> texts(const Json& object, const char* key, bool required) {
    std::vector<std::string> all;
    for (const Json& value : array(object, key, required)) {
      if (value.is_string()) {
        all.push_back(value.get<std::string>());
      } else {
        wrong(fmt::format("has something else than texts in \"{}\"", key));
      }
    }
    return all;
  }
  Digest digest(const std::string& text) {
    Result<Digest> parsed = parse_digest(text);
    if (parsed) return *parsed;
    wrong(fmt::format("names a blob that {}", parsed.error().what), parsed.error().code);
    return {};
  }
  Platform platform(const Json& object) {
    return {text(object, "os", false), text(object, "architecture", false),
            text(object, "variant", false)};
  }
  Descriptor descriptor(const Json& json) {
    Descriptor descriptor;
    if (!json.is_object()) {
      wrong("has something else where a descriptor should be");
      return descriptor;
    }
    descriptor.media_type = text(json, "mediaType", false);
    descriptor.digest = digest(text(json, "digest", true));
    const Json* size = find(json, "size");
    if (size == nullptr || !size->is_number_unsigned()) {
      wrong(fmt::format("does not say how large {} is", to_string(descriptor.digest)));
    } else {
      descriptor.size_bytes = size->get<std::uint64_t>();
    }
    if (const Json* on = find(json, "platform")) descriptor.platform = platform(*on);
    if (const Json* annotations = find(json, "annotations")) {
      for (const char* key : {"org.opencontainers.image.ref.name", "io.containerd.image.name"}) {
        std::string given = text(*annotations, key, false);
        if (!given.empty()) descriptor.names.push_back(std::move(given));
      }
    }
    descriptor.has_urls = !array(json, "urls", false).empty();
    descriptor.is_image = is_image(json, descriptor);
    return descriptor;
  }

 private:
  /// BuildKit's attestations are for no platform that there is, and annotated; artifacts have a
  /// type of their own (OCI Image Specification, image-index.md).
  bool is_image(const Json& json, const Descriptor& descriptor) {
    constexpr std::string_view kImageConfig = "application/vnd.oci.image.config.v1+json";
    constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";
    if (descriptor.platform && descriptor.platform->os == "unknown") return false;
    if (const Json* annotations = find(json, "annotations")) {
      const Json* const type = find(*annotations, "vnd.docker.reference.type");
      if (type != nullptr && *type == "attestation-manifest") return false;
    }
    const std::string artifact = text(json, "artifactType", false);
    return artifact.empty() || artifact == kImageConfig || artifact == kDockerConfig;
  }

  std::string name_;
  std::optional<Error> error_;
};

enum class DocumentKind : std::uint8_t { index, manifest };

/// nullopt when it is neither: the reader has the error.
std::optional<DocumentKind> kind_of(const Json& json, DocumentReader& reader) {
  const bool is_index = DocumentReader::find(json, "manifests") != nullptr;
  // Go writes an empty list as null, too: an image may have no layers.
  const bool is_manifest = json.is_object() && json.contains("layers") &&
                           (DocumentReader::find(json, "layers") != nullptr || !is_index);
  if (is_index != is_manifest) return is_index ? DocumentKind::index : DocumentKind::manifest;
  if (is_index) {
    // Taken for the one and for the other it may be two images: refused, as the specification says.
    reader.wrong("is an index and a manifest at once");
  } else if (DocumentReader::find(json, "fsLayers") != nullptr) {
    reader.wrong("is a manifest of schema 1, which is obsolete; only schema 2 is known",
                 Errc::unsupported);
  } else {
    reader.wrong("is neither an index nor a manifest of an image");
  }
  return std::nullopt;
}

Index read_index(const Json& json, DocumentReader& reader) {
  Index index;
  for (const Json& entry : reader.array(json, "manifests", true)) {
    index.manifests.push_back(reader.descriptor(entry));
  }
  return index;
}

Manifest read_manifest(const Json& json, DocumentReader& reader) {
  Manifest manifest;
  if (const Json* config = DocumentReader::find(json, "config")) {
    manifest.config = reader.descriptor(*config);
  } else {
    reader.wrong("names no configuration");
  }
  for (const Json& entry : reader.array(json, "layers", false)) {
    manifest.layers.push_back(reader.descriptor(entry));
  }
  return manifest;
}

Process read_process(const Json& json, DocumentReader& reader) {
  Process process;
  process.entrypoint = reader.texts(json, "Entrypoint", false);
  process.command = reader.texts(json, "Cmd", false);
  process.environment = reader.texts(json, "Env", false);
  process.user = reader.text(json, "User", false);
  process.directory = reader.text(json, "WorkingDir", false);
  return process;
}

}  // namespace

std::string blob_path(const Digest& digest) {
  return fmt::format("blobs/{}/{}", name_of(digest.algorithm), hex_of(digest));
}

Result<Platform> parse_platform(std::string_view text) {
  std::array<std::string, 3> parts;
  std::size_t count = 0;
  std::string_view rest = text;
  bool good = true;
  while (good) {
    const std::size_t slash = rest.find('/');
    const std::string_view part = rest.substr(0, slash);
    good = !part.empty() && count < parts.size();
    if (good) parts[count++] = part;
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
  if (!good || count < 2) {
    return fail(Errc::usage, fmt::format("{} is no platform (linux/amd64, linux/arm/v7)", text));
  }
  return Platform{parts[0], parts[1], parts[2]};
}

std::string to_string(const Platform& platform) {
  std::string text = platform.os + "/" + platform.architecture;
  if (!platform.variant.empty()) text += "/" + platform.variant;
  return text;
}

Platform host_platform() {
  struct Machine {
    std::string_view kernel;
    std::string_view architecture;
    std::string_view variant;
  };
  // The names that uname(2) has on Linux, and Go's for the same.
  constexpr std::array<Machine, 11> kMachines = {{{"x86_64", "amd64", ""},
                                                  {"i686", "386", ""},
                                                  {"i586", "386", ""},
                                                  {"aarch64", "arm64", "v8"},
                                                  {"armv7l", "arm", "v7"},
                                                  {"armv6l", "arm", "v6"},
                                                  {"ppc64le", "ppc64le", ""},
                                                  {"s390x", "s390x", ""},
                                                  {"riscv64", "riscv64", ""},
                                                  {"mips64", "mips64le", ""},
                                                  {"loongarch64", "loong64", ""}}};
  utsname host{};
  ::uname(&host);
  const std::string_view kernel = host.machine;
  const auto* machine = std::ranges::find(kMachines, kernel, &Machine::kernel);
  if (machine == kMachines.end()) return {"linux", std::string(kernel), ""};
  return {"linux", std::string(machine->architecture), std::string(machine->variant)};
}

Result<Document> parse_document(std::string_view text, std::string_view name) {
  DocumentReader reader(name);
  const Json json = reader.parse(text);
  if (!reader.good()) return reader.error();
  const std::optional<DocumentKind> kind = kind_of(json, reader);
  if (!kind) return reader.error();
  const Json* version = DocumentReader::find(json, "schemaVersion");
  if (version == nullptr || *version != 2) {
    reader.wrong("is not of schema version 2", Errc::unsupported);
  }
  Document document = *kind == DocumentKind::index ? Document(read_index(json, reader))
                                                   : Document(read_manifest(json, reader));
  if (!reader.good()) return reader.error();
  return document;
}

Result<Config> parse_config(std::string_view text, std::string_view name) {
  DocumentReader reader(name);
  const Json json = reader.parse(text);
  if (!reader.good()) return reader.error();
  Config config;
  if (!json.is_object()) reader.wrong("is no configuration of an image");
  config.platform = reader.platform(json);
  if (const Json* files = DocumentReader::find(json, "rootfs")) {
    for (const std::string& id : reader.texts(*files, "diff_ids", !files->contains("diff_ids"))) {
      config.diff_ids.push_back(reader.digest(id));
    }
  }
  if (const Json* container = DocumentReader::find(json, "config")) {
    config.process = read_process(*container, reader);
  }
  if (!reader.good()) return reader.error();
  return config;
}

Result<std::vector<DockerImage>> parse_docker_images(std::string_view text, std::string_view name) {
  DocumentReader reader(name);
  const Json json = reader.parse(text);
  if (!reader.good()) return reader.error();
  std::vector<DockerImage> images;
  if (!json.is_array() || json.size() > kMostEntries) reader.wrong("is no list of images");
  for (const Json& entry : json) {
    if (!reader.good()) break;
    DockerImage image;
    image.config = reader.text(entry, "Config", true);
    image.tags = reader.texts(entry, "RepoTags", false);
    image.layers = reader.texts(entry, "Layers", !entry.contains("Layers"));
    images.push_back(std::move(image));
  }
  if (!reader.good()) return reader.error();
  return images;
}

}  // namespace mkvirtfs::oci
