// SPDX-License-Identifier: BSD-3-Clause
#include "cli/served_sources.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <boost/filesystem/path.hpp>
#include <map>
#include <set>
#include <utility>

#include "cli/prepared_image.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

/// Options of which a source's own come before the shared ones, instead of replacing them.
bool is_rule(const CLI::Option& option) {
  return option.get_name() == "--exclude" || option.get_name() == "--include";
}

std::string description_of(const std::string& format, const std::string& directory) {
  const auto path = boost::filesystem::path(directory).lexically_normal();
  const std::string name = path.filename().string();
  return fmt::format("{} image of {}", format, printable(name));
}

/// The options of `shared` that `own` knows, as words for it, but for those in `replaced`.
std::vector<std::string> shared_words(const CLI::App& shared, CLI::App& own,
                                      const std::set<const CLI::Option*>& replaced) {
  std::vector<std::string> words;
  std::map<const CLI::Option*, std::size_t> seen;
  for (const CLI::Option* given : shared.parse_order()) {
    const CLI::Option* option = own.get_option_no_throw(given->get_name());
    if (option == nullptr || replaced.contains(option)) continue;
    const std::size_t nth = seen[given]++;
    const std::string name = option->get_name();
    if (option->get_items_expected_max() == 0) {
      if (nth == 0) words.push_back(name);
    } else if (is_rule(*option)) {
      // These two must keep the order that they have among each other.
      words.push_back(name + "=" + given->results().at(nth));
    } else if (nth == 0) {
      for (const std::string& value : given->results())
        words.push_back(fmt::format("{}={}", name, value));
    }
  }
  return words;
}

}  // namespace

/// A source with options of its own.
struct ServedSources::Named {
  CLI::App app;
  std::string name;
  SourceOptions source;
  ImageOptions image;
};

SourceWord parse_source_word(std::string_view word) {
  SourceWord parsed;
  parsed.word = word;
  const std::size_t equals = word.find('=');
  if (equals == std::string_view::npos || equals == 0 ||
      !nbd::is_valid_export_name(word.substr(0, equals))) {
    parsed.directory = word;
    return parsed;
  }
  parsed.name = word.substr(0, equals);
  std::string* part = &parsed.directory;
  for (std::size_t at = equals + 1; at < word.size(); ++at) {
    if (word[at] != ',') {
      *part += word[at];
    } else if (at + 1 < word.size() && word[at + 1] == ',') {
      *part += word[++at];
    } else {
      part = &parsed.options.emplace_back();
    }
  }
  return parsed;
}

ServedSources::ServedSources() = default;
ServedSources::ServedSources(ServedSources&&) noexcept = default;
ServedSources::~ServedSources() = default;

Result<ServedSources> ServedSources::parse(const std::vector<std::string>& words,
                                           const std::string& default_name, const CLI::App& shared,
                                           SourceOptions& source, const ImageOptions& image) {
  ServedSources sources;
  for (const std::string& text : words) {
    const SourceWord word = parse_source_word(text);
    const auto wrong = [&](std::string_view why) {
      return fail(Errc::usage, fmt::format("{}: {}", word.word, why));
    };
    if (word.name.empty()) {
      if (sources.plain_ != nullptr) {
        return wrong(fmt::format("{} has no name, either; all sources but one need one (NAME={})",
                                 sources.plain_->source, word.directory));
      }
      source.source = word.directory;
      sources.plain_ = &source;
      sources.plain_image_ = &image;
      continue;
    }
    const auto named = std::make_shared<Named>();
    named->name = word.name;
    named->app.set_help_flag();
    named->source.add_options_to(named->app);
    named->image.add_to(named->app);
    std::vector<std::string> given;
    std::set<const CLI::Option*> replaced;
    for (const std::string& text_of_option : word.options) {
      const std::size_t equals = text_of_option.find('=');
      const std::string key = "--" + text_of_option.substr(0, equals);
      const CLI::Option* option = named->app.get_option_no_throw(key);
      if (option == nullptr || key.size() < 4) {
        return wrong(fmt::format("a source has no option {} (a comma in a path is ,,)",
                                 printable(text_of_option.substr(0, equals))));
      }
      const bool has_value = equals != std::string::npos;
      if (has_value == (option->get_items_expected_max() == 0)) {
        return wrong(fmt::format("{} {} a value", key.substr(2), has_value ? "has not" : "needs"));
      }
      given.push_back("--" + text_of_option);
      if (!is_rule(*option)) replaced.insert(option);
      // What contradicts an option of the source's own is no default for it.
      for (const CLI::Option* other : option->get_excludes()) replaced.insert(other);
    }
    for (std::string& shared_word : shared_words(shared, named->app, replaced)) {
      given.push_back(std::move(shared_word));
    }
    std::ranges::reverse(given);  // so CLI11 wants it
    try {
      named->app.parse(given);
    } catch (const CLI::ParseError& error) {
      return wrong(error.what());
    }
    named->source.source = word.directory;
    if (const auto checked = named->source.scan_options(); !checked) {
      return wrong(checked.error().what);
    }
    if (const auto checked = named->image.plan_options(); !checked) {
      return wrong(checked.error().what);
    }
    boost::system::error_code error;
    if (!boost::filesystem::exists(word.directory, error)) {
      return fail(Errc::unreadable, fmt::format("{}: {} does not exist", word.word, word.directory));
    }
    sources.named_.push_back(named);
  }
  if (sources.plain_ != nullptr) {
    sources.names_.push_back(default_name);
  } else if (!default_name.empty()) {
    const auto chosen = std::ranges::find(sources.named_, default_name,
                                          [](const auto& named) { return named->name; });
    if (chosen == sources.named_.end()) {
      return fail(Errc::usage,
                  fmt::format("--exportname={}: no source has that name", default_name));
    }
    std::rotate(sources.named_.begin(), chosen, chosen + 1);
  }
  for (const auto& named : sources.named_) {
    if (std::ranges::find(sources.names_, named->name) != sources.names_.end()) {
      return fail(Errc::usage, fmt::format("two sources have the name {}", named->name));
    }
    sources.names_.push_back(named->name);
  }
  return sources;
}

Result<std::shared_ptr<nbd::ExportTree>> ServedSources::make_exports(LogSink& log) const {
  std::vector<nbd::LazyExport> exports;
  if (plain_ != nullptr) {
    Result<PreparedImage> prepared = prepare_image(*plain_, *plain_image_, log);
    if (!prepared) return std::unexpected(std::move(prepared.error()));
    exports.push_back({names_.front(), description_of(plain_image_->format(), plain_->source),
                       [device = prepared->device] { return device; }});
  }
  for (const std::shared_ptr<Named>& named : named_) {
    exports.push_back({named->name, description_of(named->image.format(), named->source.source),
                       [named, &log]() -> Result<std::shared_ptr<BlockDevice>> {
                         Result<PreparedImage> prepared =
                             prepare_image(named->source, named->image, log);
                         if (prepared) return prepared->device;
                         log.write(LogLevel::error, fmt::format("export {}: {}", named->name,
                                                                printable(prepared.error().what)));
                         return std::unexpected(std::move(prepared.error()));
                       }});
  }
  return nbd::make_lazy_exports(exports);
}

}  // namespace mkvirtfs::cli
