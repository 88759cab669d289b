// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command_line.h"
#include "cli/streams.h"
#include "support/error.h"

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

  /// Does the work; returns the program's exit status. The caller reports an error, on one line.
  virtual Result<int> run(const Streams& streams) = 0;

  /// The program's exit status after an error of that kind: of run(), or in its words.
  virtual int failure_status(Errc code) const noexcept { return code == Errc::usage ? 2 : 1; }

  /// Whether the words behind a "--" are none of ours: set_rest() has them, before run().
  virtual bool takes_rest() const noexcept { return false; }
  virtual void set_rest(std::vector<std::string> words) { static_cast<void>(words); }

  /// Whether it was this one that the command line named.
  bool chosen() const { return options_.is_named(); }

 protected:
  explicit Command(OptionSet& options) : options_(options) {}
  const OptionSet& options() const noexcept { return options_; }

 private:
  const OptionSet& options_;  // owned by the program's
};

std::unique_ptr<Command> make_serve(OptionSet& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_dump(OptionSet& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_boot(OptionSet& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_inspect(OptionSet& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_ls(OptionSet& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_cat(OptionSet& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_stat(OptionSet& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_extract(OptionSet& program, const FormatRegistry& formats);
std::unique_ptr<Command> make_list(OptionSet& program);
std::unique_ptr<Command> make_overlay(OptionSet& program);
std::unique_ptr<Command> make_ctl(OptionSet& program);
std::unique_ptr<Command> make_complete(OptionSet& program);

/// The subcommand called `chosen` alone, as declaring the options of all of them takes 2 ms; all
/// of them where there is none of that name.
std::vector<std::unique_ptr<Command>> make_commands(OptionSet& program,
                                                    const FormatRegistry& formats,
                                                    std::string_view chosen = {});

}  // namespace mkvirtfs::cli
