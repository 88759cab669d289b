// SPDX-License-Identifier: BSD-3-Clause
// Where images say that things stand, and patches that are put there: compared with what tools find
// that know the formats and not us.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "block/dump.h"
#include "fsgen/image/patched_image.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/planners/any_format.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using Kind = DataPlacement::Kind;

namespace {

constexpr std::uint64_t kLoaderBytes = 300'001;

BuiltTree source() {
  TreeBuilder builder;
  builder.patterned_file("boot/loader", kLoaderBytes);
  builder.patterned_file("boot/small", 7);
  builder.hard_link("again", "boot/loader");
  builder.file("empty", "");
  builder.symlink("fast", "boot/loader").symlink("slow", std::string(100, 's'));
  builder.sparse_file("sparse", 400'000, {{8192, 4096}, {262'144, 5000}, {399'000, 1000}});
  builder.sparse_file("hole", 100'000, {});
  for (int i = 0; i < 400; ++i) {
    builder.file(fmt::format("boot/many/a name of some length, {:03}", i), "");
  }
  return builder.build();
}

std::string dumped(const std::shared_ptr<const Image>& image, const BuiltTree& built,
                   const TempDir& directory) {
  ImageDevice device(image, built.store);
  const std::string path = (directory / "image").string();
  DumpOptions options;
  options.output = DumpFile{path, /*overwrite=*/true};
  const auto done = dump(device, options);
  if (!done) FAIL(done.error().what);
  return path;
}

/// The first number behind `word` in `text`.
std::uint64_t number_behind(std::string_view text, std::string_view word) {
  const std::size_t at = text.find(word);
  INFO(text);
  if (at == text.npos) FAIL("no \"" << word << "\"");
  text.remove_prefix(at + word.size());
  const std::size_t digit = text.find_first_of("0123456789");
  std::uint64_t number = 0;
  std::from_chars(text.data() + std::min(digit, text.size()), text.data() + text.size(), number);
  return number;
}

/// What stands where a placement says, holes as zeroes.
std::string bytes_placed(const std::string& image, const DataPlacement& placement) {
  std::string bytes(placement.size_bytes, '\0');
  for (const DataPlacement::Run& run : placement.runs) {
    bytes.replace(run.data_offset, run.range.length,
                  image.substr(run.range.offset, run.range.length));
  }
  return bytes;
}

std::string bytes_of(const BuiltTree& built, std::string_view path) {
  const NodeNo no = *find_node(*built.tree, path);
  std::string bytes(built.tree->node(no).size_bytes, '\0');
  REQUIRE(built.store->read(content_no(no), 0, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

void require_judged(const testing::AnyFormat& format, const std::string& path) {
  const Ran judged = run_tool(format.judge(path));
  INFO(judged.output);
  REQUIRE(judged.status == 0);
}

// What each format's tools find, as offsets in the image. A block of no number is a hole.

std::optional<std::uint64_t> by_debugfs(const std::string& path, const std::string& file,
                                        std::uint64_t offset, std::uint64_t block_bytes) {
  const std::string command = fmt::format("bmap {} {}", file, offset / block_bytes);
  const std::string said = run_tool({"debugfs", "-R", command, path}).output;
  const std::uint64_t block = number_behind(said.substr(said.find('\n')), "");
  if (block == 0) return std::nullopt;
  return block * block_bytes + offset % block_bytes;
}

std::uint64_t by_mtools(const std::string& path, const std::string& file, const std::string& fsck) {
  // "::/boot/loader <5-151>": one chain.
  const std::string said = run_tool({"mshowfat", "-i", path, "::/" + file}).output;
  CHECK(std::ranges::count(said, '<') == 1);
  return number_behind(fsck, "Data area starts at byte") +
         (number_behind(said, "<") - 2) *
             number_behind(fsck.substr(fsck.find("per logical sector")), "sector");
}

std::uint64_t by_xorriso(const std::string& path, const std::string& file) {
  const std::string said =
      run_tool({"xorriso", "-indev", "stdio:" + path, "-find", "/" + file, "-exec", "report_lba"})
          .output;
  return number_behind(said, "File data lba:  0 ,") * 2048;
}

}  // namespace

TEST_CASE("the bytes of files stand where every format says") {
  const BuiltTree built = source();
  const TempDir directory;
  for (const testing::AnyFormat& format : testing::all_formats()) {
    CAPTURE(format.name);
    const auto image = format.planned(built.tree);
    const std::string path = dumped(image, built, directory);
    require_judged(format, path);
    const std::string bytes = read_file(path);
    for (const std::string name : {"boot/loader", "boot/small", "again", "sparse"}) {
      CAPTURE(name);
      const DataPlacement placed = image->data_at(name);
      CHECK(placed.kind == Kind::stored);
      CHECK(bytes_placed(bytes, placed) == bytes_of(built, name));
    }
    CHECK(image->data_of(*find_node(*built.tree, "boot/small")).runs ==
          image->data_at("boot/small").runs);
    CHECK(image->data_at("empty").kind == Kind::no_bytes);
    CHECK(image->data_at("no/such/file").kind == Kind::absent);
    CHECK(image->data_at("boot/loader/below").kind == Kind::absent);
    // Short directories may stand in their inodes.
    for (const std::string name : {"", "boot", "boot/many"}) {
      CHECK(!image->data_at(name).runs.empty());
    }
    CHECK(image->data_at("boot/many").kind == Kind::stored);
    // A structure of the image has a place inside it, and an unknown one has none.
    for (const std::string_view name : image->structure_names()) {
      CAPTURE(name);
      for (const Range& range : image->structure(name)) {
        CHECK(range.length != 0);
        CHECK(range.end() <= image->size_bytes());
      }
      CHECK(image->structure(name, ~std::uint64_t{0}).empty());
    }
    CHECK(image->structure("no such structure").empty());
    CHECK(image->structure(structures::kBootArea).front().offset == 0);
    CHECK(image->structure(structures::kVolume).front().offset == 0);
  }
}

TEST_CASE("ext: places as debugfs and dumpe2fs have them") {
  const BuiltTree built = source();
  const TempDir directory;
  for (const auto& [variant, block] :
       {std::pair(ext2::Variant::ext2, 1024u), std::pair(ext2::Variant::ext3, 2048u),
        std::pair(ext2::Variant::ext4, 1024u), std::pair(ext2::Variant::ext4, 4096u)}) {
    CAPTURE(block);
    const testing::AnyFormat format = testing::ext_format(variant, block);
    const auto image = format.planned(built.tree);
    const std::string path = dumped(image, built, directory);
    for (const std::string name : {"boot/loader", "sparse", "slow", "boot/many", "lost+found"}) {
      const DataPlacement placed = image->data_at(name);
      for (std::uint64_t at = 0; at < placed.size_bytes; at += 17 * block) {
        CAPTURE(name, at);
        CHECK(placed.find(at) == by_debugfs(path, "/" + name, at, block));
      }
    }
    CHECK(image->data_at("hole").kind == Kind::hole);
    CHECK(image->data_at("sparse").runs.size() == 3);
    const DataPlacement fast = image->data_at("fast");
    CHECK(fast.kind == Kind::embedded);
    CHECK(bytes_placed(read_file(path), fast) == "boot/loader");
    const std::string imap = run_tool({"debugfs", "-R", "imap /fast", path}).output;
    const std::uint64_t number = number_behind(imap, "Inode");
    const std::size_t offset = imap.find("offset 0x") + 9;
    const std::vector<Range> inode = image->structure("inode", number);
    REQUIRE(inode.size() == 1);
    CHECK(inode.front().offset == number_behind(imap, "located at block") * block +
                                      std::stoul(imap.substr(offset), nullptr, 16));

    if (variant != ext2::Variant::ext2) {
      const std::vector<Range> journal = image->structure("journal");
      std::uint64_t done = 0;
      for (const Range& range : journal) {
        CHECK(range.offset == by_debugfs(path, "<8>", done, block));
        done += range.length;
      }
      CHECK(done != 0);
    }

    const std::string groups = run_tool({"dumpe2fs", path}).output;
    std::uint64_t copies = 0;
    for (std::uint64_t group = 0;; ++group) {
      const std::size_t at = groups.find(fmt::format("\nGroup {}:", group));
      if (at == groups.npos) {
        CHECK(group > 0);
        CHECK(image->structure("block_bitmap", group).empty());
        break;
      }
      CAPTURE(group);
      const std::string text = groups.substr(at + 1, groups.find("\nGroup ", at + 1) - at - 1);
      const auto first = [&](std::string_view name) {
        return image->structure(name, group).at(0).offset;
      };
      CHECK(first("block_bitmap") == number_behind(text, "Block bitmap at") * block);
      CHECK(first("inode_bitmap") == number_behind(text, "Inode bitmap at") * block);
      CHECK(first("inode_table") == number_behind(text, "Inode table at") * block);
      const bool has_copy = text.find("superblock at") != text.npos;
      CHECK(image->structure("superblock", group).empty() != has_copy);
      CHECK(image->structure("group_descriptors", group).empty() != has_copy);
      if (!has_copy) continue;
      ++copies;
      CHECK(first("group_descriptors") == number_behind(text, "Group descriptors at") * block);
      CHECK(first("superblock") ==
            std::max<std::uint64_t>(number_behind(text, "superblock at") * block, 1024));
    }
    CHECK(copies > 0);
    CHECK(image->structure(structures::kBootArea) == std::vector<Range>{{0, 1024}});
  }
}

TEST_CASE("FAT: places as mtools and fsck.fat have them") {
  const BuiltTree built = source();
  const TempDir directory;
  for (const auto width : {fat32::Width::fat12, fat32::Width::fat16, fat32::Width::fat32}) {
    const testing::AnyFormat format = testing::fat_format(width);
    CAPTURE(format.name);
    const auto image = format.planned(built.tree);
    const std::string path = dumped(image, built, directory);
    const std::string fsck = run_tool({"fsck.fat", "-nv", path}).output;
    for (const std::string name : {"boot/loader", "boot/small", "again", "boot/many", "sparse"}) {
      CAPTURE(name);
      CHECK(image->data_at(name).find(0) == by_mtools(path, name, fsck));
    }
    // Hard links are files of their own here, and symlinks are not.
    CHECK(image->data_at("boot/loader").runs != image->data_at("again").runs);
    CHECK(image->data_at("fast").kind == Kind::absent);

    const std::uint64_t first_fat = number_behind(fsck, "First FAT starts at byte");
    const std::size_t bytes_per_fat = fsck.find(" bytes per FAT");
    const std::size_t line = fsck.rfind('\n', bytes_per_fat);
    const std::uint64_t fat_bytes = number_behind(fsck.substr(line, bytes_per_fat - line), "\n");
    CHECK(image->structure("fat", 0) == std::vector<Range>{{first_fat, fat_bytes}});
    CHECK(image->structure("fat", 1) == std::vector<Range>{{first_fat + fat_bytes, fat_bytes}});
    CHECK(image->structure(structures::kBootArea) == std::vector<Range>{{0, first_fat}});
    CHECK(image->structure("boot_sector", 0) == std::vector<Range>{{0, 512}});
    const std::vector<Range> root = image->structure("root_directory");
    REQUIRE(root.size() == 1);
    if (width == fat32::Width::fat32) {
      CHECK(root.front().offset == by_mtools(path, "", fsck));
      CHECK(image->structure("boot_sector", 1) == std::vector<Range>{{6 * 512, 512}});
      CHECK(image->structure("fsinfo", 1) == std::vector<Range>{{7 * 512, 512}});
    } else {
      CHECK(root.front().offset == number_behind(fsck, "Root directory starts at byte"));
      CHECK(image->structure("fsinfo").empty());
    }
  }
}

TEST_CASE("ISO 9660: places as xorriso and isoinfo have them") {
  const BuiltTree built = source();
  const TempDir directory;
  const auto image = testing::iso_format().planned(built.tree);
  const std::string path = dumped(image, built, directory);
  for (const std::string name : {"boot/loader", "boot/small", "sparse", "hole"}) {
    CAPTURE(name);
    CHECK(image->data_at(name).find(0) == by_xorriso(path, name));
  }
  CHECK(image->data_at("boot/loader").runs == image->data_at("again").runs);
  CHECK(image->data_at("fast").kind == Kind::embedded);
  CHECK(image->data_at("fast").runs.empty());
  // "drwxr-xr-x 3 0 0 53248 Nov 29 2026 [     25 02]  many"
  const std::string listed = run_tool({"isoinfo", "-l", "-R", "-i", path}).output;
  const std::size_t many = listed.find("]  many");
  const std::uint64_t block = number_behind(listed.substr(listed.rfind('[', many)), "[");
  CHECK(image->data_at("boot/many").find(0) == block * 2048);

  const std::string volume = run_tool({"isoinfo", "-d", "-i", path}).output;
  CHECK(image->structure("boot_catalogue").at(0).offset ==
        number_behind(volume, "boot catalog is in sector") * 2048);
  CHECK(image->structure(structures::kVolume) ==
        std::vector<Range>{{0, number_behind(volume, "Volume size is:") * 2048}});
  CHECK(image->structure("path_table", 3).size() == 1);
  CHECK(image->structure("path_table", 4).empty());
  CHECK(image->structure("primary_volume_descriptor") == std::vector<Range>{{16 * 2048, 2048}});
}

TEST_CASE("patches change what they should in every format, and nothing else") {
  const BuiltTree built = source();
  const TempDir directory;
  for (const testing::AnyFormat& format : testing::all_formats()) {
    CAPTURE(format.name);
    const auto image = format.planned(built.tree);
    const std::string before = read_file(dumped(image, built, directory));

    // What a boot loader's installer does: code in the boot area, the loader's own address in it.
    const DataPlacement loader = image->data_at("boot/loader");
    std::vector<Patch> patches;
    const auto patch = [&](std::uint64_t offset, std::string_view text, std::string what) {
      const auto bytes = std::as_bytes(std::span(text));
      patches.push_back({offset, {bytes.begin(), bytes.end()}, std::move(what)});
    };
    const std::string code(300, 'c');
    const std::vector<Range> sectors = image->structure("boot_sector");
    for (std::uint64_t copy = 0; !sectors.empty(); ++copy) {
      const std::vector<Range> sector = image->structure("boot_sector", copy);
      if (sector.empty()) break;
      patch(sector.front().offset + 0x5A, code, "boot code");  // behind FAT32's BPB
    }
    if (sectors.empty()) patch(0, code, "boot code");
    const std::string address = fmt::format("loader at {}", *loader.find(0));
    patch(*loader.find(1234), address, "address");
    patch(*loader.find(kLoaderBytes - 1), "!", "the last byte");

    const auto changed = patched(image, patches);
    REQUIRE(changed);
    const std::string path = dumped(*changed, built, directory);
    std::string want = before;
    for (const Patch& each : patches) {
      want.replace(
          each.offset, each.bytes.size(),
          std::string_view(reinterpret_cast<const char*>(each.bytes.data()), each.bytes.size()));
    }
    REQUIRE(read_file(path) == want);
    require_judged(format, path);

    std::string loaded = bytes_of(built, "boot/loader");
    loaded.replace(1234, address.size(), address);
    loaded.back() = '!';
    const std::string seen = run_tool(format.cat(path, "boot/loader")).output;
    CHECK((seen.ends_with(loaded)));  // debugfs has a line of its own before
    const std::string small = run_tool(format.cat(path, "boot/small")).output;
    CHECK((small.ends_with(bytes_of(built, "boot/small"))));

    CHECK((*changed)->describe(*loader.find(1234)) == "patch: address, at 0");
    CHECK((*changed)->data_at("boot/loader").runs == loader.runs);
    CHECK((*changed)->volume_id() == image->volume_id());
    std::uint64_t memory_bytes = 0;
    for_each_extent(**changed, {0, image->size_bytes()}, [&](const Extent& extent) {
      if (extent.kind == ExtentKind::memory) memory_bytes += extent.length;
      return true;
    });
    std::uint64_t patch_bytes = 0;
    for (const Patch& each : patches) patch_bytes += each.bytes.size();
    CHECK(memory_bytes == patch_bytes);
  }
}
