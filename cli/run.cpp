// SPDX-License-Identifier: BSD-3-Clause
#include "cli/run.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
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
#include "cli/version.h"
#include "support/message.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

constexpr const char* kExamples = R"(Examples:
  mkvirtfs serve ./rootfs --fs=ext4 --run 'nbdinfo "$uri"'
  mkvirtfs dump ./rootfs --fs=ext4 --free=1G -o disk.img

Exit status: 0 done, 1 failed, 2 wrong usage. More: man mkvirtfs)";

/// Options as "-p, --port PORT", without what CLI11 adds about types, needs and exclusions.
class HelpFormatter final : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(32); }
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_option_text().empty() ? "" : " " + option->get_option_text();
  }
};

/// The help of the program or of the subcommand that was named.
std::string help_text(const CLI::App& program) {
  std::string text = program.help();
  // CLI11 leaves two empty lines between groups.
  for (std::size_t at = 0; (at = text.find("\n\n\n", at)) != std::string::npos;) text.erase(at, 1);
  return text;
}

int exit_status(Errc code) { return code == Errc::usage ? kWrongUsage : kFailed; }

int tell_failure(const Streams& streams, int status, std::string_view what) {
  print(streams.err, fmt::format("mkvirtfs: {}\n", printable_message(what)));
  return status;
}

int parse_and_run(int argc, const char* const* argv, const Streams& streams,
                  const FormatRegistry& formats) {
  CLI::App program(
      "Turns a directory into an ext2, ext3 or ext4 disk image that is never written:\n"
      "reads are answered from the directory's own files.");
  program.name("mkvirtfs");
  program.formatter(std::make_shared<HelpFormatter>());
  program.footer(kExamples);
  program.set_help_flag("-h,--help", "Print this help");
  program.set_version_flag(
      "-V,--version", [] { return version_text(); },
      "Print the versions of mkvirtfs and its libraries");
  const std::vector<std::unique_ptr<Command>> commands =
      make_commands(program, formats, argc > 1 ? argv[1] : "");

  try {
    Result<std::vector<std::string>> words =
        separate_empty_values(program, {argv + std::min(argc, 1), argv + argc});
    if (!words) return tell_failure(streams, kWrongUsage, words.error().what);
    std::ranges::reverse(*words);  // so CLI11 wants it
    program.parse(std::move(*words));
  } catch (const CLI::CallForHelp&) {
    return print(streams.out, help_text(program)) ? 0 : kFailed;
  } catch (const CLI::CallForVersion& version) {
    return print(streams.out, fmt::format("{}\n", version.what())) ? 0 : kFailed;
  } catch (const CLI::ParseError& error) {
    std::string about = "mkvirtfs";
    for (const CLI::App* chosen : program.get_subcommands()) about += " " + chosen->get_name();
    return tell_failure(streams, kWrongUsage,
                        fmt::format("{} (see {} --help)", error.what(), about));
  }
  for (const std::unique_ptr<Command>& command : commands) {
    if (!command->chosen()) continue;
    const Result<int> status = command->run(streams);
    if (status) return *status;
    return tell_failure(streams, exit_status(status.error().code), status.error().what);
  }
  print(streams.err, help_text(program));
  return kWrongUsage;
}

}  // namespace

bool Command::chosen() const { return app_.parsed(); }

std::vector<std::unique_ptr<Command>> make_commands(CLI::App& program,
                                                    const FormatRegistry& formats,
                                                    std::string_view chosen) {
  struct Maker {
    std::string_view name;
    std::unique_ptr<Command> (*make)(CLI::App&, const FormatRegistry&);
    bool needs_others = false;
  };
  static constexpr auto kMakers = std::to_array<Maker>(
      {{"serve", make_serve},
       {"dump", make_dump},
       {"inspect", make_inspect},
       {"list", [](CLI::App& app, const FormatRegistry&) { return make_list(app); }},
       {"overlay", [](CLI::App& app, const FormatRegistry&) { return make_overlay(app); }},
       {"ctl", [](CLI::App& app, const FormatRegistry&) { return make_ctl(app); }},
       {"__complete", [](CLI::App& app, const FormatRegistry&) { return make_complete(app); },
        true}});
  const auto* const named = std::ranges::find(kMakers, chosen, &Maker::name);
  const bool stands_alone = named != kMakers.end() && !named->needs_others;
  std::vector<std::unique_ptr<Command>> commands;
  for (const Maker& maker : kMakers) {
    if (!stands_alone || maker.name == chosen) commands.push_back(maker.make(program, formats));
  }
  // Else a source with the name of a subcommand would begin another one.
  program.require_subcommand(0, 1);
  refuse_empty_values(program);
  return commands;
}

CLI::Option* add_value(CLI::App& app, const char* names, std::string& value, const char* meta,
                       const char* help) {
  return app.add_option(names, value, help)->option_text(meta);
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
