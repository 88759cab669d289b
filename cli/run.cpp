// SPDX-License-Identifier: BSD-3-Clause
#include "cli/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/empty_values.h"
#include "cli/error_text.h"
#include "cli/help_pages.h"
#include "cli/mistakes.h"
#include "cli/version.h"
#include "support/message.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

constexpr const char* kExamples =
    R"(Examples (exit status: 0 done, 1 failed, 2 wrong usage; more: man mkvirtfs):
  mkvirtfs serve ./rootfs --fs=ext4 --run 'nbdinfo "$uri"'
  mkvirtfs dump ./rootfs --fs=ext4 --free=1G -o disk.img)";

int tell_failure(const Streams& streams, int status, std::string_view what) {
  print(streams.err, fmt::format("mkvirtfs: {}\n", printable_message(what)));
  return status;
}

std::string description(const FormatRegistry& formats) {
  return fmt::format(
      "Shows directories, archives, container images and disks as a disk image that is\n"
      "never written. Formats: {}.",
      fmt::join(formats.names(), ", "));
}

/// Each subcommand's help ends with examples of its own, and shows its common options first.
void set_help_pages(OptionSet& program) {
  for (const auto& command : program.subcommands()) {
    const auto page = std::ranges::find(help_pages(), command->name(), &HelpPage::command);
    if (page == help_pages().end()) continue;
    std::string footer = fmt::format("Examples:\n{}\n", page->examples);
    if (!page->common.empty()) {
      footer += fmt::format("All options: mkvirtfs {} --help=all. ", page->command);
    }
    command->set_help_page(page->common, footer + "More: man mkvirtfs");
  }
}

constexpr std::string_view kHelp = "help";

/// The words behind "mkvirtfs": "help serve" is "serve --help".
std::vector<std::string> given_words(int argc, const char* const* argv) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (words.empty() || words.front() != kHelp) return words;
  words.erase(words.begin());
  words.resize(std::min<std::size_t>(words.size(), 1));
  words.emplace_back("--help");
  return words;
}

/// Takes the "--" and what stands behind it out of the words.
std::vector<std::string> take_rest(std::vector<std::string>& words) {
  const auto dashes = std::ranges::find(words, "--");
  if (dashes == words.end()) return {};
  std::vector<std::string> rest(dashes + 1, words.end());
  words.erase(dashes, words.end());
  return rest;
}

/// Whether `word` stands where a subcommand should, and is none.
bool is_unknown_subcommand(const OptionSet& program, const std::string& word) {
  return !word.starts_with('-') &&
         std::ranges::none_of(program.subcommands(),
                              [&](const auto& each) { return each->name() == word; });
}

/// What is wrong with words that nothing takes; "" when there are none.
std::string leftover_text(const OptionSet& parsed, const FormatRegistry& formats) {
  const std::vector<const OptionSet*> named = parsed.named_subcommands();
  const OptionSet* command = &parsed;
  std::vector<std::string> words = parsed.unknown();
  if (words.empty() && !named.empty()) {
    command = named.front();
    words = command->unknown();
  }
  if (words.empty()) return {};
  // An option may be another subcommand's, and those are not there (make_commands()).
  OptionSet program({.name = parsed.name(), .description = "", .footer = ""});
  const auto commands = make_commands(program, formats);
  return unknown_word_text(program, *command, words.front());
}

int tell_wrong_usage(const Streams& streams, const OptionSet& program, std::string_view what,
                     int status = kWrongUsage) {
  // What was meant is all that helps.
  if (what.ends_with("?)")) return tell_failure(streams, status, what);
  std::string about = program.name();
  for (const OptionSet* named : program.named_subcommands()) about += " " + named->name();
  return tell_failure(streams, status, fmt::format("{} (see {} --help)", what, about));
}

int parse_and_run(int argc, const char* const* argv, const Streams& streams,
                  const FormatRegistry& formats) {
  OptionSet program({.name = "mkvirtfs", .description = description(formats), .footer = kExamples});
  std::vector<std::string> given = given_words(argc, argv);
  const std::vector<std::unique_ptr<Command>> commands =
      make_commands(program, formats, given.empty() ? "" : given.front());
  if (!given.empty() && is_unknown_subcommand(program, given.front())) {
    return tell_wrong_usage(streams, program, unknown_subcommand_text(program, given.front()));
  }
  // The others are there where none was named.
  const int wrong_usage =
      commands.size() == 1 ? commands.front()->failure_status(Errc::usage) : kWrongUsage;
  if (commands.size() == 1 && commands.front()->takes_rest()) {
    commands.front()->set_rest(take_rest(given));
  }
  Result<std::vector<std::string>> words = separate_empty_values(program, given);
  if (!words) return tell_failure(streams, wrong_usage, error_text(words.error()));
  const Result<OptionSet::Parsed> parsed = program.parse(std::move(*words));
  if (!parsed) {
    const std::string leftover = leftover_text(program, formats);
    return tell_wrong_usage(streams, program,
                            leftover.empty() ? error_text(parsed.error()) : leftover, wrong_usage);
  }
  if (*parsed == OptionSet::Parsed::help) return print(streams.out, program.help()) ? 0 : kFailed;
  if (*parsed == OptionSet::Parsed::version) {
    return print(streams.out, version_text() + "\n") ? 0 : kFailed;
  }
  for (const std::unique_ptr<Command>& command : commands) {
    if (!command->chosen()) continue;
    const Result<int> status = command->run(streams);
    if (status) return *status;
    return tell_failure(streams, command->failure_status(status.error().code),
                        error_text(status.error()));
  }
  print(streams.err, program.help());
  return kWrongUsage;
}

}  // namespace

std::vector<std::unique_ptr<Command>> make_commands(OptionSet& program,
                                                    const FormatRegistry& formats,
                                                    std::string_view chosen) {
  struct Maker {
    std::string_view name;
    std::unique_ptr<Command> (*make)(OptionSet&, const FormatRegistry&);
    bool needs_others = false;
  };
  static constexpr auto kMakers = std::to_array<Maker>(
      {{"serve", make_serve},
       {"dump", make_dump},
       {"boot", make_boot},
       {"inspect", make_inspect},
       {"ls", make_ls},
       {"cat", make_cat},
       {"stat", make_stat},
       {"extract", make_extract},
       {"list", [](OptionSet& whole, const FormatRegistry&) { return make_list(whole); }},
       {"overlay", [](OptionSet& whole, const FormatRegistry&) { return make_overlay(whole); }},
       {"ctl", [](OptionSet& whole, const FormatRegistry&) { return make_ctl(whole); }},
       {"__complete", [](OptionSet& whole, const FormatRegistry&) { return make_complete(whole); },
        true}});
  const auto* const named = std::ranges::find(kMakers, chosen, &Maker::name);
  const bool stands_alone = named != kMakers.end() && !named->needs_others;
  std::vector<std::unique_ptr<Command>> commands;
  for (const Maker& maker : kMakers) {
    if (!stands_alone || maker.name == chosen) commands.push_back(maker.make(program, formats));
  }
  // Else a source with the name of a subcommand would begin another one.
  program.allow_one_subcommand();
  refuse_empty_values(program);
  set_help_pages(program);
  return commands;
}

int run(int argc, const char* const* argv, const Streams& streams, const FormatRegistry& formats) {
  try {
    return parse_and_run(argc, argv, streams, formats);
  } catch (...) {
    const char* const command = argc > 1 ? argv[1] : "";
    return tell_failure(streams, kFailed,
                        error_of_exception(std::string_view(command, ::strnlen(command, 40))).what);
  }
}

}  // namespace mkvirtfs::cli
