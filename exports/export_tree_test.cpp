// SPDX-License-Identifier: BSD-3-Clause
#include "exports/export_tree.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "block/testing/gated_device.h"
#include "block/testing/memory_device.h"

namespace mkvirtfs {
namespace {

std::shared_ptr<BlockDevice> small_device(std::size_t size = 512) {
  return std::make_shared<testing::MemoryDevice>(testing::pattern_bytes(size));
}

/// A device that only claims a size.
class HugeDevice final : public BlockDevice {
 public:
  explicit HugeDevice(std::uint64_t size) { geometry_.size_bytes = size; }
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t, std::span<std::byte>) override {
    return fail(Errc::io, "nothing to read");
  }
  void map(Range, ExtentSink&) const override {}

 private:
  Geometry geometry_;
};

std::vector<std::string> names(const Result<std::vector<ExportEntry>>& page) {
  REQUIRE(page);
  std::vector<std::string> result;
  for (const ExportEntry& entry : *page) result.push_back(entry.name);
  return result;
}

}  // namespace

TEST_CASE("export names are paths of plain components", "[export_tree]") {
  const auto [name, valid] = GENERATE(table<std::string, bool>({
      {"", true},
      {"disk", true},
      {"photos/2023", true},
      {"a b", true},
      {"\xC3\xA9t\xC3\xA9", true},
      {"...", true},
      {std::string(4096, 'x'), true},
      {std::string(4097, 'x'), false},
      {"/disk", false},
      {"disk/", false},
      {"a//b", false},
      {".", false},
      {"a/../b", false},
      {"a/.", false},
      {"line\nbreak", false},
      {"esc\x1b[31m", false},
      {std::string("nul\0", 4), false},
      {"\xC3", false},
      {"\xED\xA0\x80", false},
  }));
  CAPTURE(name);
  CHECK(is_valid_export_name(name) == valid);
}

TEST_CASE("a single export answers to its name and as the default", "[export_tree]") {
  const auto device = small_device();
  const auto tree = make_single_export(device, "disk", "a disk");
  REQUIRE(tree);
  for (const char* name : {"", "disk"}) {
    const auto opened = (*tree)->open(name);
    REQUIRE(opened);
    CHECK(opened->device == device);
    CHECK(opened->name == "disk");
    CHECK(opened->description == "a disk");
  }
  const auto other = (*tree)->open("disk2\n");
  REQUIRE_FALSE(other);
  CHECK_THAT(other.error().what, Catch::Contains("disk2\n"));
}

TEST_CASE("names match exactly, not by prefix", "[export_tree]") {
  const auto tree = make_single_export(small_device(), "disk");
  REQUIRE(tree);
  CHECK_FALSE((*tree)->open("dis"));
  CHECK_FALSE((*tree)->open("disk0"));
  CHECK_FALSE((*tree)->open("Disk"));
  CHECK_FALSE((*tree)->open("disk/"));
}

TEST_CASE("exports are listed one level at a time, in pages", "[export_tree]") {
  std::vector<Export> exports;
  for (const char* name : {"b", "a/c", "a-b", "a", "a/d/e", ""})
    exports.push_back({name, std::string("about ") + name, small_device()});
  const auto tree = make_fixed_exports(exports);
  REQUIRE(tree);

  CHECK(names((*tree)->list("", std::nullopt, 100)) ==
        std::vector<std::string>{"", "a", "a-b", "b"});
  CHECK(names((*tree)->list("a", std::nullopt, 100)) == std::vector<std::string>{"a/c", "a/d"});
  CHECK(names((*tree)->list("a/d", std::nullopt, 100)) == std::vector<std::string>{"a/d/e"});
  CHECK(names((*tree)->list("", std::nullopt, 2)) == std::vector<std::string>{"", "a"});
  CHECK(names((*tree)->list("", "", 2)) == std::vector<std::string>{"a", "a-b"});
  CHECK(names((*tree)->list("", "a-b", 2)) == std::vector<std::string>{"b"});
  CHECK_FALSE((*tree)->list("nowhere", std::nullopt, 2));

  const auto root = (*tree)->list("", std::nullopt, 100);
  CHECK((*root)[1].is_export);
  CHECK((*root)[1].is_directory);
  CHECK((*root)[1].description == "about a");
  CHECK((*root)[3].is_export);
  CHECK_FALSE((*root)[3].is_directory);
  const auto below = (*tree)->list("a", std::nullopt, 100);
  CHECK_FALSE((*below)[1].is_export);
  CHECK((*below)[1].is_directory);
  CHECK((*tree)->open("")->name.empty());
}

TEST_CASE("a level is the same in pages of any size", "[export_tree]") {
  std::vector<Export> exports;
  for (const char* name : {"a", "a!/x", "a-", "a-b/c", "a/b", "a/b/c", "a0", "aa/b", "b/a", "b/a/a",
                           "b/b", "b/b-", "\xC3\xA9/x"}) {
    exports.push_back({name, "", small_device()});
  }
  const auto tree = make_fixed_exports(exports);
  REQUIRE(tree);
  const std::vector<std::string> expected = {"a", "a!", "a-", "a-b", "a0", "aa", "b", "\xC3\xA9"};
  for (std::size_t most = 1; most <= 9; ++most) {
    std::vector<std::string> level;
    std::optional<std::string> after;
    while (true) {
      const auto page = names((*tree)->list("", after, most));
      level.insert(level.end(), page.begin(), page.end());
      if (page.size() < most) break;
      after = page.back();
    }
    CHECK(level == expected);
  }
  CHECK(names((*tree)->list("b", "b/a", 9)) == std::vector<std::string>{"b/b", "b/b-"});
  // A place in another directory is none in this one.
  CHECK(names((*tree)->list("b", "a", 9)).size() == 3);
  CHECK(names((*tree)->list("a", "b", 9)).size() == 1);
}

TEST_CASE("a name is found without being opened", "[export_tree][L14]") {
  int builds = 0;
  std::vector<LazyExport> exports;
  for (const char* name : {"tools/b", "tools", "deep/er/still"}) {
    exports.push_back({name, std::string("about ") + name, [&builds] {
                         ++builds;
                         return small_device();
                       }});
  }
  const auto tree = make_lazy_exports(exports);
  REQUIRE(tree);
  const auto tools = (*tree)->find("tools");
  REQUIRE(tools);
  CHECK(tools->is_export);
  CHECK(tools->is_directory);
  CHECK(tools->description == "about tools");
  const auto first = (*tree)->find("");
  REQUIRE(first);
  CHECK(first->name == "tools/b");
  CHECK_FALSE(first->is_directory);
  CHECK_FALSE((*tree)->find("deep/er"));
  CHECK_FALSE((*tree)->find("tool"));
  CHECK(builds == 0);
}

TEST_CASE("a lazy device is built once while anyone holds it", "[export_tree][L14]") {
  int builds = 0;
  const auto tree = make_lazy_exports({{"disk", "", [&builds] {
                                          ++builds;
                                          return small_device();
                                        }}});
  REQUIRE(tree);
  {
    const auto first = (*tree)->open("disk");
    const auto second = (*tree)->open("");
    REQUIRE(first);
    REQUIRE(second);
    CHECK(first->device == second->device);
    CHECK(builds == 1);
  }
  CHECK((*tree)->open("disk"));
  CHECK(builds == 2);
}

TEST_CASE("fifty clients that open at once share one build, and its failure", "[export_tree]") {
  const bool fails = GENERATE(false, true);
  std::atomic<int> builds = 0;
  std::atomic<bool> may_end = false;
  const auto tree = make_lazy_exports({{"disk", "", [&]() -> Result<std::shared_ptr<BlockDevice>> {
                                          ++builds;
                                          while (!may_end) std::this_thread::yield();
                                          if (fails)
                                            return fail(Errc::unreadable, "the source is gone");
                                          return small_device();
                                        }}});
  REQUIRE(tree);
  std::vector<Result<Export>> opened(50, fail(Errc::io, "nothing"));
  std::atomic<int> begun = 0;
  std::vector<std::thread> clients;
  for (Result<Export>& mine : opened) {
    clients.emplace_back([&] {
      ++begun;
      mine = (*tree)->open("disk");
    });
  }
  while (begun < 50 || builds == 0) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  may_end = true;
  for (std::thread& client : clients) client.join();
  for (const Result<Export>& mine : opened) {
    REQUIRE(mine.has_value() != fails);
    if (fails) CHECK(mine.error().what == "the source is gone");
    if (!fails) CHECK(mine->device == opened.front()->device);
  }
  if (!fails) CHECK(builds == 1);
  // The next one tries again.
  const int before = builds;
  opened.clear();
  CHECK((*tree)->open("disk").has_value() != fails);
  CHECK(builds == before + 1);
}

TEST_CASE("a build that throws, gives nothing or too much is a failure", "[export_tree]") {
  int call = 0;
  const auto tree =
      make_lazy_exports({{"disk", "", [&call]() -> Result<std::shared_ptr<BlockDevice>> {
                            switch (call++) {
                              case 0:
                                throw std::runtime_error("thrown");
                              case 1:
                                return nullptr;
                              case 2:
                                return std::make_shared<HugeDevice>(std::uint64_t{1} << 63);
                              default:
                                return small_device();
                            }
                          }}});
  REQUIRE(tree);
  CHECK((*tree)->open("disk").error().what == "make the image of the export: thrown");
  CHECK_FALSE((*tree)->open("disk"));
  CHECK_THAT((*tree)->open("disk").error().what, Catch::Contains("9223372036854775808 bytes"));
  CHECK((*tree)->open("disk"));
  CHECK_FALSE(make_lazy_exports({{"disk", "", nullptr}}));
}

TEST_CASE("a list of exports that cannot be served is refused", "[export_tree]") {
  CHECK_FALSE(make_fixed_exports({}));
  CHECK_FALSE(make_single_export(nullptr, "disk"));
  CHECK_FALSE(make_single_export(small_device(), "a//b"));
  CHECK_FALSE(make_single_export(small_device(), "disk", "two\nlines"));
  CHECK_FALSE(make_single_export(small_device(), "disk", std::string(4097, 'x')));
  CHECK(make_single_export(std::make_shared<HugeDevice>((std::uint64_t{1} << 63) - 1)));
  CHECK_FALSE(make_single_export(std::make_shared<HugeDevice>(std::uint64_t{1} << 63)));
  for (const auto& [size, block] : std::vector<std::pair<std::size_t, std::uint32_t>>{
           {4096, 0}, {4096, 3000}, {1 << 20, 131072}, {5000, 512}}) {
    CAPTURE(size, block);
    const auto odd = make_single_export(std::make_shared<testing::GatedDevice>(size, block));
    REQUIRE_FALSE(odd);
    CHECK_THAT(odd.error().what, Catch::Contains("in blocks of at least"));
  }
  CHECK(make_single_export(std::make_shared<testing::GatedDevice>(5120, 512)));
  std::vector<Export> twins;
  twins.push_back({"disk", "", small_device()});
  twins.push_back({"disk", "", small_device()});
  const auto tree = make_fixed_exports(twins);
  REQUIRE_FALSE(tree);
  CHECK(tree.error().code == Errc::usage);
  CHECK_THAT(tree.error().what, Catch::Contains("\"disk\""));
}

}  // namespace mkvirtfs
