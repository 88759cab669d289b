// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cassert>
#include <concepts>
#include <limits>
#include <optional>

namespace mkvirtfs {

template <std::unsigned_integral T>
constexpr T ceil_div(T value, T unit) noexcept {
  assert(unit != 0);
  return value / unit + (value % unit != 0 ? 1 : 0);
}

/// Rounds down to a multiple of `unit`, which need not be a power of two.
template <std::unsigned_integral T>
constexpr T round_down(T value, T unit) noexcept {
  return value - value % unit;
}

/// Rounds up to a multiple of `unit`; the caller knows that the result fits.
template <std::unsigned_integral T>
constexpr T round_up(T value, T unit) noexcept {
  return ceil_div(value, unit) * unit;
}

template <std::unsigned_integral T>
constexpr std::optional<T> checked_add(T a, T b) noexcept {
  T sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

template <std::unsigned_integral T>
constexpr std::optional<T> checked_mul(T a, T b) noexcept {
  T product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

/// A narrowing conversion that the caller knows to be exact.
template <std::integral To, std::integral From>
constexpr To narrow(From value) noexcept {
  const To result = static_cast<To>(value);
  assert(static_cast<From>(result) == value && (result < To{}) == (value < From{}));
  return result;
}

}  // namespace mkvirtfs
