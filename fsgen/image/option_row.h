// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mkvirtfs {

enum class OptionKind : std::uint8_t {
  flag,      ///< given or not; takes no value
  value,     ///< one value
  choice,    ///< one of OptionRow::choices
  repeated,  ///< one value each time it is given
  list,      ///< values with commas between them, each time it is given
};

/// One option of a format or of a source. The command line, NAME=DIR,key=value, recipes, completion
/// and the manual are all made from these rows. Rows are constants: every view is of static
/// storage.
struct OptionRow {
  std::string_view name{};  ///< "block-size": "--block-size" on the command line
  OptionKind kind = OptionKind::value;
  std::string_view value_name{};  ///< what help and manual call the value: "BYTES"; "" for a flag
  std::string_view help{};        ///< a phrase for --help; choices and notes are appended
  /// What this format alone says of an option that it shares with others: "16 bytes (ext)".
  std::string_view note{};
  /// The words of a choice; the first one is the default.
  std::span<const std::string_view> choices{};
  /// Sentences for the manual. `word` is set in bold, _word_ in italics; a line end begins a new
  /// paragraph. Of an option that several formats share, the manual has the sentences of each, one
  /// behind the other, equal ones once.
  std::string_view manual{};
  /// An option that contradicts this one; "" if none does.
  std::string_view excludes{};
  /// The format that this option stands for where none is named; "" for none.
  std::string_view implies_format{};
  /// An empty value says something: no label, the root of the image.
  bool may_be_empty = false;
};

/// Rows that several formats share; what differs is their note, and what the manual says of them.
OptionRow size_option();
/// The same, of a format that also takes "min".
OptionRow size_or_min_option(std::string_view note);
OptionRow free_option();
OptionRow label_option(std::string_view note, std::string_view manual);
OptionRow uuid_option(std::string_view note, std::string_view manual);
OptionRow defaults_option();
/// Of a format that holds owners and modes.
OptionRow root_owner_option();
OptionRow root_mode_option();
/// Its choices are those of all formats: each one refuses the others'.
OptionRow symlinks_option(std::string_view note, std::string_view manual);

/// The options that were given, by name, with their values as text. A flag has no values.
class OptionValues {
 public:
  struct Given {
    std::string name{};
    std::optional<std::string> value{};  ///< unset: a flag
  };

  OptionValues() = default;
  /// {{"label", "root"}, {"journal"}}
  OptionValues(std::initializer_list<Given> given) {
    for (const Given& each : given) {
      if (each.value) {
        add(each.name, *each.value);
      } else {
        add(each.name);
      }
    }
  }

  void add(std::string_view name) { values_[std::string(name)]; }
  void add(std::string_view name, std::string value) {
    values_[std::string(name)].push_back(std::move(value));
    order_.emplace_back(name);
  }

  void remove(std::string_view name);

  bool has(std::string_view name) const { return values_.contains(name); }
  /// nullptr: not given.
  const std::string* find(std::string_view name) const;
  /// Every value; empty: not given, or a flag.
  std::span<const std::string> all(std::string_view name) const;

  using Map = std::map<std::string, std::vector<std::string>, std::less<>>;
  Map::const_iterator begin() const { return values_.begin(); }
  Map::const_iterator end() const { return values_.end(); }
  /// The names, one for each value, in the order in which the values were added.
  std::span<const std::string> order() const noexcept { return order_; }

 private:
  Map values_;
  std::vector<std::string> order_;
};

}  // namespace mkvirtfs
