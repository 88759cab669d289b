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
#include "cli/version.h"
#include "support/message.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

constexpr const char* kDescription =
    "Turns a directory into an ext2, ext3 or ext4 disk image that is never written:\n"
    "reads are answered from the directory's own files.";
constexpr const char* kExamples = R"(Examples:
  mkvirtfs serve ./rootfs --fs=ext4 --run 'nbdinfo "$uri"'
  mkvirtfs dump ./rootfs --fs=ext4 --free=1G -o disk.img

Exit status: 0 done, 1 failed, 2 wrong usage. More: man mkvirtfs)";

int exit_status(Errc code) { return code == Errc::usage ? kWrongUsage : kFailed; }

int tell_failure(const Streams& streams, int status, std::string_view what) {
  print(streams.err, fmt::format("mkvirtfs: {}\n", printable_message(what)));
  return status;
}

int parse_and_run(int argc, const char* const* argv, const Streams& streams,
                  const FormatRegistry& formats) {
  OptionSet program({.name = "mkvirtfs", .description = kDescription, .footer = kExamples});
  const std::vector<std::unique_ptr<Command>> commands =
      make_commands(program, formats, argc > 1 ? argv[1] : "");
  Result<std::vector<std::string>> words =
      separate_empty_values(program, {argv + std::min(argc, 1), argv + argc});
  if (!words) return tell_failure(streams, kWrongUsage, error_text(words.error()));
  const Result<OptionSet::Parsed> parsed = program.parse(std::move(*words));
  if (!parsed) {
    std::string about = "mkvirtfs";
    for (const OptionSet* named : program.named_subcommands()) about += " " + named->name();
    return tell_failure(streams, kWrongUsage,
                        fmt::format("{} (see {} --help)", error_text(parsed.error()), about));
  }
  if (*parsed == OptionSet::Parsed::help) return print(streams.out, program.help()) ? 0 : kFailed;
  if (*parsed == OptionSet::Parsed::version) {
    return print(streams.out, version_text() + "\n") ? 0 : kFailed;
  }
  for (const std::unique_ptr<Command>& command : commands) {
    if (!command->chosen()) continue;
    const Result<int> status = command->run(streams);
    if (status) return *status;
    return tell_failure(streams, exit_status(status.error().code), error_text(status.error()));
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
       {"inspect", make_inspect},
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
