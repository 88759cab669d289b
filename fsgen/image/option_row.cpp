// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/option_row.h"

#include <array>

namespace mkvirtfs {
namespace {

constexpr std::array<std::string_view, 1> kDefaultsWords{"0.1"};

}  // namespace

OptionRow size_option() {
  return {.name = "size",
          .value_name = "SIZE",
          .help = "Make the image exactly this large",
          .manual =
              "Make the image exactly this large. If that is too small, the message names "
              "the smallest size that fits; if the format cannot have this size, the message "
              "names the sizes that it can have."};
}

OptionRow free_option() {
  return {.name = "free",
          .value_name = "SIZE|%",
          .help = "Room to leave (default: 10%, at least 64M)",
          .manual =
              "Without `--size`, leave this much room. The default is 10%, at least 64M "
              "(FAT12: 10%). Room in an image that is not written costs nothing.",
          .excludes = "size"};
}

OptionRow label_option(std::string_view note, std::string_view manual) {
  return {.name = "label",
          .value_name = "TEXT",
          .help = "Volume label",
          .note = note,
          .manual = manual,
          .may_be_empty = true};
}

OptionRow uuid_option(std::string_view note, std::string_view manual) {
  return {.name = "uuid",
          .value_name = "UUID",
          .help = "Volume UUID (default: from the contents)",
          .note = note,
          .manual = manual};
}

OptionRow defaults_option() {
  return {.name = "defaults",
          .kind = OptionKind::choice,
          .value_name = "VERSION",
          .help = "Defaults of an older version",
          .choices = kDefaultsWords,
          .manual =
              "What no option says is as it was in this version: `0.1` gives the images of 0.1.0, "
              "byte for byte. An overlay that was kept over an image of that version opens over "
              "this one."};
}

void OptionValues::remove(std::string_view name) {
  const auto at = values_.find(name);
  if (at != values_.end()) values_.erase(at);
  std::erase(order_, name);
}

const std::string* OptionValues::find(std::string_view name) const {
  const auto at = values_.find(name);
  return at == values_.end() || at->second.empty() ? nullptr : &at->second.back();
}

std::span<const std::string> OptionValues::all(std::string_view name) const {
  const auto at = values_.find(name);
  if (at == values_.end()) return {};
  return at->second;
}

}  // namespace mkvirtfs
