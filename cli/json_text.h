// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace mkvirtfs::cli {

/// A JSON object or array that is written, or was read. nlohmann-json writes and reads it;
/// json_text.cpp alone compiles that, which takes seconds a file.
class Json {
 public:
  static Json object();
  static Json array();
  /// An object; nothing for a text that is malformed, or is another value.
  static std::optional<Json> parse_object(std::string_view text);
  Json(Json&&) noexcept;
  Json& operator=(Json&&) noexcept;
  ~Json();

  /// Sets a member of an object. Members keep the order in which they were first set. Each returns
  /// the object.
  Json& set(std::string_view key, std::string_view value) &;
  Json& set(std::string_view key, std::span<const std::uint64_t> values) &;
  Json& set(std::string_view key, Json value) &;
  /// No number or pointer is taken for a bool or a double by accident.
  Json& set(std::string_view key, std::same_as<bool> auto value) & { return set_bool(key, value); }
  Json& set(std::string_view key, std::same_as<double> auto value) & {
    return set_double(key, value);
  }
  template <std::unsigned_integral Number>
    requires(!std::same_as<Number, bool>)
  Json& set(std::string_view key, Number value) & {
    return set_number(key, value);
  }
  /// The same of an object that is just being made.
  Json&& set(std::string_view key, auto&& value) && {
    return std::move(set(key, std::forward<decltype(value)>(value)));
  }
  /// Adds to an array.
  void add(Json value);

  bool has(std::string_view key) const;
  /// Members of an object; nothing when there is none of that name and kind.
  std::optional<std::string> text(std::string_view key) const;
  std::optional<std::uint64_t> number(std::string_view key) const;
  std::optional<bool> flag(std::string_view key) const;

  using Scalar = std::variant<bool, std::uint64_t, double, std::string>;
  /// Calls `see` with each member that is a scalar, in order; objects and arrays are entered.
  void for_each_scalar(
      const std::function<void(std::string_view key, const Scalar& value)>& see) const;

  /// Without a line end. What is no UTF-8 in a string becomes U+FFFD.
  std::string one_line() const;
  /// Indented by two blanks, and with a line end.
  std::string lines() const;

 private:
  struct Value;
  explicit Json(std::unique_ptr<Value> value);
  Json& set_bool(std::string_view key, bool value);
  Json& set_double(std::string_view key, double value);
  Json& set_number(std::string_view key, std::uint64_t value);

  std::unique_ptr<Value> value_;
};

/// Of nlohmann-json: "3.11.2".
std::string json_library_version();

}  // namespace mkvirtfs::cli
