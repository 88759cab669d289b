// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cassert>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>

namespace mkvirtfs {

/// What can be counted in a Value: a wider count might be cut, and has to be narrowed where it is
/// written.
template <class Count, class Value>
concept CountOf =
    std::integral<Count> && !std::same_as<Count, bool> && sizeof(Count) <= sizeof(Value);

/// A number of one kind of thing: `struct NodeTag; using NodeNo = StrongInteger<NodeTag>;`. It is
/// made of a plain number only where that is written out, and never of a number of another kind. A
/// number and a count make a number, two numbers of a kind make a count; as an index and beside
/// plain numbers it is the plain number. It begins as 0. Arithmetic stays inside Value, which is
/// asserted.
template <class Tag, class Value = std::uint32_t>
class StrongInteger {
 public:
  constexpr StrongInteger() noexcept = default;
  constexpr explicit StrongInteger(Value value) noexcept : value_(value) {}

  template <class Other, class OtherValue>
    requires(!std::same_as<Other, Tag>)
  StrongInteger(StrongInteger<Other, OtherValue>) = delete;

  constexpr Value value() const noexcept { return value_; }
  constexpr operator Value() const noexcept { return value_; }
  constexpr StrongInteger& operator++() noexcept {
    ++value_;
    return *this;
  }

  template <CountOf<Value> Count>
  constexpr StrongInteger& operator+=(Count count) noexcept {
    assert(std::in_range<Value>(count) &&
           static_cast<Value>(count) <= std::numeric_limits<Value>::max() - value_);
    value_ = static_cast<Value>(value_ + static_cast<Value>(count));
    return *this;
  }
  template <CountOf<Value> Count>
  constexpr StrongInteger& operator-=(Count count) noexcept {
    assert(std::in_range<Value>(count) && static_cast<Value>(count) <= value_);
    value_ = static_cast<Value>(value_ - static_cast<Value>(count));
    return *this;
  }
  // Templates, so that a literal is taken as it is: else the plain number's operator would do as
  // well.
  template <CountOf<Value> Count>
  friend constexpr StrongInteger operator+(StrongInteger number, Count count) noexcept {
    return number += count;
  }
  template <CountOf<Value> Count>
  friend constexpr StrongInteger operator-(StrongInteger number, Count count) noexcept {
    return number -= count;
  }
  friend constexpr Value operator-(StrongInteger to, StrongInteger from) noexcept {
    assert(from.value_ <= to.value_);
    return static_cast<Value>(to.value_ - from.value_);
  }

  friend constexpr auto operator<=>(StrongInteger, StrongInteger) noexcept = default;

 private:
  Value value_ = 0;
};

/// Numbers are not added, and those of two kinds are neither compared nor subtracted.
template <class Tag, class Value, class Other, class OtherValue>
void operator+(StrongInteger<Tag, Value>, StrongInteger<Other, OtherValue>) = delete;
template <class Tag, class Value, class Other, class OtherValue>
  requires(!std::same_as<Tag, Other>)
void operator-(StrongInteger<Tag, Value>, StrongInteger<Other, OtherValue>) = delete;
template <class Tag, class Value, class Other, class OtherValue>
  requires(!std::same_as<Tag, Other>)
bool operator==(StrongInteger<Tag, Value>, StrongInteger<Other, OtherValue>) = delete;
template <class Tag, class Value, class Other, class OtherValue>
  requires(!std::same_as<Tag, Other>)
bool operator<=>(StrongInteger<Tag, Value>, StrongInteger<Other, OtherValue>) = delete;

}  // namespace mkvirtfs

template <class Tag, class Value>
struct std::hash<mkvirtfs::StrongInteger<Tag, Value>> {
  std::size_t operator()(mkvirtfs::StrongInteger<Tag, Value> number) const noexcept {
    return std::hash<Value>()(number.value());
  }
};
