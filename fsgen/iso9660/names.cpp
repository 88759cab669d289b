// SPDX-License-Identifier: BSD-3-Clause
//
// A name becomes a key, which is what names of one directory sort by and must not share. A
// directory's names are sorted by their keys; the first of those that are alike keeps its key, and
// the others get the first number, of three to seven digits, with which the key is neither one that
// a name has by itself nor one that was given before. The identifier is the key, with separators
// and version.
#include "fsgen/iso9660/names.h"

#include <algorithm>
#include <cassert>

#include "support/text.h"

namespace mkvirtfs::iso9660 {
namespace {

// Between name and extension in a key. Names are compared as if filled up with blanks; no character
// of theirs is less than a blank, so this does the same.
constexpr char kKeySeparator = '\x01';
constexpr std::size_t kMostFileCharacters = 30;
constexpr std::size_t kMostDirectoryCharacters = 31;
constexpr std::size_t kLevel1Name = 8;
constexpr std::size_t kLevel1Extension = 3;
/// Room for the name, however long the extension: a number of the most digits fits, too.
constexpr std::size_t kKeptForName = 8;
constexpr std::size_t kept_for_name(std::size_t length, Tail tail) {
  return tail.digits() != 0 ? kKeptForName : std::min(length, kKeptForName);
}

constexpr std::string_view kForbidden = "*/:;?\\";  // in Joliet

/// The characters of `raw` as d-characters, up to `most`.
std::size_t put_d_characters(std::string_view raw, std::span<char> out) {
  std::size_t count = 0;
  while (!raw.empty() && count < out.size()) {
    const char c = raw.front();
    raw.remove_prefix(std::max<std::size_t>(1, utf8_sequence_length(raw)));
    if ((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
      out[count++] = c;
    } else if (c >= 'a' && c <= 'z') {
      out[count++] = static_cast<char>(c - 'a' + 'A');
    } else {
      out[count++] = '_';
    }
  }
  return count;
}

/// The characters of `raw` as UTF-16 units, up to out.size(); a pair is never cut.
std::size_t put_units(std::string_view raw, JolietCharacters characters, std::span<char16_t> out) {
  std::size_t count = 0;
  while (!raw.empty()) {
    const std::size_t length = utf8_sequence_length(raw);
    char32_t point = length == 0 ? U'_' : code_point(raw.substr(0, length));
    if (point < 0x20 ||
        (point < 0x80 && kForbidden.find(static_cast<char>(point)) != std::string_view::npos)) {
      point = U'_';
    }
    if (point > 0xFFFF && characters == JolietCharacters::ucs2) point = U'_';
    const std::size_t units = point > 0xFFFF ? 2 : 1;
    if (count + units > out.size()) break;
    if (units == 2) {
      out[count++] = static_cast<char16_t>(0xD800 + ((point - 0x10000) >> 10));
      out[count++] = static_cast<char16_t>(0xDC00 + ((point - 0x10000) & 0x3FF));
    } else {
      out[count++] = static_cast<char16_t>(point);
    }
    raw.remove_prefix(std::max<std::size_t>(1, length));
  }
  return count;
}

/// The first `most` of these units, without half a pair.
std::size_t cut_units(std::span<const char16_t> units, std::size_t most) {
  std::size_t count = std::min(units.size(), most);
  const bool cuts_pair = count > 0 && count < units.size() && units[count] >= 0xDC00 &&
                         units[count] <= 0xDFFF && units[count - 1] >= 0xD800 &&
                         units[count - 1] <= 0xDBFF;
  if (cuts_pair) --count;
  return count;
}

std::array<char, Tail::kMostDigits> digits_of(Tail tail) {
  std::array<char, Tail::kMostDigits> digits{};
  std::uint32_t value = tail.value();
  for (unsigned at = tail.digits(); at-- > 0; value /= 10) {
    digits[at] = static_cast<char>('0' + value % 10);
  }
  return digits;
}

}  // namespace

struct NameRules::Parts {
  std::string_view name;
  std::string_view extension;
  bool has_extension = false;
};

NameRules::Parts NameRules::parts_of(std::string_view name, NameOf of) noexcept {
  const std::size_t dot = name.rfind('.');
  if (of == NameOf::directory || dot == std::string_view::npos || dot == 0)
    return {name, {}, false};
  return {name.substr(0, dot), name.substr(dot + 1), true};
}

Identifier NameRules::primary_key(std::string_view name, NameOf of, Tail tail) const noexcept {
  const Parts parts = parts_of(name, of);
  std::array<char, kMostDirectoryCharacters> stem;
  std::array<char, kMostFileCharacters> extension;
  std::size_t stem_length = put_d_characters(parts.name, stem);
  std::size_t extension_length = put_d_characters(parts.extension, extension);
  std::size_t most = 0;
  if (level_ == 1) {
    extension_length = std::min(extension_length, kLevel1Extension);
    most = kLevel1Name;
  } else if (of == NameOf::directory) {
    most = kMostDirectoryCharacters;
  } else {
    extension_length =
        std::min(extension_length, kMostFileCharacters - kept_for_name(stem_length, tail));
    most = kMostFileCharacters - extension_length;
  }
  stem_length = std::min(stem_length, most - tail.digits());
  Identifier key;
  key.append({stem.data(), stem_length});
  key.append({digits_of(tail).data(), tail.digits()});
  key.append(kKeySeparator);
  key.append({extension.data(), extension_length});
  return key;
}

Identifier NameRules::joliet_key(std::string_view name, NameOf of, Tail tail) const noexcept {
  constexpr std::size_t kMostUnits = 103;
  const Parts parts = parts_of(name, of);
  std::array<char16_t, kMostUnits> stem;
  std::array<char16_t, kMostUnits> extension;
  const std::size_t stem_length =
      put_units(parts.name, characters_, std::span(stem).first(std::min(most_units_, kMostUnits)));
  std::size_t extension_length = put_units(parts.extension, characters_, extension);
  std::size_t most = most_units_;
  if (parts.has_extension) {
    most = most_units_ - 1;
    extension_length = cut_units(std::span(extension).first(extension_length),
                                 most - kept_for_name(stem_length, tail));
    most -= extension_length;
  }
  const std::size_t kept = cut_units(std::span(stem).first(stem_length), most - tail.digits());
  Identifier key;
  for (std::size_t at = 0; at < kept; ++at) key.append_unit(stem[at]);
  const auto digits = digits_of(tail);
  for (unsigned at = 0; at < tail.digits(); ++at) {
    key.append_unit(static_cast<char16_t>(digits[at]));
  }
  if (parts.has_extension) key.append_unit(u'.');
  for (std::size_t at = 0; at < extension_length; ++at) key.append_unit(extension[at]);
  return key;
}

bool NameRules::is_kept(std::string_view name) const noexcept {
  std::size_t units = 0;
  while (!name.empty()) {
    const auto first = static_cast<unsigned char>(name.front());
    const std::size_t length = first < 0x80 ? 1 : utf8_sequence_length(name);
    const bool is_replaced =
        length == 0 || first < 0x20 || (length == 4 && characters_ == JolietCharacters::ucs2) ||
        (first < 0x80 && kForbidden.find(name.front()) != std::string_view::npos);
    if (is_replaced) return false;
    units += length == 4 ? 2 : 1;  // a pair for what is beyond 16 bits
    name.remove_prefix(length);
  }
  return units <= most_units_;
}

Identifier NameRules::key(std::string_view name, NameOf of, Tail tail) const noexcept {
  return most_units_ != 0 ? joliet_key(name, of, tail) : primary_key(name, of, tail);
}

Identifier NameRules::identifier(std::string_view name, NameOf of, Tail tail) const noexcept {
  Identifier key = this->key(name, of, tail);
  if (most_units_ != 0) {
    if (of == NameOf::file) {
      key.append_unit(u';');
      key.append_unit(u'1');
    }
    return key;
  }
  const std::size_t separator = key.view().find(kKeySeparator);
  Identifier identifier;
  identifier.append(key.view().substr(0, separator));
  if (of == NameOf::file) {
    identifier.append('.');
    identifier.append(key.view().substr(separator + 1));
    identifier.append(";1");
  }
  return identifier;
}

void Namer::begin() {
  names_.clear();
  keys_.clear();
}

void Namer::set_key(Named& named) {
  const Identifier key = rules_.key(named.name, named.of, named.tail);
  named.key_at = static_cast<std::uint32_t>(keys_.size());
  named.key_bytes = static_cast<std::uint32_t>(key.size());
  keys_ += key.view();
}

void Namer::add(std::string_view name, NameOf of, std::uint32_t entry) {
  names_.push_back({name, entry, {}, of, 0, 0});
  set_key(names_.back());
}

void Namer::sort() {
  std::ranges::sort(names_, [&](const Named& a, const Named& b) {
    const int order = key_of(a).compare(key_of(b));
    return order != 0 ? order < 0 : a.entry + 1 < b.entry + 1;
  });
}

bool Namer::number(std::span<Named> alike, std::span<const std::string_view> natural) {
  constexpr std::array<std::uint32_t, Tail::kMostDigits + 1> kPowers = {
      1, 10, 100, 1000, 10'000, 100'000, 1'000'000, 10'000'000};
  for (Named& named : alike) {
    bool found = false;
    for (unsigned digits = Tail::kFewestDigits; digits <= Tail::kMostDigits && !found; ++digits) {
      const Identifier group = rules_.key(named.name, named.of, Tail(digits, 0));
      std::uint32_t& next = next_[std::string(group.view()) + static_cast<char>('0' + digits)];
      while (next < kPowers[digits] && !found) {
        named.tail = Tail(digits, next++);
        const Identifier key = rules_.key(named.name, named.of, named.tail);
        found =
            !std::ranges::binary_search(natural, key.view()) && taken_.emplace(key.view()).second;
      }
    }
    if (!found) return false;
  }
  return true;
}

std::span<const Namer::Named> Namer::finish() {
  sort();
  const auto is_like_next = [&](std::size_t at) {
    return at + 1 < names_.size() && key_of(names_[at]) == key_of(names_[at + 1]);
  };
  std::size_t at = 0;
  while (at < names_.size() && !is_like_next(at)) ++at;
  if (at == names_.size()) return names_;

  // The first of those alike keeps its name; numbers avoid all names that are kept.
  next_.clear();
  taken_.clear();
  const std::string keys = keys_;
  std::vector<std::string_view> natural;
  natural.reserve(names_.size());
  for (const Named& named : names_) {
    natural.push_back(std::string_view(keys).substr(named.key_at, named.key_bytes));
  }
  for (; at < names_.size(); ++at) {
    std::size_t end = at;
    while (is_like_next(end)) ++end;
    if (end != at && !number(std::span(names_).subspan(at + 1, end - at), natural)) return {};
    at = end;
  }
  keys_.clear();
  for (Named& named : names_) set_key(named);
  sort();
  return names_;
}

}  // namespace mkvirtfs::iso9660
