// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/seed_preset.h"

#include <catch2/catch.hpp>
#include <string>

#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs {
namespace {

const SeedPreset& preset(const std::string& name) {
  const OptionValues values{{"preset", name}};
  OptionReader reader(values);
  const SeedPreset* const found = read_preset(reader);
  REQUIRE(found != nullptr);
  return *found;
}

/// What is wrong with the tree; "" when nothing is.
std::string objection(const std::string& name, const TreeBuilder& tree,
                      SeedLinks links = SeedLinks::kept) {
  const Result<void> checked = check_preset_files(preset(name), *tree.build().tree, links);
  return checked ? "" : checked.error().what;
}

}  // namespace

TEST_CASE("each preset has a row's word, a label and the files that its program wants") {
  const auto [name, label, file] = GENERATE(table<std::string, std::string, std::string>({
      {"config-drive", "config-2", "openstack/latest/meta_data.json"},
      {"oemdrv", "OEMDRV", "ks.cfg"},
      {"autounattend", "", "autounattend.xml"},
      {"proxmox", "PROXMOX-AIS", "answer.toml"},
  }));
  CHECK(preset_label(preset(name), "", LabelCase::kept).value() == label);
  CHECK(objection(name, TreeBuilder{}.file(file, "x")) == "");
  CHECK_THAT(objection(name, TreeBuilder{}), Catch::StartsWith(file + " is not a file"));
  CHECK_THAT(objection(name, TreeBuilder{}.directory(file)),
             Catch::StartsWith(file + " is not a file"));
  CHECK(preset_option().choices.size() == 5);
  for (const std::string_view word : preset_option().choices) preset(std::string(word));
}

TEST_CASE("a preset that there is not is refused") {
  const OptionValues values{{"preset", "cdata"}};
  OptionReader reader(values);
  CHECK(read_preset(reader) == nullptr);
  const Result<void> finished = reader.finish();
  REQUIRE_FALSE(finished);
  CHECK(finished.error().code == Errc::usage);
}

TEST_CASE("a label that the program does not look for is refused") {
  CHECK(preset_label(preset("cidata"), "CIDATA", LabelCase::kept).value() == "CIDATA");
  CHECK(preset_label(preset("cidata"), "Cidata", LabelCase::upper).value() == "Cidata");
  CHECK_FALSE(preset_label(preset("cidata"), "Cidata", LabelCase::kept));
  CHECK_FALSE(preset_label(preset("oemdrv"), "oemdrv", LabelCase::kept));
  CHECK(preset_label(preset("oemdrv"), "oemdrv", LabelCase::upper).value() == "oemdrv");
  CHECK(preset_label(preset("autounattend"), "any", LabelCase::kept).value() == "any");
  CHECK(preset_label(preset("proxmox"), "other", LabelCase::kept).error().what ==
        "the Proxmox installer looks for the label PROXMOX-AIS");
}

TEST_CASE("a near miss is named") {
  const auto [name, file, said] = GENERATE(table<std::string, std::string, std::string>({
      {"cidata", "user-data.yaml", "user-data is not a file in the source, user-data.yaml is;"},
      {"cidata", "user_data", "user-data is not a file in the source, user_data is;"},
      {"cidata", "User-Data", "user-data is not a file in the source, User-Data is;"},
      {"oemdrv", "ks.cfg.txt", "ks.cfg is not a file in the source, ks.cfg.txt is;"},
      {"oemdrv", "ks.ks", "ks.cfg is not a file in the source, ks.ks is;"},
      {"proxmox", "answer.tml", "answer.toml is not a file in the source, answer.tml is;"},
      {"autounattend", "unattend.xml",
       "autounattend.xml is not a file in the source, unattend.xml is;"},
      {"config-drive", "openstack/latest/meta-data.json", ", meta-data.json is;"},
      {"cidata", "users",
       "user-data is not a file in the source; cloud-init needs user-data and "
       "meta-data (an empty one will do)"},
      {"oemdrv", "kernel.cfg", "ks.cfg is not a file in the source; Anaconda needs ks.cfg"},
  }));
  CAPTURE(file);
  CHECK_THAT(objection(name, TreeBuilder{}.file(file, "x")), Catch::Contains(said));
}

TEST_CASE("a near miss of a file that may be missing is a remark") {
  const auto [name, file, said] = GENERATE(table<std::string, std::string, std::string>({
      {"cidata", "network-config.yaml",
       "network-config is not a file in the source, network-config.yaml is; cloud-init does not "
       "read that"},
      {"cidata", "vendor_data",
       "vendor-data is not a file in the source, vendor_data is; cloud-init does not read that"},
      {"cidata", "vendor-data", ""},
      {"cidata", "other", ""},
      {"config-drive", "openstack/latest/user_data.txt",
       "openstack/latest/user_data is not a file in the source, user_data.txt is; cloud-init does "
       "not read that"},
      {"config-drive", "openstack/latest/vendor_data2.json", ""},
      {"oemdrv", "network-config.yaml", ""},
  }));
  CAPTURE(file);
  TreeBuilder tree;
  for (const std::string_view needed : preset(name).files) tree.file(std::string(needed), "x");
  const BuiltTree built = tree.file(file, "x").build();
  std::string lines;
  const PlanRequest request{.tree = built.tree,
                            .contents = built.store,
                            .remark = [&](std::string line) { lines += line; }};
  REQUIRE(check_seed(preset(name), request, SeedLinks::kept));
  CHECK(lines == said);
}

TEST_CASE("a file that stands in the root, instead of deep down, is named") {
  CHECK_THAT(objection("config-drive",
                       TreeBuilder{}.directory("openstack/latest").file("meta_data.json", "{}")),
             Catch::Contains(", meta_data.json is;"));
}

TEST_CASE("Windows takes any case") {
  CHECK(objection("autounattend", TreeBuilder{}.file("AutoUnattend.xml", "x")) == "");
  CHECK(objection("oemdrv", TreeBuilder{}.file("KS.CFG", "x")) != "");
}

TEST_CASE("links to files, as in a volume of a ConfigMap, are walked as the program will") {
  const auto volume = [](const std::string& data) {
    return TreeBuilder{}
        .file("..2026/user-data", "x")
        .file("..2026/meta-data", "")
        .symlink("..data", data)
        .symlink("user-data", "..data/user-data")
        .symlink("meta-data", "./..data/../..data/meta-data");
  };
  CHECK(objection("cidata", volume("..2026"), SeedLinks::kept) == "");
  CHECK(objection("cidata", volume("..2026"), SeedLinks::followed) == "");
  CHECK(objection("cidata", volume("..2026"), SeedLinks::lost) ==
        "user-data is a symlink, which the image leaves out");
  CHECK(objection("cidata", volume("/..2026"), SeedLinks::followed) == "");
  for (const char* nowhere : {"/..2026", "../..2026", "..data", "user-data", "none"}) {
    CAPTURE(nowhere);
    CHECK_THAT(objection("cidata", volume(nowhere), SeedLinks::kept),
               Catch::StartsWith("user-data is a link to ") &&
                   Catch::Contains(", which is not a file in the source; cloud-init needs"));
  }
  // As for the kernel, nothing is behind a file, not even what is above it.
  CHECK(objection("oemdrv", TreeBuilder{}.file("x", "").file("ks", "").symlink("ks.cfg", "x/../ks"),
                  SeedLinks::followed) != "");
  const TreeBuilder windows = TreeBuilder{}
                                  .file("x/autounattend.xml", "x")
                                  .symlink("autounattend.xml", "x/autounattend.xml");
  CHECK(objection("autounattend", windows, SeedLinks::followed) == "");
  CHECK(objection("autounattend", windows, SeedLinks::kept) ==
        "autounattend.xml is a symlink, which Windows Setup does not see");
}

}  // namespace mkvirtfs
