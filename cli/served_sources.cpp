// SPDX-License-Identifier: BSD-3-Clause
#include "cli/served_sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <boost/filesystem/path.hpp>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "cli/empty_values.h"
#include "cli/error_text.h"
#include "cli/prepared_image.h"
#include "fsgen/oci/image_name.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kPlace = "--at";

/// Options of which a source's own come before the shared ones, instead of replacing them.
bool is_rule(const CommandOption& option) {
  return option.name() == "--exclude" || option.name() == "--include";
}

/// Where on the host a source is.
std::string path_of(const std::string& source) {
  const auto image = oci::parse_image_name(source);
  return image ? image->path : source;
}

std::string description_of(std::string_view format, const std::string& first, std::size_t count) {
  const auto path = boost::filesystem::path(path_of(first)).lexically_normal();
  const std::string name = path.filename().string();
  std::string text = fmt::format("{} image of {}", format, printable(name));
  if (count > 1) text += fmt::format(" and {} more", count - 1);
  return text;
}

/// An option of the shared command line, as words for the one of a source.
struct SharedOption {
  std::string name;
  std::vector<std::string> words;
};

/// All of them but the sources and their places, in the order in which they were given. Taken once:
/// there may be ten thousand sources.
std::vector<SharedOption> shared_options(const OptionSet& shared) {
  std::vector<SharedOption> options;
  std::map<const CommandOption*, std::size_t> seen;
  for (const CommandOption* given : shared.given_order()) {
    const std::string name = given->name();
    if (!name.starts_with('-') || name == kPlace) continue;
    const std::size_t nth = seen[given]++;
    if (!given->takes_value()) {
      if (nth == 0) options.push_back({name, {name}});
    } else if (is_rule(*given)) {
      // These two must keep the order that they have among each other.
      options.push_back({name, {name + "=" + given->values().at(nth)}});
    } else if (nth == 0) {
      SharedOption& option = options.emplace_back(name);
      for (const std::string& value : given->values())
        option.words.push_back(fmt::format("{}={}", name, value));
    }
  }
  return options;
}

/// The command line of one source, with the options of the image that it begins or without. To make
/// one takes a hundred times as long as to parse a source's few words, so it is used again.
class SourceLine {
 public:
  SourceLine(bool with_image, const FormatRegistry& formats) : image(formats) {
    source.add_options_to(options_);
    if (with_image) image.add_to(options_);
    refuse_empty_values(options_);
    blank_source_ = source;
  }
  SourceLine(const SourceLine&) = delete;
  SourceLine& operator=(const SourceLine&) = delete;

  /// Takes the options of a word, over those that all share; `source` and `image` have them then.
  Result<void> parse(const SourceWord& word, const std::vector<SharedOption>& shared);

  SourceOptions source;
  ImageOptions image;

 private:
  OptionSet options_;
  SourceOptions blank_source_;
};

Result<void> SourceLine::parse(const SourceWord& word, const std::vector<SharedOption>& shared) {
  options_.begin_again();
  source = blank_source_;
  std::vector<std::string> given;
  std::set<const CommandOption*> replaced;
  for (const std::string& text : word.options) {
    const std::size_t equals = text.find('=');
    const std::string key = "--" + text.substr(0, equals);
    const CommandOption* option = options_.find(key);
    if (option == nullptr || key.size() < 4) {
      return fail(Errc::usage, fmt::format("a source has no option {} (a comma in a path is ,,)",
                                           text.substr(0, equals)));
    }
    const bool has_value = equals != std::string::npos;
    if (has_value != option->takes_value()) {
      return fail(Errc::usage,
                  fmt::format("{} {} a value", key.substr(2), has_value ? "has not" : "needs"));
    }
    given.push_back("--" + text);
    if (!is_rule(*option)) replaced.insert(option);
    // What contradicts an option of the source's own is no default for it.
    for (const CommandOption* other : option->excluded()) replaced.insert(other);
  }
  for (const SharedOption& each : shared) {
    const CommandOption* option = options_.find(each.name);
    if (option == nullptr || replaced.contains(option)) continue;
    given.insert(given.end(), each.words.begin(), each.words.end());
  }
  Result<std::vector<std::string>> words = separate_empty_values(options_, given);
  if (!words) return propagate(words);
  const Result<OptionSet::Parsed> parsed = options_.parse(std::move(*words));
  if (!parsed) return propagate(parsed);
  if (source.places().size() > 1) return fail(Errc::usage, "at is given twice");
  const std::string place = source.places().empty() ? "" : source.places().front();
  if (Result<void> checked = check_place(place); !checked) return checked;
  source.sources = {{word.directory, place}};
  const Result<ScanOptions> checked = source.scan_options();
  if (!checked) return propagate(checked);
  return {};
}

}  // namespace

/// What is under a name: words that were found good, and nothing of what they mean. That is made
/// when a client needs it, because there may be very many.
struct ServedSources::Named {
  explicit Named(const FormatRegistry& known_formats) : formats(known_formats) {}

  const FormatRegistry& formats;
  std::string name;
  std::string description;
  std::vector<SourceWord> words;
  std::shared_ptr<const std::vector<SharedOption>> shared;
  std::shared_ptr<const RunOutputs> outputs;
  bool keep_base = false;

  Result<PreparedImage> prepare(LogSink& log, const std::atomic<bool>* cancel) const {
    std::vector<std::unique_ptr<SourceLine>> lines;
    std::vector<const SourceOptions*> sources;
    for (const SourceWord& word : words) {
      SourceLine& line = *lines.emplace_back(std::make_unique<SourceLine>(lines.empty(), formats));
      if (Result<void> parsed = line.parse(word, *shared); !parsed) {
        return propagate(parsed);
      }
      line.source.outputs = outputs;
      line.source.keep_base = keep_base;
      sources.push_back(&line.source);
    }
    return prepare_image(sources, lines.front()->image, log, cancel);
  }
};

SourceWord parse_source_word(std::string_view word) {
  SourceWord parsed;
  parsed.word = word;
  const std::size_t equals = word.find('=');
  if (equals == std::string_view::npos || equals == 0 ||
      !is_valid_export_name(word.substr(0, equals))) {
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

Result<ServedSources> ServedSources::parse(const std::string& default_name, const OptionSet& shared,
                                           SourceOptions& source, const ImageOptions& image) {
  ServedSources sources;
  Result<std::vector<PlacedSource>> words = source.words();
  if (!words) return propagate(words);
  const auto shared_by_all =
      std::make_shared<const std::vector<SharedOption>>(shared_options(shared));
  SourceLine first_line(true, image.formats());
  SourceLine further_line(false, image.formats());
  std::unordered_map<std::string, std::size_t> places;  // in named_
  for (PlacedSource& placed : *words) {
    SourceWord word = parse_source_word(placed.source);
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
    // What image it is, the first one of a name says.
    const auto [place, is_first] = places.try_emplace(word.name, sources.named_.size());
    SourceLine& line = is_first ? first_line : further_line;
    if (Result<void> good = line.parse(word, *shared_by_all); !good) {
      const bool late = !is_first && good.error().what.starts_with("a source has no option");
      return wrong(late ? fmt::format("{}; options of the image go with the first {}=",
                                      good.error().what, word.name)
                        : good.error().what);
    }
    if (is_first) {
      if (const auto checked = line.image.planner(); !checked) {
        return wrong(checked.error().what);
      }
      Named& named = *sources.named_.emplace_back(std::make_shared<Named>(image.formats()));
      named.name = word.name;
      named.description = line.image.format();
      named.shared = shared_by_all;
      named.outputs = source.outputs;
    }
    if (word.directory == "-") return wrong("standard input can only be a source without a name");
    boost::system::error_code error;
    const std::string path = path_of(word.directory);
    if (!boost::filesystem::exists(path, error)) {
      return fail(Errc::unreadable, fmt::format("{}: {} does not exist", word.word, path));
    }
    sources.named_[place->second]->words.push_back(std::move(word));
  }
  for (const auto& named : sources.named_) {
    named->words.shrink_to_fit();
    named->description =
        description_of(named->description, named->words.front().directory, named->words.size());
  }
  if (sources.plain_ != nullptr) {
    if (places.contains(default_name)) {
      return fail(Errc::usage, fmt::format("two sources have the name {}", default_name));
    }
    sources.names_.push_back(default_name);
  } else if (!default_name.empty()) {
    const auto chosen = places.find(default_name);
    if (chosen == places.end()) {
      return fail(Errc::usage,
                  fmt::format("--exportname={}: no source has that name", default_name));
    }
    const auto first = sources.named_.begin() + static_cast<std::ptrdiff_t>(chosen->second);
    std::rotate(sources.named_.begin(), first, first + 1);
  }
  for (const auto& named : sources.named_) sources.names_.push_back(named->name);
  return sources;
}

void ServedSources::keep_bases() {
  if (plain_ != nullptr) plain_->keep_base = true;
  for (const auto& named : named_) named->keep_base = true;
}

Result<void> ServedSources::check_outside(std::span<const KeptPlace> places) const {
  if (plain_ != nullptr) {
    if (Result<void> outside = check_outside_source(*plain_, places); !outside) return outside;
  }
  if (named_.empty()) return {};
  SourceLine first_line(true, named_.front()->formats);
  SourceLine further_line(false, named_.front()->formats);
  for (const auto& named : named_) {
    bool is_first = true;
    for (const SourceWord& word : named->words) {
      SourceLine& line = std::exchange(is_first, false) ? first_line : further_line;
      Result<void> outside = line.parse(word, *named->shared);
      if (outside) outside = check_outside_source(line.source, places);
      if (!outside) return outside;
    }
  }
  return {};
}

Result<std::shared_ptr<ExportTree>> ServedSources::make_exports(
    LogSink& log, const std::atomic<bool>* cancel) const {
  std::vector<LazyExport> exports;
  if (plain_ != nullptr) {
    Result<PreparedImage> prepared = prepare_image(*plain_, *plain_image_, log, cancel);
    if (!prepared) return propagate(prepared);
    exports.push_back({names_.front(),
                       description_of(plain_image_->format(), plain_->sources.front().source,
                                      plain_->sources.size()),
                       [device = prepared->device] { return device; }});
  }
  for (const std::shared_ptr<Named>& named : named_) {
    exports.push_back({named->name, named->description,
                       [named, &log, cancel]() -> Result<std::shared_ptr<BlockDevice>> {
                         Result<PreparedImage> prepared = named->prepare(log, cancel);
                         if (prepared) return prepared->device;
                         Error error = worded(std::move(prepared.error()));
                         log.write(LogLevel::error,
                                   fmt::format("export {}: {}", named->name, error.what));
                         return std::unexpected(std::move(error));
                       }});
  }
  return make_lazy_exports(exports);
}

}  // namespace mkvirtfs::cli
