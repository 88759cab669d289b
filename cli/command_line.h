// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"

namespace CLI {
class App;
class Option;
class ParseError;
}  // namespace CLI

namespace mkvirtfs::cli {

/// An option, or a word known by its place, of an OptionSet, which owns it. What declares it
/// returns it; what was given is there after OptionSet::parse().
class CommandOption {
 public:
  explicit CommandOption(CLI::Option& option) : option_(option) {}
  CommandOption(const CommandOption&) = delete;
  CommandOption& operator=(const CommandOption&) = delete;

  /// The heading above it in --help.
  CommandOption& group(const std::string& heading);
  /// Its values are these words, and no others.
  CommandOption& one_of(std::vector<std::string> words);
  CommandOption& in_range(unsigned lowest, unsigned highest);
  CommandOption& not_negative();
  /// `wrong` says what is wrong with a value, or "".
  CommandOption& check(std::function<std::string(const std::string& value)> wrong);
  CommandOption& required(bool is_required = true);
  /// They cannot be given together.
  CommandOption& excludes(CommandOption& other);
  /// An empty value says something.
  CommandOption& may_be_empty();
  /// How many values it may have.
  CommandOption& expects(int least, int most);
  /// Each time it is given it takes one value, however many words follow: the next one may be a
  /// source.
  CommandOption& one_value_each();
  /// A value is a list: what stands between two delimiters is a value of its own.
  CommandOption& split_at(char delimiter);

  /// "--port", or the word: "SOURCE".
  std::string name() const;
  /// What the help calls its value: "PORT"; "" for a flag.
  std::string value_name() const;
  /// What it is, for the middle of a sentence: its text in the help, or the words that it may be.
  std::string description() const;
  /// "unix" of -U,--unix.
  const std::vector<std::string>& long_names() const;
  /// "U" of -U,--unix.
  const std::vector<std::string>& short_names() const;
  const std::string& heading() const;
  /// A word known by its place.
  bool is_positional() const;
  bool takes_value() const;
  bool needs_value() const;
  bool takes_empty_value() const noexcept { return takes_empty_value_; }
  /// '\0' when there is none.
  char delimiter() const;
  /// What one_of() was given.
  const std::vector<std::string>& words() const noexcept { return words_; }

  bool is_given() const;
  /// All values in their order; for a flag something for each time.
  const std::vector<std::string>& values() const;

 private:
  CLI::Option& option_;
  std::vector<std::string> words_;
  bool takes_empty_value_ = false;
};

/// The options of the program or of a subcommand: they are declared, words are parsed, and then the
/// variables have the values. CLI11 parses; command_line.cpp alone compiles
/// it, which takes seconds a file.
///
/// Variables that are declared must outlive the set. One thread at a time.
class OptionSet {
 public:
  /// No subcommand, no --help.
  OptionSet();
  struct Program {
    std::string name;
    std::string description;
    std::string footer;  ///< of each help
  };
  /// With --help and --version, which its subcommands' --help are like.
  explicit OptionSet(const Program& program);
  ~OptionSet();
  OptionSet(const OptionSet&) = delete;
  OptionSet& operator=(const OptionSet&) = delete;

  OptionSet& add_subcommand(const std::string& name, const std::string& help);
  /// Neither help nor completion shows it.
  void hide();
  bool is_hidden() const;
  /// Of the words of a command line, one at most begins a subcommand.
  void allow_one_subcommand();
  /// Options that it does not know are no error: unknown() has them.
  void allow_unknown();

  /// Declares an option that takes a value, by its names ("-p,--port"), or a word known by its
  /// place ("SOURCE"). `meta` is what the value is called in the help.
  CommandOption& add_value(const std::string& names, std::string& value, const std::string& meta,
                           const std::string& help);
  CommandOption& add_value(const std::string& names, unsigned& value, const std::string& meta,
                           const std::string& help);
  CommandOption& add_value(const std::string& names, int& value, const std::string& meta,
                           const std::string& help);
  /// One that may be given several times.
  CommandOption& add_values(const std::string& names, std::vector<std::string>& values,
                            const std::string& meta, const std::string& help);
  /// Declares an option without a value; "--force=yes" is refused.
  CommandOption& add_flag(const std::string& names, bool& value, const std::string& help);
  /// One that may have a value behind '='; without one, the value is "true".
  CommandOption& add_flag(const std::string& names, std::string& value, const std::string& help);

  enum class Parsed : std::uint8_t { words, help, version };
  /// Sets the variables, or says that --help or --version was given. Errc::usage for what is wrong;
  /// where that are words that nothing takes, unknown() of the program or of the subcommand has
  /// them. See separate_empty_values() for what the words must have gone through.
  Result<Parsed> parse(std::vector<std::string> words);
  /// Of a subcommand: its help ends with `footer` and shows, unless the command line says
  /// --help=all, of its options those in `common`, by long names with dashes, which outlive it.
  /// Empty: all of them. Names that it does not have are ignored.
  void set_help_page(std::span<const std::string_view> common, std::string footer);
  /// The help of the program, or of the subcommand that was named.
  std::string help() const;

  const std::string& name() const;
  /// Whether the command line named this subcommand.
  bool is_named() const;
  /// The subcommands that it named.
  std::vector<const OptionSet*> named_subcommands() const;
  const std::vector<std::unique_ptr<OptionSet>>& subcommands() const noexcept {
    return subcommands_;
  }
  /// The set that this is a subcommand of; null: none.
  const OptionSet* parent() const noexcept { return parent_; }
  /// In the order in which they were declared, which that of the help is.
  std::vector<const CommandOption*> options() const;
  std::vector<CommandOption*> options();
  /// By a name with its dashes; null when there is none.
  const CommandOption* find(const std::string& name) const;
  CommandOption* find(const std::string& name);
  /// The options of the last parse() in the order in which they were given, each as often as it
  /// was.
  std::vector<const CommandOption*> given_order() const;
  /// Words that are no option's.
  std::vector<std::string> unknown() const;

 private:
  OptionSet(OptionSet& parent, CLI::App& app);
  /// What is wrong with the command line, in our words.
  std::string explain(const CLI::ParseError& error) const;
  CommandOption& keep(CLI::Option& option) const;
  CommandOption& keep(CLI::Option& option, const std::string& meta) const;

  struct Known;
  OptionSet* parent_ = nullptr;
  std::unique_ptr<CLI::App> line_;  // null in a subcommand, which is its parent's
  CLI::App* app_;
  std::unique_ptr<Known> known_;
  std::vector<std::unique_ptr<OptionSet>> subcommands_;
  std::span<const std::string_view> common_;  // empty: all
  bool wants_all_ = false;                    // --help=all
};

}  // namespace mkvirtfs::cli
