// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace mkvirtfs {

/// A number of one kind of thing: `struct NodeTag; using NodeNo = StrongInteger<NodeTag>;`. It is
/// made of a plain number only where that is written out, and never of a number of another kind; as
/// an index, in arithmetic and beside plain numbers it is the plain number. It begins as 0.
template <class Tag, class Value = std::uint32_t>
class StrongInteger {
 public:
  constexpr StrongInteger() noexcept = default;
  constexpr explicit StrongInteger(Value value) noexcept : value_(value) {}

  template <class Other>
    requires(!std::same_as<Other, Tag>)
  StrongInteger(StrongInteger<Other, Value>) = delete;

  constexpr Value value() const noexcept { return value_; }
  constexpr operator Value() const noexcept { return value_; }
  constexpr StrongInteger& operator++() noexcept {
    ++value_;
    return *this;
  }

  friend constexpr auto operator<=>(StrongInteger, StrongInteger) noexcept = default;

 private:
  Value value_ = 0;
};

/// Numbers of two kinds are not compared.
template <class Tag, class Other, class Value>
  requires(!std::same_as<Tag, Other>)
bool operator==(StrongInteger<Tag, Value>, StrongInteger<Other, Value>) = delete;
template <class Tag, class Other, class Value>
  requires(!std::same_as<Tag, Other>)
bool operator<=>(StrongInteger<Tag, Value>, StrongInteger<Other, Value>) = delete;

}  // namespace mkvirtfs

template <class Tag, class Value>
struct std::hash<mkvirtfs::StrongInteger<Tag, Value>> {
  std::size_t operator()(mkvirtfs::StrongInteger<Tag, Value> number) const noexcept {
    return std::hash<Value>()(number.value());
  }
};
