// SPDX-License-Identifier: BSD-3-Clause
// What stands behind the end of an archive.
#include "fsgen/archive/segments.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/archive/testing/opened.h"
#include "fsgen/archive/testing/tar_bytes.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/stream/testing/stream_data.h"
#include "fsgen/tree/testing/layer_bytes.h"
#include "support/byte_order.h"
#include "tests/support/collected_log.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using testing::bytes_at;
using testing::CollectedLog;
using testing::kTarEnd;
using testing::MemorySource;
using testing::tar_member;

using testing::open;
using testing::run_shell;

struct Read {
  std::shared_ptr<CollectedLog> sink;  // outlives what writes to it
  testing::Opened opened;
  std::string log;
};

Read read(const std::string& bytes, const ReadOptions& options = {}) {
  auto log = std::make_shared<CollectedLog>();
  testing::Opened opened = testing::whole(open(bytes, "a", {.read = options, .log = log.get()}));
  std::string text = log->text();
  return {std::move(log), std::move(opened), std::move(text)};
}

/// "": there is no such file.
std::string content(const Layer& layer, std::string_view path) {
  return layer.tree->find_path(path) == nullptr ? "" : bytes_at(layer, path);
}

/// cpio archives: each with a file of its own, and one that all have.
class Segments {
 public:
  Segments() {
    for (const char* const name : {"one", "two", "three"}) {
      std::filesystem::create_directories(dir_ / "tree" / name / "d");
      write_file(dir_ / "tree" / name / "d" / name, std::string(5001, name[0]));
      write_file(dir_ / "tree" / name / "same", name);
      run_shell("cd " + (dir_ / "tree" / name).string() + "; ln d/" + name + " hard-" + name +
                "; find . | cpio -o --quiet -H newc >../../" + name);
    }
  }
  /// What a shell makes of the files one, two and three on its standard output.
  std::string made_by(const std::string& command) const {
    run_shell("cd " + dir_.path().string() + "; { " + command + "; } >all");
    return read_file(dir_ / "all");
  }

 private:
  TempDir dir_{"/var/tmp"};
};

}  // namespace

TEST_CASE("all segments of an initramfs are read, as the kernel does, the last over the first") {
  const Segments segments;
  for (const char* const command :
       {"cat one two three", "cat one; gzip -c two three", "cat one; zstd -qc two; gzip -c three",
        "cat one two; zstd -qc three", "gzip -c one; gzip -c two; gzip -c three",
        "gzip -c one; zstd -qc two; xz -c three",
        "gzip -c one >x; truncate -s %4 x; cat x two; lz4 -qlc three",
        "cat one two three | zstd -qc", "zstd -qc one >x; truncate -s %512 x; cat x two three",
        "cat one; head -c 20 /dev/zero; lz4 -qlc two; bzip2 -c three",
        "cat one; xz --check=crc32 -c two; head -c 7 /dev/zero; lzma -c three",
        "{ cat one; head -c 3 /dev/zero; cat two; } | gzip -c; zstd -qc three"}) {
    INFO(command);
    const Read all = read(segments.made_by(command));
    CHECK_FALSE(all.log.contains("left alone"));
    for (const char* const name : {"one", "two", "three"}) {
      CHECK((content(all.opened.layer, std::string("d/") + name) == std::string(5001, name[0])));
      CHECK((content(all.opened.layer, std::string("hard-") + name) == std::string(5001, name[0])));
    }
    CHECK(content(all.opened.layer, "same") == "three");
    CHECK(all.opened.layer.tree->node_count() == 6);
  }
}

TEST_CASE("a cpio without a member is an empty tree, and a segment like others") {
  const Segments segments;
  const Read empty = read(segments.made_by("cpio -o --quiet -H newc </dev/null"));
  CHECK(empty.opened.layer.tree->node_count() == 1);
  const Read both = read(segments.made_by("cpio -o --quiet -H newc </dev/null; gzip -c one"));
  CHECK(content(both.opened.layer, "same") == "one");
}

TEST_CASE("bytes behind a cpio that are no segment are reported, and a broken segment is refused") {
  const Segments segments;
  const std::string one = segments.made_by("cat one");
  CHECK(read(one + "junk").log == "a: what follows the end of its archive at byte " +
                                      std::to_string(one.size()) + " is left alone\n");
  // Where the kernel would not look for one.
  CHECK_THAT(read(one + '\0' + one).log, Catch::Contains("is left alone"));
  CHECK_THAT(read(segments.made_by("cat one; printf 0707garbage")).log,
             Catch::Contains("is left alone"));
  CHECK_THAT(read(segments.made_by("cat one; printf junk") + one).log,
             Catch::Contains("is left alone"));
  CHECK_THAT(read(segments.made_by("{ cat one; printf junk; } | gzip -c")).log,
             Catch::Contains(" of what it unpacks to is left alone"));
  const std::string tar = segments.made_by("cat one; tar -cz -T /dev/null");
  CHECK_THAT(read(tar).log, Catch::Contains("is left alone"));
  const std::string cut = segments.made_by("cat one; gzip -c two | head -c 90");
  const Result<testing::Opened> refused = open(cut, "a");
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().what, Catch::StartsWith("a from byte "));
}

TEST_CASE("limits are those of all segments together") {
  const Segments segments;
  const std::string all = segments.made_by("cat one; gzip -c two; zstd -qc three");
  ReadOptions options;
  options.limits.most_members = 11;
  CHECK_FALSE(open(all, "a", {.read = options}));
  options.limits.most_members = 15;
  CHECK(open(all, "a", {.read = options}));
  options.limits.most_bytes = 11'000;
  CHECK_FALSE(open(all, "a", {.read = options}));
}

TEST_CASE("concatenated tars are read with --ignore-zeros, and reported without it") {
  const std::string first = tar_member("a", '0', "first") + tar_member("b", '0', "first");
  const std::string second = tar_member("b", '0', "second") + tar_member("c", '0', "third");
  for (const std::string& end : {kTarEnd, std::string(512, '\0'), std::string(9 * 512, '\0')}) {
    for (const bool is_packed : {false, true}) {
      const TempDir dir;
      write_file(dir / "all", first + end + second + kTarEnd);
      if (is_packed) run_shell("cd " + dir.path().string() + "; gzip all; mv all.gz all");
      const std::string bytes = read_file(dir / "all");
      const Read one = read(bytes);
      CHECK(content(one.opened.layer, "b") == "first");
      CHECK(content(one.opened.layer, "c") == "");
      CHECK(one.log == "a: what follows the end of its archive at byte " +
                           std::to_string(first.size() + end.size()) +
                           (is_packed ? " of what it unpacks to" : "") +
                           " is left alone [ignore-zeros]\n");
      ReadOptions options;
      options.ignores_zeros = true;
      const Read all = read(bytes, options);
      CHECK_FALSE(all.log.contains("left alone"));
      std::filesystem::create_directory(dir / "out");
      run_shell("cd " + dir.path().string() + "; tar --ignore-zeros -xf all -C out");
      for (const char* const name : {"a", "b", "c"}) {
        CHECK(content(all.opened.layer, name) == read_file(dir / "out" / name));
      }
    }
  }
  ReadOptions options;
  options.ignores_zeros = true;
  CHECK(read(kTarEnd + kTarEnd, options).opened.layer.tree->node_count() == 1);
  CHECK_FALSE(open(std::make_shared<MemorySource>(first + kTarEnd + std::string(512, 'x')),
                   {.read = options}));
}

TEST_CASE("what is left behind an end is reported, always, and padding is not") {
  const std::string tar = tar_member("a", '0', "x") + kTarEnd;
  CHECK(read(tar + std::string(100'000, '\0')).log == "");
  CHECK_THAT(read(tar + std::string(100'000, '\0') + "x").log,
             Catch::Contains(" at byte " + std::to_string(tar.size() + 100'000) + " is left"));
  CHECK_THAT(read(tar_member("a", '0', "x") + std::string(512, '\0') + "short").log,
             Catch::Contains(" is left alone"));
  for (const char* const packer : {"gzip", "xz", "zstd -q", "lz4 -q", "lz4 -ql", "bzip2", "lzma"}) {
    INFO(packer);
    const TempDir dir;
    write_file(dir / "a.tar", tar);
    run_shell("cd " + dir.path().string() + "; " + packer + " -c a.tar >good; cat good >junk; " +
              "head -c 4096 /dev/zero | cat good - >padded; printf 'junk behind' >>junk");
    const auto size = std::to_string(std::filesystem::file_size(dir / "good"));
    const IndexCache cache((dir / "cache").string(), null_log());
    for (const bool is_again : {false, true}) {
      for (const char* const name : {"good", "padded", "junk"}) {
        INFO(name);
        CollectedLog log;
        const Result<testing::Opened> all =
            open(*open_file_source((dir / name).string(), OnChange::error, null_log()),
                 {.cache = &cache, .log = &log});
        REQUIRE(all);
        CHECK(all->archive.from_kept_index == is_again);
        CHECK(content(all->layer, "a") == "x");
        if (name != std::string_view("junk")) {
          CHECK(log.text() == "");
        } else {
          CHECK_THAT(log.text(),
                     Catch::Contains(": what follows the end of its ") &&
                         Catch::Contains(" stream at byte " + size + " is left alone\n"));
        }
      }
    }
  }
}

TEST_CASE("a kept index keeps what would help, too") {
  const TempDir dir;
  const std::string tar = tar_member("a", '0', "x") + kTarEnd;
  write_file(dir / "a.tar", tar + tar);
  run_shell("cd " + dir.path().string() + "; gzip a.tar");
  const IndexCache cache((dir / "cache").string(), null_log());
  for (const bool is_again : {false, true}) {
    CollectedLog log;
    const Result<testing::Opened> all =
        open(*open_file_source((dir / "a.tar.gz").string(), OnChange::error, null_log()),
             {.cache = &cache, .log = &log});
    REQUIRE(all);
    CHECK(all->archive.from_kept_index == is_again);
    CHECK_THAT(log.text(), Catch::EndsWith(" is left alone [ignore-zeros]\n"));
  }
}

TEST_CASE("what is left behind a zip, a 7z and a cab is reported, too") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "tree");
  write_file(dir / "tree/f", "bytes");
  for (const char* const command :
       {"zip -qX $O.zip f; mv $O.zip $O", "zip -qXz $O.zip f <<<comment; mv $O.zip $O",
        "7z a -bd $O.7z f >/dev/null; mv $O.7z $O"}) {
    INFO(command);
    run_shell("cd " + (dir / "tree").string() + "; O=" + (dir / "a").string() + "; " + command);
    const std::string bytes = read_file(dir / "a");
    CHECK(read(bytes).log == "");
    CHECK(read(bytes + std::string(100, '\0')).log == "");
    const Read with_rest = read(bytes + "junk");
    CHECK(content(with_rest.opened.layer, "f") == "bytes");
    CHECK(with_rest.log == "a: what follows the end of its archive at byte " +
                               std::to_string(bytes.size()) + " is left alone\n");
  }
}

TEST_CASE("an empty .tar.gz is an empty tree, whatever made it") {
  const TempDir dir;
  for (const char* const command :
       {"tar -cz -T /dev/null", "gzip </dev/null", "xz </dev/null", "zstd -q </dev/null",
        "head -c 1024 /dev/zero | bzip2", "git archive --format=tar.gz HEAD",
        "rm -f a.a; ar rc a.a; cat a.a"}) {
    INFO(command);
    const std::string in = dir.path().string();
    run_shell("cd " + in +
              "; rm -rf .git; git init -q . 2>/dev/null; git -c user.name=a -c user.email=b " +
              "commit -q --allow-empty -m x; " + "{ " + command + "; } >a.tar.gz");
    const Read empty = read(read_file(dir / "a.tar.gz"));
    CHECK(empty.opened.layer.tree->node_count() == 1);
    CHECK(empty.log == "");
  }
}

TEST_CASE("a zip with 64-bit offsets behind a program that unpacks it is read") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "tree");
  write_file(dir / "tree/stored", "short");
  write_file(dir / "tree/deflated", std::string(100'000, 'd'));
  run_shell("cd " + (dir / "tree").string() + "; zip -qX ../a.zip stored deflated");
  const std::string plain = read_file(dir / "a.zip");
  // Its end in 64 bits (APPNOTE.TXT 4.3.14 and 4.3.15), and nothing of it in that of 32.
  const std::size_t end_at = plain.size() - 22;
  const auto number = [&](std::size_t at, std::size_t width) {
    std::uint64_t value = 0;
    for (std::size_t i = width; i-- > 0;) {
      value = value << 8 | static_cast<unsigned char>(plain[end_at + at + i]);
    }
    return value;
  };
  std::string end64(56, '\0');
  const auto fields = std::as_writable_bytes(std::span(end64));
  store_le<std::uint32_t>(fields, 0, 0x06064b50);
  store_le<std::uint64_t>(fields, 4, 44);
  store_le<std::uint16_t>(fields, 12, 45);
  store_le<std::uint16_t>(fields, 14, 45);
  store_le<std::uint64_t>(fields, 24, number(8, 2));
  store_le<std::uint64_t>(fields, 32, number(10, 2));
  store_le<std::uint64_t>(fields, 40, number(12, 4));
  store_le<std::uint64_t>(fields, 48, number(16, 4));
  std::string locator(20, '\0');
  store_le<std::uint32_t>(std::as_writable_bytes(std::span(locator)), 0, 0x07064b50);
  store_le<std::uint64_t>(std::as_writable_bytes(std::span(locator)), 8, end_at);
  store_le<std::uint32_t>(std::as_writable_bytes(std::span(locator)), 16, 1);
  std::string end = plain.substr(end_at);
  end.replace(8, 12, std::string(12, '\xff'));
  const std::string zip64 = plain.substr(0, end_at) + end64 + locator + end;
  for (const std::string& stub :
       {std::string(), std::string(70'000, 's'), std::string("#!/bin/sh\nexec unzip $0\n")}) {
    INFO(stub.size());
    const Read all = read(stub + zip64);
    CHECK(content(all.opened.layer, "stored") == "short");
    CHECK((content(all.opened.layer, "deflated") == std::string(100'000, 'd')));
    write_file(dir / "sfx", stub + zip64);
    CHECK(run_shell("cd " + dir.path().string() +
                    "; { unzip -p sfx stored || true; } 2>/dev/null") == "short");
  }
}

}  // namespace mkvirtfs::archive
