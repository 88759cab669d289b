// SPDX-License-Identifier: BSD-3-Clause
#include "support/message.h"

#include <catch2/catch.hpp>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <string>

#include "support/text.h"

namespace mkvirtfs {
namespace {

template <class Exception>
Error caught(const Exception& exception) {
  try {
    throw exception;
  } catch (...) {
    return error_of_exception("scan vm/root");
  }
}

}  // namespace

TEST_CASE("a message with a path of 100 KB is bounded: the middle of the path is cut") {
  const std::string path(100'000, 'p');
  const std::string shown = printable_message("open /begin/" + path + "/end: Permission denied");
  CHECK(shown.size() <= kLongestMessage);
  CHECK(shown.size() > kLongestMessage - 50);
  CHECK(shown.starts_with("open /begin/ppp"));
  CHECK(shown.ends_with("ppp/end: Permission denied"));
  CHECK(shown.find("pp [... 98") != std::string::npos);
  // What is short enough stays as it is, in printable form.
  CHECK(printable_message("open a\nb: no") == "open a\\x0ab: no");
  const std::string most(kLongestMessage, 'x');
  CHECK(printable_message(most) == most);
  CHECK(printable_message({}).empty());
}

TEST_CASE("what is cut is printable, and cut between characters") {
  std::string wide;
  for (int i = 0; i < 3000; ++i) wide += "\xE2\x82\xAC";
  for (const std::string& raw : {wide, std::string(3000, '\n'), std::string(5000, '\xE2'),
                                 std::string(5000, '\x80'), wide + "\xE2\x82"}) {
    for (std::size_t most = 0; most < 300; ++most) {
      const std::string shown = printable_message(raw, most);
      CHECK(shown.size() <= most);
      CHECK(is_valid_utf8(shown));
      // No escape was cut in two.
      for (std::size_t at = shown.find('\\'); at != std::string::npos;
           at = shown.find('\\', at + 1)) {
        REQUIRE(at + 4 <= shown.size());
        CHECK(shown[at + 1] == 'x');
      }
    }
  }
}

TEST_CASE("a lack of memory is reported as such, with what was being done") {
  const Error memory = caught(std::bad_alloc());
  CHECK(memory.code == Errc::io);
  CHECK(memory.os_errno == ENOMEM);
  CHECK(memory.what == "out of memory: scan vm/root");
  CHECK(caught(std::runtime_error("too odd")).what == "scan vm/root: too odd");
  CHECK(caught(5).what == "scan vm/root: an unknown exception");
}

}  // namespace mkvirtfs
