// SPDX-License-Identifier: BSD-3-Clause
#include "cli/statistics_text.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

namespace mkvirtfs::cli {
namespace {

using nbd::CommandKind;

nbd::ServerStatistics some_statistics() {
  nbd::ServerStatistics statistics;
  statistics.connections_open = 2;
  statistics.connections_total = 17;
  statistics.connections_refused = 1;
  nbd::ExportStatistics exported;
  exported.name = "a\nb";
  exported.connections_open = 1;
  exported.connections_total = 16;
  nbd::CommandStatistics& reads = exported.commands[static_cast<std::size_t>(CommandKind::read)];
  reads.requests = 102;
  reads.bytes = 3 << 20;
  reads.errors[1] = 2;  // EIO
  reads.latency[4] = 90;
  reads.latency[11] = 11;
  reads.latency[nbd::kLatencyBuckets - 1] = 1;
  statistics.exports.push_back(exported);
  return statistics;
}

}  // namespace

TEST_CASE("statistics are a table for people") {
  CHECK(statistics_text(some_statistics()) ==
        "statistics: 2 connected, 17 in all, 1 refused\n"
        "export \"a\\x0ab\": 1 connected, 16 in all\n"
        "  command          requests       bytes      50%      99%     100%  errors\n"
        "  read                  102     3.0 MiB    <16us   <2.0ms    >8.4s  EIO 2\n");
  CHECK(statistics_text({}) == "statistics: 0 connected, 0 in all, 0 refused\n");
}

TEST_CASE("exports beyond those listed one by one are summed up") {
  nbd::ServerStatistics statistics = some_statistics();
  statistics.others.connections_total = 3;
  CHECK_THAT(statistics_text(statistics),
             Catch::Contains("\nother exports: 0 connected, 3 in all\n"));
  const auto json = nlohmann::json::parse(statistics_json(statistics));
  CHECK(json["other_exports"]["connections_total"] == 3);
}

TEST_CASE("statistics are one line of JSON for programs") {
  const std::string text = statistics_json(some_statistics());
  CHECK(text.find('\n') == text.size() - 1);
  const auto json = nlohmann::json::parse(text);
  CHECK(json["connections_open"] == 2);
  CHECK(json["connections_total"] == 17);
  CHECK(json["connections_refused"] == 1);
  CHECK_FALSE(json.contains("other_exports"));
  const auto& exported = json["exports"][0];
  CHECK(exported["name"] == "a\nb");
  CHECK(exported["connections_total"] == 16);
  CHECK(exported["commands"].size() == 1);
  const auto& reads = exported["commands"]["read"];
  CHECK(reads["requests"] == 102);
  CHECK(reads["bytes"] == 3 << 20);
  CHECK(reads["errors"] == nlohmann::json{{"EIO", 2}});
  CHECK(reads["latency"].size() == nbd::kLatencyBuckets);
  CHECK(reads["latency"][4] == 90);
  nbd::ServerStatistics odd = some_statistics();
  odd.exports[0].name = "\xff";
  CHECK_NOTHROW(nlohmann::json::parse(statistics_json(odd)));
}

}  // namespace mkvirtfs::cli
