// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

// Tar archives byte by byte, for tests.

namespace mkvirtfs::testing {

/// A ustar header (POSIX.1-1988, IEEE Std 1003.1), and the bytes behind it.
inline std::string tar_member(const std::string& name, char type, const std::string& bytes,
                              const std::string& link = "", const std::string& size_field = "") {
  std::string header(512, '\0');
  const auto put = [&](std::size_t at, const std::string& text) {
    header.replace(at, text.size(), text);
  };
  put(0, name.substr(0, 100));
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  char size[12];
  std::snprintf(size, sizeof size, "%011zo", bytes.size());
  put(124, size_field.empty() ? size : size_field);
  put(136, "00000000000");
  put(156, std::string(1, type));
  put(157, link);
  put(257, std::string("ustar\00000", 8));
  unsigned sum = 8 * ' ';
  for (std::size_t i = 0; i < header.size(); ++i) {
    if (i < 148 || i >= 156) sum += static_cast<unsigned char>(header[i]);
  }
  char checksum[8];
  std::snprintf(checksum, sizeof checksum, "%06o", sum);
  put(148, checksum);
  std::string member = header + bytes;
  member.resize((member.size() + 511) / 512 * 512);
  return member;
}
inline const std::string kTarEnd(1024, '\0');

/// "LENGTH KEYWORD=VALUE\n", whose length counts itself.
inline std::string pax_record(const std::string& keyword, const std::string& value) {
  const std::string rest = " " + keyword + "=" + value + "\n";
  std::size_t length = rest.size() + 1;
  while (std::to_string(length).size() + rest.size() != length) ++length;
  return std::to_string(length) + rest;
}

using PaxRecords = std::vector<std::pair<std::string, std::string>>;

/// A header of records: of the next member ('x'), or of all that follow ('g').
inline std::string pax_header(char type, const PaxRecords& records) {
  std::string body;
  for (const auto& [keyword, value] : records) body += pax_record(keyword, value);
  return tar_member("PaxHeaders/f", type, body);
}

}  // namespace mkvirtfs::testing
