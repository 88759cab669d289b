// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/names.h"

#include <catch2/catch.hpp>
#include <random>
#include <string>

#include "fsgen/fat32/dos_time.h"
#include "fsgen/fat32/upcase.h"

using namespace mkvirtfs;
using namespace mkvirtfs::fat32;

namespace {

std::u16string units(std::string_view raw) {
  const LongName name = long_name(raw);
  return {name.units().begin(), name.units().end()};
}

ShortForm form_of(std::string_view raw) { return short_form(long_name(raw).units()); }

std::string short_text(std::string_view raw) {
  const ShortForm form = form_of(raw);
  return {form.name.begin(), form.name.end()};
}

std::string tailed(std::string_view raw, std::uint32_t tail) {
  const ShortName name = with_tail(form_of(raw), tail);
  return {name.begin(), name.end()};
}

}  // namespace

TEST_CASE("UTF-8 becomes UTF-16") {
  CHECK(units("plain.txt") == u"plain.txt");
  CHECK(units("Gr\xc3\xbc\xc3\x9f"
              "e") == u"Gr\u00fc\u00dfe");
  CHECK(units("\xe6\x97\xa5\xe6\x9c\xac") == u"\u65e5\u672c");
  CHECK(units("a\xf0\x9f\x98\x80z") == u"a\xD83D\xDE00z");
  CHECK_FALSE(long_name("caf\xc3\xa9 [1]+,;=.d").is_mapped());
}

TEST_CASE("what FAT forbids becomes a private character, and comes back") {
  CHECK(units("a:b") ==
        u"a\xF03A"
        u"b");
  CHECK(units("\"*<>?\\|") == u"\xF022\xF02A\xF03C\xF03E\xF03F\xF05C\xF07C");
  CHECK(units("\x01\x1f\x7f") == u"\xF001\xF01F\x7f");
  CHECK(units("dots...") == u"dots..\xF02E");
  CHECK(units("blank ") == u"blank\xF020");
  CHECK(units(".. x") == u".. x");
  CHECK(units("\xff\xc3") == u"\xF0FF\xF0C3");
  CHECK(units("\xed\xa0\x80") == u"\xF0ED\xF0A0\xF080");  // a surrogate is no UTF-8
  // A source that has such characters itself.
  CHECK(units("\xef\x80\xba") == u"\xF0EF\xF080\xF0BA");
  CHECK(units("\xef\xbf\xbf") == u"\xF0EF\xF0BF\xF0BF");
  CHECK(readable_name(long_name("a:b").units()) == "a<U+F03A>b");
  CHECK(long_name("a:b").is_mapped());
}

TEST_CASE("any name fits, and the way back finds it") {
  std::mt19937_64 random(20261121);
  const std::vector<std::string> pieces = {
      "a", "\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\x98\x80", "\xff", ":", ".", " ", "\xef\x80\xba"};
  for (int i = 0; i < 20'000; ++i) {
    std::string raw;
    const std::size_t size = 1 + random() % 255;
    while (raw.size() < size) {
      const std::string piece =
          random() % 2 == 0
              ? pieces[random() % pieces.size()]
              : std::string(1, static_cast<char>(static_cast<unsigned char>(1 + random() % 255)));
      if (raw.size() + piece.size() > 255) break;
      raw += piece;
    }
    const LongName name = long_name(raw);
    REQUIRE(name.units().size() <= kMostNameUnits);
    REQUIRE(source_name(name.units()) == raw);
  }
}

TEST_CASE("a name that clashes keeps its letters in another form") {
  const LongName clash = long_name("ReadMe", "README");
  CHECK(readable_name(clash.units()) == "R<U+F065><U+F061><U+F064>M<U+F065>");
  CHECK(source_name(clash.units()) == "ReadMe");
  const LongName wide = long_name("\xc3\xa9t\xc3\xa9", "\xc3\x89t\xc3\xa9");
  CHECK(source_name(wide.units()) == "\xc3\xa9t\xc3\xa9");
  CHECK_FALSE(equal_but_for_case(wide.units(), long_name("\xc3\x89t\xc3\xa9").units()));
}

TEST_CASE("case is that of Unicode inside the basic plane") {
  CHECK(upcase(u'a') == u'A');
  CHECK(upcase(u'{') == u'{');
  CHECK(upcase(u'\u00e9') == u'\u00c9');
  CHECK(upcase(u'\u00f7') == u'\u00f7');
  CHECK(upcase(u'\u00ff') == u'\u0178');
  CHECK(upcase(u'\u0101') == u'\u0100');
  CHECK(upcase(u'\u0100') == u'\u0100');
  CHECK(upcase(u'\u03c9') == u'\u03a9');
  CHECK(upcase(u'\u0436') == u'\u0416');
  CHECK(upcase(u'\uff5a') == u'\uff3a');
  CHECK(upcase(u'\xF065') == u'\xF065');
  CHECK(equal_but_for_case(long_name("\xc3\x89t\xc3\xa9").units(),
                           long_name("\xc3\xa9T\xc3\x89").units()));
  CHECK(case_blind_hash(long_name("xt_TCPMSS.h").units()) ==
        case_blind_hash(long_name("XT_tcpmss.H").units()));
  CHECK_FALSE(equal_but_for_case(long_name("ab").units(), long_name("abc").units()));
}

TEST_CASE("short names tell all of a name, or need a long one") {
  struct Known {
    std::string_view raw;
    std::string_view name;
    bool fits, needs_long;
    std::uint8_t case_bits;
  };
  for (const Known& known : {
           Known{"README.TXT", "README  TXT", true, false, 0x00},
           Known{"readme.txt", "README  TXT", true, false, 0x18},
           Known{"README.txt", "README  TXT", true, false, 0x10},
           Known{"readme.TXT", "README  TXT", true, false, 0x08},
           Known{"ReadMe.txt", "README  TXT", true, true, 0x00},
           Known{"a", "A          ", true, false, 0x08},
           Known{"1234", "1234       ", true, false, 0x00},
           Known{"foo~1", "FOO~1      ", true, false, 0x08},
           Known{"ninechars", "NINECHAR   ", false, true, 0x00},
           Known{"a.html", "A       HTM", false, true, 0x00},
           Known{"a.b.c", "AB      C  ", false, true, 0x00},
           Known{".profile", "PROFILE    ", false, true, 0x00},
           Known{"..a.b", "A       B  ", false, true, 0x00},
           Known{"with blank", "WITHBLAN   ", false, true, 0x00},
           Known{"a+b=c", "A_B_C      ", false, true, 0x00},
           Known{"\xc3\xa9t\xc3\xa9", "_T_        ", false, true, 0x00},
           Known{"\xf0\x9f\x98\x80", "_          ", false, true, 0x00},
           Known{"end.", "END_       ", false, true, 0x00},
       }) {
    CAPTURE(known.raw);
    const ShortForm form = form_of(known.raw);
    // A dot at the end was escaped before: it is no dot any more.
    if (known.raw != "end.") CHECK(short_text(known.raw) == known.name);
    CHECK(form.fits == known.fits);
    CHECK(form.needs_long == known.needs_long);
    CHECK(form.case_bits == known.case_bits);
    CHECK(form.base_size > 0);
  }
}

TEST_CASE("numeric tails take the room they need") {
  CHECK(tailed("a long name.text", 1) == "ALONGN~1TEX");
  CHECK(tailed("a long name.text", 10) == "ALONG~10TEX");
  CHECK(tailed("a long name.text", 99999) == "AL~99999TEX");
  CHECK(tailed("\xc3\xa9", 7) == "_~7        ");
}

TEST_CASE("the checksum of a short name") {
  // Of the specification's algorithm, worked by hand on one letter and blanks.
  const auto sum = [](std::string_view text) {
    ShortName name;
    name.fill(' ');
    std::ranges::copy(text, name.begin());
    return short_name_checksum(name);
  };
  std::uint8_t expected = 'A';
  for (int i = 0; i < 10; ++i) {
    expected = static_cast<std::uint8_t>((expected & 1) * 128 + expected / 2 + ' ');
  }
  CHECK(sum("A") == expected);
  CHECK(sum("A") != sum("B"));
}

TEST_CASE("times are what a wall clock says, from 1980 to 2107") {
  const auto at = [](std::int64_t seconds, std::uint32_t ns = 0, std::int32_t minutes = 0) {
    return dos_time({seconds, ns}, {.local = false, .offset_minutes = minutes});
  };
  // 2024-02-29 23:59:59.990
  const DosTime leap = at(1709251199, 990'000'000);
  CHECK(leap.date == ((2024 - 1980) << 9 | 2 << 5 | 29));
  CHECK(leap.time == (23 << 11 | 59 << 5 | 29));
  CHECK(leap.hundredths == 199);
  CHECK(at(1709251199, 0, 1).date == ((2024 - 1980) << 9 | 3 << 5 | 1));
  CHECK(at(1709251199, 0, -60).time == (22 << 11 | 59 << 5 | 29));
  const DosTime first = at(315532800);
  CHECK(first.date == (1 << 5 | 1));
  CHECK_FALSE(first.clamped);
  for (const std::int64_t early : {std::int64_t{315532799}, std::int64_t{0}, INT64_MIN}) {
    CHECK(at(early) == DosTime{1 << 5 | 1, 0, 0, true});
  }
  const DosTime last = at(4354819199, 995'000'000);
  CHECK(last == DosTime{127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29, 199, false});
  for (const std::int64_t late : {std::int64_t{4354819200}, INT64_MAX}) {
    CHECK(at(late) == DosTime{127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29, 199, true});
  }
}

TEST_CASE("local time is that of the host's zone, summer and winter") {
  const char* const before = std::getenv("TZ");
  const std::string kept = before == nullptr ? "" : before;
  ::setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
  ::tzset();
  const TimeZone local{.local = true, .offset_minutes = 0};
  const TimeZone hour{.local = false, .offset_minutes = 60};
  const TimeZone two_hours{.local = false, .offset_minutes = 120};
  CHECK(dos_time({1705312800, 0}, local) == dos_time({1705312800, 0}, hour));       // January
  CHECK(dos_time({1720951200, 0}, local) == dos_time({1720951200, 0}, two_hours));  // July
  if (before == nullptr) {
    ::unsetenv("TZ");
  } else {
    ::setenv("TZ", kept.c_str(), 1);
  }
  ::tzset();
}
