// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/oci/find_image.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/stream/testing/stream_data.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::oci;
using mkvirtfs::testing::MemorySource;

namespace {

/// An image in memory, made blob by blob.
class Layout final : public ImageFiles {
 public:
  Result<std::shared_ptr<ByteSource>> open(std::string_view path) const override {
    const auto file = files.find(path);
    if (file == files.end()) return std::shared_ptr<ByteSource>();
    return std::make_shared<MemorySource>(file->second, fmt::format("test:{}", path));
  }
  std::string name() const override { return "test"; }

  /// A blob, and its descriptor without its last brace.
  std::string blob(const std::string& bytes, std::string_view type) {
    const Digest digest = digest_of(bytes);
    files[blob_path(digest)] = bytes;
    return fmt::format(R"({{"mediaType":"{}","digest":"{}","size":{})", type, to_string(digest),
                       bytes.size());
  }
  std::string config(std::string_view architecture, std::size_t layers) {
    std::string ids;
    for (std::size_t at = 0; at < layers; ++at) {
      ids += fmt::format(R"({}"{}")", ids.empty() ? "" : ",",
                         to_string(digest_of(std::to_string(at))));
    }
    return fmt::format(
        R"({{"os":"linux","architecture":"{}","rootfs":{{"type":"layers","diff_ids":[{}]}}}})",
        architecture, ids);
  }
  /// A manifest of those layers; its descriptor without its last brace.
  std::string manifest(std::string_view architecture, const std::vector<std::string>& layers) {
    std::string all;
    for (const std::string& layer : layers) all += (all.empty() ? "" : ",") + layer + "}";
    return blob(fmt::format(R"({{"schemaVersion":2,"config":{}}},"layers":[{}]}})",
                            blob(config(architecture, layers.size()), "config"), all),
                "application/vnd.oci.image.manifest.v1+json");
  }
  std::string layer(const std::string& bytes) {
    return blob(bytes, "application/vnd.oci.image.layer.v1.tar+gzip");
  }
  static std::string index(const std::vector<std::string>& manifests) {
    std::string all;
    for (const std::string& manifest : manifests) all += (all.empty() ? "" : ",") + manifest;
    return fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", all);
  }

  std::map<std::string, std::string, std::less<>> files;
};

std::string named(const std::string& descriptor, std::string_view name) {
  return fmt::format(R"({},"annotations":{{"org.opencontainers.image.ref.name":"{}"}}}})",
                     descriptor, name);
}
std::string on(const std::string& descriptor, std::string_view os, std::string_view architecture,
               std::string_view variant = "") {
  return fmt::format(R"({},"platform":{{"os":"{}","architecture":"{}","variant":"{}"}}}})",
                     descriptor, os, architecture, variant);
}

ImageName oci_name(std::string reference = "") {
  return {ImageName::Form::oci, "test", std::move(reference)};
}
ImageName docker_name(std::string reference = "") {
  return {ImageName::Form::docker, "test", std::move(reference)};
}
Platform platform(std::string_view text) { return parse_platform(text).value(); }

std::string text_of(const ContainerImage& image) {
  std::string text;
  for (const LayerBlob& layer : image.layers) {
    std::string bytes(layer.bytes->size_bytes(), '?');
    REQUIRE(layer.bytes->read(0, std::as_writable_bytes(std::span(bytes))));
    text += bytes + " ";
  }
  return text;
}

std::string layers_of(const ImageFiles& files, const ImageName& name,
                      const std::optional<Platform>& on_platform = std::nullopt) {
  const Result<ContainerImage> image = find_image(files, name, on_platform);
  INFO((image ? std::string() : image.error().what));
  REQUIRE(image);
  return text_of(*image);
}

std::string error_of(const ImageFiles& files, const ImageName& name,
                     const std::optional<Platform>& on_platform = std::nullopt) {
  const Result<ContainerImage> image = find_image(files, name, on_platform);
  REQUIRE_FALSE(image);
  CHECK(image.error().what.find('\n') == std::string::npos);
  return hinted_text(image.error());
}

}  // namespace

TEST_CASE("images are named as skopeo names them") {
  const TempDir dir;
  const std::string with_colon = (dir / "a:b").string();
  write_file(dir / "a:b", "");
  const auto check = [](std::string_view source, ImageName::Form form, std::string_view path,
                        std::string_view reference) {
    CAPTURE(source);
    const auto name = parse_image_name(source);
    REQUIRE(name);
    CHECK(name->form == form);
    CHECK(name->path == path);
    CHECK(name->reference == reference);
  };
  using Form = ImageName::Form;
  check("oci:./app", Form::oci, "./app", "");
  check("oci:./app:latest", Form::oci, "./app", "latest");
  check("oci-archive:a.tar:localhost:5000/app:1", Form::oci, "a.tar", "localhost:5000/app:1");
  check("docker-archive:/x/save.tar.gz:app", Form::docker, "/x/save.tar.gz", "app");
  check("oci:" + with_colon, Form::oci, with_colon, "");
  CHECK_FALSE(parse_image_name("./oci:app"));
  CHECK_FALSE(parse_image_name("docker:app"));
  CHECK_FALSE(parse_image_name("rootfs.tar"));
}

TEST_CASE("a layout has its blobs at the path of their digests") {
  const Digest sha256 = digest_of("");
  CHECK(blob_path(sha256) == "blobs/sha256/" + hex_of(sha256));
  const Digest sha512 = digest_of("", DigestAlgorithm::sha512);
  CHECK(blob_path(sha512) == "blobs/sha512/" + hex_of(sha512));
}

TEST_CASE("a layout has its layers in order, and names them by reference") {
  Layout layout;
  const std::string one = layout.manifest("amd64", {layout.layer("low"), layout.layer("high")});
  const std::string other = layout.manifest("arm64", {layout.layer("other")});
  layout.files["index.json"] = Layout::index({named(one, "latest")});
  CHECK(layers_of(layout, oci_name()) == "low high ");
  CHECK(layers_of(layout, oci_name("latest")) == "low high ");
  CHECK(error_of(layout, oci_name("v2")) == "test has no image v2; it has latest");

  layout.files["index.json"] =
      Layout::index({named(one, "latest"), named(other, "localhost/b:v2")});
  CHECK(layers_of(layout, oci_name("latest")) == "low high ");
  CHECK(layers_of(layout, oci_name("localhost/b:v2")) == "other ");
  CHECK(layers_of(layout, oci_name("@1")) == "other ");
  CHECK(error_of(layout, oci_name()) ==
        "test has several images: latest, localhost/b:v2 [oci:test:NAME]");
  const ContainerImage image = find_image(layout, oci_name("latest"), std::nullopt).value();
  CHECK(image.name == "test:latest");
  CHECK(to_string(image.platform) == "linux/amd64");
  CHECK(image.layers[1].digest == digest_of("high"));
  CHECK(image.layers[1].diff_id == digest_of("1"));
  CHECK(image.id == to_string(digest_of(layout.config("amd64", 2))));
}

TEST_CASE("an image is chosen by its platform") {
  Layout layout;
  const auto arch = [&](const std::string& name) {
    return layout.manifest(name, {layout.layer(name)});
  };
  const std::string nested = layout.blob(
      Layout::index({on(arch("amd64"), "linux", "amd64"), on(arch("arm"), "linux", "arm", "v6"),
                     on(layout.manifest("arm", {layout.layer("v7")}), "linux", "arm", "v7"),
                     on(arch("s390x"), "linux", "s390x"), on(arch("none"), "unknown", "unknown")}),
      "application/vnd.oci.image.index.v1+json");
  layout.files["index.json"] = Layout::index({named(nested, "latest")});
  CHECK(layers_of(layout, oci_name(), platform("linux/amd64")) == "amd64 ");
  CHECK(layers_of(layout, oci_name(), platform("linux/arm/v7")) == "v7 ");
  CHECK(layers_of(layout, oci_name(), platform("linux/arm")) == "arm ");
  CHECK(error_of(layout, oci_name(), platform("windows/amd64")) ==
        "test has no image for windows/amd64; it has linux/amd64, linux/arm/v6, linux/arm/v7, "
        "linux/s390x [platform]");
  CHECK_THAT(error_of(layout, oci_name(), platform("unknown/unknown")),
             Catch::Contains("no image"));

  // The only image is taken for what it is, unless another was asked for.
  layout.files["index.json"] = Layout::index({named(arch("s390x"), "latest")});
  CHECK(layers_of(layout, oci_name()) == "s390x ");
  CHECK(error_of(layout, oci_name(), platform("linux/amd64")) ==
        "test is for linux/s390x, not for linux/amd64");

  CHECK(to_string(platform("linux/arm64/v8")) == "linux/arm64/v8");
  for (const char* wrong : {"", "linux", "linux/", "/amd64", "a/b/c/d"}) {
    CHECK_FALSE(parse_platform(wrong));
  }
  CHECK(host_platform().os == "linux");
}

TEST_CASE("an attestation manifest beside the image in index.json is not taken for an image") {
  Layout layout;
  const std::string image = layout.manifest("amd64", {layout.layer("image")});
  const std::string other = layout.manifest("unknown", {layout.layer("attestation")});
  const auto with = [&](const std::string& beside) {
    layout.files["index.json"] = Layout::index({on(image, "linux", "amd64"), beside});
    return layers_of(layout, oci_name());
  };
  CHECK(with(on(other, "unknown", "unknown")) == "image ");
  CHECK(with(other + R"(,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}})") ==
        "image ");
  CHECK(with(other + R"(,"artifactType":"application/vnd.example.sbom+json"})") == "image ");
  // By its number it can be asked for; two images stay two.
  CHECK(layers_of(layout, oci_name("@1")) == "attestation ");
  layout.files["index.json"] = Layout::index(
      {image + "}", other + R"(,"artifactType":"application/vnd.oci.image.config.v1+json"})"});
  CHECK(error_of(layout, oci_name()) == "test has several images: @0, @1 [oci:test:NAME]");
}

TEST_CASE("lists of layers that are null are empty") {
  Layout layout;
  const std::string config =
      layout.blob(R"({"os":"linux","architecture":"amd64","rootfs":{"diff_ids":null}})", "config");
  const std::string manifest = layout.blob(
      fmt::format(R"({{"schemaVersion":2,"config":{}}},"layers":null}})", config), "manifest");
  layout.files["index.json"] = Layout::index({manifest + "}"});
  CHECK(layers_of(layout, oci_name()) == "");
  layout.files["config.json"] = R"({"os":"linux","architecture":"amd64","rootfs":{}})";
  layout.files["manifest.json"] = R"([{"Config":"config.json","Layers":null}])";
  CHECK_THAT(error_of(layout, docker_name()), Catch::Contains("diff_ids"));
  layout.files["config.json"] = R"({"os":"linux","architecture":"amd64"})";
  CHECK(layers_of(layout, docker_name()) == "");
}

TEST_CASE("what is damaged, missing or elsewhere in a layout is said") {
  Layout layout;
  const std::string layer = layout.layer("bytes");
  const auto only = [&](const std::string& manifest) {
    layout.files["index.json"] = Layout::index({manifest + "}"});
  };
  CHECK(error_of(layout, oci_name()) == "test is no OCI layout: there is no index.json");
  layout.files["manifest.json"] = "[]";
  CHECK_THAT(error_of(layout, oci_name()), Catch::EndsWith("[docker-archive:]"));

  only(layout.manifest("amd64", {layer}));
  const std::string manifest_path =
      std::ranges::find_if(layout.files, [](const auto& file) {
        return file.second.starts_with(R"({"schemaVersion":2,"config)");
      })->first;
  const Layout good = layout;
  CHECK(layers_of(layout, oci_name()) == "bytes ");

  layout.files[blob_path(digest_of("bytes"))] = "longer bytes";
  CHECK_THAT(error_of(layout, oci_name()), Catch::Contains("has 12 bytes, its descriptor says 5"));
  layout.files.erase(blob_path(digest_of("bytes")));
  CHECK_THAT(error_of(layout, oci_name()), Catch::StartsWith("test: there is no blobs/sha256/"));
  layout = good;
  std::string& manifest = layout.files[manifest_path];
  manifest[manifest.size() - 2] = ' ';
  CHECK_THAT(error_of(layout, oci_name()), Catch::Contains("is damaged: it has the digest"));

  layout = good;
  only(layout.manifest("amd64", {layer + R"(,"urls":["https://example.org/x"])"}));
  CHECK(layers_of(layout, oci_name()) == "bytes ");
  layout.files.erase(blob_path(digest_of("bytes")));
  CHECK_THAT(error_of(layout, oci_name()), Catch::Contains("is a foreign one"));

  layout = good;
  only(layout.manifest("amd64", {layout.blob("{}", "application/vnd.example.config+json")}));
  CHECK_THAT(error_of(layout, oci_name()), Catch::Contains("and no tar of files"));

  only(layout.blob(fmt::format(R"({{"schemaVersion":2,"config":{}}},"layers":[{}}}]}})",
                               layout.blob(layout.config("amd64", 2), "config"), layer),
                   "manifest"));
  CHECK(error_of(layout, oci_name()) == "test has 1 layers, and its configuration lists 2");
}

TEST_CASE("invalid documents are refused, each in one line") {
  Layout layout;
  const auto index_error = [&](std::string text) {
    layout.files["index.json"] = std::move(text);
    return error_of(layout, oci_name());
  };
  CHECK(index_error("{") == "test:index.json is no JSON");
  CHECK(index_error("") == "test:index.json is no JSON");
  CHECK(index_error("[]") == "test:index.json is neither an index nor a manifest of an image");
  CHECK(index_error(std::string(100'000, '[')) == "test:index.json is nested more than 32 deep");
  CHECK_THAT(index_error(std::string(9 << 20, ' ')), Catch::Contains("documents of images end at"));
  CHECK(index_error(R"({"manifests":[],"layers":[]})") ==
        "test:index.json is an index and a manifest at once");
  CHECK_THAT(index_error(R"({"schemaVersion":1,"fsLayers":[]})"), Catch::Contains("schema 1"));
  CHECK_THAT(index_error(R"({"manifests":[]})"), Catch::Contains("schema version 2"));
  CHECK(index_error(R"({"schemaVersion":2,"manifests":[]})") == "test has no image ; it has none");
  CHECK_THAT(index_error(R"({"schemaVersion":2,"manifests":{}})"), Catch::Contains("no list"));
  CHECK_THAT(index_error(R"({"schemaVersion":2,"manifests":[7]})"), Catch::Contains("descriptor"));
  CHECK_THAT(index_error(R"({"schemaVersion":2,"manifests":[{"digest":7}]})"),
             Catch::Contains("no text as \"digest\""));
  CHECK_THAT(index_error(R"({"schemaVersion":2,"manifests":[{"digest":"sha256:../x"}]})"),
             Catch::Contains("is no digest"));
  CHECK_THAT(index_error(R"({"schemaVersion":2,"manifests":[{"digest":"md5:00"}]})"),
             Catch::Contains("only sha256"));
  const std::string digest = to_string(digest_of(""));
  for (const char* size : {"-1", "1.5", "\"1\"", "null", "1e3"}) {
    CHECK_THAT(
        index_error(fmt::format(
            R"({{"schemaVersion":2,"manifests":[{{"digest":"{}","size":{}}}]}})", digest, size)),
        Catch::Contains("how large"));
  }
  // An index that leads to itself would need to hold its own digest; deep ones are enough.
  std::string at = layout.manifest("amd64", {layout.layer("x")});
  for (int depth = 0; depth < 5; ++depth) at = layout.blob(Layout::index({at + "}"}), "index");
  CHECK_THAT(index_error(Layout::index({at + "}"})), Catch::Contains("indexes of indexes"));
}

TEST_CASE("what docker save wrote is read by tag") {
  Layout save;
  const auto config_path = [&](std::string_view architecture, std::size_t layers) {
    const std::string text = save.config(architecture, layers);
    std::string path = to_string(digest_of(text)).substr(7) + ".json";
    save.files[path] = text;
    return path;
  };
  save.files["1/layer.tar"] = "low";
  save.files["2/layer.tar"] = "high";
  save.files["blobs/sha256/" + to_string(digest_of("blob")).substr(7)] = "blob";
  save.files["manifest.json"] = fmt::format(
      R"([{{"Config":"{}","RepoTags":["app:1","host:5000/app"],"Layers":["1/layer.tar","2/layer.tar"]}},
          {{"Config":"{}","RepoTags":null,"Layers":["{}"]}}])",
      config_path("amd64", 2), config_path("arm64", 1), blob_path(digest_of("blob")));
  CHECK(layers_of(save, docker_name("app:1")) == "low high ");
  CHECK(layers_of(save, docker_name("docker.io/library/app:1")) == "low high ");
  CHECK(layers_of(save, docker_name("host:5000/app:latest")) == "low high ");
  CHECK(layers_of(save, docker_name("@1")) == "blob ");
  const ContainerImage image = find_image(save, docker_name("@1"), std::nullopt).value();
  CHECK(image.layers[0].digest == digest_of("blob"));
  CHECK_FALSE(find_image(save, docker_name("@0"), std::nullopt)->layers[0].digest);
  CHECK(error_of(save, docker_name()) ==
        "test has several images: app:1, @1 [docker-archive:test:NAME]");
  CHECK(error_of(save, docker_name("app")) == "test has no image app; it has app:1, @1");
  CHECK(error_of(save, docker_name("app:1"), platform("linux/arm64")) ==
        "test:app:1 is for linux/amd64, not for linux/arm64");

  save.files[config_path("amd64", 2)] += " ";
  CHECK_THAT(error_of(save, docker_name("app:1")), Catch::Contains("is damaged"));
  save.files.erase("1/layer.tar");
  save.files[config_path("amd64", 2)] = save.config("amd64", 2);
  CHECK(error_of(save, docker_name("app:1")) == "test: there is no 1/layer.tar");
  save.files["manifest.json"] = R"([{"Config":"../../etc/passwd","Layers":[]}])";
  CHECK(error_of(save, docker_name()) == "test: there is no ../../etc/passwd");
  save.files["manifest.json"] = "{}";
  CHECK(error_of(save, docker_name()) == "test:manifest.json is no list of images");
  save.files.erase("manifest.json");
  save.files["index.json"] = "{}";
  CHECK_THAT(error_of(save, docker_name()), Catch::EndsWith("[oci:]"));
}

TEST_CASE("files of a tar are found through links, and never outside") {
  TarIndex index;
  index.add_file("./a/layer.tar", {100, 10});
  index.add_symlink("b/layer.tar", "../a/layer.tar");
  index.add_hard_link("c/hard", "b/layer.tar");
  index.add_symlink("d", "/a//layer.tar");
  index.add_symlink("loop", "loop");
  index.add_symlink("out", "../../../a/layer.tar");
  index.add_file("../outside", {0, 1});
  index.add_file("twice", {1, 1});
  index.add_file("twice", {2, 2});
  for (const char* path : {"a/layer.tar", "/a/layer.tar", "b/layer.tar", "c/hard", "d", "x/../d"}) {
    CAPTURE(path);
    CHECK(index.find(path) == Range{100, 10});
  }
  CHECK(index.find("twice") == Range{2, 2});
  for (const char* path : {"loop", "out", "../outside", "outside", "../a/layer.tar", "", "a"}) {
    CAPTURE(path);
    CHECK_FALSE(index.find(path));
  }
  const auto files = make_tar_files(std::make_shared<MemorySource>(std::string(200, 'z'), "x.tar"),
                                    std::move(index));
  const auto opened = files->open("b/layer.tar");
  REQUIRE(opened);
  REQUIRE(*opened != nullptr);
  CHECK((*opened)->size_bytes() == 10);
  CHECK((*opened)->name() == "x.tar:b/layer.tar");
}

TEST_CASE("files of a layout directory are opened without leaving it") {
  const TempDir dir;
  std::filesystem::create_directories(dir / "layout/blobs");
  write_file(dir / "layout/index.json", "inside");
  write_file(dir / "secret", "outside");
  REQUIRE(::symlink("../secret", (dir / "layout/link").c_str()) == 0);
  REQUIRE(::symlink("../..", (dir / "layout/blobs/up").c_str()) == 0);
  REQUIRE(::mkfifo((dir / "layout/pipe").c_str(), 0600) == 0);
  FdLog log(-1, LogLevel::error);
  const auto files = open_directory((dir / "layout").string(), ChangeCheck::ctime, log);
  REQUIRE(files);
  const auto inside = (*files)->open("index.json");
  REQUIRE(inside);
  REQUIRE(*inside != nullptr);
  CHECK((*inside)->size_bytes() == 6);
  const auto is_there = [&](const char* path) {
    const auto opened = (*files)->open(path);
    return opened && *opened != nullptr;
  };
  for (const char* path :
       {"nothing", "link", "blobs/up/secret", "../secret", "/etc/passwd", "pipe", "blobs"}) {
    CAPTURE(path);
    CHECK_FALSE(is_there(path));
  }
  CHECK_FALSE(open_directory((dir / "nothing").string(), ChangeCheck::ctime, log));
}

TEST_CASE("a configuration says what a container runs") {
  const Result<Config> config = parse_config(
      R"({"os": "linux", "architecture": "amd64", "config": {"Entrypoint": ["/bin/app", "a b"],
          "Cmd": ["x"], "Env": ["A=1", "B="], "User": "u:g", "WorkingDir": "/srv"},
          "rootfs": {"type": "layers", "diff_ids": []}})",
      "the image");
  REQUIRE(config);
  CHECK(config->process == Process{.entrypoint = {"/bin/app", "a b"},
                                   .command = {"x"},
                                   .environment = {"A=1", "B="},
                                   .user = "u:g",
                                   .directory = "/srv"});
  // Go writes null for what is not there.
  const Result<Config> bare =
      parse_config(R"({"os": "linux", "config": {"Entrypoint": null, "Cmd": null}})", "the image");
  REQUIRE(bare);
  CHECK(bare->process == Process{});
  CHECK(parse_config(R"({"os": "linux"})", "the image").value().process == Process{});
  CHECK(parse_config(R"({"config": {"Cmd": [7]}})", "the image").error().code == Errc::unreadable);
  CHECK(parse_config(R"({"config": {"User": 7}})", "the image").error().code == Errc::unreadable);
}
