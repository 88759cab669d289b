// SPDX-License-Identifier: BSD-3-Clause
//
// A member is a header of 13 numbers in hexadecimal, its name with a NUL, and its bytes; name and
// bytes are padded to multiples of four. The last member has a name of its own.
#include "vm/cpio.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <string>
#include <utility>

namespace mkvirtfs::vm {
namespace {

constexpr std::string_view kTrailer = "TRAILER!!!";
constexpr std::size_t kAlignmentBytes = 4;

}  // namespace

void CpioWriter::pad() {
  while (archive_.size() % kAlignmentBytes != 0) archive_.push_back(std::byte{0});
}

void CpioWriter::add(std::string_view name, std::uint32_t mode, Device device,
                     std::span<const std::byte> bytes) {
  // magic, inode, mode, uid, gid, links, mtime, size, device, its own device, length of the name,
  // checksum
  std::string head = "070701";
  for (const std::size_t number :
       {std::size_t{++last_inode_}, std::size_t{mode}, std::size_t{0}, std::size_t{0},
        std::size_t{1}, std::size_t{0}, bytes.size(), std::size_t{0}, std::size_t{0},
        std::size_t{device.major}, std::size_t{device.minor}, name.size() + 1, std::size_t{0}}) {
    head += fmt::format("{:08X}", number);
  }
  head += name;
  head += '\0';
  const auto raw = std::as_bytes(std::span(head));
  archive_.insert(archive_.end(), raw.begin(), raw.end());
  pad();
  archive_.insert(archive_.end(), bytes.begin(), bytes.end());
  pad();
}

void CpioWriter::add_directory(std::string_view name, std::uint32_t permissions) {
  add(name, S_IFDIR | permissions, {}, {});
}

void CpioWriter::add_file(std::string_view name, std::uint32_t permissions,
                          std::span<const std::byte> bytes) {
  add(name, S_IFREG | permissions, {}, bytes);
}

void CpioWriter::add_character_device(std::string_view name, std::uint32_t permissions,
                                      std::uint32_t major, std::uint32_t minor) {
  add(name, S_IFCHR | permissions, {major, minor}, {});
}

std::vector<std::byte> CpioWriter::finish() && {
  add(kTrailer, 0, {}, {});
  return std::move(archive_);
}

}  // namespace mkvirtfs::vm
