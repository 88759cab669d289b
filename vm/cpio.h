// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace mkvirtfs::vm {

/// Makes an archive as a kernel unpacks it for its initrd (cpio, "newc": Documentation/driver-api/
/// early-userspace/buffer-format.rst). Everything is root's, of 1970. Names have no '/' in front,
/// and stand behind their directories. One thread.
class CpioWriter {
 public:
  void add_directory(std::string_view name, std::uint32_t permissions);
  void add_file(std::string_view name, std::uint32_t permissions, std::span<const std::byte> bytes);
  void add_character_device(std::string_view name, std::uint32_t permissions, std::uint32_t major,
                            std::uint32_t minor);
  std::vector<std::byte> finish() &&;

 private:
  struct Device {
    std::uint32_t major = 0;
    std::uint32_t minor = 0;
  };
  void add(std::string_view name, std::uint32_t mode, Device device,
           std::span<const std::byte> bytes);
  void pad();

  std::vector<std::byte> archive_;
  std::uint32_t last_inode_ = 0;
};

}  // namespace mkvirtfs::vm
