// SPDX-License-Identifier: BSD-3-Clause
#include "compose/source_options.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <string_view>

namespace mkvirtfs {
namespace {

SourceSpec read(const OptionValues& values) {
  const Result<SourceSpec> spec = read_source_options(values);
  if (!spec) FAIL(spec.error().what);
  return *spec;
}

Error refused(const OptionValues& values) {
  const Result<SourceSpec> spec = read_source_options(values);
  REQUIRE_FALSE(spec);
  CHECK(spec.error().code == Errc::usage);
  return spec.error();
}

}  // namespace

TEST_CASE("the rows of the table are whole") {
  std::set<std::string_view> names;
  for (const SourceOption& option : source_options()) {
    const OptionRow& row = option.row;
    CAPTURE(row.name);
    CHECK(names.insert(row.name).second);
    CHECK(find_source_option(row.name) == &option);
    CHECK_FALSE(row.help.empty());
    CHECK_FALSE(row.manual.empty());
    CHECK(row.value_name.empty() == (row.kind == OptionKind::flag));
    CHECK(row.choices.empty() == (row.kind != OptionKind::choice));
    for (const std::string_view word : row.choices) {
      CHECK(row.help.find(word) != std::string_view::npos);
      CHECK(row.manual.find(word) != std::string_view::npos);
      // Every word means something.
      CHECK(read_source_options({{std::string(row.name), std::string(word)}}));
    }
    if (!row.excludes.empty()) CHECK(find_source_option(row.excludes) != nullptr);
  }
  CHECK(names.size() > 30);
  CHECK(find_source_option("no-such") == nullptr);
}

TEST_CASE("without options a spec has its defaults, and the defaults of the help are those") {
  const SourceSpec spec = read({});
  CHECK(spec.one_file_system);
  CHECK(spec.xattrs);
  CHECK(spec.rules.empty());
  CHECK(spec.mode_mask == 07777);
  CHECK(spec.threads == 0);
  CHECK(spec.verify_layers);
  CHECK(spec.archive.most_members == 10'000'000);
  CHECK(spec.archive.most_bytes == std::uint64_t{2} << 40);
  CHECK(spec.archive.most_ratio == 1000);
  CHECK(spec.archive.reader_memory_bytes == std::uint64_t{1} << 30);
  CHECK(spec.archive.index_memory_bytes == std::uint64_t{32} << 20);
  CHECK_FALSE(spec.archive.cache_memory_bytes);
  CHECK(read({{"sync-source"}}).sync_within == std::chrono::seconds(60));
}

TEST_CASE("each option sets its field") {
  const SourceSpec spec = read({{"at", "etc"},
                                {"exclude", "a"},
                                {"include", "b"},
                                {"exclude", "c"},
                                {"map-uid", "1:2"},
                                {"map-uid", "3:4:5"},
                                {"map-gid", "6:7"},
                                {"mode-mask", "0755"},
                                {"no-one-file-system"},
                                {"no-xattrs"},
                                {"skip-unreadable"},
                                {"sync-source"},
                                {"sync-timeout", "9"},
                                {"on-change", "zero"},
                                {"change-check", "mtime"},
                                {"threads", "3"},
                                {"platform", "linux/arm64/v8"},
                                {"no-verify"},
                                {"layout", "name"},
                                {"unsafe-names", "strip"},
                                {"layer-symlinks", "replace"},
                                {"pax-globals", "ignore"},
                                {"ignore-zeros"},
                                {"passphrase-file", "phrases"},
                                {"max-entries", "5"},
                                {"max-size", "6K"},
                                {"max-ratio", "7"},
                                {"reader-memory", "8M"},
                                {"index-memory", "9M"},
                                {"cache-memory", "10M"},
                                {"cache-dir", "none"},
                                {"spool-dir", "here"},
                                {"spool-limit", "11M"}});
  CHECK(spec.at == "etc");
  std::string rules;
  for (const PathRule& rule : spec.rules) rules += (rule.include ? '+' : '-') + rule.glob;
  CHECK(rules == "-a+b-c");
  REQUIRE(spec.uid_map.size() == 2);
  CHECK(spec.uid_map[1].from == 3);
  CHECK(spec.uid_map[1].to == 4);
  CHECK(spec.uid_map[1].count == 5);
  CHECK(spec.gid_map.size() == 1);
  CHECK(spec.mode_mask == 0755);
  CHECK_FALSE(spec.one_file_system);
  CHECK_FALSE(spec.xattrs);
  CHECK(spec.skip_unreadable);
  CHECK(spec.sync_within == std::chrono::seconds(9));
  CHECK(spec.changes.on_change == OnChange::zero);
  CHECK(spec.changes.check == ChangeCheck::mtime);
  CHECK(spec.threads == 3);
  CHECK(spec.platform == oci::Platform{"linux", "arm64", "v8"});
  CHECK_FALSE(spec.verify_layers);
  const ArchiveSpec& archive = spec.archive;
  CHECK(archive.data_order == archive::DataOrder::name);
  CHECK(archive.unsafe_names == archive::UnsafeNames::strip);
  CHECK(archive.layer_symlinks == LayerSymlinks::replace);
  CHECK(archive.pax_globals == archive::PaxGlobals::ignore);
  CHECK(archive.ignores_zeros);
  CHECK(archive.passphrase_file == "phrases");
  CHECK(archive.most_members == 5);
  CHECK(archive.most_bytes == 6 << 10);
  CHECK(archive.most_ratio == 7);
  CHECK(archive.reader_memory_bytes == 8 << 20);
  CHECK(archive.index_memory_bytes == 9 << 20);
  CHECK(archive.cache_memory_bytes == 10 << 20);
  CHECK(archive.index_directory == "");
  CHECK(archive.spool_directory == "here");
  CHECK(archive.spool_limit_bytes == 11 << 20);

  const SourceSpec owned = read({{"owner", "root:7"}});
  CHECK(owned.owner_uid == 0);
  CHECK(owned.owner_gid == 7);
  const SourceSpec group = read({{"owner", ":4294967294"}});
  CHECK_FALSE(group.owner_uid);
  CHECK(group.owner_gid == 4294967294);
}

TEST_CASE("malformed values are named") {
  const auto [name, value] = GENERATE(table<const char*, const char*>({
      {"at", "a/.."},
      {"owner", "no-such-user-here"},
      {"owner", "0:no-such-group-here"},
      {"owner", ":"},
      {"owner", "4294967295"},
      {"owner", "-1"},
      {"map-uid", "1"},
      {"map-uid", "1:2:0"},
      {"map-uid", "1:2:3:4"},
      {"map-uid", "1:2:"},
      {"map-uid", "0:4294967295"},
      {"map-uid", "4294967295:0:2"},
      {"map-uid", "0:5:4294967295"},
      {"map-gid", "a:b"},
      {"mode-mask", "8"},
      {"mode-mask", "17777"},
      {"mode-mask", "rwx"},
      {"sync-timeout", "0"},
      {"sync-timeout", "5"},
      {"on-change", "maybe"},
      {"change-check", "atime"},
      {"threads", "0"},
      {"threads", "257"},
      {"platform", "x"},
      {"layout", "x"},
      {"max-entries", "0"},
      {"max-ratio", "x"},
      {"max-size", "0"},
      {"cache-memory", "much"},
  }));
  CAPTURE(name, value);
  const Error error = refused({{name, std::string(value)}});
  CHECK((error.at_fault.option == name || error.what.find(name) != std::string::npos));
}

TEST_CASE("mappings that overlap are both named") {
  const Error error = refused({{"map-uid", "0:1000:10"}, {"map-uid", "20:0"}, {"map-uid", "9:5"}});
  CHECK(error.at_fault.option == "map-uid");
  CHECK(error.at_fault.value == "9:5");
  CHECK(error.what == "it maps an id that 0:1000:10 maps, too");
}

}  // namespace mkvirtfs
