// SPDX-License-Identifier: BSD-3-Clause
// Base manifests (docs/layout-overlay.md): whatever one holds, it is refused with a reason or read
// to its end; what was read is written again as the same entries, and compared with itself has no
// differences.
//
// Input: u8 flags (1: its checksum is put behind it, so that a mutation need not hit it), then the
// bytes of the manifest.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../support/temp_dir.h"
#include "block/overlay/base_manifest.h"
#include "fuzz_require.h"
#include "support/sha256.h"
#include "support/unique_fd.h"

using namespace mkvirtfs;

namespace {

using Bytes = std::span<const std::byte>;

void put_file(const std::string& path, Bytes bytes, Bytes behind) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  FUZZ_REQUIRE(file);
  FUZZ_REQUIRE(::write(file.get(), bytes.data(), bytes.size()) == std::ssize(bytes));
  FUZZ_REQUIRE(::write(file.get(), behind.data(), behind.size()) == std::ssize(behind));
}

/// All entries, and the head; fails when anything is wrong.
Result<std::pair<BaseHead, std::vector<BaseEntry>>> read_all(const std::string& overlay) {
  auto reader = BaseManifestReader::open(overlay);
  if (!reader) return propagate(reader);
  FUZZ_REQUIRE(*reader);
  std::vector<BaseEntry> entries;
  while (true) {
    BaseEntry entry;
    const Result<bool> got = (*reader)->next(entry);
    if (!got) return propagate(got);
    if (!*got) break;
    FUZZ_REQUIRE(entry.source < (*reader)->head().sources.size());
    host_path_of(entry, (*reader)->head().sources[entry.source]);
    entries.push_back(std::move(entry));
  }
  return std::pair((*reader)->head(), std::move(entries));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const TempDir directory(fast_place());
  static const std::string overlay = (directory / "overlay").string();
  static const std::string again = (directory / "again").string();
  const auto input = std::as_bytes(std::span(data, size));
  if (input.empty()) return 0;
  const Bytes bytes = input.subspan(1);
  std::array<std::byte, 32> checksum{};
  const bool has_checksum = (std::to_integer<unsigned>(input[0]) & 1) != 0;
  if (has_checksum) {
    Sha256 sha;
    sha.update(bytes);
    checksum = sha.finish();
  }
  put_file(base_manifest_path(overlay), bytes, has_checksum ? Bytes(checksum) : Bytes());

  const auto read = read_all(overlay);
  if (!read) {
    FUZZ_REQUIRE(!read.error().what.empty());
    return 0;
  }
  const auto& [head, entries] = *read;
  auto writer = BaseManifestWriter::create(again, head);
  FUZZ_REQUIRE(writer);
  for (const BaseEntry& entry : entries) FUZZ_REQUIRE((*writer)->add(entry));
  FUZZ_REQUIRE((*writer)->finish());
  const auto read_again = read_all(again);
  FUZZ_REQUIRE(read_again && read_again->first == head);
  FUZZ_REQUIRE(read_again->second == entries);

  auto one = BaseManifestReader::open(overlay);
  auto other = BaseManifestReader::open(again);
  FUZZ_REQUIRE(one && other);
  std::size_t pairs = 0;
  const Result<void> compared = for_each_pair(
      **one, **other, [&](const BaseEntry* then, const BaseEntry* now) -> Result<void> {
        FUZZ_REQUIRE(then != nullptr && now != nullptr && *then == *now);
        ++pairs;
        return {};
      });
  FUZZ_REQUIRE(compared && pairs == entries.size());
  return 0;
}
