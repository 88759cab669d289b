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

TEST_CASE("a toy format is documented and completed") {
  const Ran help = run_tool({TOY_PROGRAM, "dump", "--help"});
  CHECK_THAT(help.output, Catch::Contains("toy\n") && Catch::Contains("508 (toy)") &&
                              Catch::Contains("Image, toys only") &&
                              Catch::Contains("--toy-case WHAT"));
  const std::string manual = cli::image_options_manual(toy::formats());
  CHECK_THAT(manual, Catch::Contains("\\fBtoy\\fP holds the bytes of files and no names.\n") &&
                         Catch::Contains(".BI \\-\\-toy\\-case \" WHAT\"\n"));
  CHECK(run_tool({TOY_PROGRAM, "__complete", "serve", "--toy-case"}).output == "keep\nupper\n");
  CHECK_THAT(run_tool({TOY_PROGRAM, "__complete", "serve", "--fs"}).output,
             Catch::Contains("iso\ntoy\n"));
}

TEST_CASE("an option of a toy format is refused with other formats") {
  const Bench bench;
  const Ran dump = run_tool(
      {TOY_PROGRAM, "dump", bench.source(), "--fs=ext4", "--toy-case=keep", "-o", bench.image()});
  CHECK(dump.status == 2);
  CHECK_THAT(dump.output, Catch::Contains("--toy-case: ext4 has no such option"));
}
