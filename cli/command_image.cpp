// SPDX-License-Identifier: BSD-3-Clause
#include "cli/command_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <span>
#include <string_view>
#include <utility>

#include "cli/error_text.h"
#include "cli/word_options.h"
#include "compose/disk_options.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::string_view kPartition = "partition";
constexpr std::string_view kFile = "file";
constexpr std::string_view kRaw = "raw";
constexpr std::string_view kRawFile = "image";  // where a ready image stands in its own source

/// "WHAT,OPTION=VALUE,OPTION" over the options of sources that all partitions share.
class PartitionWord {
 public:
  PartitionWord(const GivenOptions& shared, const FormatRegistry& formats)
      : shared_(shared), formats_(formats) {}

  Result<PartitionSpec> parse(std::string_view word);

 private:
  Result<void> add_sources(const std::string& what, const GivenOptions& given);

  const GivenOptions& shared_;
  const FormatRegistry& formats_;
  PartitionSpec made_;
};

Result<void> PartitionWord::add_sources(const std::string& what, const GivenOptions& given) {
  Result<SourceSpec> common = read_source_options(given.source);
  if (!common) return propagate(common);
  const std::string place = common->at;
  Result<std::vector<SourceSpec>> sources = specs_of({{what, place}}, given.source);
  if (!sources) return propagate(sources);
  made_.sources = *std::move(sources);
  if (made_.holds != PartitionSpec::Holds::raw) return {};
  if (!place.empty() || made_.sources.size() != 1) {
    return fail(Errc::usage, "what stands there as it is, is one file, and nothing stands in it");
  }
  made_.sources.front().is_file = true;
  made_.sources.front().at = kRawFile;
  return {};
}

Result<PartitionSpec> PartitionWord::parse(std::string_view word) {
  const std::vector<std::string> parts = split_word(word);
  const std::string& what = parts.front();
  Result<GivenOptions> given =
      WordOptions(shared_, formats_,
                  {.what = "a partition", .disk = false, .own = partition_options()})
          .parse(std::span(parts).subspan(1));
  if (!given) return propagate(given);
  if (Result<void> good = read_partition_options(given->own, made_); !good) return propagate(good);
  made_.options = std::move(given->image);
  made_.format = std::move(given->format);
  if (what == "swap" || what == "blank") {
    made_.holds = what == "swap" ? PartitionSpec::Holds::swap : PartitionSpec::Holds::blank;
    return std::move(made_);
  }
  if (made_.format == kRaw) {
    made_.holds = PartitionSpec::Holds::raw;
    made_.format.clear();
  }
  if (Result<void> good = add_sources(what, *given); !good) return propagate(good);
  return std::move(made_);
}

}  // namespace

Result<ImageSpec> command_image(const SourceOptions& source, const std::vector<PlacedSource>& words,
                                const ImageOptions& image) {
  const OptionValues source_values = source.values();
  const OptionValues image_values = image.values();
  if (!image_values.has(kPartition)) {
    Result<std::vector<SourceSpec>> sources = specs_of(words, source_values);
    if (!sources) return propagate(sources);
    if (sources->empty()) return std::unexpected(source.missing());
    return image_spec(std::move(*sources), image);
  }
  if (!words.empty()) {
    return fail(Errc::usage, fmt::format("{}: beside --partition there is no SOURCE (here "
                                         "--partition={})",
                                         words.front().source, words.front().source));
  }
  if (const std::string* file = source_values.find(kFile)) {
    return fail(
        Errc::usage,
        fmt::format("--file={}: beside --partition, files are a partition's (here ,file={})", *file,
                    *file));
  }
  Result<ImageSpec> spec = image_spec({}, image);
  if (!spec) return spec;
  spec->options.remove(kPartition);
  const GivenOptions shared{source_values, {}, {}, {}};
  for (const std::string& word : image_values.all(kPartition)) {
    Result<PartitionSpec> partition = PartitionWord(shared, image.formats()).parse(word);
    if (!partition) {
      return fail(partition.error().code,
                  fmt::format("--partition={}: {}", word, error_text(partition.error())));
    }
    spec->partitions.push_back(*std::move(partition));
  }
  return spec;
}

}  // namespace mkvirtfs::cli
