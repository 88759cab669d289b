// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/names.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "fsgen/iso9660/iso_time.h"

using namespace mkvirtfs;
using iso9660::JolietCharacters;
using iso9660::NameOf;
using iso9660::Namer;
using iso9660::NameRules;
using iso9660::Tail;

namespace {

std::string primary(unsigned level, std::string_view name, NameOf of = NameOf::file,
                    Tail tail = {}) {
  return std::string(NameRules::primary(level).identifier(name, of, tail).view());
}

/// Of Joliet, its units as characters, those beyond ASCII as "{XXXX}".
std::string joliet(std::size_t units, std::string_view name, NameOf of = NameOf::file,
                   Tail tail = {}, JolietCharacters characters = JolietCharacters::ucs2) {
  const auto identifier = NameRules::joliet(units, characters).identifier(name, of, tail);
  std::string text;
  for (std::size_t at = 0; at < identifier.size(); at += 2) {
    const unsigned unit = static_cast<unsigned char>(identifier.view()[at]) * 256u +
                          static_cast<unsigned char>(identifier.view()[at + 1]);
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    if (unit < 0x80) {
      text += static_cast<char>(unit);
    } else {
      text += '{';
      for (int shift = 12; shift >= 0; shift -= 4) text += kDigits[unit >> shift & 0xF];
      text += '}';
    }
  }
  return text;
}

std::vector<std::string> named(const NameRules& rules, const std::vector<std::string>& names) {
  Namer namer(rules);
  namer.begin();
  for (std::uint32_t i = 0; i < names.size(); ++i) namer.add(names[i], NameOf::file, i);
  std::vector<std::string> identifiers;
  for (const Namer::Named& one : namer.finish()) {
    identifiers.emplace_back(rules.identifier(one.name, one.of, one.tail).view());
  }
  return identifiers;
}

}  // namespace

TEST_CASE("names become d-characters of the level's length") {
  CHECK(primary(3, "README") == "README.;1");
  CHECK(primary(3, "Read Me.txt") == "READ_ME.TXT;1");
  CHECK(primary(3, ".bashrc") == "_BASHRC.;1");
  CHECK(primary(3, "archive.tar.gz") == "ARCHIVE_TAR.GZ;1");
  CHECK(primary(3, "caf\xC3\xA9.x") == "CAF_.X;1");
  CHECK(primary(3, "\xFF\xFE") == "__.;1");
  CHECK(primary(3, "a.") == "A.;1");
  CHECK(primary(1, "archive-of-all.tar.gzip") == "ARCHIVE_.GZI;1");
  CHECK(primary(1, "directory.d", NameOf::directory) == "DIRECTOR");
  CHECK(primary(3, "directory.d", NameOf::directory) == "DIRECTORY_D");
  CHECK(primary(2, std::string(255, 'a')) == std::string(30, 'A') + ".;1");
  CHECK(primary(2, std::string(255, 'a'), NameOf::directory) == std::string(31, 'A'));
  CHECK(primary(2, std::string(40, 'a') + "." + std::string(40, 'b')) ==
        std::string(8, 'A') + "." + std::string(22, 'B') + ";1");
  CHECK(primary(2, "a." + std::string(40, 'b'), NameOf::file, Tail(3, 7)) ==
        "A007." + std::string(22, 'B') + ";1");
  CHECK(primary(1, "long-name.text", NameOf::file, Tail(7, 1234567)) == "L1234567.TEX;1");
}

TEST_CASE("names become Joliet's characters of the length that is asked for") {
  CHECK(joliet(64, "Read Me.txt") == "Read Me.txt;1");
  CHECK(joliet(64, "a*b/c:d;e?f\\g", NameOf::directory) == "a_b_c_d_e_f_g");
  CHECK(joliet(64, "tab\there") == "tab_here;1");
  CHECK(joliet(64, "caf\xC3\xA9") == "caf{00E9};1");
  CHECK(joliet(64, "\xF0\x9F\x98\x80", NameOf::directory) == "_");
  CHECK(joliet(64, "\xF0\x9F\x98\x80", NameOf::directory, {}, JolietCharacters::utf16) ==
        "{D83D}{DE00}");
  CHECK(joliet(64, "\xFFx", NameOf::directory) == "_x");
  CHECK(joliet(64, std::string(100, 'x')) == std::string(64, 'x') + ";1");
  CHECK(joliet(103, std::string(200, 'x')) == std::string(103, 'x') + ";1");
  CHECK(joliet(64, std::string(100, 'x') + ".txt", NameOf::file, Tail(3, 2)) ==
        std::string(57, 'x') + "002.txt;1");
  // A pair is never cut.
  CHECK(joliet(64, std::string(63, 'x') + "\xF0\x9F\x98\x80", NameOf::directory, {},
               JolietCharacters::utf16) == std::string(63, 'x'));
  // However long the extension, a number has its place.
  CHECK(joliet(64, "a." + std::string(200, 'x'), NameOf::file, Tail(7, 1)) ==
        "a0000001." + std::string(55, 'x') + ";1");
}

TEST_CASE("identifiers that are alike are numbered, and numbers avoid names that are taken") {
  const NameRules rules = NameRules::primary(3);
  CHECK(named(rules, {"b", "A", "a", "a000"}) ==
        std::vector<std::string>{"A.;1", "A000.;1", "A001.;1", "B.;1"});
  // By name, then extension, as if filled up with blanks.
  CHECK(named(rules, {"ab.c", "a.z", "a", "a_.b"}) ==
        std::vector<std::string>{"A.;1", "A.Z;1", "AB.C;1", "A_.B;1"});
}

TEST_CASE("10,000 names with 31 characters in common have identifiers of their own") {
  for (const NameRules& rules : {NameRules::primary(1), NameRules::primary(3),
                                 NameRules::joliet(64, JolietCharacters::ucs2)}) {
    std::vector<std::string> names;
    for (int i = 0; i < 10000; ++i) {
      names.push_back(std::string(70, 'n') + std::to_string(i) + ".text");
    }
    const std::vector<std::string> identifiers = named(rules, names);
    CHECK(std::set<std::string>(identifiers.begin(), identifiers.end()).size() == names.size());
    CHECK(identifiers.size() == names.size());
  }
}

TEST_CASE("dates are those of calendars") {
  const auto digits = [](std::int64_t seconds, std::uint32_t nanoseconds = 0) {
    return iso9660::volume_time_digits({seconds, nanoseconds});
  };
  CHECK(digits(0) == "1970010100000000");
  CHECK(digits(1700000000, 129'999'999) == "2023111422132012");
  CHECK(digits(-1) == "1969123123595900");
  CHECK(digits(951782400) == "2000022900000000");
  CHECK(digits(std::int64_t{1} << 60) == "9999123123595900");
  CHECK(iso9660::is_volume_time("2000022900000000"));
  CHECK_FALSE(iso9660::is_volume_time("2001022900000000"));
  CHECK_FALSE(iso9660::is_volume_time("2001022824000000"));
  CHECK_FALSE(iso9660::is_volume_time("200102282300000"));
  CHECK_FALSE(iso9660::is_volume_time("20010228230000x0"));
  CHECK(iso9660::calendar_time(-(std::int64_t{1} << 40), 1900, 2155).year == 1900);
  CHECK(iso9660::calendar_time(std::int64_t{1} << 40, 1900, 2155).year == 2155);
}
