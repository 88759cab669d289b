// SPDX-License-Identifier: BSD-3-Clause
#include "bootsect/partition_type.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <set>

#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;

namespace {

PartitionType found(std::string_view name, std::string_view architecture = "x86-64") {
  const auto type = find_partition_type(name, architecture);
  if (!type) FAIL(hinted_text(type.error()));
  return *type;
}

std::string refused(std::string_view name, std::string_view architecture = "x86-64") {
  const auto type = find_partition_type(name, architecture);
  REQUIRE(!type);
  CHECK(type.error().code == Errc::usage);
  return hinted_text(type.error());
}

}  // namespace

TEST_CASE("sfdisk knows every GUID of ours") {
  std::string known = run_tool({"sfdisk", "--label", "gpt", "--list-types"}).output;
  std::ranges::transform(known, known.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  REQUIRE(known.find("efi system") != known.npos);
  std::set<std::string> names;
  for (const PartitionType& type : all_partition_types()) {
    CAPTURE(type.name);
    REQUIRE(type.guid);
    CHECK(known.find(to_string(*type.guid)) != known.npos);
    CHECK(names.insert(type.name).second);
    CHECK(found(type.name).guid == type.guid);
    CHECK(found(type.name).mbr == type.mbr);
  }
  CHECK(names.size() > 120);
}

TEST_CASE("types have names, short names, GUIDs and bytes") {
  CHECK(to_string(*found("esp").guid) == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
  CHECK(found("esp").mbr == 0xEF);
  CHECK(found("U").name == "esp");
  CHECK(found("L").name == "linux");
  CHECK(found("C12A7328-F81F-11D2-BA4B-00A0C93EC93B").name == "esp");
  const PartitionType foreign = found("d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f");
  CHECK(foreign.guid.has_value());
  CHECK(!foreign.mbr.has_value());
  CHECK(found("0x83").guid == found("linux").guid);
  CHECK(found("83").mbr == 0x83);
  CHECK(found("ef").guid == found("esp").guid);
  CHECK(found("0x9b").mbr == 0x9B);
  CHECK(!found("0x9b").guid.has_value());
  CHECK(!found("bios-boot").mbr.has_value());
}

TEST_CASE("root and usr are those of an architecture") {
  CHECK(found("root", "amd64").name == "root-x86-64");
  CHECK(to_string(*found("root", "x86_64").guid) == "4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
  CHECK(found("usr", "aarch64").name == "usr-arm64");
  CHECK(found("root-verity", "riscv64").name == "root-riscv64-verity");
  CHECK(found("usr-verity-sig", "x86-64").name == "usr-x86-64-verity-sig");
  CHECK(found("root-s390x").name == "root-s390x");
  CHECK(refused("root", "").starts_with("type=root: for which architecture is not known [type="));
  CHECK(refused("usr", "vax") == "type=usr: no such type for vax [type=usr-x86-64]");
}

TEST_CASE("what is no type is refused with those that are") {
  for (const std::string_view name : {"", "liunx", "0x", "0x123", "0x05", "ee", "00", "root-"}) {
    CAPTURE(name);
    const std::string said = refused(name);
    CHECK(said.find("not a type of partitions (linux, swap, ") != said.npos);
    CHECK(said.find("root, usr, a GUID") != said.npos);
  }
}
