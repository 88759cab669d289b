// SPDX-License-Identifier: BSD-3-Clause
#include "bootsect/boot_loader.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;

namespace {

const std::vector<std::string> kFormats{"fat12", "fat16", "fat32", "ext2",
                                        "ext3",  "ext4",  "iso",   "erofs"};
const std::vector<std::string> kTables{"none", "mbr", "gpt", "hybrid"};

std::vector<std::string> split(const std::string& text, const std::string& by) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(by, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + by.size();
  }
  return parts;
}

/// A hybrid is a GPT to loaders, and in an ISO image a table of its own.
std::optional<TableKind> table_of(const std::string& name, const std::string& format) {
  if (name == "none" || (name == "hybrid" && format == "iso")) return std::nullopt;
  return name == "mbr" ? TableKind::mbr : TableKind::gpt;
}

/// The cells of the table of docs/booting.md that has this head, row by row.
std::vector<std::vector<std::string>> documented_table(const std::string& head) {
  std::vector<std::vector<std::string>> rows;
  std::ifstream file(MKVIRTFS_BOOTING_DOCUMENT);
  REQUIRE(file);
  bool is_table = false;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("|")) is_table = false;
    if (is_table && !line.starts_with("|---")) {
      rows.push_back(split(line.substr(2, line.size() - 4), " | "));
    }
    if (line.starts_with(head)) is_table = true;
  }
  return rows;
}

/// A row says "works", or "refused: " and what the error says.
void check_documented(const std::string& row, const Result<void>& checked) {
  if (checked) {
    CHECK(row == "works");
    return;
  }
  REQUIRE(row.starts_with("refused: "));
  CHECK(checked.error().what.find(row.substr(9)) != std::string::npos);
}

/// What docs/booting.md says of each loader, format and table.
std::map<std::string, std::string> documented() {
  std::map<std::string, std::string> rows;
  for (const std::vector<std::string>& cells : documented_table("| loader | format |")) {
    REQUIRE(cells.size() == 4);
    for (const std::string& format : split(cells[1], ", ")) {
      for (const std::string& table : split(cells[2], ", ")) {
        const bool is_new = rows.emplace(cells[0] + " " + format + " " + table, cells[3]).second;
        INFO(cells[0]);
        CHECK(is_new);
      }
    }
  }
  return rows;
}

}  // namespace

TEST_CASE("each pair of loader, format and table is documented, and as it is") {
  const auto rows = documented();
  CHECK(rows.size() == boot_loaders().size() * kFormats.size() * kTables.size());
  for (const BootLoader& loader : boot_loaders()) {
    for (const std::string& format : kFormats) {
      for (const std::string& table : kTables) {
        const std::string key = std::string(loader.name) + " " + format + " " + table;
        INFO(key);
        const auto row = rows.find(key);
        REQUIRE(row != rows.end());
        check_documented(row->second,
                         loader.check({.format = format, .table = table_of(table, format)}));
      }
    }
  }
}

TEST_CASE("each pair of loaders is documented, and as it is") {
  auto rows = documented_table("| loaders | |");
  const auto loaders = boot_loaders();
  for (std::size_t one = 0; one < loaders.size(); ++one) {
    for (std::size_t other = one + 1; other < loaders.size(); ++other) {
      const std::string pair = fmt::format("{}, {}", loaders[one].name, loaders[other].name);
      INFO(pair);
      const auto row = std::ranges::find(rows, pair, [](const auto& cells) { return cells[0]; });
      REQUIRE(row != rows.end());
      REQUIRE(row->size() == 2);
      check_documented((*row)[1], check_pair(loaders[one], loaders[other]));
      CHECK(check_pair(loaders[one], loaders[other]).has_value() ==
            check_pair(loaders[other], loaders[one]).has_value());
      rows.erase(row);
    }
    CHECK(!check_pair(loaders[one], loaders[one]));
  }
  CHECK(rows.empty());
}

TEST_CASE("a BIOS starts no loader from sectors of 4096 bytes, and UEFI all") {
  for (const BootLoader& loader : boot_loaders()) {
    for (const std::string& format : kFormats) {
      const bool starts = loader.efi != EfiStart::none && format.starts_with("fat");
      CHECK(loader.check({.format = format, .table = TableKind::gpt, .sector_bytes = 4096})
                .has_value() == starts);
    }
  }
}

TEST_CASE("a made configuration of SYSLINUX names what it boots") {
  const BootLoader* const loader = find_boot_loader("syslinux");
  REQUIRE(loader != nullptr);
  CHECK(loader->config({.kernel = "boot/vmlinuz-6.1",
                        .initrds = {"ucode.img", "boot/initrd.img-6.1"},
                        .append = "root=PARTUUID=cafe0001-01 quiet",
                        .timeout_s = 5}) ==
        "SERIAL 0 115200\n"
        "PROMPT 1\n"
        "TIMEOUT 50\n"
        "DEFAULT linux\n"
        "LABEL linux\n"
        "  LINUX /boot/vmlinuz-6.1\n"
        "  INITRD /ucode.img,/boot/initrd.img-6.1\n"
        "  APPEND root=PARTUUID=cafe0001-01 quiet\n");
  CHECK(loader->config({.kernel = "vmlinuz"}) ==
        "SERIAL 0 115200\nDEFAULT linux\nLABEL linux\n  LINUX /vmlinuz\n");
}

TEST_CASE("a made configuration of GRUB quotes what it names") {
  const BootLoader* const loader = find_boot_loader("grub");
  REQUIRE(loader != nullptr);
  CHECK(loader->config({.kernel = "boot/vmlinuz-6.1",
                        .initrds = {"ucode.img", "it's.img"},
                        .append = "root=PARTUUID=cafe0001-01  dyndbg=\"file a.c +p\" x;y",
                        .timeout_s = 5}) ==
        "if serial -u 0 -s 115200; then\n"
        "  terminal_input console serial\n"
        "  terminal_output console serial\n"
        "fi\n"
        "set default=0\n"
        "set timeout=5\n"
        "menuentry 'linux' {\n"
        "  linux '/boot/vmlinuz-6.1' 'root=PARTUUID=cafe0001-01' 'dyndbg=file a.c +p' 'x;y'\n"
        "  initrd '/ucode.img' '/it'\\''s.img'\n"
        "}\n");
  CHECK(loader->config({.kernel = "vmlinuz"})
            .ends_with("set timeout=0\nmenuentry 'linux' {\n  linux '/vmlinuz'\n}\n"));
}

TEST_CASE(
    "GRUB's shell takes any word of a made configuration, and what GRUB would change is refused") {
  const BootLoader* const loader = find_boot_loader("grub");
  REQUIRE(loader != nullptr);
  const TempDir work;
  const auto script_check = [&](const BootEntry& entry) {
    write_file(work / "grub.cfg", loader->config(entry));
    const Ran ran = run_tool({"grub-script-check", (work / "grub.cfg").string()});
    INFO(ran.output);
    CHECK(ran.status == 0);
  };
  script_check({.kernel = "boot/it's \\ a $kernel\"; {}",
                .initrds = {"'", "a b", "$(x)`y`"},
                .append = "a=$b c;d {e} #f * & | < > ! g=\"h i\" \"j k\" l=\"\""});
  CHECK(loader->config({.kernel = "k", .append = "g=\"h i\" \"j k\""})
            .ends_with("linux '/k' 'g=h i' 'j k'\n}\n"));
  CHECK(loader->check_append("a=$b c;d  #f g=\"h i\" \"j k\" l=\"\" m=n=o"));
  for (const char* const changed :
       {"it's", "a\\b", "a\"b c\"", "x=\"a b\"c", "x=\"y", "\"a\"b\"\"", "x=y=\"z\""}) {
    INFO(changed);
    const Result<void> checked = loader->check_append(fmt::format("quiet {} splash", changed));
    REQUIRE(!checked);
    CHECK(checked.error().what.find("GRUB would give the kernel") == 0);
  }
}

TEST_CASE("a made configuration of systemd-boot is an entry, and what starts it") {
  const BootLoader* const loader = find_boot_loader("systemd-boot");
  REQUIRE(loader != nullptr);
  const BootEntry entry{.kernel = "boot/vmlinuz-6.1",
                        .version = "6.1",
                        .initrds = {"ucode.img", "boot/initrd.img-6.1"},
                        .append = "root=PARTUUID=cafe0001-01 quiet",
                        .timeout_s = 5};
  CHECK(loader->config(entry) ==
        "title Linux 6.1\n"
        "version 6.1\n"
        "linux /boot/vmlinuz-6.1\n"
        "initrd /ucode.img\n"
        "initrd /boot/initrd.img-6.1\n"
        "options root=PARTUUID=cafe0001-01 quiet\n");
  CHECK(loader->settings(entry) == "default linux.conf\ntimeout 5\n");
}

TEST_CASE("GRUB asks for a core.img that finds its configuration in its partition") {
  const BootLoader* const loader = find_boot_loader("grub");
  REQUIRE(loader != nullptr);
  CHECK(loader->pieces({.format = "ext4", .table = TableKind::gpt, .partition = 3}) ==
        std::vector<PieceRequest>{{"boot.img", ""}, {"core.img", "(,gpt3)/boot/grub"}});
  CHECK(loader->pieces({.format = "ext4", .table = TableKind::mbr, .partition = 5}) ==
        std::vector<PieceRequest>{{"boot.img", ""}, {"core.img", "(,msdos5)/boot/grub"}});
}
