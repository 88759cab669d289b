// SPDX-License-Identifier: BSD-3-Clause
#include "cli/image_options.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "cli/streams.h"
#include "support/parse_number.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Image";

/// Breaks `text` into lines that fit the column of --help for descriptions.
std::string wrapped(std::string_view text) {
  constexpr std::size_t kColumns = 48;
  std::string lines;
  while (text.size() > kColumns) {
    const std::size_t space = text.rfind(' ', kColumns);
    if (space == std::string_view::npos || space == 0) break;
    lines += fmt::format("{}\n", text.substr(0, space));
    text.remove_prefix(space + 1);
  }
  return lines.append(text);
}

/// "File system: ext2 (default), fat (width by size), iso"
std::string format_help(const FormatRegistry& formats) {
  std::string help = "File system:";
  for (const Format* format : formats.formats()) {
    for (const FormatName& each : format->names) {
      help += fmt::format(" {}", each.name);
      if (!each.remark.empty()) help += fmt::format(" ({})", each.remark);
      help += ',';
    }
  }
  help.pop_back();
  return help;
}

}  // namespace

std::string ImageOptions::heading_of(const FormatRegistry::Option& option) const {
  if (formats_.is_of_disk(option.row.name)) return "Disk";
  if (option.formats.size() > 1) return kGroup;
  return fmt::format("{}, {} only", kGroup, option.formats.front()->family);
}

void ImageOptions::add_to(OptionSet& options) {
  format_option_ = &options.add_value("--fs", format_, "FORMAT", wrapped(format_help(formats_)))
                        .one_of(formats_.names())
                        .group(kGroup);
  for (const FormatRegistry::Option& option : formats_.options()) {
    rows_.declare(options, option.row, heading_of(option), wrapped(option.help()));
  }
  rows_.exclude_contradictions(options);
}

std::string ImageOptions::format() const {
  return format_option_ != nullptr && format_option_->is_given() ? format_ : std::string();
}

Result<std::optional<std::int64_t>> source_date_epoch() {
  const std::optional<std::string> text = environment("SOURCE_DATE_EPOCH");
  if (!text || text->empty()) return std::nullopt;
  const auto seconds = parse_number<std::int64_t>(*text);
  if (!seconds || *seconds < 0) {
    return fail(Errc::usage,
                fmt::format("SOURCE_DATE_EPOCH={} is not a number of seconds since 1970", *text));
  }
  return *seconds;
}

Result<ImageSpec> image_spec(std::vector<SourceSpec> sources, const ImageOptions& image) {
  ImageSpec spec;
  spec.sources = std::move(sources);
  spec.format = image.format();
  spec.options = image.values();
  const Result<std::optional<std::int64_t>> epoch = source_date_epoch();
  if (!epoch) return propagate(epoch);
  spec.source_date_epoch_s = *epoch;
  return spec;
}

}  // namespace mkvirtfs::cli
