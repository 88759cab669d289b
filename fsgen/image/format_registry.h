// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/image/format.h"
#include "support/error.h"

namespace mkvirtfs {

/// The formats that a program offers, and their options seen together. Immutable; the formats must
/// outlive it.
class FormatRegistry {
 public:
  /// An option as the program has it: one name, in one format or in several.
  struct Option {
    OptionRow row;  ///< the first format's; its note is everybody's
    /// Those that have it; empty: it is about the disk around them.
    std::vector<const Format*> formats;
    /// For --help: the row's phrase, its choices, and the formats' notes.
    std::string help() const;
  };

  /// The first name of the first format is the default one. `disk_options` are about a disk that
  /// has images as its partitions. Where a format has an option of that name, too, the row is the
  /// disk's, and the formats add what they say of it.
  explicit FormatRegistry(std::span<const Format* const> formats,
                          std::span<const OptionRow> disk_options = {});

  std::span<const Format* const> formats() const noexcept { return formats_; }
  std::string_view default_name() const { return formats_.front()->names.front().name; }
  /// nullptr when no format has that name.
  const Format* find(std::string_view name) const;
  /// Every name, in the order of the formats.
  std::vector<std::string> names() const;
  /// The options of all formats: those that several formats share first, then format by format;
  /// then those of disks.
  std::span<const Option> options() const noexcept { return options_; }

  /// Whether a disk has such an option.
  bool is_of_disk(std::string_view name) const;
  /// The values of which formats have rows, without those that only a disk has.
  OptionValues without_disk(const OptionValues& values) const;

  /// The format's name where `named` is what the user asked for, "" if nothing: an option may stand
  /// for its format.
  std::string_view resolve(std::string_view named, const OptionValues& values) const;

  /// Checks that each value's option belongs to the format, and configures the format.
  Result<Planner> configure(std::string_view name, const OptionValues& values) const;

 private:
  std::vector<const Format*> formats_;
  std::span<const OptionRow> disk_options_;
  std::vector<Option> options_;
};

}  // namespace mkvirtfs
