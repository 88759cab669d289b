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

#include "cli/empty_values.h"
#include "cli/prepared_image.h"
#include "fsgen/archive/oci_image.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kPlace = "--at";

/// Options of which a source's own come before the shared ones, instead of replacing them.
bool is_rule(const CLI::Option& option) {
  return option.get_name() == "--exclude" || option.get_name() == "--include";
}

/// Where on the host a source is.
std::string path_of(const std::string& source) {
  const auto image = oci::parse_image_name(source);
  return image ? image->path : source;
}

std::string description_of(const std::string& format, const std::string& first, std::size_t count) {
  const auto path = boost::filesystem::path(path_of(first)).lexically_normal();
  const std::string name = path.filename().string();
  std::string text = fmt::format("{} image of {}", format, printable(name));
  if (count > 1) text += fmt::format(" and {} more", count - 1);
  return text;
}

/// The options of `shared` that `own` knows, as words for it, but for those in `replaced`.
std::vector<std::string> shared_words(const CLI::App& shared, CLI::App& own,
                                      const std::set<const CLI::Option*>& replaced) {
  std::vector<std::string> words;
  std::map<const CLI::Option*, std::size_t> seen;
  for (const CLI::Option* given : shared.parse_order()) {
    const CLI::Option* option = own.get_option_no_throw(given->get_name());
    if (option == nullptr || replaced.contains(option)) continue;
    if (option->get_name() == kPlace) continue;  // where another source stands
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

/// One of the directories under a name, with options of its own.
struct ServedSources::Part {
  CLI::App app;
  SourceOptions source;
};

/// What is under a name.
struct ServedSources::Named {
  std::string name;
  std::vector<std::unique_ptr<Part>> parts;
  ImageOptions image;  ///< options of the first part's app

  Result<PreparedImage> prepare(LogSink& log) const {
    std::vector<const SourceOptions*> sources;
    for (const auto& part : parts) sources.push_back(&part->source);
    return prepare_image(sources, image, log);
  }
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

Result<void> ServedSources::parse_options(const SourceWord& word, const CLI::App& shared,
                                          Part& part) {
  std::vector<std::string> given;
  std::set<const CLI::Option*> replaced;
  for (const std::string& text : word.options) {
    const std::size_t equals = text.find('=');
    const std::string key = "--" + text.substr(0, equals);
    const CLI::Option* option = part.app.get_option_no_throw(key);
    if (option == nullptr || key.size() < 4) {
      return fail(Errc::usage, fmt::format("a source has no option {} (a comma in a path is ,,)",
                                           printable(text.substr(0, equals))));
    }
    const bool has_value = equals != std::string::npos;
    if (has_value == (option->get_items_expected_max() == 0)) {
      return fail(Errc::usage,
                  fmt::format("{} {} a value", key.substr(2), has_value ? "has not" : "needs"));
    }
    given.push_back("--" + text);
    if (!is_rule(*option)) replaced.insert(option);
    // What contradicts an option of the source's own is no default for it.
    for (const CLI::Option* other : option->get_excludes()) replaced.insert(other);
  }
  for (std::string& shared_word : shared_words(shared, part.app, replaced)) {
    given.push_back(std::move(shared_word));
  }
  refuse_empty_values(part.app);
  Result<std::vector<std::string>> words = separate_empty_values(part.app, given);
  if (!words) return std::unexpected(std::move(words.error()));
  std::ranges::reverse(*words);  // so CLI11 wants it
  try {
    part.app.parse(std::move(*words));
  } catch (const CLI::ParseError& error) {
    return fail(Errc::usage, error.what());
  }
  if (part.source.places().size() > 1) return fail(Errc::usage, "at is given twice");
  const std::string place = part.source.places().empty() ? "" : part.source.places().front();
  if (Result<void> checked = check_place(place); !checked) return checked;
  part.source.sources = {{word.directory, place}};
  const Result<ScanOptions> checked = part.source.scan_options();
  if (!checked) return std::unexpected(checked.error());
  return {};
}

Result<ServedSources> ServedSources::parse(const std::string& default_name, const CLI::App& shared,
                                           SourceOptions& source, const ImageOptions& image) {
  ServedSources sources;
  Result<std::vector<PlacedSource>> words = source.words();
  if (!words) return std::unexpected(std::move(words.error()));
  for (PlacedSource& placed : *words) {
    const SourceWord word = parse_source_word(placed.source);
    const auto wrong = [&](std::string_view why) {
      return fail(Errc::usage, fmt::format("{}: {}", word.word, why));
    };
    if (word.name.empty()) {
      source.sources.push_back(std::move(placed));
      sources.plain_ = &source;
      sources.plain_image_ = &image;
      continue;
    }
    if (!placed.at.empty()) {
      return wrong(fmt::format("--at is for sources without a name (here ,at={})", placed.at));
    }
    auto named =
        std::ranges::find(sources.named_, word.name, [](const auto& known) { return known->name; });
    const bool first = named == sources.named_.end();
    if (first) {
      named = sources.named_.insert(named, std::make_shared<Named>());
      (*named)->name = word.name;
    }
    Part& part = *(*named)->parts.emplace_back(std::make_unique<Part>());
    part.app.set_help_flag();
    part.source.add_options_to(part.app);
    part.source.outputs = source.outputs;
    // What image it is, the first one says.
    if (first) (*named)->image.add_to(part.app);
    if (Result<void> good = parse_options(word, shared, part); !good) {
      const bool late = !first && good.error().what.starts_with("a source has no option");
      return wrong(late ? fmt::format("{}; options of the image go with the first {}=",
                                      good.error().what, word.name)
                        : good.error().what);
    }
    if (const auto checked = (*named)->image.plan_options(); !checked) {
      return wrong(checked.error().what);
    }
    if (word.directory == "-") return wrong("standard input can only be a source without a name");
    boost::system::error_code error;
    const std::string path = path_of(word.directory);
    if (!boost::filesystem::exists(path, error)) {
      return fail(Errc::unreadable, fmt::format("{}: {} does not exist", word.word, path));
    }
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
    exports.push_back({names_.front(),
                       description_of(plain_image_->format(), plain_->sources.front().source,
                                      plain_->sources.size()),
                       [device = prepared->device] { return device; }});
  }
  for (const std::shared_ptr<Named>& named : named_) {
    exports.push_back(
        {named->name,
         description_of(named->image.format(), named->parts.front()->source.sources.front().source,
                        named->parts.size()),
         [named, &log]() -> Result<std::shared_ptr<BlockDevice>> {
           Result<PreparedImage> prepared = named->prepare(log);
           if (prepared) return prepared->device;
           log.write(LogLevel::error,
                     fmt::format("export {}: {}", named->name, printable(prepared.error().what)));
           return std::unexpected(std::move(prepared.error()));
         }});
  }
  return nbd::make_lazy_exports(exports);
}

}  // namespace mkvirtfs::cli
