// SPDX-License-Identifier: BSD-3-Clause
// manifest DIR: prints everything that a file system promises to keep about the tree below DIR, one
// line an entry, in an order that does not depend on the file system. Two trees are equal when the
// outputs are. It is linked statically, so that the same program runs in a virtual machine that
// holds nothing else; it uses nothing of mkvirtfs, so that it judges from outside.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

[[noreturn]] void give_up(const char* call, const std::string& path) {
  std::fprintf(stderr, "manifest: %s %s: %s\n", call, path.c_str(), std::strerror(errno));
  std::exit(1);
}

/// Printable on one line, without blanks, and different for different bytes.
std::string escaped(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    if (byte > ' ' && byte < 127 && byte != '\\') {
      out += byte;
    } else {
      std::array<char, 5> hex{};
      std::snprintf(hex.data(), hex.size(), "\\x%02x", static_cast<unsigned char>(byte));
      out += hex.data();
    }
  }
  return out;
}

/// CRC-32 as zlib has it: enough to tell an accident, and every language can repeat it.
class Crc32 {
 public:
  void add(const void* data, std::size_t size) {
    static const std::array<std::uint32_t, 256> kTable = table();
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < size; ++i) {
      value_ = kTable[(value_ ^ bytes[i]) & 0xff] ^ (value_ >> 8);
    }
  }
  std::uint32_t value() const { return ~value_; }

 private:
  static std::array<std::uint32_t, 256> table() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t n = 0; n < table.size(); ++n) {
      std::uint32_t value = n;
      for (int bit = 0; bit < 8; ++bit)
        value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320u : 0u);
      table[n] = value;
    }
    return table;
  }
  std::uint32_t value_ = ~std::uint32_t{0};
};

/// Of every 1 KiB block that is not all zero, with its place (64 bits, little endian) before it: a
/// hole and written zeroes are the same content, and a file of many gigabytes of hole costs
/// nothing.
std::uint32_t content_crc(int directory, const char* name, const std::string& path) {
  constexpr std::size_t kBlock = 1024;
  static constexpr std::array<char, kBlock> kZeroes{};
  const int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) give_up("open", path);
  Crc32 crc;
  std::vector<char> buffer(std::size_t{1} << 18);
  off_t position = 0;
  while ((position = lseek(fd, position, SEEK_DATA)) >= 0) {
    // Blocks are counted from the file's start, wherever this file system's data happens to start.
    position -= position % static_cast<off_t>(kBlock);
    const off_t end = lseek(fd, position, SEEK_HOLE);
    // A hole may begin right at the rounded position: at least the block itself is read.
    const off_t until = std::max(end, position + static_cast<off_t>(kBlock));
    while (position < until) {
      const std::size_t want = std::min(
          buffer.size(), static_cast<std::size_t>(until - position + 1023) / kBlock * kBlock);
      std::size_t filled = 0;
      while (filled < want) {
        const ssize_t got =
            pread(fd, buffer.data() + filled, want - filled, position + static_cast<off_t>(filled));
        if (got < 0) give_up("read", path);
        if (got == 0) break;
        filled += static_cast<std::size_t>(got);
      }
      for (std::size_t at = 0; at < filled; at += kBlock) {
        const std::size_t size = std::min(kBlock, filled - at);
        if (std::memcmp(buffer.data() + at, kZeroes.data(), size) == 0) continue;
        const std::uint64_t place = static_cast<std::uint64_t>(position) + at;
        crc.add(&place, sizeof place);
        crc.add(buffer.data() + at, size);
      }
      if (filled < want) break;  // the end of the file
      position += static_cast<off_t>(filled);
    }
    position = std::max(position, until);
  }
  if (errno != ENXIO) give_up("SEEK_DATA", path);
  close(fd);
  return crc.value();
}

std::string xattrs(int directory, const char* name, const std::string& path) {
  // Through /proc, because there is no flistxattrat() and the whole path may be too long.
  const std::string link = "/proc/self/fd/" + std::to_string(directory) + "/" + name;
  std::vector<char> names(65536);
  const ssize_t size = llistxattr(link.c_str(), names.data(), names.size());
  if (size < 0) {
    if (errno == ENOTSUP) return "";
    give_up("llistxattr", path);
  }
  std::vector<std::string> lines;
  std::vector<char> value(65536);
  for (const char* one = names.data(); one < names.data() + size; one += std::strlen(one) + 1) {
    const ssize_t length = lgetxattr(link.c_str(), one, value.data(), value.size());
    if (length < 0) give_up("lgetxattr", path);
    lines.push_back(" " + escaped(one) + "=" +
                    escaped({value.data(), static_cast<std::size_t>(length)}));
  }
  std::sort(lines.begin(), lines.end());
  std::string out;
  for (const std::string& line : lines) out += line;
  return out;
}

class Walk {
 public:
  void entry(int directory, const char* name, const std::string& path) {
    struct stat status{};
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0) give_up("stat", path);
    const std::string shown = escaped(path);
    if (!S_ISDIR(status.st_mode) && status.st_nlink > 1) {
      const auto [first, is_new] =
          first_path_.try_emplace(std::pair(status.st_dev, status.st_ino), shown);
      if (!is_new) {
        std::printf("%s same-as %s\n", shown.c_str(), first->second.c_str());
        return;
      }
    }
    std::printf("%s mode=%06o owner=%u:%u mtime=%" PRId64 ".%09ld", shown.c_str(),
                static_cast<unsigned>(status.st_mode), status.st_uid, status.st_gid,
                static_cast<std::int64_t>(status.st_mtim.tv_sec), status.st_mtim.tv_nsec);
    // A directory's size and link count are the file system's own business.
    if (!S_ISDIR(status.st_mode)) {
      std::printf(" links=%lu", static_cast<unsigned long>(status.st_nlink));
    }
    if (S_ISREG(status.st_mode)) {
      std::printf(" size=%" PRId64 " content=%08" PRIx32, static_cast<std::int64_t>(status.st_size),
                  content_crc(directory, name, path));
    } else if (S_ISLNK(status.st_mode)) {
      std::vector<char> target(65536);
      const ssize_t length = readlinkat(directory, name, target.data(), target.size());
      if (length < 0) give_up("readlink", path);
      std::printf(" target=%s", escaped({target.data(), static_cast<std::size_t>(length)}).c_str());
    } else if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) {
      std::printf(" device=%u:%u", major(status.st_rdev), minor(status.st_rdev));
    }
    std::printf("%s\n", xattrs(directory, name, path).c_str());
    if (S_ISDIR(status.st_mode)) children(directory, name, path);
  }

 private:
  void children(int parent, const char* name, const std::string& path) {
    const int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) give_up("open", path);
    DIR* const stream = fdopendir(fd);
    if (stream == nullptr) give_up("opendir", path);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* found = readdir(stream)) names.emplace_back(found->d_name);
    if (errno != 0) give_up("readdir", path);
    std::sort(names.begin(), names.end());
    for (const std::string& child : names) {
      if (child == "." || child == "..") continue;
      // mkfs makes it, no source has it.
      if (path == "." && child == "lost+found") continue;
      entry(fd, child.c_str(), path == "." ? child : path + "/" + child);
    }
    closedir(stream);
  }

  std::map<std::pair<dev_t, ino_t>, std::string> first_path_;
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: manifest DIR\n");
    return 2;
  }
  const int root = open(arguments[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) give_up("open", arguments[1]);
  Walk{}.entry(root, ".", ".");
  return std::fflush(stdout) == 0 ? 0 : 1;
}
