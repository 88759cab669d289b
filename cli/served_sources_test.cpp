// SPDX-License-Identifier: BSD-3-Clause
#include "cli/served_sources.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>

#include "cli/error_text.h"
#include "compose/formats.h"
#include "exports/export_tree.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {
namespace {

/// serve's command line as far as it is about sources.
struct Line {
  explicit Line(std::vector<std::string> words) {
    options.add_values("SOURCE", sources, "", "");
    source.add_options_to(options);
    image.add_to(options);
    const auto parsed = options.parse(std::move(words));
    if (!parsed) FAIL(parsed.error().what);
  }
  Result<std::vector<ExportSpec>> parse(const std::string& default_name = {}) const {
    return parse_exports(default_name, source, image, /*keep_bases=*/false);
  }

  OptionSet options;
  std::vector<std::string> sources;
  SourceOptions source;
  ImageOptions image{all_formats()};
};

struct Bench {
  Bench() {
    std::filesystem::create_directories(root.path() / "one/sub");
    std::filesystem::create_directories(root.path() / "two,three");
    write_file(root / "one/file", "contents");
    write_file(root / "one/sub/secret", "x");
    write_file(root / "two,three/file", "others");
  }
  std::string one() const { return (root / "one").string(); }
  TempDir root;
};

std::string text(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : " ") + word;
  return all;
}

std::string names(const Result<std::vector<ExportSpec>>& exports) {
  if (!exports) FAIL(exports.error().what);
  std::vector<std::string> all;
  for (const ExportSpec& each : *exports) all.push_back(each.name);
  return text(all);
}

std::string error_of(const Result<std::vector<ExportSpec>>& exports) {
  REQUIRE_FALSE(exports);
  CHECK(exports.error().what.find('\n') == std::string::npos);
  return error_text(exports.error());
}

/// The text of an ext image's label, from its first superblock.
std::string label_of(const Export& exported) {
  std::array<std::byte, 16> label{};
  REQUIRE(exported.device->read(1024 + 120, label));
  const std::string raw(reinterpret_cast<const char*>(label.data()), label.size());
  return raw.substr(0, raw.find('\0'));
}

}  // namespace

TEST_CASE("a source is a directory, or a name, a directory and options") {
  const auto [word, name, directory, options] =
      GENERATE(table<const char*, const char*, const char*, const char*>({
          {"dir", "", "dir", ""},
          {"./a=b", "", "./a=b", ""},
          {"/srv/a=b,c", "", "/srv/a=b,c", ""},
          {"../a=b", "", "../a=b", ""},
          {"a,b", "", "a,b", ""},
          {"=b", "", "=b", ""},
          {"a=./b", "a", "./b", ""},
          {"tools/b=dir,fs=ext2,label=B", "tools/b", "dir", "fs=ext2 label=B"},
          {"a=b=c", "a", "b=c", ""},
          {"a=b,,c,label=x,,y", "a", "b,c", "label=x,y"},
          {"a=b,,,no-journal", "a", "b,", "no-journal"},
          {"a=b,", "a", "b", ""},
          {"a=", "a", "", ""},
          {"\xC3\xA9=b", "\xC3\xA9", "b", ""},
      }));
  CAPTURE(word);
  const SourceWord parsed = parse_source_word(word);
  CHECK(parsed.name == name);
  CHECK(parsed.directory == directory);
  CHECK(text(parsed.options) == options);
}

TEST_CASE("the default export is the plain directory, the one chosen, or the first") {
  const Bench bench;
  const std::string dir = bench.one();
  CHECK(names(Line({dir}).parse()).empty());
  CHECK(Line({dir}).parse()->size() == 1);
  CHECK(names(Line({dir}).parse("name")) == "name");
  CHECK(names(Line({"a=" + dir, dir}).parse("plain")) == "plain a");
  CHECK(names(Line({"a=" + dir, "x/b=" + dir, "c=" + dir}).parse()) == "a x/b c");
  CHECK(names(Line({"a=" + dir, "x/b=" + dir, "c=" + dir}).parse("c")) == "c a x/b");
  CHECK_THAT(error_of(Line({"a=" + dir}).parse("b")), Catch::Contains("--exportname=b"));
  CHECK_THAT(error_of(Line({"a=" + dir, dir}).parse("a")), Catch::Contains("the name a"));
  CHECK(Line({dir, "a=" + dir, dir}).parse("plain")->size() == 2);
}

TEST_CASE("shared options are defaults that a source's own replace") {
  const Bench bench;
  Resources resources;
  Line line({"--label=shared", "--journal", "--exclude=secret", "--size=70M", "--features",
             "^dir_index,64bit", "--fs=ext4", "plain=" + bench.one(),
             "own=" + bench.one() +
                 ",label=its own,no-journal,free=5M,include=secret,exclude=file,fs=ext2,features="
                 "dir_index"});
  const auto sources = line.parse();
  REQUIRE(sources);
  const auto exports = make_exports(*sources, resources);
  REQUIRE(exports);
  const auto plain = (*exports)->open("plain");
  const auto own = (*exports)->open("own");
  REQUIRE(plain);
  REQUIRE(own);
  CHECK(label_of(*plain) == "shared");
  CHECK(plain->description == "ext4 image of one");
  CHECK(plain->device->geometry().size_bytes == 70 << 20);
  CHECK(label_of(*own) == "its own");
  CHECK(own->description == "ext2 image of one");
  CHECK(own->device->geometry().size_bytes < 40 << 20);

  const auto has = [](const Export& exported, std::string_view name) {
    std::vector<std::byte> bytes(exported.device->geometry().size_bytes);
    REQUIRE(exported.device->read(0, bytes));
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()).find(name) !=
           std::string_view::npos;
  };
  CHECK_FALSE(has(*plain, "secret"));
  CHECK(has(*plain, "contents"));
  CHECK(has(*own, "secret"));
  CHECK_FALSE(has(*own, "contents"));
}

TEST_CASE("an empty value in NAME=DIR,label= is an empty value, and so is a shared one") {
  const Bench bench;
  const std::string dir = bench.one();
  Resources resources;
  const auto label_under = [&](const std::vector<std::string>& words) {
    Line line(words);
    const auto sources = line.parse();
    if (!sources) FAIL(sources.error().what);
    const auto exports = make_exports(*sources, resources);
    REQUIRE(exports);
    const auto opened = (*exports)->open("a");
    REQUIRE(opened);
    return label_of(*opened);
  };
  CHECK(label_under({"--fs=ext2", "--label=B", "a=" + dir + ",label="}).empty());
  CHECK(label_under({"--fs=ext2", "--label=B", "a=" + dir}) == "B");
  CHECK(label_under({"--fs=ext2", "--label", "", "a=" + dir + ",free=1M"}).empty());
  for (const char* option : {"size", "uuid", "fs", "owner", "exclude", "threads", "on-change"}) {
    CAPTURE(option);
    const std::string word = "a=" + dir + "," + option + "=";
    const std::string error = error_of(Line({word}).parse());
    CHECK_THAT(error,
               Catch::StartsWith(word + ": ") && Catch::Contains(std::string("--") + option));
  }
}

TEST_CASE("plain sources, and those of one name, are laid over each other") {
  const Bench bench;
  std::filesystem::create_directories(bench.root / "over/sub");
  write_file(bench.root / "over/file", "replaced");
  write_file(bench.root / "over/sub/added", "more");
  const std::string over = (bench.root / "over").string();
  Resources resources;
  Line line({"--fs=ext2", "--free=1M", bench.one(), "--at=/etc", over,
             "a=" + bench.one() + ",label=A", "--at", "x/y", bench.one(),
             "a=" + over + ",exclude=added", "a=" + over + ",at=deep"});
  const auto sources = line.parse("plain");
  REQUIRE(sources);
  CHECK(names(sources) == "plain a");
  const std::vector<SourceSpec>& placed = sources->front().image.sources;
  REQUIRE(placed.size() == 3);
  CHECK(placed[1].path == over);
  CHECK(placed[1].at == "/etc");
  CHECK(placed[2].at == "x/y");
  CHECK(to_string(placed) == bench.one() + " + " + over + " at /etc + " + bench.one() + " at /x/y");
  const auto exports = make_exports(*sources, resources);
  REQUIRE(exports);
  const auto plain = (*exports)->open("plain");
  const auto named = (*exports)->open("a");
  REQUIRE(plain);
  REQUIRE(named);
  CHECK(plain->description == "ext2 image of one and 2 more");
  CHECK(label_of(*named) == "A");
  const auto count = [](const Export& exported, std::string_view what) {
    std::string bytes(exported.device->geometry().size_bytes, '\0');
    REQUIRE(exported.device->read(0, std::as_writable_bytes(std::span(bytes))));
    std::size_t times = 0;
    for (std::size_t at = bytes.find(what); at != bytes.npos; at = bytes.find(what, at + 1))
      ++times;
    return times;
  };
  // one/file in the root and in x/y, over/file in etc.
  CHECK(count(*plain, "contents") == 2);
  CHECK(count(*plain, "replaced") == 1);
  CHECK(count(*plain, "added") == 1);
  CHECK(count(*named, "contents") == 0);
  CHECK(count(*named, "replaced") == 2);
  CHECK(count(*named, "added") == 1);
}

TEST_CASE("places that cannot be are refused before anything is scanned") {
  const Bench bench;
  const std::string dir = bench.one();
  CHECK_THAT(error_of(Line({dir, "--at=/etc"}).parse()), Catch::Contains("none follows"));
  CHECK_THAT(error_of(Line({"--at=/a", "--at=/b", dir}).parse()), Catch::Contains("--at=/a"));
  CHECK_THAT(error_of(Line({dir, "--at=/etc/../x", dir}).parse()), Catch::Contains("no path"));
  CHECK_THAT(error_of(Line({"--at=/etc", "a=" + dir}).parse()), Catch::Contains(",at=/etc"));
  CHECK_THAT(error_of(Line({"a=" + dir, "a=" + dir + ",at=.."}).parse()),
             Catch::Contains("no path"));
  CHECK_THAT(error_of(Line({"a=" + dir, "a=" + dir + ",at=x,at=y"}).parse()),
             Catch::Contains("twice"));
  CHECK_THAT(error_of(Line({"a=" + dir, "a=" + dir + ",fs=ext2"}).parse()),
             Catch::Contains("go with the first a="));
}

TEST_CASE("sources are scanned when they are opened, and again when nobody holds them") {
  const Bench bench;
  Resources resources;
  std::string directory = (bench.root / "two,three").string();
  directory.replace(directory.find(','), 1, ",,");
  Line line({"a=" + directory + ",free=1M"});
  const auto exports = make_exports(*line.parse(), resources);
  REQUIRE(exports);
  const auto first_size = (*exports)->open("a")->device->geometry().size_bytes;
  write_file(bench.root / "two,three/large", std::string(8 << 20, 'x'));
  CHECK((*exports)->open("a")->device->geometry().size_bytes >= first_size + (8 << 20));
  std::filesystem::remove_all(bench.root / "two,three");
  const auto gone = (*exports)->open("a");
  REQUIRE_FALSE(gone);
  CHECK_THAT(gone.error().what, Catch::Contains("two,three"));
  std::filesystem::create_directory(bench.root / "two,three");
  CHECK((*exports)->open("a"));
}

TEST_CASE("the options of a word become the spec of its source") {
  const Bench bench;
  const std::string dir = bench.one();
  const auto specs =
      Line({"--exclude=shared", "--map-uid=1:2", "--threads=2", "--journal", "--fs=ext4",
            "a=" + dir + ",exclude=x,,y,include=z,owner=0:0,at=/p,features=64bit,,large_dir",
            "a=" + dir + ",threads=3", "b=" + dir + ",no-journal,fs=ext2"})
          .parse();
  REQUIRE(specs);
  REQUIRE(specs->size() == 2);
  const ImageSpec& a = specs->at(0).image;
  REQUIRE(a.sources.size() == 2);
  std::string rules;
  for (const PathRule& rule : a.sources[0].rules) rules += (rule.include ? '+' : '-') + rule.glob;
  CHECK(rules == "-x,y+z-shared");
  CHECK(a.sources[0].owner_uid == 0);
  CHECK(a.sources[0].uid_map.empty());  // what its own contradicts is no default for it
  CHECK(a.sources[0].at == "/p");
  CHECK(a.sources[0].threads == 2);
  CHECK(a.sources[1].threads == 3);
  CHECK(a.sources[1].uid_map.size() == 1);
  CHECK(a.sources[1].at.empty());
  CHECK(a.format == "ext4");
  CHECK(a.options.has("journal"));
  CHECK(a.options.all("features").size() == 2);
  const ImageSpec& b = specs->at(1).image;
  CHECK(b.format == "ext2");
  CHECK_FALSE(b.options.has("journal"));
  CHECK(b.options.has("no-journal"));
  CHECK_FALSE(b.keep_base);
  CHECK(b.given_options.empty());
}

TEST_CASE("exports whose overlays stay record their options") {
  const Bench bench;
  const std::string dir = bench.one();
  const Line line({"--exclude=shared", "--threads=2", "--fs=ext4", "a=" + dir + ",exclude=x",
                   "a=" + dir + ",owner=1:1"});
  const auto specs = parse_exports("", line.source, line.image, /*keep_bases=*/true);
  REQUIRE(specs);
  CHECK(specs->front().image.keep_base);
  CHECK(text(specs->front().image.given_options) ==
        "--exclude=x --exclude=shared --fs=ext4 --owner=1:1");
}

TEST_CASE("what is wrong with a source is refused before anything is scanned") {
  const Bench bench;
  const std::string dir = bench.one();
  const auto [options, about] = GENERATE(table<const char*, const char*>({
      {",lable=x", "lable"},
      {",label", "needs a value"},
      {",label=a,label=b", "label is given twice"},
      {",fs=ext4,fs=ext2", "fs is given twice"},
      {",on-change=maybe", "maybe"},
      {",threads=257", "257"},
      {",journal=yes", "takes no value"},
      {",fs=ext9", "ext9"},
      {",size=big", "--size=big"},
      {",owner=no-such-user-here", "no-such-user-here"},
      {",size=1G,free=1M", "--size"},
      {",run=ls", "run"},
      {",help", "help"},
      {",", "option"},
      {",=x", "option"},
      {",-label=x", "-label"},
  }));
  CAPTURE(options);
  const std::string error = error_of(Line({"a=" + dir + options}).parse());
  CHECK_THAT(error, Catch::StartsWith("a=" + dir + options + ": "));
  CHECK_THAT(error, Catch::Contains(about));
  CHECK_THAT(error_of(Line({"a=" + dir + "/nothing"}).parse()), Catch::Contains("does not exist"));
}

}  // namespace mkvirtfs::cli
