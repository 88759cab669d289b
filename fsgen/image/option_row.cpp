// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/option_row.h"

#include <array>
#include <string>

namespace mkvirtfs {
namespace {

constexpr std::array<std::string_view, 1> kDefaultsWords{"0.1"};
constexpr std::array<std::string_view, 4> kSymlinkWords{"skip", "follow", "error", "keep"};
constexpr std::string_view kSizeManual =
    "Make the image exactly this large. If that is too small, the message names the smallest size "
    "that fits; if the format cannot have this size, the message names the sizes that it can have.";

}  // namespace

OptionRow size_option() {
  return {.name = "size",
          .value_name = "SIZE",
          .help = "Make the image exactly this large",
          .manual = kSizeManual};
}

OptionRow size_or_min_option(std::string_view note) {
  static const std::string manual =
      std::string(kSizeManual) +
      " `min`, of ext only, is the smallest size that holds the source and what was asked for. FAT "
      "is that small with `--free=0`, and an ISO image always is.";
  OptionRow row = size_option();
  row.note = note;
  row.manual = manual;
  return row;
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

OptionRow root_owner_option() {
  return {.name = "root-owner",
          .value_name = "UID:GID",
          .help = "Owner of the root directory",
          .manual =
              "The root directory of the image belongs to this user and group, given as "
              "numbers or by name, whatever the source says. _UID_ or :_GID_ alone sets only "
              "the one."};
}

OptionRow root_mode_option() {
  return {.name = "root-mode",
          .value_name = "OCTAL",
          .help = "Permission bits of the root directory",
          .manual = "The permission bits of the image's root directory, whatever the source says."};
}

OptionRow symlinks_option(std::string_view note, std::string_view manual) {
  return {.name = "symlinks",
          .kind = OptionKind::choice,
          .value_name = "WHAT",
          .help = "Symbolic links",
          .note = note,
          .choices = kSymlinkWords,
          .manual = manual};
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
