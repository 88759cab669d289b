// SPDX-License-Identifier: BSD-3-Clause
#include "bootsect/made_pieces.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "bootsect/testing/image_file.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;
using testing::text_of;

namespace fs = std::filesystem;

namespace {

constexpr const char* kPrefix = "(,msdos1)/boot/grub";

/// A directory with a program that says so each time when it makes something.
class Workshop {
 public:
  Workshop() {
    fs::create_directory(pieces());
    std::ofstream(pieces() / "kernel.img") << "kernel";
    std::ofstream(pieces() / "normal.mod") << "module";
    script("echo run >>" + (work_ / "runs").string() + "; echo \"made of $*\"");
  }

  fs::path pieces() const { return work_ / "pieces"; }
  std::string cache() const { return (work_ / "a/cache").string(); }
  void script(const std::string& text) const {
    const fs::path program = pieces() / "grub-mkimage";
    fs::remove(program);
    std::ofstream(program) << "#!/bin/sh\nPATH=/usr/bin:/bin\n" << text << "\n";
    fs::permissions(program, fs::perms::owner_all);
  }
  std::size_t runs() const {
    std::ifstream lines(work_ / "runs");
    std::size_t count = 0;
    for (std::string line; std::getline(lines, line);) ++count;
    return count;
  }
  std::string make(MadePieces& made, const std::string& prefix = kPrefix) const {
    const auto core = made.grub_core(prefix, pieces().string());
    if (!core) FAIL(hinted_text(core.error()));
    return text_of(*core);
  }
  std::vector<fs::path> kept() const {
    std::vector<fs::path> paths;
    for (const auto& each : fs::directory_iterator(cache())) paths.push_back(each.path());
    return paths;
  }

 private:
  TempDir work_;
};

}  // namespace

TEST_CASE("a piece is made once for its parameters, and once a run without a cache") {
  const Workshop shop;
  MadePieces made("");
  const std::string first = shop.make(made);
  CHECK(first.starts_with("made of -O i386-pc -d "));
  CHECK(first.find(" -p (,msdos1)/boot/grub biosdisk part_msdos ") != std::string::npos);
  CHECK(shop.make(made) == first);
  CHECK(shop.runs() == 1);
  CHECK(shop.make(made, "(,gpt2)/boot/grub") != first);
  CHECK(shop.runs() == 2);
  MadePieces another("");
  CHECK(shop.make(another) == first);
  CHECK(shop.runs() == 3);
}

TEST_CASE("threads that want the same have it made once") {
  const Workshop shop;
  MadePieces made("");
  std::vector<std::string> got(4);
  std::vector<std::thread> threads;
  for (std::string& each : got) {
    threads.emplace_back([&] {
      const auto core = made.grub_core(kPrefix, shop.pieces().string());
      if (core) each = text_of(*core);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(got[0].starts_with("made of "));
  CHECK(std::ranges::count(got, got[0]) == 4);
  CHECK(shop.runs() == 1);
}

TEST_CASE("a kept piece is used by the next run, as long as what it was made of is the same") {
  const Workshop shop;
  std::string first;
  {
    MadePieces made(shop.cache());
    first = shop.make(made);
  }
  CHECK(shop.kept().size() == 1);
  const auto next = [&] {
    MadePieces made(shop.cache());
    return shop.make(made);
  };
  CHECK(next() == first);
  CHECK(shop.runs() == 1);

  // A module of another version.
  std::ofstream(shop.pieces() / "normal.mod") << "another module";
  CHECK(next() == first);
  CHECK(shop.runs() == 2);
  // One more, and another program.
  std::ofstream(shop.pieces() / "test.mod") << "module";
  next();
  CHECK(shop.runs() == 3);
  shop.script("echo other");
  CHECK(next() == "other\n");
}

TEST_CASE("a kept piece that is damaged is made again") {
  const Workshop shop;
  const auto next = [&] {
    MadePieces made(shop.cache());
    return shop.make(made);
  };
  const std::string first = next();
  const fs::path kept = shop.kept().front();
  const auto size = fs::file_size(kept);
  std::fstream(kept, std::ios::in | std::ios::out | std::ios::binary) << "M";
  CHECK(next() == first);
  CHECK(shop.runs() == 2);
  fs::resize_file(kept, size - 1);
  CHECK(next() == first);
  CHECK(shop.runs() == 3);
  fs::resize_file(kept, 0);
  CHECK(next() == first);
  CHECK(shop.runs() == 4);
  CHECK(next() == first);
  CHECK(shop.runs() == 4);
}

TEST_CASE("a cache that others may write to is not used") {
  const Workshop shop;
  fs::create_directories(shop.cache());
  fs::permissions(shop.cache(), fs::perms::all);
  MadePieces made(shop.cache());
  CHECK(!shop.make(made).empty());
  CHECK(shop.kept().empty());
}

TEST_CASE("of many kept pieces the oldest go") {
  const Workshop shop;
  fs::create_directories(shop.cache());
  fs::permissions(shop.cache(), fs::perms::owner_all);
  for (int i = 0; i < 40; ++i) {
    const fs::path path = shop.cache() + "/" + std::to_string(i) + ".piece";
    std::ofstream(path) << "x";
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(100 - i));
  }
  std::ofstream(shop.cache() + "/something.index") << "not ours";
  MadePieces made(shop.cache());
  shop.make(made);
  CHECK(shop.kept().size() == 33);
  CHECK(!fs::exists(shop.cache() + "/8.piece"));
  CHECK(fs::exists(shop.cache() + "/9.piece"));
  CHECK(fs::exists(shop.cache() + "/something.index"));
}

TEST_CASE("a program that fails, and pieces that are missing, are reported") {
  const Workshop shop;
  MadePieces made("");
  const auto error_of = [&] {
    const auto core = made.grub_core(kPrefix, shop.pieces().string());
    REQUIRE(!core);
    return core.error();
  };
  shop.script("echo 'no such module' >&2; exit 1");
  CHECK(error_of().code == Errc::unsupported);
  CHECK(error_of().what == (shop.pieces() / "grub-mkimage").string() + " failed: no such module");
  shop.script("exit 0");
  CHECK(error_of().what == (shop.pieces() / "grub-mkimage").string() + " failed: ");
  fs::remove(shop.pieces() / "kernel.img");
  CHECK(error_of().code == Errc::unreadable);
  CHECK(hinted_text(error_of()).find("[Debian's package grub-pc-bin] [boot-files]") !=
        std::string::npos);
  fs::remove(shop.pieces() / "grub-mkimage");
  CHECK(hinted_text(error_of()).find("[Debian's package grub-common] [boot-files]") !=
        std::string::npos);
}
