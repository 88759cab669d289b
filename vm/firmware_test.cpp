// SPDX-License-Identifier: BSD-3-Clause
#include "vm/firmware.h"

#include <fmt/format.h>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <vector>

#include "tests/support/temp_dir.h"

namespace mkvirtfs::vm {
namespace {

struct Words {
  std::string interface = "uefi";
  std::string device = "flash";
  std::string architecture = "x86_64";
  std::string machine = "pc-q35-*";
  std::string features{};
  std::string code = "/fw/code.fd";
};

std::string descriptor(const Words& words) {
  return fmt::format(
      R"({{"interface-types": ["{}"], "mapping": {{"device": "{}",
          "executable": {{"filename": "{}", "format": "raw"}},
          "nvram-template": {{"filename": "/fw/vars.fd", "format": "raw"}}}},
          "targets": [{{"architecture": "{}", "machines": ["{}"]}}], "features": [{}]}})",
      words.interface, words.device, words.code, words.architecture, words.machine, words.features);
}

constexpr const char* kSecure = R"("requires-smm", "secure-boot", "enrolled-keys")";

}  // namespace

TEST_CASE("a descriptor is taken for what it describes") {
  const auto plain = read_descriptor(descriptor({}), FirmwareKind::uefi);
  REQUIRE(plain);
  CHECK(plain->code == "/fw/code.fd");
  CHECK(plain->variables == "/fw/vars.fd");
  CHECK_FALSE(plain->is_secure);
  CHECK_FALSE(read_descriptor(descriptor({}), FirmwareKind::uefi_secure));
  const auto secure = read_descriptor(descriptor({.features = kSecure}), FirmwareKind::uefi_secure);
  REQUIRE(secure);
  CHECK(secure->is_secure);
  CHECK_FALSE(read_descriptor(descriptor({.features = kSecure}), FirmwareKind::uefi));
  // Secure Boot without keys starts nothing.
  CHECK_FALSE(
      read_descriptor(descriptor({.features = R"("secure-boot")"}), FirmwareKind::uefi_secure));
}

TEST_CASE("what is for another machine, or nonsense, is passed over") {
  CHECK_FALSE(read_descriptor(descriptor({.interface = "bios"}), FirmwareKind::uefi));
  CHECK_FALSE(read_descriptor(descriptor({.device = "memory"}), FirmwareKind::uefi));
  CHECK_FALSE(read_descriptor(descriptor({.architecture = "aarch64"}), FirmwareKind::uefi));
  CHECK_FALSE(read_descriptor(descriptor({.machine = "pc-i440fx-*"}), FirmwareKind::uefi));
  for (const char* text : {"", "{", "[]", "7", R"({"interface-types": "uefi"})",
                           R"({"interface-types": ["uefi"], "targets": [7]})"}) {
    CHECK_FALSE(read_descriptor(text, FirmwareKind::uefi));
  }
}

TEST_CASE("descriptors are tried by name, and a later directory hides names") {
  const TempDir directory;
  const std::string distribution = directory / "usr";
  const std::string local = directory / "etc";
  std::filesystem::create_directory(distribution);
  std::filesystem::create_directory(local);
  const std::vector<std::string> directories{distribution, local, directory / "missing"};
  CHECK(find_firmware(FirmwareKind::uefi, directories).error().code == Errc::unsupported);
  std::ofstream(distribution + "/50-a.json") << descriptor({.code = "/fw/a.fd"});
  std::ofstream(distribution + "/60-b.json") << descriptor({.code = "/fw/b.fd"});
  std::ofstream(distribution + "/10-no.txt") << descriptor({.code = "/fw/no.fd"});
  CHECK(find_firmware(FirmwareKind::uefi, directories).value().code == "/fw/a.fd");
  std::ofstream(local + "/50-a.json") << "";
  CHECK(find_firmware(FirmwareKind::uefi, directories).value().code == "/fw/b.fd");
}

}  // namespace mkvirtfs::vm
