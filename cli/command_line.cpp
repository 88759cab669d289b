// SPDX-License-Identifier: BSD-3-Clause
#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <deque>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "cli/near_words.h"
#include "support/parse_number.h"

namespace mkvirtfs::cli {
namespace {

/// Options as "-p, --port PORT", without what CLI11 adds about types, needs and exclusions.
class HelpFormatter final : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(32); }
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_option_text().empty() ? "" : " " + option->get_option_text();
  }
};

}  // namespace

CommandOption& CommandOption::group(const std::string& heading) {
  option_.group(heading);
  return *this;
}

CommandOption& CommandOption::one_of(std::vector<std::string> words) {
  words_ = std::move(words);
  return check([known = words_](const std::string& value) -> std::string {
    if (value.empty() || std::ranges::find(known, value) != known.end()) return "";
    return fmt::format("{} is none of {}{}", value, fmt::join(known, ", "),
                       did_you_mean(nearest_word(value, known)));
  });
}

CommandOption& CommandOption::in_range(unsigned lowest, unsigned highest) {
  return check([lowest, highest](const std::string& value) -> std::string {
    const auto number = parse_number<unsigned>(value);
    if (number && *number >= lowest && *number <= highest) return "";
    return fmt::format("{} is not a number from {} to {}", value, lowest, highest);
  });
}

CommandOption& CommandOption::not_negative() {
  return check([](const std::string& value) -> std::string {
    const auto number = parse_number<int>(value);
    return number && *number >= 0 ? "" : fmt::format("{} is not a number from 0 on", value);
  });
}

CommandOption& CommandOption::check(std::function<std::string(const std::string& value)> wrong) {
  option_.check(std::move(wrong));
  return *this;
}

CommandOption& CommandOption::required(bool is_required) {
  option_.required(is_required);
  return *this;
}

CommandOption& CommandOption::excludes(CommandOption& other) {
  option_.excludes(&other.option_);
  return *this;
}

CommandOption& CommandOption::may_be_empty() {
  takes_empty_value_ = true;
  return *this;
}

CommandOption& CommandOption::expects(int least, int most) {
  option_.expected(least, most);
  return *this;
}

CommandOption& CommandOption::one_value_each() {
  option_.allow_extra_args(false);
  return *this;
}

CommandOption& CommandOption::split_at(char delimiter) {
  option_.delimiter(delimiter);
  return *this;
}

std::string CommandOption::name() const { return option_.get_name(); }
std::string CommandOption::value_name() const { return option_.get_option_text(); }

std::string CommandOption::description() const {
  if (!words_.empty()) return fmt::format("one of {}", fmt::join(words_, ", "));
  std::string text = option_.get_description();
  std::ranges::replace(text, '\n', ' ');
  const auto is_upper = [&](std::size_t at) {
    return at < text.size() && text[at] >= 'A' && text[at] <= 'Z';
  };
  if (is_upper(0) && !is_upper(1)) text[0] = static_cast<char>(text[0] - 'A' + 'a');
  return text;
}

const std::vector<std::string>& CommandOption::long_names() const { return option_.get_lnames(); }
const std::vector<std::string>& CommandOption::short_names() const { return option_.get_snames(); }
const std::string& CommandOption::heading() const { return option_.get_group(); }
bool CommandOption::is_positional() const { return option_.get_positional(); }
bool CommandOption::takes_value() const { return option_.get_items_expected_max() != 0; }
bool CommandOption::needs_value() const {
  return takes_value() && option_.get_items_expected_min() != 0;
}
char CommandOption::delimiter() const { return option_.get_delimiter(); }
bool CommandOption::is_given() const { return option_.count() != 0; }
const std::vector<std::string>& CommandOption::values() const { return option_.results(); }

/// Our side of CLI11's options, each made when it is first asked for.
struct OptionSet::Known {
  std::deque<CommandOption> options;
  std::unordered_map<const CLI::Option*, CommandOption*> places;
};

OptionSet::OptionSet()
    : line_(std::make_unique<CLI::App>()), app_(line_.get()), known_(std::make_unique<Known>()) {
  app_->set_help_flag();
}

OptionSet::OptionSet(const Program& program)
    : line_(std::make_unique<CLI::App>(program.description, program.name)),
      app_(line_.get()),
      known_(std::make_unique<Known>()) {
  app_->formatter(std::make_shared<HelpFormatter>());
  app_->footer(program.footer);
  app_->set_help_flag("-h,--help", "Print this help");
  app_->set_version_flag("-V,--version", std::string(),
                         "Print the versions of mkvirtfs and its libraries");
}

OptionSet::OptionSet(OptionSet& parent, CLI::App& app)
    : parent_(&parent), app_(&app), known_(std::make_unique<Known>()) {}

OptionSet::~OptionSet() = default;

OptionSet& OptionSet::add_subcommand(const std::string& name, const std::string& help) {
  CLI::App& app = *app_->add_subcommand(name, help);
  return *subcommands_.emplace_back(std::unique_ptr<OptionSet>(new OptionSet(*this, app)));
}

void OptionSet::hide() { app_->group(""); }
bool OptionSet::is_hidden() const { return app_->get_group().empty(); }
void OptionSet::allow_one_subcommand() { app_->require_subcommand(0, 1); }
void OptionSet::allow_unknown() { app_->allow_extras(); }

CommandOption& OptionSet::keep(CLI::Option& option) const {
  CommandOption*& place = known_->places[&option];
  if (place == nullptr) place = &known_->options.emplace_back(option);
  return *place;
}

CommandOption& OptionSet::keep(CLI::Option& option, const std::string& meta) const {
  option.option_text(meta);
  return keep(option);
}

CommandOption& OptionSet::add_value(const std::string& names, std::string& value,
                                    const std::string& meta, const std::string& help) {
  return keep(*app_->add_option(names, value, help), meta);
}

CommandOption& OptionSet::add_value(const std::string& names, unsigned& value,
                                    const std::string& meta, const std::string& help) {
  return keep(*app_->add_option(names, value, help), meta);
}

CommandOption& OptionSet::add_value(const std::string& names, int& value, const std::string& meta,
                                    const std::string& help) {
  return keep(*app_->add_option(names, value, help), meta);
}

CommandOption& OptionSet::add_values(const std::string& names, std::vector<std::string>& values,
                                     const std::string& meta, const std::string& help) {
  return keep(*app_->add_option(names, values, help), meta);
}

CommandOption& OptionSet::add_flag(const std::string& names, bool& value, const std::string& help) {
  return keep(*app_->add_flag(names, value, help)->disable_flag_override());
}

CommandOption& OptionSet::add_flag(const std::string& names, std::string& value,
                                   const std::string& help) {
  return keep(*app_->add_flag(names, value, help));
}

std::string OptionSet::explain(const CLI::ParseError& error) const {
  std::string said = error.what();
  const std::vector<const OptionSet*> named = named_subcommands();
  const OptionSet& command = named.empty() ? *this : *named.front();
  constexpr std::string_view kConvert = "Could not convert: ";  // before the option's name
  const std::size_t from = said.starts_with(kConvert) ? kConvert.size() : 0;
  const std::size_t colon = said.find(':', from);
  const std::size_t end = std::min(said.find(' ', from), colon);
  const auto* const option = command.find(said.substr(from, end - from));
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    const std::vector<std::string> words = command.unknown();
    return fmt::format("nothing takes {}", words.empty() ? unknown().front() : words.front());
  }
  if (dynamic_cast<const CLI::ExcludesError*>(&error) != nullptr) {
    constexpr std::string_view kExcludes = " excludes ";
    const std::size_t at = said.find(kExcludes);
    return fmt::format("{} and {} cannot be given together", said.substr(0, at),
                       said.substr(at + kExcludes.size()));
  }
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    if (option == nullptr) {  // of a flag CLI11 says the name without dashes
      return fmt::format("--{} takes no value", said.substr(0, said.find(' ')));
    }
    if (option->values().size() > 1) return option->name() + " is given more than once";
    return fmt::format("{}={}: the value is missing ({})", option->name(), option->value_name(),
                       option->description());
  }
  if (option == nullptr) return said;
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    if (option->is_positional()) {
      return fmt::format("{} is missing: {}", option->name(), option->description());
    }
    return fmt::format("{}={} is missing: {}", option->name(), option->value_name(),
                       option->description());
  }
  if (dynamic_cast<const CLI::ConversionError*>(&error) != nullptr) {
    return fmt::format("{}={} is not a number", option->name(), fmt::join(option->values(), ","));
  }
  // The words of a check(): those of a word known by its place name it themselves.
  return option->is_positional() && colon != std::string::npos ? said.substr(colon + 2) : said;
}

Result<OptionSet::Parsed> OptionSet::parse(std::vector<std::string> words) {
  const auto end_of_options = std::ranges::find(words, "--");
  const auto help_all = std::find(words.begin(), end_of_options, "--help=all");
  wants_all_ = help_all != end_of_options;
  if (wants_all_) *help_all = "--help";
  std::ranges::reverse(words);  // so CLI11 wants it
  try {
    app_->parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    return Parsed::help;
  } catch (const CLI::CallForVersion&) {
    return Parsed::version;
  } catch (const CLI::ParseError& error) {
    return fail(Errc::usage, explain(error));
  }
  return Parsed::words;
}

void OptionSet::set_help_page(std::span<const std::string_view> common, std::string footer) {
  common_ = common;
  app_->footer(std::move(footer));
}

std::string OptionSet::help() const {
  const std::vector<const OptionSet*> named = named_subcommands();
  const OptionSet& shown = named.empty() ? *this : *named.front();
  // An option without a group is in no help.
  std::vector<std::pair<CLI::Option*, std::string>> rare;
  for (CLI::Option* option : shown.app_->get_options()) {
    if (wants_all_ || shown.common_.empty() || option->get_positional()) continue;
    const std::string name = option->get_name();  // the long one if it has one
    if (name != "--help" && std::ranges::find(shown.common_, name) == shown.common_.end()) {
      rare.emplace_back(option, option->get_group());
      option->group("");
    }
  }
  std::string text = app_->help();
  for (auto& [option, group] : rare) option->group(group);
  // CLI11 leaves two empty lines between groups.
  for (std::size_t at = 0; (at = text.find("\n\n\n", at)) != std::string::npos;) text.erase(at, 1);
  return text;
}

const std::string& OptionSet::name() const { return app_->get_name(); }
bool OptionSet::is_named() const { return app_->parsed(); }

std::vector<const OptionSet*> OptionSet::named_subcommands() const {
  std::vector<const OptionSet*> named;
  for (const CLI::App* app : app_->get_subcommands()) {
    const auto found =
        std::ranges::find(subcommands_, app, [](const auto& set) { return set->app_; });
    named.push_back(found->get());
  }
  return named;
}

std::vector<CommandOption*> OptionSet::options() {
  std::vector<CommandOption*> all;
  for (CLI::Option* option : app_->get_options()) all.push_back(&keep(*option));
  return all;
}

std::vector<const CommandOption*> OptionSet::options() const {
  std::vector<const CommandOption*> all;
  for (CLI::Option* option : app_->get_options()) all.push_back(&keep(*option));
  return all;
}

CommandOption* OptionSet::find(const std::string& name) {
  CLI::Option* const option = app_->get_option_no_throw(name);
  return option == nullptr ? nullptr : &keep(*option);
}

const CommandOption* OptionSet::find(const std::string& name) const {
  CLI::Option* const option = app_->get_option_no_throw(name);
  return option == nullptr ? nullptr : &keep(*option);
}

std::vector<const CommandOption*> OptionSet::given_order() const {
  std::vector<const CommandOption*> order;
  for (CLI::Option* option : app_->parse_order()) order.push_back(&keep(*option));
  return order;
}

std::vector<std::string> OptionSet::unknown() const { return app_->remaining(); }

}  // namespace mkvirtfs::cli
