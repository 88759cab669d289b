// SPDX-License-Identifier: BSD-3-Clause
// A format is one folder and one line of the registry: this one is dumped, served, inspected,
// documented and completed, and nothing else knows it.
#include <catch2/catch.hpp>
#include <filesystem>

#include "cli/option_manual.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"
#include "tests/toy_format/toy_formats.h"

using namespace mkvirtfs;

namespace {

struct Bench {
  Bench() {
    std::filesystem::create_directories(root.path() / "source");
    write_file(root / "source/a", std::string(700, 'a'));
    write_file(root / "source/b", "bb");
  }
  std::string source() const { return (root / "source").string(); }
  std::string image() const { return (root / "image").string(); }
  TempDir root;
};

std::string expected(const std::string& label) {
  std::string bytes = "TOY " + label;
  bytes.resize(512);
  bytes += std::string(700, 'a');
  bytes.resize(1536);
  bytes += "bb";
  bytes.resize(2048);
  return bytes;
}

}  // namespace

TEST_CASE("a toy format is dumped") {
  const Bench bench;
  const Ran dump = run_tool({TOY_PROGRAM, "dump", bench.source(), "--fs=toy", "--label=box",
                             "--toy-case=upper", "-o", bench.image()});
  CAPTURE(dump.output);
  REQUIRE(dump.status == 0);
  CHECK(read_file(bench.image()) == expected("BOX"));
}

TEST_CASE("a toy format is served") {
  const Bench bench;
  const Ran serve =
      run_tool({TOY_PROGRAM, "serve", "box=" + bench.source() + ",fs=toy,label=served", "--run",
                "nbdcopy \"$uri\" " + bench.image()});
  CAPTURE(serve.output);
  REQUIRE(serve.status == 0);
  CHECK(read_file(bench.image()) == expected("served"));
}

TEST_CASE("a toy format is inspected") {
  const Bench bench;
  const Ran inspect = run_tool({TOY_PROGRAM, "inspect", bench.source(), "--fs=toy"});
  CAPTURE(inspect.output);
  CHECK(inspect.status == 0);
  CHECK_THAT(inspect.output, Catch::Contains("file count"));
}

TEST_CASE("what a toy format derives of files is dumped, served and inspected") {
  const Bench bench;
  const std::string packed = std::string("TOY ") + std::string(508, '\0') + std::string(512, 'a');
  std::string ends = std::string(188, 'a') + "bb";
  ends.resize(508);
  const std::uint32_t sum = 188 * 'a' + 2 * 'b';
  for (int shift = 0; shift < 32; shift += 8) ends += static_cast<char>(sum >> shift & 0xFF);

  const Ran dump = run_tool(
      {TOY_PROGRAM, "dump", bench.source(), "--fs=toy", "--toy-ends=packed", "-o", bench.image()});
  CAPTURE(dump.output);
  REQUIRE(dump.status == 0);
  CHECK(read_file(bench.image()) == packed + ends);
  std::filesystem::remove(bench.image());

  const std::string served = "box=" + bench.source() + ",fs=toy,toy-ends=packed";
  const std::string copy = "nbdcopy \"$uri\" " + bench.image() + " && nbdinfo --map \"$uri\"";
  const Ran serve = run_tool({TOY_PROGRAM, "serve", served, "--run", copy});
  CAPTURE(serve.output);
  REQUIRE(serve.status == 0);
  CHECK(read_file(bench.image()) == packed + ends);

  const Ran inspect =
      run_tool({TOY_PROGRAM, "inspect", bench.source(), "--fs=toy", "--toy-ends=packed", "--map"});
  CHECK_THAT(inspect.output, Catch::Contains("512  derived   ends of files"));
}

TEST_CASE("a file that changed is named, also where an image is derived of it") {
  const Bench bench;
  const std::string read_label = "nbdsh -u \"$uri\" -c 'h.pread(512, 0)'";
  const std::string read_ends = "nbdsh -u \"$uri\" -c 'h.pread(512, 1024)'";
  const std::string change = "printf more >> " + bench.source() + "/b";
  const Ran serve =
      run_tool({TOY_PROGRAM, "serve", bench.source(), "--fs=toy", "--toy-ends=packed", "--run",
                read_ends + " && " + change + " && " + read_label + " || exit 77; " + read_ends +
                    " 2>/dev/null && exit 78; exit 79"});
  CAPTURE(serve.output);
  CHECK(serve.status == 79);
  CHECK_THAT(serve.output, Catch::Contains("b changed"));
}

TEST_CASE("a toy format is documented and completed") {
  const Ran help = run_tool({TOY_PROGRAM, "dump", "--help=all"});
  CHECK_THAT(help.output, Catch::Contains("toy\n") && Catch::Contains("508 (toy)") &&
                              Catch::Contains("Image, toys only") &&
                              Catch::Contains("--toy-case WHAT"));
  const std::string manual = cli::image_options_manual(toy::formats());
  CHECK_THAT(manual, Catch::Contains("\\fBtoy\\fP holds the bytes of files and no names.\n") &&
                         Catch::Contains(".BI \\-\\-toy\\-case \" WHAT\"\n"));
  CHECK(run_tool({TOY_PROGRAM, "__complete", "serve", "--toy-case"}).output == "keep\nupper\n");
  CHECK_THAT(run_tool({TOY_PROGRAM, "__complete", "serve", "--fs"}).output,
             Catch::Contains("erofs\ntoy\n"));
}

TEST_CASE("an option of a toy format is refused with other formats") {
  const Bench bench;
  const Ran dump = run_tool(
      {TOY_PROGRAM, "dump", bench.source(), "--fs=ext4", "--toy-case=keep", "-o", bench.image()});
  CHECK(dump.status == 2);
  CHECK_THAT(dump.output, Catch::Contains("--toy-case: ext4 has no such option"));
}
