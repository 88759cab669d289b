// SPDX-License-Identifier: BSD-3-Clause
#include "compose/named_ids.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "fsgen/tree/tree_builder.h"

using namespace mkvirtfs;

TEST_CASE("ids are found in what names file systems, comments and variables aside") {
  using Ids = std::vector<NamedId>;
  CHECK(ids_in("UUID=1234-ABCD /boot vfat defaults 0 2\n") == Ids{{"UUID", "1234-ABCD"}});
  CHECK(ids_in("# UUID=1234-ABCD / ext4\n\t#LABEL=x\n").empty());
  CHECK(ids_in("PARTUUID=\"cafe0001-01\" / ext4\nLABEL=root /x ext4") ==
        Ids{{"PARTUUID", "cafe0001-01"}, {"LABEL", "root"}});
  CHECK(ids_in("APPEND root=PARTUUID=cafe0001-02,ro quiet") == Ids{{"PARTUUID", "cafe0001-02"}});
  CHECK(ids_in("options root=PARTLABEL=root rw") == Ids{{"PARTLABEL", "root"}});
  CHECK(ids_in("linux /vmlinuz root=UUID=$uuid").empty());
  CHECK(ids_in("MYUUID=1 NOLABEL=2").empty());
  CHECK(
      ids_in("  search --no-floppy --fs-uuid --set=root 0a1b2c3d-0000-4000-8000-000000000001\n") ==
      Ids{{"UUID", "0a1b2c3d-0000-4000-8000-000000000001"}});
  CHECK(ids_in("UUID=").empty());
}

TEST_CASE("a file that names what no volume has is remarked on once, with what is there") {
  const BuiltTree root =
      TreeBuilder()
          .file("etc/fstab", "UUID=aaaa-bbbb / ext4\nLABEL=data /data ext4\nUUID=12 /x ext4\n")
          .file("loader/entries/a.conf", "options root=PARTUUID=CAFE0001-02\n")
          .file("boot/grub/grub.cfg", "linux /k root=UUID=aaaa-bbbb\n")
          .build();
  Resources resources;
  Remarks remarks(resources);
  remark_on_named_ids({{.what = "partition 1", .uuid = "bbbb", .partuuid = "cafe0001-01"},
                       {.what = "partition 2",
                        .tree = root.tree,
                        .contents = root.store,
                        .uuid = "cccc",
                        .partuuid = "cafe0001-02"}},
                      {}, remarks);
  const std::vector<Remark> said = remarks.take();
  REQUIRE(said.size() == 3);
  CHECK(said[0].what ==
        "/etc/fstab names UUID=aaaa-bbbb, and nothing here has that: partition 1 has bbbb, "
        "partition 2 "
        "has cccc");
  REQUIRE(said[0].hints.size() == 1);
  CHECK(said[0].hints.front().option == "uuid");
  CHECK(said[0].hints.front().value == "aaaa-bbbb");
  CHECK(said[1].what == "/etc/fstab names LABEL=data, and nothing here has that");
  CHECK(said[2].hints.empty());  // no format takes 12
}

TEST_CASE("a hint is an option of a partition where there are some, and of what only they have") {
  const BuiltTree root = TreeBuilder()
                             .file("etc/fstab",
                                   "UUID=0a1b2c3d-0000-4000-8000-000000000001 / ext4\n"
                                   "LABEL=data /data ext4\n"
                                   "PARTLABEL=home /home ext4\n"
                                   "PARTUUID=0a1b2c3d-0000-4000-8000-000000000002 /x ext4\n"
                                   "PARTUUID=cafe0001-02 /y ext4\n")
                             .build();
  Resources resources;
  const auto hints = [&](bool has_partitions) {
    Remarks remarks(resources);
    remark_on_named_ids({{.tree = root.tree, .contents = root.store}},
                        {.has_partitions = has_partitions}, remarks);
    std::string text;
    for (const Remark& each : remarks.take()) {
      for (const Setting& hint : each.hints) text += hint.option + "=" + hint.value + " ";
    }
    return text;
  };
  const std::string of_partitions =
      "partition=SOURCE,name=home "
      "partition=SOURCE,partuuid=0a1b2c3d-0000-4000-8000-000000000002 disk-id=cafe0001 ";
  CHECK(hints(false) == "uuid=0a1b2c3d-0000-4000-8000-000000000001 label=data " + of_partitions);
  CHECK(hints(true) ==
        "partition=SOURCE,uuid=0a1b2c3d-0000-4000-8000-000000000001 "
        "partition=SOURCE,label=data " +
            of_partitions);
}

TEST_CASE("what is not looked at for ids is said") {
  const BuiltTree root = TreeBuilder()
                             .file("etc/fstab", "LABEL=data /data ext4\n")
                             .patterned_file("boot/grub/grub.cfg", (1u << 20) + 1)
                             .build();
  Resources resources;
  Remarks remarks(resources);
  remark_on_named_ids({{.what = "partition 1", .tree = root.tree, .contents = root.store}},
                      {.unknown = "partition 2"}, remarks);
  const std::vector<Remark> said = remarks.take();
  REQUIRE(said.size() == 2);
  CHECK(said[0].what ==
        "/etc/fstab names LABEL=data, and nothing here has that, unless it is in a ready image, "
        "which is not looked at (partition 2)");
  CHECK(said[0].level == LogLevel::info);
  CHECK(said[1].what ==
        "/boot/grub/grub.cfg is not looked at for ids of file systems: it has more than 1048576 "
        "bytes");
}
