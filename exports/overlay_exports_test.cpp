// SPDX-License-Identifier: BSD-3-Clause
#include "exports/overlay_exports.h"

#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/testing/memory_device.h"
#include "tests/support/hinted_text.h"

namespace mkvirtfs {
namespace {

using Bytes = std::vector<std::byte>;

Bytes filled(std::size_t count, int value) { return Bytes(count, static_cast<std::byte>(value)); }

Result<std::shared_ptr<Overlay>> overlay_over(std::shared_ptr<BlockDevice> below) {
  auto store = OverlayStore::in_memory(below->geometry().size_bytes);
  if (!store) return propagate(store);
  return std::make_shared<Overlay>(std::move(below), std::move(*store), Overlay::Options());
}

Result<Overlay::Branch> branch_of(Overlay& overlay, const std::string&, const std::string&) {
  auto store = OverlayStore::in_memory(overlay.geometry().size_bytes);
  if (!store) return propagate(store);
  auto frozen = overlay.snapshot(std::move(*store));
  if (!frozen) return propagate(frozen);
  auto child = overlay_over(std::move(*frozen));
  if (!child) return propagate(child);
  return Overlay::Branch{std::move(*child), {}};
}

std::shared_ptr<OverlayExports> writable(OverlayExports::Options options = {}) {
  auto exports = make_fixed_exports(
      {{"base", "the fixture", std::make_shared<testing::MemoryDevice>(filled(64 << 10, 1))},
       {"other", "", std::make_shared<testing::MemoryDevice>(filled(64 << 10, 2))}});
  REQUIRE(exports);
  options.make_overlay = [](const std::string&, std::shared_ptr<BlockDevice> below) {
    return overlay_over(std::move(below));
  };
  return std::make_shared<OverlayExports>(*exports, std::move(options));
}

int first_byte(const Export& exported) {
  Bytes got(1);
  REQUIRE(exported.device->read(0, got));
  return static_cast<int>(got[0]);
}

/// The names in a directory, taken by pages; those of directories end with '/'.
std::vector<std::string> names_in(ExportTree& exports, std::string_view directory,
                                  std::size_t page = 100) {
  std::vector<std::string> names;
  std::optional<std::string> after;
  while (true) {
    const auto entries = exports.list(directory, after, page);
    REQUIRE(entries);
    for (const ExportEntry& entry : *entries) {
      names.push_back(entry.name + (entry.is_directory ? "/" : ""));
      after = entry.name;
    }
    if (entries->size() < page) return names;
  }
}

Export open(ExportTree& exports, std::string_view name) {
  Result<Export> opened = exports.open(name);
  REQUIRE(opened);
  return std::move(*opened);
}

}  // namespace

TEST_CASE("each export is written for itself, and keeps what was written while it is not open") {
  const auto exports = writable();
  REQUIRE(open(*exports, "base").device->write(0, filled(4096, 9)));
  CHECK(first_byte(open(*exports, "base")) == 9);
  CHECK(first_byte(open(*exports, "")) == 9);  // the same export
  CHECK(first_byte(open(*exports, "other")) == 2);
  CHECK(exports->overlays().size() == 2);
  CHECK_FALSE(exports->open("job-1"));
}

TEST_CASE("clones share the base and nothing else") {
  OverlayExports::Options options;
  options.is_clone = [](std::string_view name) { return name.starts_with("job-"); };
  options.most_clones = 2;
  const auto exports = writable(std::move(options));
  const Export one = open(*exports, "job-1");
  CHECK(one.name == "job-1");
  REQUIRE(one.device->write(0, filled(4096, 9)));
  CHECK(first_byte(open(*exports, "job-2")) == 1);
  CHECK(open(*exports, "job-1").device == one.device);
  CHECK(first_byte(open(*exports, "base")) == 1);

  const Result<Export> third = exports->open("job-3");
  REQUIRE_FALSE(third);
  CHECK(hinted_text(third.error()) ==
        "job-3: there are 2 clones already, which is the limit [clone-max]");
  CHECK_FALSE(exports->open("job-/../x"));
  REQUIRE(exports->find("job-7"));
  CHECK(exports->find("job-7")->name == "job-7");
  CHECK_FALSE(exports->find("unknown"));
}

TEST_CASE("clones that exist are listed among the exports, level by level") {
  OverlayExports::Options options;
  options.is_clone = [](std::string_view name) { return name != "unwanted"; };
  options.kept_names = {"base", "ci/old", "unwanted", "zz"};  // of a tree before this one
  options.branch = branch_of;
  const auto exports = writable(std::move(options));
  CHECK(names_in(*exports, "") == std::vector<std::string>{"base", "ci/", "other", "zz"});
  open(*exports, "ci/new");
  open(*exports, "ci/new/er");
  open(*exports, "base/branch");
  open(*exports, "aa");
  REQUIRE(exports->snapshot("aa", "nn"));
  // By pages of every size the same, and nothing twice.
  for (std::size_t page = 1; page < 8; ++page) {
    CAPTURE(page);
    CHECK(names_in(*exports, "", page) ==
          std::vector<std::string>{"aa", "base/", "ci/", "nn", "other", "zz"});
    CHECK(names_in(*exports, "ci", page) == std::vector<std::string>{"ci/new/", "ci/old"});
    CHECK(names_in(*exports, "base", page) == std::vector<std::string>{"base/branch"});
  }
  CHECK_FALSE(exports->list("other", {}, 10));
  CHECK_FALSE(exports->list("ci/old", {}, 10));

  const Result<ExportEntry> directory = exports->find("ci");
  REQUIRE(directory);
  CHECK_FALSE(directory->is_export);
  CHECK(directory->is_directory);
  const Result<ExportEntry> both = exports->find("base");
  REQUIRE(both);
  CHECK(both->is_export);
  CHECK(both->is_directory);
  CHECK(both->description == "the fixture");
  REQUIRE(exports->find("zz"));
  CHECK(exports->find("zz")->description == "the fixture");

  REQUIRE(exports->discard("aa"));
  REQUIRE(exports->discard("zz"));  // never opened here
  CHECK(names_in(*exports, "") == std::vector<std::string>{"base/", "ci/", "nn", "other"});
}

TEST_CASE("what lies on a disk counts as a clone, and is removed when it is discarded") {
  OverlayExports::Options options;
  std::vector<std::string> forgotten;
  options.is_clone = [](std::string_view name) { return name.starts_with("job-"); };
  options.most_clones = 2;
  options.kept_names = {"job-1", "other"};
  options.forget = [&](const std::string& name) -> Result<void> {
    forgotten.push_back(name);
    return {};
  };
  const auto exports = writable(std::move(options));
  open(*exports, "job-2");
  CHECK_FALSE(exports->open("job-3"));
  open(*exports, "job-1");  // it was counted before
  CHECK(exports->written_names() == std::vector<std::string>{"job-1", "job-2", "other"});
  {
    const Export held = open(*exports, "job-2");
    CHECK_FALSE(exports->discard("job-2"));
  }
  REQUIRE(exports->discard("job-2"));
  REQUIRE(exports->discard("other"));
  CHECK_FALSE(exports->discard("other"));
  CHECK(forgotten == std::vector<std::string>{"job-2", "other"});
  CHECK(exports->open("job-3"));
}

TEST_CASE("where only clones are written, the others are as they were") {
  OverlayExports::Options options;
  options.is_clone = [](std::string_view name) { return name.starts_with("job-"); };
  options.only_clones = true;
  const auto exports = writable(std::move(options));
  CHECK_FALSE(open(*exports, "base").device->geometry().writable);
  CHECK(open(*exports, "job-1").device->geometry().writable);
}

TEST_CASE("discarding begins anew, when it is not open") {
  const auto exports = writable();
  {
    const Export base = open(*exports, "base");
    REQUIRE(base.device->write(0, filled(4096, 9)));
    CHECK_FALSE(exports->discard("base"));
  }
  REQUIRE(exports->discard("base"));
  CHECK(first_byte(open(*exports, "base")) == 1);
  CHECK_FALSE(exports->discard("other"));
}

TEST_CASE("a snapshot is an export that begins with what its parent held") {
  OverlayExports::Options options;
  options.branch = branch_of;
  options.most_clones = 2;
  const auto exports = writable(std::move(options));
  const Export base = open(*exports, "base");  // connected all the time
  REQUIRE(base.device->write(0, filled(4096, 9)));
  REQUIRE(exports->snapshot("base", "then"));
  REQUIRE(base.device->write(0, filled(4096, 10)));
  CHECK(first_byte(base) == 10);
  CHECK(first_byte(open(*exports, "then")) == 9);
  REQUIRE(open(*exports, "then").device->write(0, filled(4096, 11)));
  REQUIRE(exports->snapshot("then", "child/of/then"));
  CHECK(first_byte(open(*exports, "child/of/then")) == 11);
  CHECK(first_byte(base) == 10);
  CHECK(exports->find("child/of/then"));

  CHECK_FALSE(exports->snapshot("base", "other"));
  CHECK_FALSE(exports->snapshot("base", "then"));
  CHECK_FALSE(exports->snapshot("base", "../x"));
  CHECK_FALSE(exports->snapshot("unknown", "x"));
  CHECK_FALSE(exports->snapshot("base", "one-too-many"));
}

TEST_CASE("snapshots on a disk are exports of the next tree, over the image they began with") {
  OverlayExports::Options options;
  std::vector<std::string> branched;
  options.branch = [&](Overlay& overlay, const std::string& child, const std::string& origin) {
    branched.push_back(child + " of " + origin);
    return branch_of(overlay, child, origin);
  };
  options.kept_names = {"base", "kept", "kept/of-base"};
  options.kept_branches = {
      {"kept", "other"}, {"kept/of-base", ""}, {"base", "other"}, {"orphan", "gone"}};
  options.forget = [](const std::string&) { return Result<void>(); };
  const auto exports = writable(std::move(options));
  CHECK(names_in(*exports, "") == std::vector<std::string>{"base", "kept/", "orphan", "other"});
  CHECK(first_byte(open(*exports, "kept")) == 2);
  const auto orphan = exports->open("orphan");
  REQUIRE_FALSE(orphan);
  CHECK(orphan.error().what.starts_with("orphan began as a snapshot of gone: "));
  CHECK(first_byte(open(*exports, "kept/of-base")) == 1);
  CHECK(first_byte(open(*exports, "base")) == 1);  // a source has that name now
  // What they are over goes on to their own snapshots; one that nobody has opened is opened for it.
  REQUIRE(exports->snapshot("kept", "a"));
  REQUIRE(exports->snapshot("a", "b"));
  REQUIRE(exports->snapshot("base", "c"));
  CHECK_FALSE(exports->snapshot("base", "c"));
  CHECK_FALSE(exports->snapshot("other", "d"));  // nobody has written there
  CHECK(branched == std::vector<std::string>{"a of other", "b of other", "c of base"});
  CHECK(exports->written_names() ==
        std::vector<std::string>{"a", "b", "base", "c", "kept", "kept/of-base", "orphan"});
  CHECK(exports->overlay("kept/of-base"));
  CHECK_FALSE(exports->overlay("other"));
  REQUIRE(exports->discard("kept"));
  CHECK_FALSE(exports->open("kept"));
  CHECK(first_byte(open(*exports, "b")) == 2);
}

TEST_CASE("no lock is held while an overlay is made, branched or removed", "[point5]") {
  // All on one thread: a call that waited for another's would not come back.
  OverlayExports* tree = nullptr;
  int calls = 0;
  bool inside = false;
  const auto use_others = [&](const std::string& busy) {
    if (inside || tree == nullptr) return;
    inside = true;
    ++calls;
    CHECK(tree->find(busy));
    CHECK(first_byte(open(*tree, "other")) == 2);
    CHECK(first_byte(open(*tree, "job-elsewhere")) == 1);
    CHECK(tree->list("", std::nullopt, 100));
    CHECK(tree->flush());
    CHECK_FALSE(tree->overlays().empty());
    CHECK_FALSE(tree->written_names().empty());
    CHECK(tree->overlay("other"));
    CHECK(tree->is_unwritten("job-nobody"));
    const std::string child = "side-" + std::to_string(calls);
    CHECK(tree->snapshot("other", child));
    CHECK(tree->discard(child));
    inside = false;
  };
  OverlayExports::Options options;
  options.is_clone = [](std::string_view name) { return name.starts_with("job-"); };
  options.branch = [&](Overlay& overlay, const std::string& child, const std::string& origin) {
    use_others(child == "next" ? "base" : child);
    return branch_of(overlay, child, origin);
  };
  options.forget = [&](const std::string& name) -> Result<void> {
    use_others(name == "next" ? "base" : name);
    return {};
  };
  auto below = make_fixed_exports(
      {{"base", "", std::make_shared<testing::MemoryDevice>(filled(64 << 10, 1))},
       {"other", "", std::make_shared<testing::MemoryDevice>(filled(64 << 10, 2))}});
  REQUIRE(below);
  options.make_overlay = [&](const std::string& name, std::shared_ptr<BlockDevice> device) {
    use_others(name);
    return overlay_over(std::move(device));
  };
  OverlayExports exports(*below, std::move(options));
  tree = &exports;
  CHECK(first_byte(open(exports, "base")) == 1);
  CHECK(calls == 1);
  CHECK(first_byte(open(exports, "job-1")) == 1);
  CHECK(calls == 2);
  CHECK(exports.snapshot("base", "next"));
  CHECK(calls == 3);
  CHECK(exports.discard("next"));
  CHECK(calls == 4);
  CHECK(exports.discard("job-1"));
  CHECK(calls == 5);
}

TEST_CASE("clones that are being made count, and one that cannot be made does not", "[point5]") {
  OverlayExports* tree = nullptr;
  std::string refusal;
  OverlayExports::Options options;
  options.is_clone = [](std::string_view name) { return name.starts_with("job-"); };
  options.most_clones = 1;
  bool works = false;
  auto below = make_fixed_exports(
      {{"base", "", std::make_shared<testing::MemoryDevice>(filled(64 << 10, 1))}});
  REQUIRE(below);
  options.make_overlay =
      [&](const std::string& name,
          std::shared_ptr<BlockDevice> device) -> Result<std::shared_ptr<Overlay>> {
    if (name == "job-1") {
      const Result<Export> second = tree->open("job-2");
      REQUIRE_FALSE(second);
      refusal = second.error().what;
    }
    if (!works) return fail(Errc::io, "the disk broke");
    return overlay_over(std::move(device));
  };
  OverlayExports exports(*below, std::move(options));
  tree = &exports;
  CHECK_FALSE(exports.open("job-1"));
  CHECK_THAT(refusal, Catch::Contains("1 clones already"));
  works = true;
  CHECK(exports.open("job-2"));
  CHECK_FALSE(exports.open("job-1"));
}

}  // namespace mkvirtfs
