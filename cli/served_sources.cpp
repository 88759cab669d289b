// SPDX-License-Identifier: BSD-3-Clause
// Each word NAME=DIR,key=value becomes the spec of one source. Its values are its own ones and, of
// those that the command line gives for all, what its own neither replace nor contradict.
#include "cli/served_sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "cli/error_text.h"
#include "cli/near_words.h"
#include "compose/source_name.h"
#include "exports/export_tree.h"
#include "fsgen/oci/image_name.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::string_view kFormat = "fs";
constexpr std::string_view kFile = "file";

const OptionRow& format_row() {
  static constexpr OptionRow row{.name = kFormat, .value_name = "FORMAT"};
  return row;
}

/// Options with their values: of a source, or of all of them.
struct GivenOptions {
  OptionValues source;
  std::string format;  ///< "" when none is named
  OptionValues image;
};

/// The options of one word, over those that all share.
class WordOptions {
 public:
  /// The first source of an export says what image it is, so `is_first` ones have its options, too.
  WordOptions(const GivenOptions& shared, const FormatRegistry& formats,
              std::string_view export_name, bool is_first)
      : shared_(shared), formats_(formats), export_name_(export_name), is_first_(is_first) {}

  Result<GivenOptions> parse(const std::vector<std::string>& texts);

 private:
  Result<void> add(const std::string& text);
  Result<void> check_contradictions() const;
  void add_shared(const OptionValues& shared, OptionValues& own) const;
  /// The row of a format's option, or that of --fs; nullptr when there is none.
  const OptionRow* find_of_image(std::string_view name) const;
  /// Of all options that the word may have.
  std::vector<std::string> names() const;

  const GivenOptions& shared_;
  const FormatRegistry& formats_;
  const std::string_view export_name_;
  const bool is_first_;
  GivenOptions own_;
  std::vector<const OptionRow*> given_;  // in the order of the word
  std::set<std::string_view> replaced_;  // shared ones that do not count
};

const OptionRow* WordOptions::find_of_image(std::string_view name) const {
  if (!is_first_) return nullptr;
  if (name == kFormat) return &format_row();
  const auto found =
      std::ranges::find(formats_.options(), name,
                        [](const FormatRegistry::Option& option) { return option.row.name; });
  return found == formats_.options().end() ? nullptr : &found->row;
}

std::vector<std::string> WordOptions::names() const {
  std::vector<std::string> all;
  for (const SourceOption& option : source_options()) all.emplace_back(option.row.name);
  if (!is_first_) return all;
  all.emplace_back(kFormat);
  for (const FormatRegistry::Option& option : formats_.options()) {
    all.emplace_back(option.row.name);
  }
  return all;
}

/// Calls `visit` for each value of a list: what stands between two commas and is not empty.
template <class Visit>
void for_each_of_list(std::string_view list, const Visit& visit) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    if (comma != 0) visit(list.substr(0, comma));
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  }
}

Result<void> WordOptions::add(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  const SourceOption* const of_source = find_source_option(name);
  const OptionRow* const row = of_source != nullptr ? &of_source->row : find_of_image(name);
  if (row == nullptr) {
    const std::string near = nearest_word(name, names());
    return fail(Errc::usage,
                fmt::format("a source has no option {}{}{}", name,
                            near.empty() ? " (a comma in a path is ,,)" : did_you_mean(near),
                            is_first_ ? ""
                                      : fmt::format("; options of the image go with the first {}=",
                                                    export_name_)));
  }
  const bool has_value = equals != std::string::npos;
  if (has_value != (row->kind != OptionKind::flag)) {
    return fail(Errc::usage,
                has_value ? fmt::format("{} takes no value", name)
                          : fmt::format("{} needs a value: {}={}", name, name, row->value_name));
  }
  const bool is_single =
      row->kind == OptionKind::value || row->kind == OptionKind::choice || row->name == "at";
  if (is_single && std::ranges::find(given_, row) != given_.end()) {
    return fail(Errc::usage, fmt::format("{} is given twice", name));
  }
  given_.push_back(row);
  if (of_source == nullptr || !of_source->comes_before_shared) replaced_.insert(row->name);

  OptionValues& values = of_source != nullptr ? own_.source : own_.image;
  const std::string value = has_value ? text.substr(equals + 1) : std::string();
  const bool is_list = row->kind == OptionKind::list;
  if (has_value && !row->may_be_empty &&
      (is_list ? value.find_first_not_of(',') == std::string::npos : value.empty())) {
    return fail(Errc::usage, fmt::format("--{}: the value is empty", name));
  }
  if (row == &format_row()) {
    own_.format = value;
  } else if (is_list) {
    for_each_of_list(value, [&](std::string_view each) { values.add(name, std::string(each)); });
  } else if (has_value) {
    values.add(name, value);
  } else {
    values.add(name);
  }
  return {};
}

/// Its own options may not cannot be given together; a shared one that they contradict is replaced.
Result<void> WordOptions::check_contradictions() const {
  const auto is_given = [&](std::string_view name) {
    return own_.source.has(name) || own_.image.has(name);
  };
  for (const OptionRow* row : given_) {
    if (row->excludes.empty() || !is_given(row->excludes)) continue;
    return fail(Errc::usage,
                fmt::format("--{} and --{} cannot be given together", row->excludes, row->name));
  }
  return {};
}

void WordOptions::add_shared(const OptionValues& shared, OptionValues& own) const {
  std::map<std::string_view, std::size_t> seen;
  for (const std::string& name : shared.order()) {
    const std::string& value = shared.all(name)[seen[name]++];
    if (!replaced_.contains(name)) own.add(name, value);
  }
  for (const auto& [name, values] : shared) {
    if (values.empty() && !replaced_.contains(name)) own.add(name);
  }
}

Result<GivenOptions> WordOptions::parse(const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    if (Result<void> good = add(text); !good) return propagate(good);
  }
  if (Result<void> good = check_contradictions(); !good) {
    return propagate(good);
  }
  // A shared option that excludes one of its own, or is excluded by it, is no default for it.
  const auto replace_contradicting = [&](const OptionRow& row) {
    if (row.excludes.empty()) return;
    if (own_.source.has(row.name) || own_.image.has(row.name)) replaced_.insert(row.excludes);
    if (own_.source.has(row.excludes) || own_.image.has(row.excludes)) replaced_.insert(row.name);
  };
  for (const SourceOption& option : source_options()) replace_contradicting(option.row);
  for (const FormatRegistry::Option& option : formats_.options()) replace_contradicting(option.row);
  add_shared(shared_.source, own_.source);
  if (is_first_) {
    add_shared(shared_.image, own_.image);
    if (own_.format.empty()) own_.format = shared_.format;
  }
  return std::move(own_);
}

/// What NAME=DIR may have been meant as where there is no DIR; "" if that cannot be guessed.
std::string meant_instead(const SourceWord& word, const FormatRegistry& formats) {
  std::error_code error;
  if (std::filesystem::exists(word.word, error)) {
    return fmt::format(" (the source of that name is ./{})", word.word);
  }
  const bool is_option = word.name == kFormat || find_source_option(word.name) != nullptr ||
                         std::ranges::any_of(formats.options(), [&](const auto& option) {
                           return option.row.name == word.name;
                         });
  return is_option ? did_you_mean("--" + word.word) : "";
}

/// Where on the host a source is.
std::string path_of(const std::string& source) {
  const auto image = oci::parse_image_name(source);
  return image ? image->path : source;
}

/// Exports by name, filled word by word.
class NamedExports {
 public:
  NamedExports(GivenOptions shared, std::optional<std::int64_t> source_date_epoch_s,
               const FormatRegistry& formats, bool keep_bases)
      : shared_(std::move(shared)),
        source_date_epoch_s_(source_date_epoch_s),
        formats_(formats),
        keep_bases_(keep_bases) {}

  Result<void> add(SourceWord word);

  bool has(const std::string& name) const { return places_.contains(name); }
  /// The export of that name comes first; false when there is none.
  bool put_first(const std::string& name);
  std::vector<ExportSpec> take() { return std::move(exports_); }

 private:
  Result<void> check_format(const ImageSpec& image) const;

  const GivenOptions shared_;
  const std::optional<std::int64_t> source_date_epoch_s_;
  const FormatRegistry& formats_;
  const bool keep_bases_;
  std::vector<ExportSpec> exports_;
  std::unordered_map<std::string, std::size_t> places_;  // in exports_
};

Result<void> NamedExports::check_format(const ImageSpec& image) const {
  const auto planner =
      formats_.configure(formats_.resolve(image.format, image.options), image.options);
  if (!planner) return propagate(planner);
  return {};
}

Result<void> NamedExports::add(SourceWord word) {
  const auto wrong = [&](std::string_view why) {
    return fail(Errc::usage, fmt::format("{}: {}", word.word, why));
  };
  const auto [place, is_first] = places_.try_emplace(word.name, exports_.size());
  Result<GivenOptions> options =
      WordOptions(shared_, formats_, word.name, is_first).parse(word.options);
  if (!options) return wrong(error_text(options.error()));
  Result<SourceSpec> source = read_source_options(options->source);
  if (!source) return wrong(error_text(source.error()));
  if (is_first) {
    ExportSpec& made = exports_.emplace_back();
    made.name = word.name;
    made.image.format = options->format;
    made.image.options = options->image;
    made.image.source_date_epoch_s = source_date_epoch_s_;
    made.image.keep_base = keep_bases_;
    if (Result<void> good = check_format(made.image); !good) return wrong(error_text(good.error()));
  }
  ImageSpec& image = exports_[place->second].image;
  if (keep_bases_) {
    for (std::string& option :
         given_options(options->source, options->format, options->image, formats_)) {
      if (std::ranges::find(image.given_options, option) == image.given_options.end()) {
        image.given_options.push_back(std::move(option));
      }
    }
  }
  if (word.directory.empty()) {
    return wrong("no source follows the = (is a variable of the shell not set?)");
  }
  if (Result<void> good = check_source_path(word.directory); !good) return good;
  if (word.directory == "-") return wrong("standard input can only be a source without a name");
  const std::string path = path_of(word.directory);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return fail(Errc::unreadable, fmt::format("{}: {} does not exist{}", word.word, path,
                                              meant_instead(word, formats_)));
  }
  Result<std::vector<SourceSpec>> files = read_files(options->source, *source);
  if (!files) return wrong(error_text(files.error()));
  source->path = std::move(word.directory);
  image.sources.push_back(std::move(*source));
  for (SourceSpec& file : *files) {
    if (file.path == "-") return wrong("standard input can only be a source without a name");
    image.sources.push_back(std::move(file));
  }
  return {};
}

bool NamedExports::put_first(const std::string& name) {
  const auto chosen = places_.find(name);
  if (chosen == places_.end()) return false;
  const auto first = exports_.begin() + static_cast<std::ptrdiff_t>(chosen->second);
  std::rotate(exports_.begin(), first, first + 1);
  return true;
}

}  // namespace

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

Result<std::vector<ExportSpec>> parse_exports(const std::string& default_name,
                                              const SourceOptions& source,
                                              const ImageOptions& image, bool keep_bases) {
  Result<std::vector<PlacedSource>> words = source.words();
  if (!words) return propagate(words);
  const GivenOptions plain_options{source.values(), image.format(), image.values()};
  GivenOptions shared = plain_options;
  shared.source.remove(kFile);
  const Result<std::optional<std::int64_t>> epoch = source_date_epoch();
  if (!epoch) return propagate(epoch);

  std::vector<PlacedSource> plain;
  NamedExports named(shared, *epoch, image.formats(), keep_bases);
  for (PlacedSource& placed : *words) {
    SourceWord word = parse_source_word(placed.source);
    if (word.name.empty()) {
      plain.push_back(std::move(placed));
    } else if (!placed.at.empty()) {
      return fail(Errc::usage, fmt::format("{}: --at is for sources without a name (here ,at={})",
                                           word.word, placed.at));
    } else if (Result<void> added = named.add(std::move(word)); !added) {
      return propagate(added);
    }
  }

  std::vector<ExportSpec> exports;
  const bool has_files = plain_options.source.has(kFile);
  if (words->empty() && !has_files) return std::unexpected(source.missing());
  if (plain.empty() && has_files && !words->empty()) {
    return fail(Errc::usage,
                fmt::format("--file={}: --file is for sources without a name (here ,file={})",
                            *plain_options.source.find(kFile), *plain_options.source.find(kFile)));
  }
  if (!plain.empty() || has_files) {
    if (named.has(default_name)) {
      return fail(Errc::usage, fmt::format("two sources have the name {}", default_name));
    }
    Result<std::vector<SourceSpec>> sources = specs_of(plain, plain_options.source);
    if (!sources) return propagate(sources);
    Result<ImageSpec> spec = image_spec(std::move(*sources), image);
    if (!spec) return propagate(spec);
    spec->keep_base = keep_bases;
    if (keep_bases) {
      spec->given_options =
          given_options(plain_options.source, shared.format, shared.image, image.formats());
    }
    exports.push_back({.name = default_name, .image = std::move(*spec), .at_once = true});
  } else if (!default_name.empty() && !named.put_first(default_name)) {
    return fail(Errc::usage, fmt::format("--exportname={}: no source has that name", default_name));
  }
  for (ExportSpec& each : named.take()) exports.push_back(std::move(each));
  return exports;
}

}  // namespace mkvirtfs::cli
