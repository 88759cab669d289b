// SPDX-License-Identifier: BSD-3-Clause
// rar, cab and lha: formats that hardly anybody packs on Linux. What no program of Debian's writes
// is put together here, byte by byte, and judged by a foreign reader where there is one.
#include <sys/stat.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/archive/testing/opened.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/stream/testing/stream_data.h"
#include "fsgen/tree/testing/layer_bytes.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using testing::bytes_at;
using testing::bytes_of;
using testing::MemorySource;

/// What an archive is to hold: a directory when `mode` says so, a symlink with `bytes` as target.
struct File {
  std::string path;
  std::uint16_t mode;
  std::string bytes;
  std::uint32_t mtime_s = 1'600'000'000;  // even, and summer: DOS counts two seconds, local time
};

std::vector<File> some_files() {
  return {{"dir", S_IFDIR | 0750, "", 1'600'000'002},
          {"dir/tool", S_IFREG | 04755, testing::some_bytes(70'001, 1), 1'600'000'004},
          {"dir/empty", S_IFREG | 0600, "", 1'600'000'006},
          {"text", S_IFREG | 0644, "seven b", 1'600'000'008},
          {"link", S_IFLNK | 0777, "dir/tool", 1'600'000'010}};
}

// Little-endian numbers, appended.
void put(std::string& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
}

std::uint32_t crc32_of(std::string_view bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

/// CRC-16/ARC, as lha has it.
std::uint16_t crc16_of(std::string_view bytes) {
  std::uint16_t crc = 0;
  for (const char c : bytes) {
    crc = static_cast<std::uint16_t>(crc ^ static_cast<unsigned char>(c));
    for (int bit = 0; bit < 8; ++bit) {
      crc = static_cast<std::uint16_t>((crc >> 1) ^ ((crc & 1) != 0 ? 0xa001 : 0));
    }
  }
  return crc;
}

std::uint32_t dos_time(std::uint32_t unix_time) {
  const std::time_t seconds = unix_time;
  std::tm tm{};
  ::localtime_r(&seconds, &tm);
  return static_cast<std::uint32_t>((tm.tm_year - 80) << 25 | (tm.tm_mon + 1) << 21 |
                                    tm.tm_mday << 16 | tm.tm_hour << 11 | tm.tm_min << 5 |
                                    tm.tm_sec / 2);
}

// RAR 4 (TechNote.txt of its unpacker): blocks with a CRC of 16 bits before them.

std::string rar4_block(std::uint8_t type, std::uint16_t flags, const std::string& fields) {
  std::string block;
  put(block, type, 1);
  put(block, flags, 2);
  put(block, fields.size() + 7, 2);
  block += fields;
  std::string whole;
  put(whole, crc32_of(block), 2);
  return whole + block;
}

std::string rar4_of(const std::vector<File>& files) {
  std::string rar("Rar!\x1a\x07\0", 7);
  rar += rar4_block(0x73, 0, std::string(6, '\0'));
  for (const File& file : files) {
    std::string fields;
    put(fields, file.bytes.size(), 4);
    put(fields, file.bytes.size(), 4);
    put(fields, 3, 1);  // packed on Unix
    put(fields, crc32_of(file.bytes), 4);
    put(fields, dos_time(file.mtime_s), 4);
    put(fields, 20, 1);    // the version that can read it
    put(fields, 0x30, 1);  // stored
    put(fields, file.path.size(), 2);
    put(fields, file.mode, 4);
    fields += file.path;
    const std::uint16_t flags = S_ISDIR(file.mode) ? 0x80e0 : 0x8000;
    rar += rar4_block(0x74, flags, fields) + file.bytes;
  }
  return rar + rar4_block(0x7b, 0x4000, "");
}

// RAR 5 (technote.htm of its unpacker): numbers of seven bits a byte, a CRC of 32 bits.

std::string number(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

std::string rar5_block(std::uint64_t type, const std::string& fields, const std::string& extra,
                       const std::string& data, bool has_data) {
  std::string body = number(type) + number((extra.empty() ? 0u : 1u) | (has_data ? 2u : 0u));
  if (!extra.empty()) body += number(extra.size());
  if (has_data) body += number(data.size());
  body += fields + extra;
  body = number(body.size()) + body;
  std::string whole;
  put(whole, crc32_of(body), 4);
  return whole + body + data;
}

std::string rar5_of(const std::vector<File>& files) {
  std::string rar("Rar!\x1a\x07\1\0", 8);
  rar += rar5_block(1, number(0), "", "", false);
  for (const File& file : files) {
    const bool is_directory = S_ISDIR(file.mode);
    const bool is_link = S_ISLNK(file.mode);
    const std::string data = is_link ? "" : file.bytes;
    std::string fields = number(is_directory ? 3 : 6);  // a directory; a time; a checksum
    fields += number(data.size()) + number(file.mode);
    put(fields, file.mtime_s, 4);
    if (!is_directory) put(fields, crc32_of(data), 4);
    fields += number(0) + number(1) + number(file.path.size()) + file.path;  // stored, on Unix
    std::string extra;
    if (is_link) {
      const std::string record =
          number(5) + number(1) + number(0) + number(file.bytes.size()) + file.bytes;
      extra = number(record.size()) + record;
    }
    rar += rar5_block(2, fields, extra, data, /*has_data=*/true);
  }
  return rar + rar5_block(5, number(0), "", "", false);
}

/// Filters of RAR 5 that a packer may have put over a member's bytes.
enum class Rar5Filter : std::uint8_t { none, delta, e8, arm };

/// Bits, the highest of a byte first.
class BitWriter {
 public:
  void write(std::uint64_t value, unsigned width) {
    for (unsigned bit = width; bit-- > 0;) {
      if (bits_ % 8 == 0) bytes_ += '\0';
      if ((value >> bit & 1) != 0) bytes_.back() |= static_cast<char>(0x80 >> bits_ % 8);
      ++bits_;
    }
  }
  const std::string& bytes() const { return bytes_; }
  /// Of the last byte, how many count.
  unsigned last_bits() const { return bits_ % 8 == 0 ? 8 : static_cast<unsigned>(bits_ % 8); }

 private:
  std::string bytes_;
  std::size_t bits_ = 0;
};

/// What the filter turns back into `bytes`, which are one block from the member's start on.
std::string rar5_filtered(std::string bytes, Rar5Filter filter) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const auto number32 = [&](std::size_t i) {
    return static_cast<std::uint32_t>(at(i) | at(i + 1) << 8 | at(i + 2) << 16) |
           static_cast<std::uint32_t>(at(i + 3)) << 24;
  };
  const auto set = [&](std::size_t i, std::uint32_t value, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) bytes[i + k] = static_cast<char>(value >> (8 * k));
  };
  switch (filter) {
    case Rar5Filter::none:
      break;
    case Rar5Filter::delta:
      for (std::size_t i = bytes.size(); i-- > 0;) {
        bytes[i] = static_cast<char>((i == 0 ? 0 : at(i - 1)) - at(i));
      }
      break;
    case Rar5Filter::e8:
      // Calls become absolute, in a file of 16 MiB.
      for (std::size_t i = 0; i + 5 <= bytes.size(); ++i) {
        if (at(i) != 0xe8) continue;
        const auto offset = static_cast<std::uint32_t>(i + 1);
        const std::uint32_t address = number32(i + 1);
        if (address + offset < 0x1000000) set(i + 1, address + offset, 4);
        i += 4;
      }
      break;
    case Rar5Filter::arm:
      // So do branches with link, counted in words.
      for (std::size_t i = 0; i + 4 <= bytes.size(); i += 4) {
        if (at(i + 3) != 0xeb) continue;
        set(i, (number32(i) & 0xffffff) + static_cast<std::uint32_t>(i / 4), 3);
      }
      break;
  }
  return bytes;
}

/// One block of a RAR 5 stream, where every byte is a literal: nine bits, of which the first is 1;
/// a zero announces a filter.
std::string rar5_packed_block(std::string_view bytes, std::size_t member_bytes, Rar5Filter filter,
                              bool is_first, bool is_last) {
  BitWriter out;
  if (is_first) {
    // Lengths of the codes of code lengths: 1, 9, 17 (repeat) and 19 (zeroes) have two bits each.
    constexpr std::array<unsigned, 20> kLengths = {0, 2, 0, 0, 0, 0, 0, 0, 0, 2,
                                                   0, 0, 0, 0, 0, 0, 0, 2, 0, 2};
    for (const unsigned length : kLengths) {
      out.write(length, 4);
    }
    const auto repeat = [&](unsigned code, unsigned count) {
      out.write(code, 2);
      out.write(count - 11, 7);
    };
    out.write(1, 2);  // literals: nine bits, 256 times
    repeat(2, 138);
    repeat(2, 117);
    out.write(0, 2);  // a filter: one bit
    repeat(3, 138);   // and 173 codes that are none
    repeat(3, 35);
    if (filter != Rar5Filter::none) {
      out.write(0, 1);
      out.write(0, 2);  // from here on, said in one byte
      out.write(0, 8);
      out.write(2, 2);  // in three bytes: how far
      for (int i = 0; i < 3; ++i) out.write(member_bytes >> (8 * i) & 0xff, 8);
      const bool is_delta = filter == Rar5Filter::delta;
      out.write(is_delta ? 0 : filter == Rar5Filter::e8 ? 1 : 3, 3);
      if (is_delta) out.write(0, 5);  // one channel
    }
  }
  for (const char c : bytes) out.write(0x100 | static_cast<unsigned char>(c), 9);
  const std::size_t size = out.bytes().size();
  const unsigned flags =
      (out.last_bits() - 1) | 2u << 3 | (is_last ? 0x40u : 0u) | (is_first ? 0x80u : 0u);
  std::string block;
  put(block, flags, 1);
  put(block, 0x5a ^ flags ^ (size & 0xff) ^ (size >> 8 & 0xff) ^ (size >> 16), 1);
  put(block, size, 3);
  return block + out.bytes();
}

struct Rar5Packing {
  Rar5Filter filter = Rar5Filter::none;
  bool is_solid = false;
  bool on_windows = false;
};

/// Files alone, compressed, in blocks of 10,000 bytes.
std::string rar5_packed(const std::vector<File>& files, const Rar5Packing& packing) {
  constexpr std::size_t kBlockBytes = 10'000;
  std::string rar("Rar!\x1a\x07\1\0", 8);
  rar += rar5_block(1, number(packing.is_solid ? 4 : 0), "", "", false);
  bool is_first_file = true;
  for (const File& file : files) {
    const std::string filtered = rar5_filtered(file.bytes, packing.filter);
    std::string data;
    for (std::size_t at = 0; at < filtered.size(); at += kBlockBytes) {
      const std::string_view bytes = std::string_view(filtered).substr(at, kBlockBytes);
      data += rar5_packed_block(bytes, filtered.size(), packing.filter, at == 0,
                                at + bytes.size() == filtered.size());
    }
    std::string fields = number(6);  // a time; a checksum
    fields += number(file.bytes.size()) + number(packing.on_windows ? 0x20 : file.mode);
    put(fields, file.mtime_s, 4);
    put(fields, crc32_of(file.bytes), 4);
    // The "normal" method, 512 KiB of memory: filters may take half.
    fields += number(2 << 10 | 3 << 7 | (packing.is_solid && !is_first_file ? 1 << 6 : 0));
    fields += number(packing.on_windows ? 0 : 1) + number(file.path.size()) + file.path;
    rar += rar5_block(2, fields, "", data, /*has_data=*/true);
    is_first_file = false;
  }
  return rar + rar5_block(5, number(0), "", "", false);
}

// lha: headers of level 2, with Unix's attributes in extensions.

/// Of -lh5-: one block with all 256 literals as long, so that each byte is itself.
std::string lh5_of(std::string_view bytes) {
  std::string out;
  std::uint64_t bits = 0;
  unsigned count = 0;
  const auto write = [&](std::uint64_t value, unsigned width) {
    bits = bits << width | value;
    for (count += width; count >= 8; count -= 8) out += static_cast<char>(bits >> (count - 8));
  };
  write(bytes.size(), 16);
  write(0, 5);   // one length of codes alone:
  write(10, 5);  // 8, in a count that begins with 2 for "no codes"
  write(256, 9);
  write(0, 4);  // and no distances
  write(0, 4);
  for (const char c : bytes) write(static_cast<unsigned char>(c), 8);
  if (count != 0) write(0, 8 - count);
  return out;
}

std::string lha_of(const std::vector<File>& files, bool packs) {
  std::string lha;
  for (const File& file : files) {
    const bool is_regular = S_ISREG(file.mode);
    // One block can have 65535 bytes.
    const std::string bytes = is_regular ? file.bytes.substr(0, 65'535) : "";
    const bool is_packed = packs && !bytes.empty();
    const std::string stored = is_packed ? lh5_of(bytes) : bytes;
    const std::size_t slash = file.path.rfind('/');
    std::string directory = slash == std::string::npos ? "" : file.path.substr(0, slash + 1);
    std::string name = slash == std::string::npos ? file.path : file.path.substr(slash + 1);
    if (S_ISDIR(file.mode)) directory = file.path + "/", name = "";
    if (S_ISLNK(file.mode)) name += "|" + file.bytes;
    for (char& c : directory) c = c == '/' ? '\xff' : c;
    std::vector<std::string> extensions = {std::string("\0\0\0", 3), "\1" + name};
    if (!directory.empty()) extensions.push_back("\2" + directory);
    for (const auto& [type, value] : {std::pair(0x50, std::uint32_t{file.mode}),
                                      std::pair(0x51, std::uint32_t{1000u << 16 | 100u})}) {
      std::string extension(1, static_cast<char>(type));
      put(extension, value, type == 0x50 ? 2 : 4);
      extensions.push_back(extension);
    }
    std::string header = !is_regular ? "-lhd-" : is_packed ? "-lh5-" : "-lh0-";
    put(header, stored.size(), 4);
    put(header, bytes.size(), 4);
    put(header, file.mtime_s, 4);
    put(header, 0x20, 1);
    put(header, 2, 1);
    put(header, crc16_of(bytes), 2);
    header += 'U';
    std::size_t crc_at = 0;
    for (const std::string& extension : extensions) {
      put(header, extension.size() + 2, 2);
      if (crc_at == 0) crc_at = header.size() + 3;
      header += extension;
    }
    put(header, 0, 2);
    std::string whole;
    // A header whose length ends with a zero byte would be the end of the archive.
    if ((header.size() + 2) % 256 == 0) header += '\0';
    put(whole, header.size() + 2, 2);
    whole += header;
    std::string crc;
    put(crc, crc16_of(whole), 2);
    whole.replace(crc_at, 2, crc);
    lha += whole + stored;
  }
  return lha + std::string(1, '\0');
}

Result<Layer> open(std::shared_ptr<ByteSource> source, bool in_process) {
  testing::OpenOptions options;
  options.read.in_process = in_process;
  Result<testing::Opened> opened = testing::open(std::move(source), options);
  if (!opened) return propagate(opened);
  return std::move(opened->layer);
}

Result<Layer> open(const std::string& bytes) {
  return open(std::make_shared<MemorySource>(bytes, "packed"), /*in_process=*/false);
}

void check(const Result<Layer>& layer, const std::vector<File>& files) {
  INFO((layer ? "" : layer.error().what));
  REQUIRE(layer);
  CHECK(layer->tree->node_count() == files.size() + 1);
  for (const File& file : files) {
    INFO(file.path);
    const Node* const node = layer->tree->find_path(file.path);
    REQUIRE(node != nullptr);
    CHECK(node->mode == file.mode);
    CHECK(node->mtime() == Timestamp{file.mtime_s, 0});
    if (S_ISREG(file.mode)) CHECK(bytes_of(*layer, layer->tree->number_of(*node)) == file.bytes);
    if (S_ISLNK(file.mode)) {
      const auto no = layer->tree->number_of(*node);
      CHECK(layer->tree->symlink_target(no) == file.bytes);
    }
  }
}

/// That an archive of these bytes is never taken for whole when a byte of it was changed or its end
/// is missing, but for bytes that mean nothing: those give a tree, of which all can be read.
void check_damage(const std::string& whole, std::size_t step, std::size_t most_unnoticed) {
  const auto is_unharmed = [](const std::string& bytes) {
    // Some thousand times, for which no process is started.
    const Result<Layer> layer = open(std::make_shared<MemorySource>(bytes, "packed"), true);
    if (layer) return true;
    CHECK(layer.error().what.find('\n') == std::string::npos);
    CHECK_THAT(layer.error().what, Catch::StartsWith("packed"));
    return false;
  };
  REQUIRE(is_unharmed(whole));
  std::size_t unnoticed = 0;
  for (std::size_t at = 0; at < whole.size(); at += step) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x41);
    unnoticed += is_unharmed(changed) ? 1 : 0;
  }
  CHECK(unnoticed <= most_unnoticed);
  for (std::size_t size = 1; size < whole.size() * 9 / 10; size += step) {
    INFO(size);
    CHECK_FALSE(is_unharmed(whole.substr(0, size)));
  }
}

}  // namespace

TEST_CASE("rar archives of both generations are what was packed") {
  const std::vector<File> files = some_files();
  check(open(rar4_of(files)), files);
  check(open(rar5_of(files)), files);
}

TEST_CASE("a RAR5 archive with compressed members is what was packed") {
  std::string code = testing::some_bytes(70'001, 4);
  for (std::size_t at = 0; at + 8 < code.size(); at += 64) {
    code.replace(at, 4, std::string("\x10\x20\0\xeb", 4));        // ARM: bl
    code.replace(at + 4, 5, std::string("\xe8\x30\x40\0\0", 5));  // x86: call
  }
  const std::vector<File> files = {{"code", S_IFREG | 0755, code},
                                   {"text", S_IFREG | 0644, "seven b"},
                                   {"more", S_IFREG | 0600, testing::some_bytes(30'000, 5)}};
  const TempDir dir("/var/tmp");
  for (const bool is_solid : {false, true}) {
    for (const Rar5Filter filter :
         {Rar5Filter::none, Rar5Filter::delta, Rar5Filter::e8, Rar5Filter::arm}) {
      INFO(is_solid << " " << static_cast<int>(filter));
      const std::string rar = rar5_packed(files, {.filter = filter, .is_solid = is_solid});
      check(open(rar), files);
      write_file(dir / "a.rar", rar);
      const Ran ran = run_tool({"bsdtar", "-xOf", (dir / "a.rar").string(), "code"});
      CHECK(ran.status == 0);
      CHECK(ran.output == code);
    }
  }
}

TEST_CASE("a RAR5 archive packed on Windows is what was packed") {
  const std::vector<File> files = {{"code", S_IFREG | 0644, testing::some_bytes(70'001, 6)},
                                   {"text", S_IFREG | 0644, "seven b"}};
  const Result<Layer> layer = open(rar5_packed(files, {.on_windows = true}));
  INFO((layer ? "" : layer.error().what));
  REQUIRE(layer);
  for (const File& file : files) {
    const Node* const node = layer->tree->find_path(file.path);
    REQUIRE(node != nullptr);
    CHECK(S_ISREG(node->mode));
    CHECK(node->mtime() == Timestamp{file.mtime_s, 0});
    CHECK(bytes_of(*layer, layer->tree->number_of(*node)) == file.bytes);
  }
}

TEST_CASE("lha archives, stored and packed, are what was packed") {
  std::vector<File> files = some_files();
  files[1].bytes.resize(65'535);
  const TempDir dir("/var/tmp");
  for (const bool packs : {false, true}) {
    const std::string lha = lha_of(files, packs);
    const Result<Layer> layer = open(lha);
    check(layer, files);
    CHECK(layer->tree->find_path("text")->uid == 1000);
    CHECK(layer->tree->find_path("text")->gid == 100);
    // Another reader finds the same in it.
    write_file(dir / "a.lzh", lha);
    const Ran ran = run_tool({"lha", "-pq", (dir / "a.lzh").string(), "dir/tool"});
    INFO(ran.output.substr(0, 1000));
    CHECK(ran.status == 0);
    CHECK(ran.output == files[1].bytes);
  }
}

TEST_CASE("cab archives are what was packed") {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directories(dir / "tree/dir");
  const std::string bytes = testing::some_bytes(200'001, 2);
  write_file(dir / "tree/dir/large", bytes);
  write_file(dir / "tree/text", "seven b");
  for (const char* packs : {"", "-z"}) {
    const Ran ran = run_tool({"bash", "-c",
                              "cd " + (dir / "tree").string() +
                                  " && touch -d @1600000000 text dir/large && rm -f ../a.cab && "
                                  "gcab -c " +
                                  packs + " ../a.cab text dir/large"});
    INFO(ran.output);
    REQUIRE(ran.status == 0);
    const auto source = open_file_source((dir / "a.cab").string(), OnChange::error, null_log());
    REQUIRE(source);
    const Result<Layer> layer = open(*source, /*in_process=*/false);
    INFO((layer ? "" : layer.error().what));
    REQUIRE(layer);
    const Node* const large = layer->tree->find_path("dir/large");
    REQUIRE(large != nullptr);
    CHECK(bytes_of(*layer, layer->tree->number_of(*large)) == bytes);
    CHECK(large->mode == (S_IFREG | 0666));
    CHECK(large->mtime() == Timestamp{1'600'000'000, 0});
    CHECK(bytes_at(*layer, "text") == "seven b");
    CHECK(layer->implied_directories.size() == 2);
  }
}

TEST_CASE("ar archives are what was packed, with and without types in their modes") {
  const TempDir dir;
  write_file(dir / "text", "seven b");
  write_file(dir / "a name that is too long for the header", "long");
  for (const char* how : {"rcD", "rcU"}) {
    const Ran ran =
        run_tool({"bash", "-c",
                  "cd " + dir.path().string() + " && rm -f a.a && chmod 640 text && ar " + how +
                      " a.a text a\\ name*"});
    INFO(ran.output);
    REQUIRE(ran.status == 0);
    const Result<Layer> layer = open(read_file(dir / "a.a"));
    INFO((layer ? "" : layer.error().what));
    REQUIRE(layer);
    CHECK(layer->tree->node_count() == 3);
    const Node* const text = layer->tree->find_path("text");
    REQUIRE(text != nullptr);
    CHECK(text->mode == (S_IFREG | (how[2] == 'U' ? 0640 : 0644)));
    CHECK(bytes_of(*layer, layer->tree->number_of(*text)) == "seven b");
    CHECK(bytes_at(*layer, "a name that is too long for the header") == "long");
  }
}

TEST_CASE("damaged rar, cab and lha archives are refused") {
  std::vector<File> files = some_files();
  files[1].bytes = testing::some_bytes(1500, 3);
  check_damage(rar4_of(files), 7, 0);
  check_damage(rar5_of(files), 7, 0);
  // The bits behind a block's last one mean nothing.
  check_damage(rar5_packed({files[1], files[3]}, {}), 7, 2);
  check_damage(lha_of(files, false), 7, 10);
  check_damage(lha_of(files, true), 7, 10);
  const TempDir dir("/var/tmp");
  write_file(dir / "file", files[1].bytes);
  const Ran ran =
      run_tool({"bash", "-c", "cd " + dir.path().string() + " && gcab -c -z a.cab file"});
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  check_damage(read_file(dir / "a.cab"), 7, 10);
}

}  // namespace mkvirtfs::archive
