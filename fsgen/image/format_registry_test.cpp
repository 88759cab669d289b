// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/format_registry.h"
#include "tests/support/hinted_text.h"

#include <array>
#include <catch2/catch.hpp>

namespace mkvirtfs {
namespace {

constexpr std::array<FormatName, 2> kDiskNames{{{"disk1", "default"}, {"disk2", ""}}};
constexpr std::array<FormatName, 1> kDiscNames{{{"disc", ""}}};
constexpr std::array<std::string_view, 2> kWords{"round", "square"};

Result<Planner> refuse(std::string_view name, const OptionValues& /*values*/) {
  return fail(Errc::unsupported, std::string(name));
}

const std::array<OptionRow, 2> kDiskRows{{
    {.name = "own", .kind = OptionKind::flag, .help = "Own"},
    label_option("8 bytes (disk)", ""),
}};
const std::array<OptionRow, 2> kDiscRows{{
    label_option("9 (disc)", ""),
    {.name = "shape",
     .kind = OptionKind::choice,
     .help = "Shape",
     .choices = kWords,
     .implies_format = "disc"},
}};
const Format kDisk{
    .family = "disks", .names = kDiskNames, .options = kDiskRows, .configure = refuse};
const Format kDisc{
    .family = "discs", .names = kDiscNames, .options = kDiscRows, .configure = refuse};
const std::array<const Format*, 2> kBoth{&kDisk, &kDisc};

std::string refusal(const FormatRegistry& formats, std::string_view name,
                    const OptionValues& values) {
  const Result<Planner> planner = formats.configure(name, values);
  REQUIRE_FALSE(planner);
  return hinted_text(planner.error());
}

}  // namespace

TEST_CASE("shared options come first, once, with what each format says of them") {
  const FormatRegistry formats(kBoth);
  REQUIRE(formats.options().size() == 3);
  CHECK(formats.options()[0].row.name == "label");
  CHECK(formats.options()[0].formats.size() == 2);
  CHECK(formats.options()[0].help() == "Volume label: 8 bytes (disk), 9 (disc)");
  CHECK(formats.options()[1].row.name == "own");
  CHECK(formats.options()[1].help() == "Own");
  CHECK(formats.options()[2].row.name == "shape");
  CHECK(formats.options()[2].help() == "Shape: round (default), square");
}

TEST_CASE("a format is found by each of its names") {
  const FormatRegistry formats(kBoth);
  CHECK(formats.find("disk1") == &kDisk);
  CHECK(formats.find("disk2") == &kDisk);
  CHECK(formats.find("disc") == &kDisc);
  CHECK(formats.find("dis") == nullptr);
  CHECK(formats.names() == std::vector<std::string>{"disk1", "disk2", "disc"});
}

TEST_CASE("without a name an option may stand for its format, else the default one is meant") {
  const FormatRegistry formats(kBoth);
  OptionValues values;
  values.add("label", "x");
  CHECK(formats.resolve("", values) == "disk1");
  values.add("shape", "round");
  CHECK(formats.resolve("", values) == "disc");
  CHECK(formats.resolve("disk2", values) == "disk2");
}

TEST_CASE("an option of another format is refused before the format is configured") {
  const FormatRegistry formats(kBoth);
  OptionValues values;
  CHECK(refusal(formats, "disk2", values) == "disk2");
  CHECK(refusal(formats, "floppy", values) == "fs=floppy: none of disk1, disk2, disc");
  values.add("shape", "round");
  CHECK(refusal(formats, "disk2", values) == "shape: disk2 has no such option");
}

}  // namespace mkvirtfs
