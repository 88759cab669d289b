// SPDX-License-Identifier: BSD-3-Clause
#include "cli/statistics_text.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "cli/json_text.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

using nbd::CommandStatistics;
using nbd::ExportStatistics;

std::string bytes_text(std::uint64_t bytes) {
  constexpr std::array<const char*, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

/// Below what time so many percent of the answers stayed: "<64us".
std::string latency_text(const CommandStatistics& command, unsigned percent) {
  const std::uint64_t all =
      std::accumulate(command.latency.begin(), command.latency.end(), std::uint64_t{0});
  if (all == 0) return "-";
  std::uint64_t seen = 0;
  std::size_t bucket = 0;
  for (; bucket + 1 < nbd::kLatencyBuckets; ++bucket) {
    seen += command.latency[bucket];
    if (static_cast<double>(seen) * 100 >= static_cast<double>(all) * percent) break;
  }
  const bool is_last = bucket + 1 == nbd::kLatencyBuckets;
  const auto microseconds = std::uint64_t{1} << (is_last ? bucket - 1 : bucket);
  const char* const sign = is_last ? ">" : "<";
  const auto value = static_cast<double>(microseconds);
  if (value < 1e3) return fmt::format("{}{}us", sign, microseconds);
  if (value < 1e6) return fmt::format("{}{:.1f}ms", sign, value / 1e3);
  return fmt::format("{}{:.1f}s", sign, value / 1e6);
}

std::string errors_text(const CommandStatistics& command) {
  std::string text;
  for (std::size_t i = 0; i < command.errors.size(); ++i) {
    if (command.errors[i] == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ",
                        nbd::error_name(nbd::kCountedErrors[i]), command.errors[i]);
  }
  return text.empty() ? "-" : text;
}

std::string export_text(const std::string& title, const ExportStatistics& exported) {
  std::string text = fmt::format("{}: {} connected, {} in all\n", title, exported.connections_open,
                                 exported.connections_total);
  text += fmt::format("  {:<12} {:>12} {:>11} {:>8} {:>8} {:>8}  {}\n", "command", "requests",
                      "bytes", "50%", "99%", "100%", "errors");
  for (std::size_t i = 0; i < nbd::kCommandKinds; ++i) {
    const CommandStatistics& command = exported.commands[i];
    if (command.requests == 0) continue;
    text +=
        fmt::format("  {:<12} {:>12} {:>11} {:>8} {:>8} {:>8}  {}\n",
                    nbd::command_name(nbd::CommandKind{static_cast<std::uint8_t>(i)}),
                    command.requests, bytes_text(command.bytes), latency_text(command, 50),
                    latency_text(command, 99), latency_text(command, 100), errors_text(command));
  }
  return text;
}

Json errors_json(const CommandStatistics& command) {
  Json errors = Json::object();
  for (std::size_t i = 0; i < command.errors.size(); ++i) {
    if (command.errors[i] == 0) continue;
    errors.set(nbd::error_name(nbd::kCountedErrors[i]), command.errors[i]);
  }
  return errors;
}

/// Sets in `object` what is known of an export, but for its name.
void set_export(Json& object, const ExportStatistics& exported) {
  Json commands = Json::object();
  for (std::size_t i = 0; i < nbd::kCommandKinds; ++i) {
    const CommandStatistics& command = exported.commands[i];
    if (command.requests == 0) continue;
    commands.set(nbd::command_name(nbd::CommandKind{static_cast<std::uint8_t>(i)}),
                 Json::object()
                     .set("requests", command.requests)
                     .set("bytes", command.bytes)
                     .set("errors", errors_json(command))
                     .set("latency", command.latency));
  }
  object.set("connections_open", exported.connections_open)
      .set("connections_total", exported.connections_total)
      .set("commands", std::move(commands));
}

}  // namespace

std::string statistics_text(const nbd::ServerStatistics& statistics) {
  std::string text =
      fmt::format("statistics: {} connected, {} in all, {} refused\n", statistics.connections_open,
                  statistics.connections_total, statistics.connections_refused);
  for (const ExportStatistics& exported : statistics.exports) {
    text += export_text(fmt::format("export \"{}\"", printable(exported.name)), exported);
  }
  if (statistics.others.connections_total != 0) {
    text += export_text("other exports", statistics.others);
  }
  return text;
}

std::string statistics_json(const nbd::ServerStatistics& statistics) {
  Json exports = Json::array();
  for (const ExportStatistics& exported : statistics.exports) {
    Json each = Json::object().set("name", exported.name);
    set_export(each, exported);
    exports.add(std::move(each));
  }
  Json all = Json::object()
                 .set("connections_open", statistics.connections_open)
                 .set("connections_total", statistics.connections_total)
                 .set("connections_refused", statistics.connections_refused)
                 .set("exports", std::move(exports));
  if (statistics.others.connections_total != 0) {
    Json others = Json::object();
    set_export(others, statistics.others);
    all.set("other_exports", std::move(others));
  }
  return all.one_line() + "\n";
}

}  // namespace mkvirtfs::cli
