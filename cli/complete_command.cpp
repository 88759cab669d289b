// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"

namespace mkvirtfs::cli {
namespace {

/// The words of a choice, which CLI11 keeps as "{one,two}".
std::string words_of(const CLI::Option& option) {
  std::string type = option.get_type_name();
  const std::size_t from = type.find('{');
  const std::size_t to = type.find('}', from);
  if (from == std::string::npos || to == std::string::npos) return {};
  std::string words;
  for (const char c : type.substr(from + 1, to - from - 1)) words += c == ',' ? '\n' : c;
  return words + "\n";
}

/// What the shell's completion asks: `mkvirtfs __complete [SUBCOMMAND] [--OPTION]` prints the names
/// of subcommands and options, or the words that the option takes, one a line. Not in the help.
class Complete final : public Command {
 public:
  explicit Complete(CLI::App& complete_app) : Command(complete_app) {
    complete_app.group("");
    complete_app.add_option("WORD", words_);
    complete_app.allow_extras();
  }

  Result<int> run(const Streams& streams) override {
    const CLI::App* about = app().get_parent();
    std::vector<std::string> words = words_;
    const std::vector<std::string> rest = app().remaining();
    words.insert(words.end(), rest.begin(), rest.end());
    std::string text;
    for (const std::string& word : words) {
      if (!word.starts_with("--")) {
        const auto named = about->get_subcommands([&](const CLI::App* each) {
          return each->get_name() == word && !each->get_group().empty();
        });
        if (named.empty()) return 0;
        about = named.front();
      } else if (const CLI::Option* option = about->get_option_no_throw(word)) {
        return print(streams.out, words_of(*option)) ? 0 : 1;
      } else {
        return 0;
      }
    }
    for (const CLI::App* each : about->get_subcommands([](const CLI::App*) { return true; })) {
      if (!each->get_group().empty()) text += each->get_name() + "\n";
    }
    for (const CLI::Option* option : about->get_options()) {
      for (const std::string& name : option->get_lnames()) text += fmt::format("--{}\n", name);
    }
    return print(streams.out, text) ? 0 : 1;
  }

 private:
  std::vector<std::string> words_;
};

}  // namespace

std::unique_ptr<Command> make_complete(CLI::App& program) {
  return std::make_unique<Complete>(
      *program.add_subcommand("__complete", "Print what the shell can complete"));
}

}  // namespace mkvirtfs::cli
