// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/streams.h"
#include "support/error.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace mkvirtfs {
class FormatRegistry;
}  // namespace mkvirtfs

namespace mkvirtfs::cli {

/// One subcommand: it declares its options when it is made, and has their values when it runs.
class Command {
 public:
  virtual ~Command() = default;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  /// Does the work; returns the program's exit status. An error is told by the caller, on one line.
  virtual Result<int> run(const Streams& streams) = 0;

  /// Whether it was this one that the command line named.
  bool chosen() const;

 protected:
  explicit Command(CLI::App& app) : app_(app) {}
  CLI::App& app() const noexcept { return app_; }

 private:
  CLI::App& app_;  // owned by the program's App
};

std::unique_ptr<Command> make_serve(CLI::App& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_dump(CLI::App& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_inspect(CLI::App& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_list(CLI::App& program);
std::unique_ptr<Command> make_overlay(CLI::App& program);
std::unique_ptr<Command> make_ctl(CLI::App& program);
std::unique_ptr<Command> make_complete(CLI::App& program);

/// The subcommand called `chosen` alone, as declaring the options of all of them takes 2 ms; all
/// of them where there is none of that name.
std::vector<std::unique_ptr<Command>> make_commands(CLI::App& program,
                                                    const FormatRegistry& formats,
                                                    std::string_view chosen = {});

/// Declares an option that takes one value: "-p,--port", where the value is called `meta` in the
/// help.
CLI::Option* add_value(CLI::App& app, const char* names, std::string& value, const char* meta,
                       const char* help);

}  // namespace mkvirtfs::cli
