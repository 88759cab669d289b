// SPDX-License-Identifier: BSD-3-Clause
#include "vm/firmware.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "support/file_bytes.h"
#include "support/unique_fd.h"

namespace mkvirtfs::vm {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMostDescriptorBytes = 1 << 20;
constexpr std::string_view kArchitecture = "x86_64";
constexpr std::string_view kMachine = "pc-q35-";

/// The member of an object, or null.
const Json& member(const Json& object, const char* name) {
  static const Json kNone;
  if (!object.is_object()) return kNone;
  const auto found = object.find(name);
  return found == object.end() ? kNone : *found;
}

std::string text(const Json& object, const char* name) {
  const Json& value = member(object, name);
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool has_text(const Json& list, std::string_view wanted) {
  return list.is_array() && std::ranges::any_of(list, [&](const Json& each) {
           return each.is_string() && each.get<std::string>() == wanted;
         });
}

bool is_for_q35(const Json& targets) {
  return targets.is_array() && std::ranges::any_of(targets, [](const Json& target) {
           if (text(target, "architecture") != kArchitecture) return false;
           const Json& machines = member(target, "machines");
           return machines.is_array() && std::ranges::any_of(machines, [](const Json& machine) {
                    return machine.is_string() && machine.get<std::string>().starts_with(kMachine);
                  });
         });
}

std::string read_text(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  const auto bytes = file ? read_all(file.get(), kMostDescriptorBytes) : std::nullopt;
  if (!bytes) return {};
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}

/// name -> path, where a later directory has the last word.
std::map<std::string, std::string> list_descriptors(std::span<const std::string> directories) {
  std::map<std::string, std::string> descriptors;
  for (const std::string& directory : directories) {
    std::error_code failure;
    for (std::filesystem::directory_iterator at(directory, failure), end; !failure && at != end;
         at.increment(failure)) {
      if (at->path().extension() != ".json") continue;
      descriptors[at->path().filename().string()] = at->path().string();
    }
  }
  return descriptors;
}

}  // namespace

std::optional<UefiFirmware> read_descriptor(std::string_view json, FirmwareKind kind) {
  const Json descriptor = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!has_text(member(descriptor, "interface-types"), "uefi")) return std::nullopt;
  if (!is_for_q35(member(descriptor, "targets"))) return std::nullopt;
  const Json& mapping = member(descriptor, "mapping");
  const Json& code = member(mapping, "executable");
  const Json& variables = member(mapping, "nvram-template");
  if (text(mapping, "device") != "flash" || text(code, "format") != "raw" ||
      text(variables, "format") != "raw") {
    return std::nullopt;
  }
  const Json& features = member(descriptor, "features");
  const bool is_secure = has_text(features, "secure-boot");
  const bool wants_secure = kind == FirmwareKind::uefi_secure;
  if (is_secure != wants_secure || has_text(features, "enrolled-keys") != wants_secure) {
    return std::nullopt;
  }
  return UefiFirmware{text(code, "filename"), text(variables, "filename"), is_secure};
}

Result<UefiFirmware> find_firmware(FirmwareKind kind, std::span<const std::string> directories) {
  for (const auto& [name, path] : list_descriptors(directories)) {
    if (std::optional<UefiFirmware> found = read_descriptor(read_text(path), kind)) return *found;
  }
  const bool is_secure = kind == FirmwareKind::uefi_secure;
  return fail(Errc::unsupported,
              fmt::format("no firmware for UEFI{} is described in {} (package ovmf)",
                          is_secure ? " with Secure Boot and Microsoft's keys" : "",
                          fmt::join(directories, ", ")));
}

}  // namespace mkvirtfs::vm
