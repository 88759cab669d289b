// SPDX-License-Identifier: BSD-3-Clause
// Each word NAME=DIR,key=value becomes the spec of one source. Its values are its own ones and, of
// those that the command line gives for all, what its own neither replace nor contradict.
#include "cli/served_sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "cli/command_image.h"
#include "cli/error_text.h"
#include "cli/near_words.h"
#include "cli/word_options.h"
#include "compose/partitions.h"
#include "compose/source_name.h"
#include "exports/export_tree.h"
#include "fsgen/oci/image_name.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::string_view kFormat = "fs";
constexpr std::string_view kFile = "file";
constexpr std::string_view kPartition = "partition";

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
  return check_options(image, formats_);
}

Result<void> NamedExports::add(SourceWord word) {
  const auto wrong = [&](std::string_view why) {
    return fail(Errc::usage, fmt::format("{}: {}", word.word, why));
  };
  const auto [place, is_first] = places_.try_emplace(word.name, exports_.size());
  // The first source of an export says what image it is.
  WordScope scope{.image = is_first};
  if (!is_first) {
    scope.advice = fmt::format("; options of the image go with the first {}=", word.name);
  }
  Result<GivenOptions> options = WordOptions(shared_, formats_, scope).parse(word.options);
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
  parsed.options = split_word(word.substr(equals + 1));
  parsed.directory = std::move(parsed.options.front());
  parsed.options.erase(parsed.options.begin());
  return parsed;
}

Result<std::vector<ExportSpec>> parse_exports(const std::string& default_name,
                                              const SourceOptions& source,
                                              const ImageOptions& image, bool keep_bases) {
  Result<std::vector<PlacedSource>> words = source.words();
  if (!words) return propagate(words);
  const GivenOptions plain_options{source.values(), image.format(), image.values(), {}};
  GivenOptions shared = plain_options;
  shared.source.remove(kFile);
  const Result<std::optional<std::int64_t>> epoch = source_date_epoch();
  if (!epoch) return propagate(epoch);

  if (plain_options.image.has(kPartition)) {
    Result<ImageSpec> spec = command_image(source, *words, image);
    if (!spec) return propagate(spec);
    spec->keep_base = keep_bases;
    if (keep_bases) {
      spec->given_options =
          given_options(plain_options.source, shared.format, shared.image, image.formats());
    }
    return std::vector<ExportSpec>{
        {.name = default_name, .image = *std::move(spec), .at_once = true}};
  }

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
