// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cli/command.h"

namespace mkvirtfs::cli {
namespace {

/// What the shell's completion asks: `mkvirtfs __complete [SUBCOMMAND] [--OPTION]` prints the names
/// of subcommands and options, or the words that the option takes, one a line. Not in the help.
class Complete final : public Command {
 public:
  explicit Complete(OptionSet& options) : Command(options) {
    options.hide();
    options.add_values("WORD", words_, "", "");
    options.allow_unknown();
  }

  Result<int> run(const Streams& streams) override {
    const OptionSet* about = options().parent();
    std::vector<std::string> words = words_;
    const std::vector<std::string> rest = options().unknown();
    words.insert(words.end(), rest.begin(), rest.end());
    std::string text;
    for (const std::string& word : words) {
      if (!word.starts_with("--")) {
        const auto& subcommands = about->subcommands();
        const auto named = std::ranges::find_if(subcommands, [&](const auto& each) {
          return each->name() == word && !each->is_hidden();
        });
        if (named == subcommands.end()) return 0;
        about = named->get();
      } else if (const CommandOption* option = about->find(word)) {
        for (const std::string& choice : option->words()) text += choice + "\n";
        return print(streams.out, text) ? 0 : 1;
      } else {
        return 0;
      }
    }
    for (const auto& each : about->subcommands()) {
      if (!each->is_hidden()) text += each->name() + "\n";
    }
    for (const CommandOption* option : about->options()) {
      for (const std::string& name : option->long_names()) text += fmt::format("--{}\n", name);
    }
    return print(streams.out, text) ? 0 : 1;
  }

 private:
  std::vector<std::string> words_;
};

}  // namespace

std::unique_ptr<Command> make_complete(OptionSet& program) {
  return std::make_unique<Complete>(
      program.add_subcommand("__complete", "Print what the shell can complete"));
}

}  // namespace mkvirtfs::cli
