// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <fmt/format.h>

#include <memory>
#include <vector>

#include "block/testing/extent_device.h"
#include "block/testing/memory_device.h"
#include "exports/export_tree.h"

// What the NBD fuzz targets serve: small devices that have everything a map can say.

namespace mkvirtfs::nbd::testing {

/// Fails every read of its second half.
class HalfBrokenStore final : public MemoryStore {
 public:
  explicit HalfBrokenStore(std::uint64_t good_bytes) : good_bytes_(good_bytes) {}
  Result<void> read(ContentNo, std::uint64_t offset, std::span<std::byte> out) override {
    if (offset + out.size() > good_bytes_) return fail(Errc::source_changed, "a\nfile changed");
    std::ranges::fill(out, std::byte{0x5a});
    return {};
  }
  Result<Pin> pin(ContentNo) override { return Pin{}; }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo) const override { return "a\nfile"; }

 private:
  std::uint64_t good_bytes_;
};

/// A file of pattern bytes that needs no name.
inline std::shared_ptr<FileStore> pattern_file(std::size_t size) {
  const int fd = ::memfd_create("nbd-fuzz", MFD_CLOEXEC);  // kept for the life of the process
  const auto bytes = pattern_bytes(size);
  if (::pwrite(fd, bytes.data(), size, 0) != static_cast<ssize_t>(size)) std::abort();
  return std::make_shared<FileStore>(fmt::format("/proc/self/fd/{}", fd));
}

/// Where "mixed" cannot be read, for the targets that check errors.
inline constexpr Range kBrokenRange{400'000, 4096};

inline std::shared_ptr<ExtentDevice> mixed_device() {
  const auto file = pattern_file(200'000);
  auto device = std::make_shared<ExtentDevice>();
  device->computed(1000)
      .hole(3096)
      .memory(pattern_bytes(70'000))
      .hole(20'000)
      .content(file, {}, 7, 100);
  device->hole(412).content(file, {}, 0, 200'000).computed(105'392 - 4096);
  device->content(std::make_shared<HalfBrokenStore>(4096), {}, 0, 8192);
  for (int i = 0; i < 200; ++i) device->computed(512).hole(4096 + 512);
  device->hole(777);
  return device;
}

inline std::shared_ptr<ExportTree> fuzz_exports() {
  std::vector<Export> exports;
  exports.push_back({"mixed", "everything a map can say", mixed_device()});
  exports.push_back({"dir/a", "", std::make_shared<MemoryDevice>(pattern_bytes(5000))});
  exports.push_back({"dir/b/c", "deep", std::make_shared<MemoryDevice>(std::vector<std::byte>())});
  return *make_fixed_exports(exports);
}

}  // namespace mkvirtfs::nbd::testing
