// SPDX-License-Identifier: BSD-3-Clause
#include "cli/mistakes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "cli/near_words.h"

namespace mkvirtfs::cli {
namespace {

struct OtherName {
  std::string_view typed;
  std::string_view ours;
};

/// Words of other programs for what ours do.
constexpr auto kOtherSubcommands = std::to_array<OtherName>({
    {"build", "dump"},
    {"convert", "dump"},
    {"create", "dump"},
    {"export", "serve"},
    {"image", "dump"},
    {"info", "inspect"},
    {"make", "dump"},
    {"map", "inspect"},
    {"mkfs", "dump"},
    {"mount", "serve"},
    {"nbd", "serve"},
    {"run", "serve"},
    {"show", "inspect"},
    {"start", "serve"},
    {"stat", "inspect"},
    {"write", "dump"},
    {"version", "--version"},
});

/// Options of mke2fs, mkfs.fat, xorriso, nbdkit, qemu-nbd and tar for what ours do.
constexpr auto kOtherOptions = std::to_array<OtherName>({
    {"--address", "--listen"},
    {"--bind", "--listen"},
    {"--filesystem", "--fs"},
    {"--format", "--fs"},
    {"--fstype", "--fs"},
    {"--ipaddr", "--listen"},
    {"--name", "--exportname"},
    {"--out", "--output"},
    {"--output-file", "--output"},
    {"--read-only", "--readonly"},
    {"--read-write", "--rw"},
    {"--socket", "--unix"},
    {"--type", "--fs"},
    {"--volid", "--label"},
    {"--volume-id", "--uuid"},
    {"--volume-label", "--label"},
    {"--writable", "--rw"},
    {"--write", "--rw"},
});

template <std::size_t Count>
std::string_view ours_for(const std::array<OtherName, Count>& names, std::string_view typed) {
  const auto found = std::ranges::find(names, typed, &OtherName::typed);
  return found == names.end() ? std::string_view() : found->ours;
}

std::vector<std::string> long_options(const OptionSet& command) {
  std::vector<std::string> names;
  for (const CommandOption* option : command.options()) {
    for (const std::string& name : option->long_names()) names.push_back("--" + name);
  }
  return names;
}

/// The subcommands that have the option, but for `command`.
std::vector<std::string> subcommands_with(const OptionSet& program, const OptionSet& command,
                                          const std::string& option) {
  std::vector<std::string> names;
  for (const auto& each : program.subcommands()) {
    if (each->is_hidden() || each->name() == command.name()) continue;
    if (each->find(option) != nullptr) names.push_back(each->name());
  }
  return names;
}

/// The option of `command` that other programs call `name`, or "".
std::string other_programs_option(const OptionSet& command, const std::string& name) {
  std::string ours(ours_for(kOtherOptions, name));
  return ours.empty() || command.find(ours) == nullptr ? "" : ours;
}

/// The option of `command` that `name` is likely to stand for, or "".
std::string meant_option(const OptionSet& command, const std::string& name) {
  std::string ours = other_programs_option(command, name);
  return ours.empty() ? nearest_word(name, long_options(command)) : ours;
}

std::string unknown_option_text(const OptionSet& program, const OptionSet& command,
                                const std::string& word) {
  const std::string name = word.substr(0, word.find('='));
  const bool is_long = name.starts_with("--");
  const bool is_of_program = command.parent() == nullptr;
  std::string wrong = is_of_program ? fmt::format("there is no option {}", name)
                                    : fmt::format("{} has no option {}", command.name(), name);
  if (is_of_program && name == "-v") return wrong + did_you_mean("-V");
  // "-fs=ext4": one dash begins one letter.
  if (!is_long && name.size() > 2 && command.find("-" + name) != nullptr) {
    return wrong + did_you_mean("-" + name);
  }
  const std::vector<std::string> others = subcommands_with(program, command, name);
  if (!others.empty()) {
    return is_of_program ? fmt::format("{} belongs behind the subcommand, as in mkvirtfs {} ... {}",
                                       name, others.front(), word)
                         : fmt::format("{}; it is an option of {}{}", wrong, joined_with_or(others),
                                       did_you_mean(other_programs_option(command, name)));
  }
  const std::string meant = meant_option(command, is_long ? name : "-" + name);
  if (!meant.empty()) return wrong + (is_long || name.size() > 2 ? did_you_mean(meant) : "");
  return wrong;
}

}  // namespace

std::string unknown_subcommand_text(const OptionSet& program, const std::string& word) {
  std::vector<std::string> names;
  for (const auto& each : program.subcommands()) {
    if (!each->is_hidden()) names.push_back(each->name());
  }
  std::string wrong = fmt::format("there is no subcommand {}", word);
  if (const std::string_view ours = ours_for(kOtherSubcommands, word); !ours.empty()) {
    return wrong + did_you_mean(ours);
  }
  if (const std::string near = nearest_word(word, names); !near.empty()) {
    return wrong + did_you_mean(near);
  }
  std::error_code error;
  if (word.contains('/') || word.contains(':') || std::filesystem::exists(word, error)) {
    return fmt::format(
        "{} is no subcommand: to serve it, mkvirtfs serve {}; to write an image, mkvirtfs dump {} "
        "-o FILE",
        word, word, word);
  }
  return fmt::format("{} (those are {})", wrong, fmt::join(names, ", "));
}

std::string unknown_word_text(const OptionSet& program, const OptionSet& command,
                              const std::string& word) {
  if (word.starts_with("-:/") && command.find("SOURCE[:/PATH]") != nullptr) {
    return fmt::format("{} is taken for an option: write -- {}", word, word);
  }
  if (word.size() > 1 && word.starts_with('-')) return unknown_option_text(program, command, word);
  if (command.parent() == nullptr) return unknown_subcommand_text(program, word);
  return fmt::format("{} does not take the word {}", command.name(), word);
}

}  // namespace mkvirtfs::cli
