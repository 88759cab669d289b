// SPDX-License-Identifier: BSD-3-Clause
// The program from outside, in this process: what it says and how it ends. Servers are in
// serve_test.cpp.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/empty_values.h"
#include "cli/help_pages.h"
#include "cli/option_manual.h"
#include "cli/testing/program.h"
#include "compose/formats.h"
#include "support/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {
namespace {

using testing::Outcome;
using testing::Process;
using testing::run_here;
using Words = std::vector<std::string>;
using Json = nlohmann::json;

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// A failure is reported in one line that begins with the program's name, and nothing else is said.
void check_one_line(const Outcome& outcome) {
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err, Catch::StartsWith("mkvirtfs: "));
  CHECK(std::ranges::count(outcome.err, '\n') == 1);
  CHECK(outcome.err.ends_with('\n'));
}

std::set<std::string> options_in(const std::string& text) {
  static const std::regex option("--[a-z0-9][a-z0-9-]*");
  return {std::sregex_token_iterator(text.begin(), text.end(), option), {}};
}

/// A source with a few files; `path` is what the program is given.
struct Source {
  Source() {
    std::filesystem::create_directory(dir / "src");
    std::filesystem::create_directory(dir / "src/bin");
    write_file(dir / "src/hello.txt", "Hello, world!\n");
    write_file(dir / "src/bin/tool", std::string(10'000, 'x'));
    std::filesystem::create_symlink("hello.txt", dir / "src/link");
  }

  TempDir dir;
  std::string path = (dir / "src").string();
};

}  // namespace

TEST_CASE("without a subcommand the help goes to standard error") {
  const Outcome outcome = run_here({});
  CHECK(outcome.status == 2);
  CHECK(outcome.out.empty());
  CHECK_THAT(outcome.err, Catch::Contains("Usage: mkvirtfs"));
}

TEST_CASE("the help fits a screen and shows two examples") {
  const Outcome outcome = run_here({"--help"});
  CHECK(outcome.status == 0);
  CHECK(outcome.err.empty());
  const auto lines = lines_of(outcome.out);
  CHECK(lines.size() <= 24);
  CHECK(std::ranges::count_if(
            lines, [](const auto& line) { return line.starts_with("  mkvirtfs "); }) == 2);
}

TEST_CASE("the help of a subcommand fits 60 lines, and --help=all has every option") {
  OptionSet program({.name = "mkvirtfs", .description = "", .footer = ""});
  const auto commands = make_commands(program, all_formats());
  for (const auto& command : program.subcommands()) {
    if (command->is_hidden()) continue;
    CAPTURE(command->name());
    const auto page = std::ranges::find(help_pages(), command->name(), &HelpPage::command);
    REQUIRE(page != help_pages().end());
    const Outcome help = run_here({command->name(), "--help"});
    const Outcome whole = run_here({command->name(), "--help=all"});
    CHECK(help.status == 0);
    CHECK(whole.status == 0);
    const auto lines = lines_of(help.out);
    CHECK(lines.size() <= 60);
    CHECK_THAT(help.out, Catch::Contains("Usage: mkvirtfs " + command->name()));
    CHECK(std::ranges::count_if(lines, [&](const auto& line) {
            return line.starts_with("  mkvirtfs " + command->name() + " ");
          }) == 2);
    for (const std::string& line : lines_of(whole.out)) {
      CAPTURE(line);
      CHECK(line.size() <= 80);
    }
    for (const CommandOption* option : command->options()) {
      if (option->is_positional()) continue;
      const std::string name = option->name();
      CAPTURE(name);
      const std::string column = name + " ";
      const bool is_common = page->common.empty() || name == "--help" ||
                             std::ranges::find(page->common, name) != page->common.end();
      const auto is_in = [&](const std::string& text) {
        for (const std::string& line : lines_of(text)) {
          if (line.starts_with("  -") && (line + " ").substr(0, 32).find(column) != line.npos) {
            return true;
          }
        }
        return false;
      };
      CHECK(is_in(whole.out));
      CHECK(is_in(help.out) == is_common);
    }
  }
}

TEST_CASE(
    "every option that a help shows first is one of its subcommand, or of another with the same "
    "help") {
  OptionSet program({.name = "mkvirtfs", .description = "", .footer = ""});
  const auto commands = make_commands(program, all_formats());
  for (const HelpPage& page : help_pages()) {
    for (const std::string_view name : page.common) {
      CAPTURE(page.command, name);
      CHECK(std::ranges::any_of(program.subcommands(), [&](const auto& command) {
        const auto other = std::ranges::find(help_pages(), command->name(), &HelpPage::command);
        return other != help_pages().end() && other->common.data() == page.common.data() &&
               command->find(std::string(name)) != nullptr;
      }));
    }
  }
}

TEST_CASE("the version names the libraries too") {
  const Outcome outcome = run_here({"--version"});
  CHECK(outcome.status == 0);
  CHECK_THAT(outcome.out, Catch::StartsWith("mkvirtfs ") && Catch::Contains("libext2fs 1.") &&
                              Catch::Contains("GnuTLS 3.") && Catch::Contains("CLI11 "));
}

TEST_CASE("wrong usage is exit 2 and one line that names what is wrong") {
  const Source source;
  const auto [words, named] = GENERATE(table<Words, Words>({
      {{"frobnicate"}, {"frobnicate"}},
      {{"serve"}, {"SOURCE"}},
      {{"dump", "SRC"}, {"--output"}},
      {{"inspect"}, {"SOURCE"}},
      {{"serve", "SRC", "--at=/x"}, {"--at=/x"}},
      {{"inspect", "SRC", "--at=/a/../b", "SRC"}, {"--at=/a/../b"}},
      {{"list"}, {"URI"}},
      {{"list", "here"}, {"here"}},
      {{"list", "nbd://host:x/"}, {"nbd://host:x/"}},
      {{"serve", "SRC", "--no-such-option"}, {"--no-such-option"}},
      {{"serve", "SRC", "--fs=ext5"}, {"--fs", "ext5"}},
      {{"serve", "SRC", "--fs"}, {"--fs"}},
      {{"serve", "SRC", "--size=1G", "--free=1G"}, {"--size", "--free"}},
      {{"dump", "SRC", "-o", "x", "--journal", "--no-journal"}, {"--journal", "--no-journal"}},
      {{"inspect", "SRC", "--one-file-system", "--no-one-file-system"},
       {"--one-file-system", "--no-one-file-system"}},
      {{"inspect", "SRC", "--owner=0:0", "--map-uid=1:2"}, {"--owner", "--map-uid"}},
      {{"inspect", "SRC", "--owner=0:0", "--map-gid=1:2"}, {"--owner", "--map-gid"}},
      {{"dump", "SRC", "-o", "-", "--json"}, {"--json", "--output=-"}},
      {{"dump", "SRC", "-o", "-", "--force"}, {"--force", "--output=-"}},
      {{"dump", "SRC", "-o", ""}, {"--output"}},
      {{"dump", "SRC", "-o", "x", "--progress=99"}, {"--progress=99"}},
      {{"dump", "SRC", "-o", "x", "--progress=-1"}, {"--progress"}},
      {{"inspect", "SRC", "--threads=0"}, {"--threads"}},
      {{"inspect", "SRC", "--threads=many"}, {"--threads"}},
      {{"inspect", "SRC", "--on-change=ignore"}, {"--on-change", "ignore"}},
      {{"inspect", "SRC", "--size=1x"}, {"--size=1x"}},
      {{"inspect", "SRC", "--fs=ext3", "--no-journal"}, {"ext3", "journal"}},
      {{"inspect", "SRC", "--fs=ext2", "--journal"}, {"ext2", "journal"}},
      {{"inspect", "SRC", "--block-size=1000"}, {"1000"}},
      {{"inspect", "SRC", "--label=seventeen letters"}, {"label"}},
      {{"inspect", "SRC", "--features=no_such_feature"}, {"no_such_feature"}},
      {{"inspect", "SRC", "--map=1P"}, {"--map=1P"}},
      {{"inspect", "SRC", "--map=x"}, {"--map=x"}},
      {{"serve", "SRC", "-p", "65536"}, {"--port=65536"}},
      {{"serve", "SRC", "-p", "http"}, {"--port=http"}},
      {{"serve", "SRC", "--listen=10809"}, {"--listen=10809"}},
      {{"serve", "SRC", "--listen=:10809"}, {"--listen=:10809"}},
      {{"serve", "SRC", "--listen=::1:10809"}, {"--listen=::1:10809"}},
      {{"serve", "SRC", "--listen=[::1]"}, {"--listen=[::1]"}},
      {{"serve", "SRC", "-e", "a/../b"}, {"--exportname=a/../b"}},
      {{"serve", "SRC", "--no=df,starttls"}, {"--no", "starttls", "fast-zero"}},
      {{"serve", "SRC", "--no="}, {"--no"}},
      {{"serve", "SRC", "--timeout=soon"}, {"--timeout=soon"}},
      {{"serve", "SRC", "--timeout=-1"}, {"--timeout=-1"}},
      {{"serve", "SRC", "--max-conn=0"}, {"--max-conn=0"}},
      {{"serve", "SRC", "--stats=xml"}, {"--stats=xml"}},
  }));
  Words arguments = words;
  std::ranges::replace(arguments, std::string("SRC"), source.path);
  CAPTURE(arguments);
  const Outcome outcome = run_here(arguments);
  CHECK(outcome.status == 2);
  check_one_line(outcome);
  for (const std::string& name : named) CHECK_THAT(outcome.err, Catch::Contains(name));
}

namespace {

/// The program's subcommands with their options, for one parse.
struct Program {
  OptionSet options{OptionSet::Program{.name = "mkvirtfs", .description = "", .footer = ""}};
  std::vector<std::unique_ptr<Command>> commands = make_commands(options, all_formats());

  const OptionSet& subcommand(const std::string& name) const {
    const auto& all = options.subcommands();
    return **std::ranges::find(all, name, [](const auto& each) { return each->name(); });
  }
  const CommandOption& option(const std::string& command, const std::string& name) const {
    return *subcommand(command).find(name);
  }
  /// What is wrong with the words; empty when nothing is.
  std::string parse(const Words& words) {
    Result<Words> separate = separate_empty_values(options, words);
    if (!separate) return separate.error().what;
    const auto parsed = options.parse(std::move(*separate));
    return parsed ? "" : parsed.error().what;
  }
};

/// The positional words of a subcommand, in their order.
Words positional_of(const OptionSet& command) {
  Words words;
  for (const CommandOption* option : command.options()) {
    if (!option->is_positional()) continue;
    words.insert(words.end(), option->values().begin(), option->values().end());
  }
  return words;
}

/// Has nothing but the one word known by its place that it requires.
bool takes_one_word(const OptionSet& command) {
  const std::string name = command.name();
  return name == "ls" || name == "cat" || name == "stat";
}

}  // namespace

TEST_CASE("an empty value is an empty value, for every option of every subcommand",
          "[one-thread]") {
  const std::set<std::string> may_be_empty = {"--label", "--exportname", "--at"};
  const Program all;
  std::size_t with_value = 0;
  for (const auto& command : all.options.subcommands()) {
    for (const CommandOption* declared : std::as_const(*command).options()) {
      if (declared->is_positional()) continue;
      const std::string name = declared->name();
      CAPTURE(command->name(), name);
      if (!declared->needs_value()) {
        // "--json=" is wrong, and no word is taken for its value.
        Program program;
        const std::string wrong = program.parse({command->name(), name + "=", "list", "B"});
        const bool is_long = name.starts_with("--");
        CHECK_THAT(wrong, Catch::StartsWith(is_long ? name + "= has an empty value"
                                                    : std::string("nothing takes -=")));
        continue;
      }
      ++with_value;
      std::vector<Words> spellings = {{name + "="}, {name, ""}};
      if (!declared->short_names().empty())
        spellings.push_back({"-" + declared->short_names()[0], ""});
      if (declared->delimiter() != '\0') spellings.push_back({name + "=,"});
      for (const Words& spelling : spellings) {
        CAPTURE(spelling);
        Words words = {command->name()};
        words.insert(words.end(), spelling.begin(), spelling.end());
        // Words that every subcommand takes where it has a choice of them.
        Words rest = {command->name() == "overlay" ? "check" : "A", "list"};
        if (takes_one_word(*command)) rest.pop_back();
        words.insert(words.end(), rest.begin(), rest.end());
        Program program;
        const std::string wrong = program.parse(words);
        const OptionSet& parsed = program.subcommand(command->name());
        CHECK(program.option(command->name(), name).values() == Words{""});
        CHECK(positional_of(parsed) == rest);
        if (may_be_empty.contains(name)) {
          CHECK_THAT(wrong, !Catch::Contains(name));
        } else {
          CHECK_THAT(wrong, Catch::Contains(name));
        }
      }
    }
  }
  CHECK(with_value > 100);
}

TEST_CASE("a value that looks like an option with an empty value is a value") {
  Program program;
  CHECK(program.parse({"dump", "--label", "--uuid=", "-o", "--at=", "--", "--label="}) == "");
  CHECK(program.option("dump", "--label").values() == Words{"--uuid="});
  CHECK(program.option("dump", "--output").values() == Words{"--at="});
  CHECK(program.option("dump", "SOURCE").values() == Words{"--label="});
}

TEST_CASE("an empty --label= takes no source for its value") {
  const Source source;
  write_file(source.dir / "other", "x");
  for (const Words& label : {Words{"--label="}, Words{"--label", ""}}) {
    Words words = {"inspect", "--json", "--fs=ext4"};
    words.insert(words.end(), label.begin(), label.end());
    words.insert(words.end(), {source.path, source.path});
    const Outcome outcome = run_here(words);
    REQUIRE(outcome.status == 0);
    const Json json = Json::parse(outcome.out);
    CHECK(json["image"]["label"] == "");
    CHECK(json["source"] == source.path + " + " + source.path);
  }
}

TEST_CASE("a source with brackets around its name is not the list of what they hold") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "[a]");
  write_file(dir / "[a]/right", "x");
  std::filesystem::create_directory(dir / "a");
  std::filesystem::current_path(dir.path());
  const Outcome outcome = run_here({"inspect", "[a]", "--json"});
  std::filesystem::current_path("/");
  REQUIRE(outcome.status == 0);
  CHECK(Json::parse(outcome.out)["source_file_count"] == 1);
}

TEST_CASE("a failure is exit 1, one line, and nothing is left behind") {
  const Source source;
  const TempDir out;
  write_file(out / "exists.img", "precious");
  std::filesystem::create_directory(out / "directory");
  std::filesystem::current_path(out.path());
  const auto [words, named] = GENERATE(table<Words, Words>({
      {{"inspect", "no-such-source"}, {"no-such-source", "not exist"}},
      {{"dump", "no-such-source", "-o", "disk.img"}, {"no-such-source", "not exist"}},
      {{"serve", "exists.img"}, {"exists.img", "directory"}},
      {{"dump", "SRC", "-o", "exists.img"}, {"exists.img", "--force"}},
      {{"dump", "SRC", "-o", "directory"}, {"directory"}},
      {{"dump", "SRC", "-o", "directory", "--force"}, {"directory"}},
      {{"dump", "SRC", "-o", "no/such/disk.img"}, {"no/such/disk.img", "No such file"}},
      {{"dump", "SRC", "-o", "/dev/full"}, {"/dev/full", "No space left"}},
      {{"dump", "SRC", "-o", "disk.img", "--size=20K"}, {"smallest"}},
      {{"serve", "SRC", "-U", "exists.img"}, {"exists.img"}},
      {{"serve", "SRC", "-P", "no/such/pid"}, {"no/such/pid"}},
      {{"serve", "SRC", "--listen=192.0.2.1:10809"}, {"192.0.2.1"}},
  }));
  Words arguments = words;
  std::ranges::replace(arguments, std::string("SRC"), source.path);
  CAPTURE(arguments);
  const Outcome outcome = run_here(arguments);
  CHECK(outcome.status == 1);
  check_one_line(outcome);
  for (const std::string& name : named) CHECK_THAT(outcome.err, Catch::Contains(name));
  CHECK(read_file(out / "exists.img") == "precious");
  std::filesystem::remove(out / "exists.img");
  std::filesystem::remove(out / "directory");
  CHECK(std::filesystem::is_empty(out.path()));
  std::filesystem::current_path("/");
}

TEST_CASE("names from outside cannot break the line") {
  const Outcome outcome = run_here({"inspect", "a\nmkvirtfs: \x1b[31mred"});
  CHECK(outcome.status == 1);
  check_one_line(outcome);
  CHECK(outcome.err.find('\x1b') == std::string::npos);
}

TEST_CASE("inspect reports the facts under names that stay") {
  const Source source;
  const Outcome outcome = run_here({"inspect", source.path, "--fs=ext4", "--json"});
  REQUIRE(outcome.status == 0);
  const Json json = Json::parse(outcome.out);
  for (const char* name :
       {"source", "tree_id", "volume_id", "source_directory_count", "source_file_count",
        "source_file_bytes", "source_symlink_count", "source_special_count",
        "source_hard_link_count", "unreadable_count", "vanished_count", "excluded_count",
        "mount_points_not_entered", "scan_seconds", "plan_seconds", "image"}) {
    CAPTURE(name);
    CHECK(json.contains(name));
  }
  CHECK(json["source"] == source.path);
  CHECK(json["tree_id"].get<std::string>().size() == 64);
  CHECK(json["source_directory_count"] == 2);
  CHECK(json["source_file_count"] == 2);
  CHECK(json["source_file_bytes"] == 10'014);
  CHECK(json["source_symlink_count"] == 1);
  CHECK(json["image"]["format"] == "ext4");
  CHECK(json["image"]["uuid"] == json["volume_id"]);

  const Outcome text = run_here({"inspect", source.path, "--fs=ext4"});
  CHECK(text.status == 0);
  CHECK_THAT(text.out, Catch::Contains("tree id") &&
                           Catch::Contains(json["tree_id"].get<std::string>()) &&
                           Catch::Contains("source file bytes          10014\n"));
}

TEST_CASE("inspect --json reports a label that is no UTF-8") {
  const Source source;
  const Outcome outcome =
      run_here({"inspect", source.path, "--fs=ext4", "--label=a\xff", "--json"});
  CHECK(outcome.status == 0);
  CHECK(Json::parse(outcome.out)["image"]["label"] == "a\xEF\xBF\xBD");
}

TEST_CASE("rules decide in the order in which they were given") {
  const Source source;
  const auto files = [&](const Words& rules) {
    Words words = {"inspect", source.path, "--json"};
    words.insert(words.end(), rules.begin(), rules.end());
    return Json::parse(run_here(words).out)["source_file_count"].get<int>();
  };
  CHECK(files({}) == 2);
  CHECK(files({"--exclude=*.txt"}) == 1);
  CHECK(files({"--include=hello.txt", "--exclude=*.txt"}) == 2);
  CHECK(files({"--exclude=*.txt", "--include=hello.txt"}) == 1);
}

TEST_CASE("the map covers the image, and one offset names what lies there") {
  const Source source;
  const Outcome all = run_here({"inspect", source.path, "--map", "--json"});
  REQUIRE(all.status == 0);
  const Json rows = Json::parse(all.out);
  const Json facts = Json::parse(run_here({"inspect", source.path, "--json"}).out);
  std::uint64_t at = 0;
  std::uint64_t tool_at = 0;
  for (const Json& row : rows) {
    CHECK(row["offset"] == at);
    at += row["length"].get<std::uint64_t>();
    if (row["what"] == "file /bin/tool at 0") tool_at = row["offset"];
  }
  CHECK(at == facts["image"]["size_bytes"]);
  REQUIRE(tool_at != 0);

  const std::string offset = std::to_string(tool_at + 5000);
  const Outcome one = run_here({"inspect", source.path, "--map", offset, "--json"});
  REQUIRE(one.status == 0);
  const Json row = Json::parse(one.out);
  CHECK(row["offset"] == tool_at);
  CHECK(row["length"] == 10'000);
  CHECK(row["kind"] == "content");
  CHECK_THAT(row["what"].get<std::string>(), Catch::StartsWith("file /bin/tool at "));
  // Every row is found again from its first and its last byte.
  for (const Json& each : rows) {
    const auto first = each["offset"].get<std::uint64_t>();
    const auto last = first + each["length"].get<std::uint64_t>() - 1;
    for (const std::uint64_t where : {first, last}) {
      const Outcome found =
          run_here({"inspect", "--map=" + std::to_string(where), source.path, "--json"});
      REQUIRE(found.status == 0);
      const Json again = Json::parse(found.out);
      CHECK(again["offset"] == each["offset"]);
      CHECK(again["length"] == each["length"]);
    }
  }
  // The order of the words does not matter.
  for (const Words& words :
       {Words{"inspect", "--map", source.path}, Words{"inspect", source.path, "--map"}}) {
    const Outcome text = run_here(words);
    CHECK(text.status == 0);
    CHECK(lines_of(text.out).size() == rows.size() + 1);
  }
}

TEST_CASE("dump reports what it wrote") {
  const Source source;
  const TempDir out;
  const std::string target = (out / "disk.img").string();
  const Outcome outcome =
      run_here({"dump", source.path, "--fs=ext4", "-o", target, "--sha256", "--json"});
  REQUIRE(outcome.status == 0);
  CHECK(outcome.err.empty());
  const Json json = Json::parse(outcome.out);
  CHECK(json["output"] == target);
  CHECK(json["image_bytes"] == std::filesystem::file_size(target));
  CHECK(json["data_bytes"] > 10'014);
  for (const char* name :
       {"volume_id", "moved_bytes", "scan_seconds", "plan_seconds", "dump_seconds"}) {
    CHECK(json.contains(name));
  }
  const std::string digest = json["sha256"];
  Process sha256sum = Process::of({"sha256sum", target});
  CHECK_THAT(sha256sum.finish().out, Catch::StartsWith(digest));

  // As text: a line about it, and one that sha256sum --check reads.
  const Outcome text =
      run_here({"dump", source.path, "--fs=ext4", "-o", target, "--sha256", "--force"});
  REQUIRE(text.status == 0);
  const auto lines = lines_of(text.out);
  REQUIRE(lines.size() == 2);
  CHECK_THAT(lines[0], Catch::StartsWith(target + ": "));
  CHECK(lines[1] == digest + "  " + target);

  Process fsck =
      Process::of({"e2fsck", "-fn", target}, {{"PATH", "/usr/sbin:/sbin:/usr/bin:/bin"}});
  const Outcome verdict = fsck.finish();
  CAPTURE(verdict.out);
  CHECK(verdict.status == 0);
}

TEST_CASE(
    "an image that is dumped into its own source is no part of it, and neither is its old one") {
  const Source source;
  const std::filesystem::path image = source.dir / "src/disk.img";
  const auto dumped = [&](const Words& more) {
    Words words = {"dump", source.path, "--fs=ext4", "-o", image.string()};
    words.insert(words.end(), more.begin(), more.end());
    return run_here(words);
  };
  const Outcome first = dumped({});
  REQUIRE(first.status == 0);
  CHECK_THAT(first.err, Catch::Contains(image.string() + " lies in the source " + source.path +
                                        " and is left out of the image; the time of its directory "
                                        "differs from run to run"));
  const auto size_of_first = std::filesystem::file_size(image);
  const Outcome second = dumped({"--force"});
  REQUIRE(second.status == 0);
  CHECK_THAT(second.err, Catch::Contains("is left out of the image"));
  CHECK(std::filesystem::file_size(image) == size_of_first);
  const Outcome listed = Process::of({"debugfs", "-R", "ls -p /", image.string()},
                                     {{"PATH", "/usr/sbin:/sbin:/usr/bin:/bin"}})
                             .finish();
  CHECK_THAT(listed.out, Catch::Contains("/hello.txt/") && !Catch::Contains("/disk.img/"));

  // A link that leads into the source names the same output.
  std::filesystem::create_symlink(image, source.dir / "link.img");
  const Outcome linked = run_here(
      {"dump", source.path, "--fs=ext4", "--force", "-o", (source.dir / "link.img").string()});
  REQUIRE(linked.status == 0);
  CHECK_THAT(linked.err, Catch::Contains("is left out of the image"));
  CHECK(std::filesystem::file_size(image) == size_of_first);

  // Elsewhere there is nothing to say.
  const Outcome elsewhere =
      run_here({"dump", source.path, "--fs=ext4", "-o", (source.dir / "other.img").string()});
  CHECK(elsewhere.status == 0);
  CHECK(elsewhere.err.empty());
}

TEST_CASE("standard output that goes into the source is left out of what is made of it") {
  const Source source;
  const std::string command = "\"$0\" dump \"$1\" --fs=ext4 -o - > \"$1/disk.img\"";
  const auto dumped = [&] {
    return Process::of({"sh", "-c", command, MKVIRTFS_PROGRAM, source.path}).finish();
  };
  for (int run = 0; run < 2; ++run) {
    const Outcome outcome = dumped();
    REQUIRE(outcome.status == 0);
    CHECK_THAT(outcome.err, Catch::Contains("the file of standard output lies in the source"));
    const Outcome listed =
        Process::of({"debugfs", "-R", "ls -p /", (source.dir / "src/disk.img").string()},
                    {{"PATH", "/usr/sbin:/sbin:/usr/bin:/bin"}})
            .finish();
    CHECK_THAT(listed.out, Catch::Contains("/hello.txt/") && !Catch::Contains("/disk.img/"));
  }
}

TEST_CASE("dump to standard output is the image and nothing else") {
  const Source source;
  const TempDir out;
  const std::string target = (out / "disk.img").string();
  REQUIRE(run_here({"dump", source.path, "-o", target}).status == 0);
  const Outcome outcome = run_here({"dump", source.path, "-o", "-"});
  REQUIRE(outcome.status == 0);
  CHECK((outcome.out == read_file(target)));
  CHECK_THAT(outcome.err, Catch::StartsWith("standard output: "));
}

TEST_CASE("progress goes to a descriptor in lines") {
  const Source source;
  const TempDir out;
  const UniqueFd progress(::open((out / "progress").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const Outcome outcome = run_here({"dump", source.path, "-o", (out / "disk.img").string(),
                                    "--progress", std::to_string(progress.get())});
  REQUIRE(outcome.status == 0);
  const auto lines = lines_of(read_file(out / "progress"));
  REQUIRE_FALSE(lines.empty());
  CHECK(lines.back() == "100/100");
  for (const std::string& line : lines) {
    CHECK(std::regex_match(line, std::regex("[0-9]{1,3}/100")));
  }
}

TEST_CASE("a terminal gets a bar that is gone at the end") {
  const UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master || ::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0) {
    WARN("skipped: no pseudo terminals here");
    return;
  }
  const Source source;
  const TempDir out;
  const bool color = GENERATE(false, true);
  const bool extracts = GENERATE(false, true);
  const std::string target = (out / "target").string();
  char name[100];
  REQUIRE(::ptsname_r(master.get(), name, sizeof name) == 0);
  UniqueFd terminal(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(terminal.get(), STDERR_FILENO);
    ::dup2(::open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
    ::setenv("TERM", "xterm", 1);
    color ? ::unsetenv("NO_COLOR") : ::setenv("NO_COLOR", "1", 1);
    if (extracts) {
      ::execl(MKVIRTFS_PROGRAM, "mkvirtfs", "extract", source.path.c_str(), target.c_str(),
              nullptr);
    } else {
      ::execl(MKVIRTFS_PROGRAM, "mkvirtfs", "dump", source.path.c_str(), "-o", target.c_str(),
              nullptr);
    }
    ::_exit(127);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  // Once nobody has the terminal open, reads give what is left in it, and then an error.
  terminal = UniqueFd();
  std::string text;
  std::array<char, 4096> part{};
  for (ssize_t got = 0; (got = ::read(master.get(), part.data(), part.size())) > 0;) {
    text.append(part.data(), static_cast<std::size_t>(got));
  }
  REQUIRE(!text.empty());
  CHECK_THAT(text, Catch::Contains("100% [") && Catch::Contains("/s, 0:00 left"));
  CHECK((text.find("\x1b[") != std::string::npos) == color);
  const std::size_t last = text.rfind('\r', text.size() - 2);
  CHECK(text.substr(last + 1).find_first_not_of(" \r") == std::string::npos);
}

TEST_CASE("an interrupted dump says so and leaves nothing") {
  const Source source;
  const TempDir out;
  const std::string fifo = (out / "fifo").string();
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  // Open but never read: the dump waits in a write, for as long as it takes.
  const UniqueFd reader(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  const int signal = GENERATE(SIGINT, SIGTERM);
  Process dump({"dump", source.path, "-o", fifo});
  char byte = 0;
  while (::read(reader.get(), &byte, 1) != 1) ::usleep(1000);
  dump.send(signal);
  const Outcome outcome = dump.finish();
  CHECK(outcome.status == 1);
  check_one_line(outcome);
  CHECK_THAT(outcome.err, Catch::Contains("interrupted") || Catch::Contains("canceled"));
}

TEST_CASE("the manual page has the options of sources and of the registry") {
  const std::string page = read_file(MKVIRTFS_MANUAL_PAGE);
  const std::size_t from = page.find(".SH SOURCE OPTIONS\n");
  const std::size_t to = page.find(".SH SERVE\n");
  REQUIRE(from < to);
  const std::string section = source_options_manual() + image_options_manual(all_formats());
  // After a change of a row: MKVIRTFS_UPDATE_MANUAL=1 build/test/bin/cli_test "the manual page
  // has*"
  if (std::getenv("MKVIRTFS_UPDATE_MANUAL") != nullptr) {
    write_file(MKVIRTFS_MANUAL_PAGE, page.substr(0, from) + section + page.substr(to));
    return;
  }
  CHECK(page.substr(from, to - from) == section);
}

TEST_CASE("completion offers every subcommand, option and word of a choice") {
  const auto completed = [](const Words& words) {
    Words all{"__complete"};
    all.insert(all.end(), words.begin(), words.end());
    return run_here(all).out;
  };
  CHECK_THAT(completed({}), Catch::Contains("serve\n") && Catch::Contains("--version\n") &&
                                !Catch::Contains("__complete"));
  CHECK_THAT(completed({"serve"}), Catch::Contains("--joliet\n") && Catch::Contains("--tls\n"));
  CHECK(completed({"dump", "--symlinks"}) == "skip\nfollow\nerror\nkeep\n");
  CHECK(completed({"serve", "--tls"}) == "off\non\nrequire\n");
  CHECK_THAT(completed({"inspect", "--fs"}), Catch::Contains("ext2\n") && Catch::Contains("iso\n"));
  CHECK(completed({"serve", "--label"}).empty());
  CHECK(completed({"no-such"}).empty());
}

TEST_CASE("the manual page and the help name the same options") {
  std::string page = read_file(MKVIRTFS_MANUAL_PAGE);
  page = std::regex_replace(page, std::regex(R"(\\-)"), "-");
  const auto sections = [&](const Words& titles) {
    std::string text;
    for (const std::string& title : titles) {
      const std::size_t from = page.find("\n.SH " + title + "\n");
      REQUIRE(from != std::string::npos);
      std::size_t to = from;
      // Options are defined in the lines behind .TP; elsewhere they are only mentioned.
      const std::size_t end = page.find("\n.SH ", from + 1);
      while ((to = page.find("\n.TP\n", to)) < end) {
        to += 5;
        text += page.substr(to, page.find('\n', to) - to) + "\n";
      }
    }
    return options_in(text);
  };
  const auto help = [](const Words& words) {
    // Of each line only the option's own column.
    std::string text;
    for (const std::string& line : lines_of(run_here(words).out)) {
      if (line.starts_with("  -")) text += line.substr(0, 31) + "\n";
    }
    return options_in(text);
  };
  std::set<std::string> program = sections({"OPTIONS"});
  CHECK(help({"--help"}) == program);
  for (const auto& [command, title] :
       {std::pair{"serve", "SERVE"}, {"dump", "DUMP"}, {"boot", "BOOT"}, {"inspect", "INSPECT"}}) {
    CAPTURE(command);
    std::set<std::string> expected =
        sections({"SOURCE OPTIONS", "ARCHIVE OPTIONS", "IMAGE OPTIONS", "DISK OPTIONS", title});
    expected.insert("--help");
    CHECK(help({command, "--help=all"}) == expected);
  }
  std::set<std::string> inside =
      sections({"SOURCE OPTIONS", "ARCHIVE OPTIONS", "LS, CAT, STAT AND EXTRACT"});
  inside.erase("--at");
  inside.erase("--file");
  inside.insert("--help");
  CHECK(help({"ls", "--help=all"}) == inside);
}

}  // namespace mkvirtfs::cli
