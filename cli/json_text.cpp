// SPDX-License-Identifier: BSD-3-Clause
#include "cli/json_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace mkvirtfs::cli {
namespace {

using nlohmann::ordered_json;

/// A member of an object, if `is_kind` holds for it.
template <class Kind>
std::optional<Kind> member(const ordered_json& object, std::string_view key,
                           bool (ordered_json::*is_kind)() const noexcept) {
  const auto found = object.find(std::string(key));
  if (found == object.end() || !((*found).*is_kind)()) return std::nullopt;
  return found->template get<Kind>();
}

void see_scalars(const ordered_json& value,
                 const std::function<void(std::string_view key, const Json::Scalar& value)>& see) {
  for (const auto& [key, each] : value.items()) {
    if (each.is_structured()) see_scalars(each, see);
    if (each.is_boolean()) see(key, each.get<bool>());
    if (each.is_number_unsigned()) see(key, each.get<std::uint64_t>());
    if (each.is_number_float()) see(key, each.get<double>());
    if (each.is_string()) see(key, each.get<std::string>());
  }
}

}  // namespace

struct Json::Value {
  ordered_json json;

  template <class Kind>
  void set(std::string_view key, Kind&& value) {
    json[std::string(key)] = std::forward<Kind>(value);
  }
  std::string text(int indent) const {
    return json.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
  }
};

Json::Json(std::unique_ptr<Value> value) : value_(std::move(value)) {}
Json::Json(Json&&) noexcept = default;
Json& Json::operator=(Json&&) noexcept = default;
Json::~Json() = default;

Json Json::object() { return Json(std::make_unique<Value>(Value{ordered_json::object()})); }
Json Json::array() { return Json(std::make_unique<Value>(Value{ordered_json::array()})); }

std::optional<Json> Json::parse_object(std::string_view text) {
  ordered_json parsed = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return std::nullopt;
  return Json(std::make_unique<Value>(Value{std::move(parsed)}));
}

Json& Json::set(std::string_view key, std::string_view value) & {
  value_->set(key, value);
  return *this;
}

Json& Json::set(std::string_view key, std::span<const std::uint64_t> values) & {
  ordered_json array = ordered_json::array();
  for (const std::uint64_t value : values) array.push_back(value);
  value_->set(key, std::move(array));
  return *this;
}

Json& Json::set(std::string_view key, Json value) & {
  value_->set(key, std::move(value.value_->json));
  return *this;
}

Json& Json::set_bool(std::string_view key, bool value) {
  value_->set(key, value);
  return *this;
}

Json& Json::set_double(std::string_view key, double value) {
  value_->set(key, value);
  return *this;
}

Json& Json::set_number(std::string_view key, std::uint64_t value) {
  value_->set(key, value);
  return *this;
}

void Json::add(Json value) { value_->json.push_back(std::move(value.value_->json)); }

bool Json::has(std::string_view key) const { return value_->json.contains(std::string(key)); }

std::optional<std::string> Json::text(std::string_view key) const {
  return member<std::string>(value_->json, key, &ordered_json::is_string);
}

std::optional<std::uint64_t> Json::number(std::string_view key) const {
  return member<std::uint64_t>(value_->json, key, &ordered_json::is_number_unsigned);
}

std::optional<bool> Json::flag(std::string_view key) const {
  return member<bool>(value_->json, key, &ordered_json::is_boolean);
}

void Json::for_each_scalar(
    const std::function<void(std::string_view key, const Scalar& value)>& see) const {
  see_scalars(value_->json, see);
}

std::string Json::one_line() const { return value_->text(-1); }
std::string Json::lines() const { return value_->text(2) + '\n'; }

std::string json_library_version() {
  return fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                     NLOHMANN_JSON_VERSION_PATCH);
}

}  // namespace mkvirtfs::cli
