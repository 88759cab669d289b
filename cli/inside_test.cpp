// SPDX-License-Identifier: BSD-3-Clause
// ls, cat and stat, on every kind of source.
#include <fmt/format.h>
#include <sys/stat.h>
#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <span>
#include <string>
#include <vector>

#include "cli/inside.h"
#include "cli/testing/program.h"
#include "support/sha256.h"
#include "support/text.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {
namespace {

using testing::Outcome;
using testing::Process;
using testing::run_here;
using Words = std::vector<std::string>;
namespace fs = std::filesystem;

const std::string kBytes = "the bytes of the file\n";

/// A place with one tree, dir/file and more, as every kind of source.
class Sources {
 public:
  Sources() {
    fs::create_directories(place / "rootfs/dir");
    write_file(place / "rootfs/dir/file", kBytes);
    tool({"tar", "-C", "rootfs", "-czf", "rootfs.tar.gz", "dir"});
    fs::create_directory(place / "above");
    fs::copy(place / "rootfs", place / "above/release-1.0", fs::copy_options::recursive);
    tool({"tar", "-C", "above", "-czf", "release.tar.gz", "release-1.0"});
  }

  void tool(const Words& words) const {
    Words all{"env", "-C", place.path().string()};
    all.insert(all.end(), words.begin(), words.end());
    const Ran ran = run_tool(all);
    INFO(ran.output);
    REQUIRE(ran.status == 0);
  }
  void make_disk_images() const {
    tool({"mke2fs", "-q", "-t", "ext4", "-d", "rootfs", "ext4.img", "4M"});
    tool({"mkfs.fat", "-C", "fat.img", "1440"});
    tool({"mcopy", "-s", "-i", "fat.img", "rootfs/dir", "::"});
    tool({"mkfs.erofs", "erofs.img", "rootfs"});
    write_file(place / "disk.img", std::string(8 << 20, '\0'));
    tool({"sh", "-c",
          "printf 'label: gpt\nstart=2048, size=4096, name=root\n' | sfdisk -q disk.img"});
    tool({"mke2fs", "-q", "-d", "rootfs", "-L", "system", "-E", "offset=1048576", "disk.img",
          "2048k"});
    tool({"genisoimage", "-quiet", "-R", "-o", "cd.iso", "rootfs"});
  }
  void make_container_images() const;
  std::string at(std::string_view name) const { return (place / name).string(); }
  /// The program where the sources are.
  Outcome run(const std::string& words) const {
    return Process::of({"env", "-C", place.path().string(), "sh", "-c",
                        fmt::format("{} {}", MKVIRTFS_PROGRAM, words)})
        .finish();
  }

  TempDir place;
};

std::string digest_of(const std::string& bytes) {
  Sha256 sha;
  sha.update(std::as_bytes(std::span(bytes)));
  const auto digest = sha.finish();
  return "sha256:" + hex({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

void Sources::make_container_images() const {
  tool({"tar", "-C", "rootfs", "-cf", "layer.tar", "dir"});
  fs::create_directories(place / "layout/blobs/sha256");
  const auto add = [&](const std::string& bytes, const std::string& type) {
    const std::string digest = digest_of(bytes);
    write_file(place / "layout/blobs/sha256" / digest.substr(7), bytes);
    return fmt::format(R"({{"mediaType":"application/vnd.oci.image.{}","digest":"{}","size":{}}})",
                       type, digest, bytes.size());
  };
  const std::string layer_bytes = read_file(place / "layer.tar");
  const std::string layer = add(layer_bytes, "layer.v1.tar");
  const std::string config =
      add(fmt::format(R"({{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers",)"
                      R"("diff_ids":["{}"]}}}})",
                      digest_of(layer_bytes)),
          "config.v1+json");
  const std::string manifest =
      add(fmt::format(R"({{"schemaVersion":2,"mediaType":)"
                      R"("application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}})",
                      config, layer),
          "manifest.v1+json");
  write_file(place / "layout/index.json",
             fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", manifest));
  write_file(place / "layout/oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  tool({"tar", "-C", "layout", "-cf", "layout.tar", "."});
}

/// The second column of the first table of docs/sources.md.
Words documented_examples() {
  std::ifstream page(MKVIRTFS_SOURCES_PAGE);
  Words examples;
  const std::regex row(R"(\| `[^`]*` \| `([^`]*)` \|.*)");
  for (std::string line; std::getline(page, line);) {
    std::smatch match;
    if (std::regex_match(line, match, row)) examples.push_back(match[1]);
  }
  return examples;
}

}  // namespace

TEST_CASE("every form of a source in docs/sources.md is read") {
  const Sources sources;
  sources.make_disk_images();
  sources.make_container_images();
  const auto serve = [&](Words words) {
    Words all{"env", "-C", sources.place.path().string(), MKVIRTFS_PROGRAM, "serve"};
    all.insert(all.end(), words.begin(), words.end());
    Process server = Process::of(all);
    server.read_line();
    return server;
  };
  const Process of_a_file_system = serve({"rootfs", "--fs=ext4", "-U", "nbd.sock"});
  const Process of_a_disk =
      serve({"--partition", "rootfs,fs=ext4", "--table=gpt", "-U", "disk.sock"});
  const Words examples = documented_examples();
  REQUIRE(examples.size() == 15);
  for (const std::string& example : examples) {
    CAPTURE(example);
    const bool is_input = example == "-- -";
    const std::string input = is_input ? " <rootfs.tar.gz" : "";
    const Outcome cat = sources.run(fmt::format("cat {}:/dir/file{}", example, input));
    CHECK(cat.err.empty());
    CHECK(cat.status == 0);
    CHECK(cat.out == kBytes);
    const Outcome ls = sources.run(fmt::format("ls -R {}:/dir{}", example, input));
    CHECK(ls.status == 0);
    CHECK(ls.out == "file\n");
  }
}

TEST_CASE("ls has names, paths, all attributes, or JSON") {
  const Sources sources;
  fs::create_symlink("dir", sources.place / "rootfs/link");
  fs::permissions(sources.place / "rootfs/dir", fs::perms{01750});
  fs::permissions(sources.place / "rootfs/dir/file", fs::perms{04640});
  sources.tool({"touch", "-d", "2001-02-03T04:05:06.5Z", "rootfs/dir/file"});
  REQUIRE(::mkfifo(sources.at("rootfs/pipe").c_str(), 0600) == 0);
  const std::string root = sources.at("rootfs");
  const std::string owner = "--owner=12:34";
  CHECK(run_here({"ls", root}).out == "dir\nlink\npipe\n");
  CHECK(run_here({"ls", "-R", root}).out == "dir\ndir/file\nlink\npipe\n");
  CHECK(run_here({"ls", root + ":/link/"}).out == "file\n");
  CHECK(run_here({"ls", root + ":/link"}).out == "link\n");
  CHECK(run_here({"ls", root + ":/dir/file"}).out == "dir/file\n");
  CHECK(run_here({"ls", owner, "-l", root + ":/dir"}).out ==
        "-rwSr-----   1    12    34           22 2001-02-03T04:05:06 file\n");
  CHECK_THAT(run_here({"ls", "-l", root}).out, Catch::StartsWith("drwxr-x--T ") &&
                                                   Catch::Contains("\nlrwxrwxrwx ") &&
                                                   Catch::Contains(" link -> dir\nprw------- "));
  CHECK(run_here({"ls", owner, "--json", root + ":/dir"}).out ==
        R"([
{"path":"file","type":"file","mode":"4640","uid":12,"gid":34,"size":22,)"
        R"("mtime":"2001-02-03T04:05:06.5Z","links":1}
]
)");
  fs::create_directory(sources.place / "empty");
  CHECK(run_here({"ls", "--json", sources.at("empty")}).out == "[]\n");
  CHECK(run_here({"ls", sources.at("empty")}).out.empty());
  CHECK(run_here({"ls", "--exclude=dir", root}).out == "link\npipe\n");
}

TEST_CASE("stat says all that is known of one entry") {
  const Sources sources;
  sources.tool({"truncate", "-s", "1M", "rootfs/dir/holes"});
  sources.tool({"touch", "-d", "2001-02-03T04:05:06Z", "rootfs/dir/file"});
  sources.tool({"chmod", "644", "rootfs/dir/file"});
  const std::string root = sources.at("rootfs");
  CHECK(run_here({"stat", "--owner=0:0", root + ":/dir/file"}).out ==
        "path   /dir/file\ntype   file\nmode   0644 -rw-r--r--\nowner  0:0\nsize   22\n"
        "time   2001-02-03T04:05:06Z\nlinks  1\n");
  const std::string json = run_here({"stat", "--json", root + ":/dir/holes"}).out;
  CHECK_THAT(json, Catch::Contains("\"data\": []") && Catch::Contains("\"size\": 1048576") &&
                       Catch::Contains("\"path\": \"/dir/holes\""));
  CHECK_THAT(run_here({"stat", root}).out, Catch::StartsWith("path   /\ntype   directory\n"));
}

TEST_CASE("what is not there, or is no file, is an error in one line") {
  const Sources sources;
  const std::string root = sources.at("rootfs");
  for (const Words& words : {Words{"cat", root + ":/dir"}, Words{"cat", root + ":/dir/none"},
                             Words{"ls", root + ":/none"}, Words{"stat", root + ":/dir/file/x"},
                             Words{"ls", sources.at("none")}, Words{"cat", root}}) {
    const Outcome outcome = run_here(words);
    CAPTURE(outcome.err);
    CHECK(outcome.status == 1);
    CHECK(outcome.out.empty());
    CHECK(outcome.err.starts_with("mkvirtfs: " + sources.place.path().string()));
  }
  CHECK(run_here({"cat", root + ":/dir/none"}).err ==
        fmt::format("mkvirtfs: {}: /dir/none is not there\n", root));
  CHECK(run_here({"ls"}).status == 2);
}

TEST_CASE("of a damaged image what can be read is shown, and the exit status says so") {
  const Sources sources;
  write_file(sources.place / "rootfs/dir/other", "other");
  sources.make_disk_images();
  sources.tool({"debugfs", "-w", "-R", "sif /dir/file flags 0", "ext4.img"});
  sources.tool({"debugfs", "-w", "-R", "sif /dir/file block[0] 0x7fffffff", "ext4.img"});
  const Outcome ls = sources.run("ls ext4.img:/dir");
  CHECK(ls.status == 1);
  CHECK(ls.out == "file\nother\n");
  CHECK_THAT(ls.err,
             Catch::Contains("ext4.img: byte ") && Catch::Contains("inode ") &&
                 Catch::EndsWith("ext4.img is damaged (1 problem): what can be read is there\n"));
  CHECK(std::ranges::count(ls.err, '\n') == 2);
  const Outcome other = sources.run("cat ext4.img:/dir/other");
  CHECK(other.status == 0);
  CHECK(other.out == "other");
  const Outcome file = sources.run("cat ext4.img:/dir/file");
  CHECK(file.status == 1);
  CHECK(file.out.empty());
  const Outcome extract = sources.run("extract ext4.img:/dir out");
  CHECK(extract.status == 1);
  CHECK(read_file(sources.place / "out/other") == "other");
  CHECK_FALSE(fs::exists(sources.place / "out/file"));
  CHECK_THAT(extract.err, Catch::Contains(" dir/file: cannot be read: byte "));
}

TEST_CASE("extract writes what is in a source, and says what it could not") {
  const Sources sources;
  sources.make_disk_images();
  const Outcome all = sources.run("extract ext4.img:/dir out");
  CHECK(all.err.empty());
  CHECK(all.status == 0);
  CHECK(all.out == "out: 1 entry, 22 bytes\n");
  CHECK(read_file(sources.place / "out/file") == kBytes);
  // Nothing is replaced.
  write_file(sources.place / "out/file", "mine");
  const Outcome again = sources.run("extract fat.img:/dir out");
  CHECK(again.status == 1);
  CHECK_THAT(again.err, Catch::Contains("dir/file: cannot be made: File exists"));
  CHECK(read_file(sources.place / "out/file") == "mine");
  CHECK(sources.run("extract fat.img:/dir").status == 2);
  CHECK(sources.run("extract fat.img:/none out").status == 1);
}

TEST_CASE("names that would break a line or a terminal are escaped") {
  const Sources sources;
  write_file(sources.place / "rootfs/dir/a\nb\x1b[31m", "");
  const Outcome ls = run_here({"ls", sources.at("rootfs") + ":/dir"});
  CHECK(std::ranges::count(ls.out, '\n') == 2);
  CHECK(ls.out.find('\x1b') == std::string::npos);
}

TEST_CASE("modes are written as ls writes them") {
  CHECK(mode_text(S_IFREG | 0644) == "-rw-r--r--");
  CHECK(mode_text(S_IFDIR | 01777) == "drwxrwxrwt");
  CHECK(mode_text(S_IFBLK | 07000) == "b--S--S--T");
  CHECK(mode_text(S_IFSOCK | 06711) == "srws--s--x");
}

}  // namespace mkvirtfs::cli
