// SPDX-License-Identifier: BSD-3-Clause
#include "cli/command_line.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {
namespace {

using Words = std::vector<std::string>;

/// Options of each kind.
struct Example {
  Example() {
    options.add_values("SOURCE", sources, "...", "Sources").required();
    CommandOption& size =
        options.add_value("-s,--size", size_text, "SIZE", "A size").group("Image");
    options.add_value("--threads", threads, "N", "Threads").in_range(1, 8);
    options.add_value("--fd", descriptor, "FD", "A descriptor").not_negative();
    options.add_value("--tls", tls, "MODE", "Encrypt").one_of({"off", "on"});
    options.add_values("--rule", rules, "RULE,...", "Rules").split_at(',').one_value_each();
    options.add_value("--even", even, "N", "Even").check([](const std::string& value) {
      return value.size() % 2 == 0 ? "" : "it is odd";
    });
    options.add_value("--map", map, "[OFFSET]", "A map").expects(0, 1);
    options.add_flag("-v,--verbose", verbose, "More").excludes(size);
    options.add_flag("--stats", statistics, "At the end");
  }
  std::string error_of(Words words) {
    const auto parsed = options.parse(std::move(words));
    return parsed ? "" : parsed.error().what;
  }
  Words order() const {
    Words names;
    for (const CommandOption* option : options.given_order()) names.push_back(option->name());
    return names;
  }

  OptionSet options;
  Words sources;
  std::string size_text;
  unsigned threads = 0;
  int descriptor = -1;
  std::string tls;
  Words rules;
  std::string even;
  std::string map;
  bool verbose = false;
  std::string statistics;
};

}  // namespace

TEST_CASE("what was given is in the variables, and in its order") {
  Example example;
  CHECK(example.error_of({"one", "--rule=a,b", "two", "-s", "4G", "--threads=3", "--rule", "c",
                          "--fd=7", "--tls=on", "--map", "--stats"}) == "");
  CHECK(example.sources == Words{"one", "two"});
  CHECK(example.size_text == "4G");
  CHECK(example.threads == 3);
  CHECK(example.descriptor == 7);
  CHECK(example.tls == "on");
  CHECK(example.rules == Words{"a", "b", "c"});
  CHECK(example.map.empty());
  CHECK(example.statistics == "true");
  CHECK_FALSE(example.verbose);
  CHECK(example.order() == Words{"SOURCE", "--rule", "SOURCE", "--size", "--threads", "--rule",
                                 "--fd", "--tls", "--map", "--stats"});
  CHECK(example.options.find("--map")->is_given());
  CHECK_FALSE(example.options.find("-v")->is_given());
  CHECK(example.options.find("--rule")->values() == Words{"a", "b", "c"});
  CHECK(example.options.find("--none") == nullptr);
}

TEST_CASE("what is wrong with a command line is said in the parser's words") {
  const auto [words, wrong] = GENERATE(table<Words, std::string>({
      {Words{}, "SOURCE is missing: sources"},
      {{"a", "--nothing"}, "nothing takes --nothing"},
      {{"a", "--threads=9"}, "--threads: 9 is not a number from 1 to 8"},
      {{"a", "--threads=x"}, "--threads: x is not a number from 1 to 8"},
      {{"a", "--fd=-1"}, "--fd: -1 is not a number from 0 on"},
      {{"a", "--tls=maybe"}, "--tls: maybe is none of off, on"},
      {{"a", "--tls=offf"}, "--tls: offf is none of off, on (did you mean off?)"},
      {{"a", "--even=abc"}, "--even: it is odd"},
      {{"a", "-v", "--size=1"}, "cannot be given together"},
      {{"a", "--size"}, "--size=SIZE: the value is missing (a size)"},
      {{"a", "--tls"}, "--tls=MODE: the value is missing (one of off, on)"},
      {{"a", "--size=1", "--size=2"}, "--size is given more than once"},
      {{"a", "--verbose=yes"}, "--verbose takes no value"},
  }));
  CAPTURE(words);
  Example example;
  CHECK_THAT(example.error_of(words), Catch::Contains(wrong));
}

TEST_CASE("an option says how it was declared") {
  const Example example;
  const auto& options = example.options;
  CHECK(options.find("-s") == options.find("--size"));
  CHECK(options.find("-s")->name() == "--size");
  CHECK(options.find("-s")->short_names() == Words{"s"});
  CHECK(options.find("-s")->long_names() == Words{"size"});
  CHECK(options.find("-s")->heading() == "Image");
  CHECK(options.find("-s")->needs_value());
  CHECK_FALSE(options.find("-s")->takes_empty_value());
  CHECK_FALSE(options.find("-v")->takes_value());
  CHECK(options.find("--map")->takes_value());
  CHECK_FALSE(options.find("--map")->needs_value());
  CHECK(options.find("--rule")->delimiter() == ',');
  CHECK(options.find("--size")->delimiter() == '\0');
  CHECK(options.find("--tls")->words() == Words{"off", "on"});
  CHECK(options.find("SOURCE")->is_positional());
  CHECK(options.options().size() == 10);
  CHECK(options.options().front() == options.find("SOURCE"));
}

TEST_CASE("a program has help, a version and subcommands, of which one may be hidden") {
  OptionSet program({.name = "example", .description = "An example.", .footer = "The end."});
  std::string value;
  OptionSet& shown = program.add_subcommand("shown", "One that is shown");
  shown.add_value("-p,--port", value, "PORT", "Where").group("Server");
  OptionSet& hidden = program.add_subcommand("secret", "One that is not");
  hidden.hide();
  hidden.allow_unknown();
  program.allow_one_subcommand();
  CHECK(shown.parent() == &program);
  CHECK_FALSE(shown.is_hidden());
  CHECK(hidden.is_hidden());
  REQUIRE(program.subcommands().size() == 2);
  CHECK(program.subcommands()[0].get() == &shown);
  SECTION("help of the program") {
    CHECK(program.parse({"--help"}).value() == OptionSet::Parsed::help);
    CHECK_THAT(program.help(), Catch::StartsWith("An example.\n") && Catch::Contains("shown") &&
                                   Catch::Contains("The end.") && !Catch::Contains("secret") &&
                                   !Catch::Contains("\n\n\n"));
  }
  SECTION("help of a subcommand") {
    CHECK(program.parse({"shown", "-h"}).value() == OptionSet::Parsed::help);
    CHECK_THAT(program.help(), Catch::Contains("Server:\n") &&
                                   Catch::Contains("  -p,--port PORT                Where\n"));
  }
  SECTION("version") { CHECK(program.parse({"-V"}).value() == OptionSet::Parsed::version); }
  SECTION("a subcommand with its option") {
    CHECK(program.parse({"shown", "-p7"}).value() == OptionSet::Parsed::words);
    CHECK(value == "7");
    CHECK(shown.is_named());
    CHECK_FALSE(hidden.is_named());
    CHECK(program.named_subcommands() == std::vector<const OptionSet*>{&shown});
  }
  SECTION("words that no option takes") {
    CHECK(program.parse({"secret", "--what", "is"}).value() == OptionSet::Parsed::words);
    CHECK(hidden.unknown() == Words{"--what", "is"});
  }
}

// They take seconds a file.
TEST_CASE("CLI11 and nlohmann-json are compiled once each for the program") {
  const auto [header, expected] = GENERATE(table<std::string, std::string>(
      {{"<CLI/CLI.hpp>", "command_line.cpp"}, {"<nlohmann/json.hpp>", "json_text.cpp"}}));
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(MKVIRTFS_CLI_DIRECTORY)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || name.ends_with("_test.cpp")) continue;
    if (read_file(entry.path()).find("#include " + header) != std::string::npos) found.insert(name);
  }
  CHECK(found == std::set{expected});
}

}  // namespace mkvirtfs::cli
