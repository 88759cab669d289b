// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/option_reader.h"

#include <fmt/format.h>

#include <utility>

#include "support/text.h"

namespace mkvirtfs {

void OptionReader::text(std::string_view name, std::string& place) const {
  if (const std::string* text = values_.find(name)) place = *text;
}

void OptionReader::size(std::string_view name, std::optional<std::uint64_t>& place) {
  const std::string* text = values_.find(name);
  if (text == nullptr) return;
  const std::optional<std::uint64_t> size = parse_size(*text);
  if (!size) return refuse(name, *text, "not a size (1536, 64M, 4GiB)");
  place = size;
}

void OptionReader::free_space(std::string_view name, std::optional<FreeSpace>& place) {
  const std::string* text = values_.find(name);
  if (text == nullptr) return;
  const bool is_percent = text->ends_with('%');
  const std::optional<std::uint64_t> number =
      parse_size(std::string_view(*text).substr(0, text->size() - (is_percent ? 1 : 0)));
  constexpr std::uint64_t kMostPercent = 100'000;
  if (!number || (is_percent && *number > kMostPercent)) {
    return refuse(name, *text, "neither a size (1536, 64M, 4GiB) nor N%");
  }
  if (is_percent) {
    place = FreePercent{static_cast<std::uint32_t>(*number)};
  } else {
    place = FreeBytes{*number};
  }
}

void OptionReader::defaults(Defaults& place) {
  choice<Defaults>("defaults", {{"0.1", Defaults::v0_1}}, place);
}

void OptionReader::number(std::string_view name, Limits limits, std::uint32_t& place) {
  place = parse_number(name, limits).value_or(place);
}

void OptionReader::number(std::string_view name, Limits limits,
                          std::optional<std::uint32_t>& place) {
  if (const auto number = parse_number(name, limits)) place = number;
}

std::optional<std::uint32_t> OptionReader::parse_number(std::string_view name, Limits limits) {
  const std::string* text = values_.find(name);
  if (text == nullptr) return {};
  const std::optional<std::uint64_t> number = parse_size(*text);
  if (!number || *number < limits.least || *number > limits.most) {
    refuse(name, *text, fmt::format("not a number from {} to {}", limits.least, limits.most));
    return {};
  }
  return static_cast<std::uint32_t>(*number);
}

void OptionReader::refuse(std::string_view name, std::string_view text, std::string_view why) {
  if (failure_) return;
  // Without a value the option would read like a flag.
  std::string what =
      text.empty() ? fmt::format("the value is empty, and {}", why) : std::string(why);
  failure_ = Error{Errc::usage, 0, std::move(what), {std::string(name), std::string(text)}};
}

Result<void> OptionReader::finish() {
  if (!failure_) return {};
  return std::unexpected(std::move(*failure_));
}

}  // namespace mkvirtfs
