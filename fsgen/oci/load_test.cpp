// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/oci/load.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/oci/whiteouts.h"
#include "fsgen/tree/listing.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::oci;

namespace {

/// Writes ustar archives member by member, in any order and with any names.
class Tar {
 public:
  Tar& directory(std::string_view path, unsigned mode = 0755) {
    return add('5', path, "", "", mode);
  }
  Tar& file(std::string_view path, std::string_view bytes, unsigned mode = 0644) {
    return add('0', path, "", bytes, mode);
  }
  Tar& symlink(std::string_view path, std::string_view target) {
    return add('2', path, target, "", 0777);
  }
  Tar& hard_link(std::string_view path, std::string_view target) {
    return add('1', path, target, "", 0644);
  }
  Tar& whiteout(std::string_view path) { return file(path, "", 0); }
  std::string bytes() const { return bytes_ + std::string(1024, '\0'); }

 private:
  Tar& add(char type, std::string_view path, std::string_view link, std::string_view bytes,
           unsigned mode) {
    std::string header(512, '\0');
    const auto put = [&](std::size_t at, std::string_view text) {
      header.replace(at, text.size(), text);
    };
    put(0, path);
    put(100, fmt::format("{:07o}", mode));
    put(108, "0000000");
    put(116, "0000000");
    put(124, fmt::format("{:011o}", bytes.size()));
    put(136, "00000000000");
    put(148, "        ");
    header[156] = type;
    put(157, link);
    put(257, std::string_view("ustar\00000", 8));
    unsigned sum = 0;
    for (const char c : header) sum += static_cast<unsigned char>(c);
    put(148, fmt::format("{:06o}", sum) + std::string(1, '\0'));
    bytes_ += header;
    bytes_ += bytes;
    bytes_.append((512 - bytes.size() % 512) % 512, '\0');
    return *this;
  }

  std::string bytes_;
};

std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string packed(const TempDir& dir, const std::string& bytes, const std::string& program) {
  write_file(dir / "plain", bytes);
  const std::string plain = (dir / "plain").string();
  const Ran ran = run_tool({"sh", "-c", program + " -c <" + plain + " >" + plain + ".packed"});
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  return read_all(plain + ".packed");
}

/// Writes a layout of these blobs, as OCI and as docker save have it.
class ImageWriter {
 public:
  explicit ImageWriter(std::filesystem::path root,
                       DigestAlgorithm algorithm = DigestAlgorithm::sha256)
      : root_(std::move(root)), algorithm_(algorithm) {
    std::filesystem::create_directories(root_ / "blobs/sha256");
    std::filesystem::create_directories(root_ / "blobs/sha512");
  }

  std::string blob(const std::string& bytes) {
    const Digest digest = digest_of(bytes, algorithm_);
    write_file(root_ / blob_path(digest), bytes);
    return fmt::format(R"("digest":"{}","size":{})", to_string(digest), bytes.size());
  }
  /// Of layers as they are, and unpacked.
  void finish(const std::vector<std::pair<std::string, std::string>>& layers) {
    std::string ids;
    std::string descriptors;
    for (const auto& [bytes, unpacked] : layers) {
      const char* comma = ids.empty() ? "" : ",";
      ids += fmt::format(R"({}"{}")", comma, to_string(digest_of(unpacked, algorithm_)));
      descriptors += fmt::format(R"({}{{"mediaType":"application/vnd.oci.image.layer.v1.tar",{}}})",
                                 comma, blob(bytes));
    }
    const std::string config = blob(fmt::format(
        R"({{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{}]}}}})",
        ids));
    const std::string manifest = blob(
        fmt::format(R"({{"schemaVersion":2,"config":{{{}}},"layers":[{}]}})", config, descriptors));
    write_file(root_ / "index.json",
               fmt::format(R"({{"schemaVersion":2,"manifests":[{{{}}}]}})", manifest));
    write_file(root_ / "oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  }

 private:
  std::filesystem::path root_;
  DigestAlgorithm algorithm_;
};

Result<LoadedImage> load(ImageName::Form form, const std::filesystem::path& path,
                         bool verify_direct = true) {
  LoadOptions options;
  options.verify_direct = verify_direct;
  return load_image({form, path.string(), ""}, options, null_log());
}
using Form = ImageName::Form;

std::string bytes_at(const Layer& layer, std::string_view path) {
  const Node* node = layer.tree->find_path(path);
  if (node == nullptr) return "nothing";
  if (!node->is_regular()) return "no file";
  const auto no = layer.tree->number_of(*node);
  std::string bytes(node->size_bytes, '?');
  const Result<void> read =
      layer.contents->read(content_no(no), 0, std::as_writable_bytes(std::span(bytes)));
  return read ? bytes : read.error().what;
}

Tar lowest() {
  return Tar{}
      .directory("etc/")
      .file("etc/hosts", "low hosts")
      .file("etc/passwd", "low passwd")
      .directory("opt/")
      .directory("opt/app/")
      .file("opt/app/old", "old")
      .file("opt/app/big", std::string(100'000, 'b'))
      .directory("var/")
      .directory("var/cache/", 0700)
      .file("var/cache/x", "x")
      .file("was-file", "file")
      .directory("was-dir/")
      .file("was-dir/x", "x");
}
/// Whiteouts after and before what they must not touch.
Tar middle() {
  return Tar{}
      .file("etc/new", "new")
      .whiteout("etc/.wh.passwd")
      .file("var/cache/y", "y")
      .whiteout("var/cache/.wh..wh..opq")
      .file("var/cache/z", "z")
      .whiteout("opt/.wh.app")
      .directory("opt/app/")
      .file("opt/app/fresh", "fresh")
      .directory("was-file/")
      .file("was-file/below", "below")
      .symlink("was-dir", "etc")
      .file(".wh..wh.aufs", "meta")
      .file(".wh..wh.plnk/1.2", "meta")
      .whiteout(".wh.never-there");
}
void check_flattened(const Layer& layer) {
  CHECK(bytes_at(layer, "etc/hosts") == "high hosts");
  CHECK(bytes_at(layer, "etc/passwd") == "nothing");
  CHECK(bytes_at(layer, "etc/new") == "new");
  CHECK(bytes_at(layer, "var/cache/x") == "nothing");
  CHECK(bytes_at(layer, "var/cache/y") == "y");
  CHECK(bytes_at(layer, "var/cache/z") == "z");
  CHECK(layer.tree->find_path("var/cache")->mode == (S_IFDIR | 0700));
  CHECK(bytes_at(layer, "opt/app/old") == "nothing");
  CHECK(bytes_at(layer, "opt/app/fresh") == "fresh");
  CHECK(bytes_at(layer, "was-file/below") == "below");
  REQUIRE(layer.tree->find_path("was-dir") != nullptr);
  CHECK(layer.tree->find_path("was-dir")->is_symlink());
  CHECK(to_listing(*layer.tree).find(".wh.") == std::string::npos);
}

}  // namespace

TEST_CASE("the layers of an image become its root file system, however they are packed") {
  const TempDir dir;
  const std::string low = lowest().bytes();
  const std::string mid = middle().bytes();
  // Its whiteout is not for its own hosts.
  const std::string high = Tar{}.file("etc/hosts", "high hosts").whiteout("etc/.wh.hosts").bytes();
  const std::string linking = Tar{}.hard_link("etc/big", "opt/app/big").bytes();
  const auto zstd = [&](const std::string& bytes) { return packed(dir, bytes, "zstd"); };
  const auto gzip = [&](const std::string& bytes) { return packed(dir, bytes, "gzip"); };

  ImageWriter writer(dir.path() / "layout");
  writer.finish({{gzip(low), low},
                 {linking, linking},
                 {zstd(mid), mid},
                 {high, high},
                 {gzip(Tar{}.bytes()), Tar{}.bytes()}});
  const Result<LoadedImage> image = load(Form::oci, dir.path() / "layout");
  INFO((image ? std::string() : image.error().what));
  REQUIRE(image);
  check_flattened(image->layer);
  CHECK(bytes_at(image->layer, "etc/big") == std::string(100'000, 'b'));
  CHECK(image->layer.tree->find_path("etc/big")->link_count == 1);
  CHECK(image->layer_count == 5);
  CHECK(to_string(image->platform) == "linux/amd64");

  // A tar of the layout is the same, and so is one that is packed once more.
  const std::string root = dir.path().string();
  REQUIRE(run_tool({"tar", "-C", root + "/layout", "-cf", root + "/oci.tar", "."}).status == 0);
  REQUIRE(run_tool({"gzip", "-k", root + "/oci.tar"}).status == 0);
  for (const char* name : {"oci.tar", "oci.tar.gz"}) {
    const Result<LoadedImage> again = load(Form::oci, dir.path() / name);
    INFO((again ? std::string() : again.error().what));
    REQUIRE(again);
    CHECK(again->layer.tree->id() == image->layer.tree->id());
    check_flattened(again->layer);
  }
}

TEST_CASE("layers of docker save lie directly in the archive, symlinked ones too") {
  const TempDir dir;
  const std::string low = lowest().bytes();
  const std::string mid = middle().bytes();
  const std::string high = Tar{}.file("etc/hosts", "high hosts").bytes();
  const std::string config = fmt::format(
      R"({{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}","{}","{}","{}"]}}}})",
      to_string(digest_of(low)), to_string(digest_of(mid)), to_string(digest_of(high)),
      to_string(digest_of(high)));
  const std::string config_name = to_string(digest_of(config)).substr(7) + ".json";
  const std::string manifest = fmt::format(
      R"([{{"Config":"{}","RepoTags":["app:latest"],"Layers":["1/layer.tar","2/layer.tar","3/layer.tar","4/layer.tar"]}}])",
      config_name);
  const std::string saved = Tar{}
                                .file("1/layer.tar", low)
                                .file("2/layer.tar", mid)
                                .symlink("4/layer.tar", "../3/layer.tar")
                                .file("3/layer.tar", high)
                                .file(config_name, config)
                                .file("manifest.json", manifest)
                                .bytes();
  write_file(dir / "save.tar", saved);
  const Result<LoadedImage> image = load(Form::docker, dir / "save.tar");
  INFO((image ? std::string() : image.error().what));
  REQUIRE(image);
  check_flattened(image->layer);

  // The kernel can move the bytes from the archive itself.
  const SourceTree& tree = *image->layer.tree;
  const auto no = tree.number_of(*tree.find_path("etc/new"));
  const auto pin = image->layer.contents->pin(content_no(no));
  REQUIRE(pin);
  REQUIRE(pin->file);
  CHECK(saved.substr(pin->file_offset, 3) == "new");

  CHECK_THAT(hinted_text(load(Form::oci, dir / "save.tar").error()),
             Catch::EndsWith(" [docker-archive:]"));

  // One byte of a file is another.
  std::string damaged = saved;
  damaged[damaged.find("low hosts")] = 'L';
  write_file(dir / "save.tar", damaged);
  CHECK_THAT(load(Form::docker, dir / "save.tar").error().what,
             Catch::Contains("save.tar:1/layer.tar is damaged: it has the digest"));
  const Result<LoadedImage> believed = load(Form::docker, dir / "save.tar", false);
  REQUIRE(believed);
  check_flattened(believed->layer);
}

TEST_CASE("indexes of compressed layers are kept, and digests verified all the same") {
  const TempDir dir;
  const std::string low = lowest().bytes();
  const std::string gz = packed(dir, low, "gzip");
  const std::string mid = middle().bytes();
  ImageWriter writer(dir.path() / "layout");
  writer.finish({{gz, low}, {mid, mid}});
  LoadOptions options;
  const std::filesystem::path kept = dir.path() / "kept";
  options.index_cache = std::make_shared<archive::IndexCache>(kept.string(), null_log());
  const ImageName name{Form::oci, (dir.path() / "layout").string(), ""};
  const Result<LoadedImage> first = load_image(name, options, null_log());
  REQUIRE(first);
  const auto files = std::distance(std::filesystem::directory_iterator(kept),
                                   std::filesystem::directory_iterator());
  CHECK(files == 1);
  const Result<LoadedImage> second = load_image(name, options, null_log());
  REQUIRE(second);
  CHECK(second->layer.tree->id() == first->layer.tree->id());
  CHECK(bytes_at(second->layer, "var/cache/z") == "z");
  CHECK(bytes_at(second->layer, "etc/hosts") == "low hosts");

  // What stands there says nothing of what is in the blob now.
  std::string damaged = gz;
  damaged[5] = static_cast<char>(damaged[5] ^ 0x10);
  write_file(dir.path() / "layout" / blob_path(digest_of(gz)), damaged);
  const Result<LoadedImage> third = load_image(name, options, null_log());
  REQUIRE_FALSE(third);
  CHECK_THAT(third.error().what, Catch::Contains("is damaged: it has the digest"));
}

TEST_CASE("a damaged layer is reported as such, whatever the damage looks like") {
  const TempDir dir;
  const std::string low = lowest().bytes();
  const std::string gz = packed(dir, low, "gzip");
  ImageWriter writer(dir.path() / "layout");
  writer.finish({{gz, low}});
  const std::filesystem::path blob = dir.path() / "layout" / blob_path(digest_of(gz));
  for (const std::size_t at : {gz.size() / 2, gz.size() - 6, std::size_t{5}}) {
    std::string damaged = gz;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    write_file(blob, damaged);
    const Result<LoadedImage> image = load(Form::oci, dir.path() / "layout", false);
    REQUIRE_FALSE(image);
    CHECK_THAT(image.error().what, Catch::Contains("is damaged: it has the digest"));
  }
}

TEST_CASE("blobs are named by SHA-512, too") {
  const TempDir dir;
  const std::string low = lowest().bytes();
  const std::string gz = packed(dir, low, "gzip");
  const std::string mid = middle().bytes();
  ImageWriter writer(dir.path() / "layout", DigestAlgorithm::sha512);
  writer.finish({{gz, low}, {mid, mid}});
  const Result<LoadedImage> image = load(Form::oci, dir.path() / "layout");
  INFO((image ? std::string() : image.error().what));
  REQUIRE(image);
  CHECK(image->id.starts_with("sha512:"));
  CHECK(bytes_at(image->layer, "etc/hosts") == "low hosts");
  for (const std::string& bytes : {gz, mid}) {
    const std::filesystem::path blob =
        dir.path() / "layout" / blob_path(digest_of(bytes, DigestAlgorithm::sha512));
    std::string damaged = bytes;
    damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
    write_file(blob, damaged);
    const Result<LoadedImage> refused = load(Form::oci, dir.path() / "layout");
    REQUIRE_FALSE(refused);
    CHECK_THAT(refused.error().what, Catch::Contains("is damaged: it has the digest sha512:"));
    write_file(blob, bytes);
  }
}

TEST_CASE("an image comes through a pipe, too") {
  const TempDir dir;
  const std::string low = lowest().bytes();
  ImageWriter(dir.path() / "layout").finish({{packed(dir, low, "gzip"), low}});
  const std::string fifo = (dir / "fifo").string();
  const std::string command = "cd " + dir.path().string() +
                              "; mkfifo fifo; tar -C layout -cf fifo . & while [ ! -p fifo ]; do "
                              "sleep 0.01; done";
  REQUIRE(std::system(command.c_str()) == 0);
  LoadOptions options;
  options.stream.spool = std::make_shared<SpoolSpace>("/var/tmp", std::uint64_t{1} << 30);
  const std::filesystem::path kept = dir.path() / "kept";
  options.index_cache = std::make_shared<archive::IndexCache>(kept.string(), null_log());
  const Result<LoadedImage> image = load_image({Form::oci, fifo, ""}, options, null_log());
  INFO((image ? std::string() : image.error().what));
  REQUIRE(image);
  CHECK(bytes_at(image->layer, "etc/hosts") == "low hosts");
  CHECK(image->spool_bytes % 10240 == 0);
  CHECK(image->spool_bytes != 0);
  CHECK_FALSE(std::filesystem::exists(kept));
}

TEST_CASE("many layers are read at once, as if one after the other") {
  constexpr int kLayers = 23;
  const TempDir dir;
  std::vector<std::pair<std::string, std::string>> layers;
  for (int i = 0; i < kLayers; ++i) {
    Tar tar;
    tar.file("last", fmt::format("of {}", i)).file(fmt::format("own/{}", i), std::to_string(i));
    for (int file = 0; file < i * 7 % 40; ++file) {
      tar.file(fmt::format("file{}", file), fmt::format("{} of {}", file, i));
    }
    if (i == 5) tar.whiteout("own/.wh.4");
    const std::string bytes = tar.bytes();
    layers.emplace_back(i % 3 == 0 ? packed(dir, bytes, "gzip") : bytes, bytes);
  }
  ImageWriter(dir.path() / "layout").finish(layers);
  std::string id;
  for (int round = 0; round < 5; ++round) {
    const Result<LoadedImage> image = load(Form::oci, dir.path() / "layout");
    INFO((image ? std::string() : image.error().what));
    REQUIRE(image);
    CHECK(image->layer_count == kLayers);
    CHECK(bytes_at(image->layer, "last") == fmt::format("of {}", kLayers - 1));
    CHECK(bytes_at(image->layer, "own/3") == "3");
    CHECK(bytes_at(image->layer, "own/4") == "nothing");
    const std::string found = to_listing(*image->layer.tree);
    CHECK((id.empty() || id == found));
    id = found;
  }

  // The lowest of those that are damaged is reported, whichever is found first.
  for (const int at : {kLayers - 1, 9, 7, 2, 0}) {
    const std::string& bytes = layers[static_cast<std::size_t>(at)].first;
    const Digest digest = digest_of(bytes);
    std::string damaged = bytes;
    damaged[bytes.size() / 2] = static_cast<char>(damaged[bytes.size() / 2] ^ 1);
    write_file(dir.path() / "layout" / blob_path(digest), damaged);
    for (int round = 0; round < 5; ++round) {
      const Result<LoadedImage> image = load(Form::oci, dir.path() / "layout");
      REQUIRE_FALSE(image);
      CHECK_THAT(image.error().what, Catch::EndsWith(to_string(digest)));
    }
  }
}

TEST_CASE("links across layers lead to what was there before, or are refused by name") {
  const TempDir dir;
  const std::string low = lowest().bytes();
  const auto error_with = [&](const Tar& top) {
    ImageWriter writer(dir.path() / "layout");
    writer.finish({{low, low}, {top.bytes(), top.bytes()}});
    const Result<LoadedImage> image = load(Form::oci, dir.path() / "layout");
    return image ? std::string("fine") : image.error().what;
  };
  CHECK(error_with(Tar{}.hard_link("etc/again", "etc/hosts")) == "fine");
  CHECK_THAT(error_with(Tar{}.hard_link("again", "nothing")),
             Catch::EndsWith("again is a hard link to nothing, which is nowhere"));
  CHECK_THAT(error_with(Tar{}.hard_link("again", "opt")), Catch::EndsWith("which is a directory"));
  CHECK_THAT(error_with(Tar{}.file("../out", "x")), Catch::Contains("../out"));
  CHECK_THAT(error_with(Tar{}.whiteout("etc/.wh.")),
             Catch::Contains("etc/.wh. is no valid whiteout"));
  CHECK_THAT(error_with(Tar{}.whiteout("etc/.wh...")), Catch::Contains("is no valid whiteout"));
  CHECK_THAT(error_with(Tar{}.file(".wh.etc/hosts", "x")), Catch::Contains("is no valid whiteout"));
}

TEST_CASE("a log without whiteouts is left as it is") {
  archive::MemberLog log;
  archive::Member member;
  member.path = "etc/hosts.wh";
  member.mode = S_IFREG | 0644;
  REQUIRE(log.append(member));
  const auto size = log.bytes().size();
  const Result<LayerMarks> marks = take_whiteouts(log, "layer", archive::UnsafeNames::error);
  REQUIRE(marks);
  CHECK(marks->marks.empty());
  CHECK(log.bytes().size() == size);

  member.path = "./a/b/.wh.c";
  REQUIRE(log.append(member));
  member.path = "/.wh..wh..opq";
  REQUIRE(log.append(member));
  const Result<LayerMarks> taken = take_whiteouts(log, "layer", archive::UnsafeNames::error);
  REQUIRE(taken);
  REQUIRE(taken->marks.size() == 2);
  CHECK(taken->marks[0].path == "a/b/c");
  CHECK_FALSE(taken->marks[0].is_opaque);
  CHECK(taken->marks[1].path.empty());
  CHECK(taken->marks[1].is_opaque);
  CHECK(log.bytes().size() == size);
  CHECK(log.member_count() == 1);
}

namespace {

std::pair<std::string, std::string> plain(const Tar& tar) { return {tar.bytes(), tar.bytes()}; }

Result<LoadedImage> load_with(const std::filesystem::path& path, LayerSymlinks symlinks) {
  LoadOptions options;
  options.layer.layer_symlinks = symlinks;
  return load_image({Form::oci, path.string(), ""}, options, null_log());
}

std::string paths_of(const SourceTree& tree) {
  std::string text;
  for (const Directory& directory : tree.directories()) {
    for (const Entry entry : tree.entries(directory)) {
      std::string path = tree.path(directory.node);
      if (!path.empty()) path += '/';
      path += tree.name(directory, entry);
      if (tree.node(entry.node).is_directory()) path += '/';
      if (tree.node(entry.node).is_symlink()) path += "->";
      text += (text.empty() ? "" : " ") + path;
    }
  }
  return text;
}

Tar merged_usr() {
  return Tar{}
      .directory("usr/")
      .directory("usr/lib/")
      .file("usr/lib/libc", "libc")
      .file("usr/lib/old", "old")
      .symlink("lib", "usr/lib")
      .symlink("lib64", "/usr/lib");
}

}  // namespace

TEST_CASE("an implied parent in a layer follows symlinks, an explicit one replaces them") {
  const TempDir dir("/var/tmp");
  ImageWriter(dir.path())
      .finish({plain(merged_usr()),
               plain(Tar{}
                         .file("lib/foo", "foo")
                         .hard_link("lib64/libm", "lib/libc")
                         .whiteout("lib64/.wh.old")
                         .symlink("own", "/usr/lib/../new")
                         .file("own/bar", "bar")),
               plain(Tar{}.directory("lib64/").file("lib64/baz", "baz"))});
  const Result<LoadedImage> image = load_with(dir.path(), LayerSymlinks::follow);
  INFO((image ? "" : image.error().what));
  REQUIRE(image);
  CHECK(paths_of(*image->layer.tree) ==
        "lib-> lib64/ own-> usr/ lib64/baz usr/lib/ usr/new/ usr/lib/foo usr/lib/libc "
        "usr/lib/libm usr/new/bar");
  CHECK(bytes_at(image->layer, "usr/lib/foo") == "foo");
  CHECK(bytes_at(image->layer, "usr/lib/libm") == "libc");
  CHECK(image->layer.tree->find_path("usr/lib/libc")->link_count == 2);

  ImageWriter(dir / "two").finish({plain(merged_usr()), plain(Tar{}.file("lib/foo", "foo"))});
  const Result<LoadedImage> refused = load_with(dir / "two", LayerSymlinks::error);
  REQUIRE_FALSE(refused);
  CHECK_THAT(hinted_text(refused.error()),
             Catch::EndsWith(" [layer-symlinks=follow] [layer-symlinks=replace]"));
}

TEST_CASE("with --layer-symlinks=replace an implied parent takes the symlink's place") {
  const TempDir dir("/var/tmp");
  ImageWriter(dir.path())
      .finish({plain(merged_usr()), plain(Tar{}.file("lib/foo", "foo").whiteout("lib64/.wh.old"))});
  const Result<LoadedImage> image = load_with(dir.path(), LayerSymlinks::replace);
  REQUIRE(image);
  CHECK(paths_of(*image->layer.tree) ==
        "lib/ lib64-> usr/ lib/foo usr/lib/ usr/lib/libc usr/lib/old");
}

TEST_CASE("whiteouts and opaque directories follow symlinks in their parents alone") {
  const TempDir dir("/var/tmp");
  const auto tree_of = [&](const Tar& top) {
    std::filesystem::remove_all(dir / "layout");
    ImageWriter(dir / "layout").finish({plain(merged_usr()), plain(top)});
    const Result<LoadedImage> image = load_with(dir / "layout", LayerSymlinks::follow);
    return image ? paths_of(*image->layer.tree) : image.error().what;
  };
  // The link itself, and then what is below its name: nothing of usr/lib.
  CHECK(tree_of(Tar{}.whiteout(".wh.lib").whiteout("lib/.wh.old").file("lib/x", "x")) ==
        "lib/ lib64-> usr/ lib/x usr/lib/ usr/lib/libc usr/lib/old");
  CHECK(tree_of(Tar{}.whiteout("lib/.wh..wh..opq").file("lib/x", "x")) ==
        "lib-> lib64-> usr/ usr/lib/ usr/lib/x");
  // A directory that the layer names is no symlink, wherever in the layer it stands.
  CHECK(tree_of(Tar{}.whiteout("lib/.wh.old").directory("lib/")) ==
        "lib/ lib64-> usr/ usr/lib/ usr/lib/libc usr/lib/old");
  CHECK(tree_of(Tar{}.whiteout("lib/.wh.never").whiteout("nowhere/.wh.x")) ==
        "lib-> lib64-> usr/ usr/lib/ usr/lib/libc usr/lib/old");
}

TEST_CASE("a wrong diff_id of a compressed layer is refused in the one pass") {
  const TempDir dir("/var/tmp");
  const std::string unpacked = lowest().bytes();
  for (const std::string program : {"gzip", "zstd"}) {
    const std::string bytes = packed(dir, unpacked, program);
    for (const DigestAlgorithm algorithm : {DigestAlgorithm::sha256, DigestAlgorithm::sha512}) {
      std::filesystem::remove_all(dir / "layout");
      ImageWriter(dir / "layout", algorithm).finish({{bytes, unpacked}});
      CHECK(load(Form::oci, dir / "layout"));
      std::filesystem::remove_all(dir / "layout");
      ImageWriter(dir / "layout", algorithm).finish({{bytes, unpacked + "x"}});
      const Result<LoadedImage> wrong = load(Form::oci, dir / "layout");
      REQUIRE_FALSE(wrong);
      CHECK_THAT(wrong.error().what, Catch::Contains("diff_ids"));
    }
  }
  // Of what is not compressed it is the digest itself.
  std::filesystem::remove_all(dir / "layout");
  ImageWriter(dir / "layout").finish({{unpacked, unpacked + "x"}});
  const Result<LoadedImage> wrong = load(Form::oci, dir / "layout", /*verify_direct=*/false);
  REQUIRE_FALSE(wrong);
  CHECK_THAT(wrong.error().what, Catch::Contains("diff_ids"));
}

TEST_CASE("a kept index knows what its stream unpacks to, or is made anew") {
  const TempDir dir("/var/tmp");
  const std::string unpacked = lowest().bytes();
  const std::string bytes = packed(dir, unpacked, "gzip");
  ImageWriter(dir / "layout").finish({{bytes, unpacked}});
  LoadOptions options;
  options.index_cache =
      std::make_shared<const archive::IndexCache>((dir / "cache").string(), null_log());
  const ImageName name{Form::oci, (dir / "layout").string(), ""};
  // As an archive by itself, for which nobody asks for a digest.
  const std::string blob =
      (dir / "layout" / blob_path(digest_of(bytes, DigestAlgorithm::sha256))).string();
  const auto read = [&](std::optional<DigestAlgorithm> algorithm) {
    Result<std::shared_ptr<ByteSource>> file = archive::open_archive_file(blob, {}, null_log());
    REQUIRE(file);
    Result<archive::Archive> archive =
        archive::read_archive(*file, {}, {}, options.index_cache.get(), null_log(), algorithm);
    REQUIRE(archive);
    return std::move(*archive);
  };
  CHECK_FALSE(read({}).from_kept_index);
  CHECK(read({}).from_kept_index);
  CHECK_FALSE(read(DigestAlgorithm::sha256).from_kept_index);
  const archive::Archive again = read(DigestAlgorithm::sha256);
  CHECK(again.from_kept_index);
  CHECK(again.unpacked_digest == digest_of(unpacked, DigestAlgorithm::sha256));
  CHECK_FALSE(read(DigestAlgorithm::sha512).from_kept_index);
  CHECK(load_image(name, options, null_log()));
}

TEST_CASE("an image without layers is an empty directory") {
  const TempDir dir("/var/tmp");
  ImageWriter(dir.path()).finish({});
  LoadOptions options;
  options.layer.entries.owner_uid = 5;
  const Result<LoadedImage> image =
      load_image({Form::oci, dir.path().string(), ""}, options, null_log());
  INFO((image ? "" : image.error().what));
  REQUIRE(image);
  CHECK(image->layer_count == 0);
  CHECK(image->layer.tree->node_count() == 1);
  CHECK(image->layer.tree->node(kRootNode).mode == (S_IFDIR | 0755));
  CHECK(image->layer.tree->node(kRootNode).uid == 5);
}

TEST_CASE("files that AUFS kept in .wh..wh.plnk stand under all their names") {
  const TempDir dir("/var/tmp");
  ImageWriter(dir.path())
      .finish({plain(Tar{}
                         .directory(".wh..wh.plnk/")
                         .hard_link("early", ".wh..wh.plnk/17.34")
                         .file(".wh..wh.plnk/17.34", "kept", 0750)
                         .directory("bin/")
                         .hard_link("bin/a", "/.wh..wh.plnk/17.34")
                         .hard_link("bin/b", ".wh..wh.plnk/17.34"))});
  const Result<LoadedImage> image = load(Form::oci, dir.path());
  INFO((image ? "" : image.error().what));
  REQUIRE(image);
  CHECK(paths_of(*image->layer.tree) == "bin/ early bin/a bin/b");
  CHECK(bytes_at(image->layer, "bin/b") == "kept");
  CHECK(image->layer.tree->find_path("early")->link_count == 3);
  CHECK(image->layer.tree->find_path("bin/a")->mode == (S_IFREG | 0750));
}
