// SPDX-License-Identifier: BSD-3-Clause
// A file of an image that is made of several others: of memory, of zeroes, of a range of a host
// file, and of members of archives. Every mover must bring its pieces, in every format.
#include <catch2/catch.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "block/dump.h"
#include "block/host_files.h"
#include "block/joined_contents.h"
#include "block/overlay/overlay.h"
#include "block/overlay/store.h"
#include "exports/export_tree.h"
#include "fsgen/archive/archive.h"
#include "fsgen/host/scan.h"
#include "fsgen/tree/merge.h"
#include "fsgen/tree/tree_builder.h"
#include "nbd/server/server.h"
#include "tests/planners/any_format.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;

namespace {

constexpr std::string_view kKernel = "boot/kernel";

std::string pattern(std::size_t bytes, unsigned seed) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) {
    seed = seed * 1664525 + 1013904223;
    text[i] = static_cast<char>('!' + (seed >> 24) % 90);
  }
  return text;
}

/// A host directory and two archives, of which one is compressed; and a layer whose one file is
/// made of all of them, over a layer of other files.
class Sources {
 public:
  explicit Sources(OnChange on_change = OnChange::error) {
    std::filesystem::create_directory(root / "host");
    write_file(root / "host/stub", host_text);
    write_file(root / "plain-member", plain_text);
    write_file(root / "packed-member", packed_text);
    run("tar", {"-cf", "plain.tar", "plain-member"});
    run("tar", {"-czf", "packed.tar.gz", "packed-member"});

    const auto scan = scan_directory((root / "host").string(), {}, null_log());
    REQUIRE(scan);
    const auto hosts =
        make_host_files(scan->files, on_change, null_log(), scan->tree->node_count());
    const auto from_host = [&](Range range) {
      return ContentPiece::of(hosts, content_no(*find_node(*scan->tree, "stub")), range);
    };
    const auto member = [&](const std::string& archive, const std::string& name, Range range) {
      const Layer layer = read(archive);
      return ContentPiece::of(layer.contents, content_no(*find_node(*layer.tree, name)), range);
    };
    const auto memory = [](std::string_view text) {
      const auto bytes = std::as_bytes(std::span(text));
      return ContentPiece::memory({bytes.begin(), bytes.end()});
    };
    JoinedContent kernel{
        "kernel",
        {memory("header: "), from_host({1001, 150'000}), ContentPiece::zeroes(1'500'000),
         member("plain.tar", "plain-member", {3, 100'000}),
         member("packed.tar.gz", "packed-member", {70'000, 50'001}), memory("the end")}};
    kernel_text = "header: " + host_text.substr(1001, 150'000) + std::string(1'500'000, '\0') +
                  plain_text.substr(3, 100'000) + packed_text.substr(70'000, 50'001) + "the end";
    REQUIRE(kernel.size_bytes() == kernel_text.size());

    Layer boot;
    boot.tree = TreeBuilder{}.patterned_file(std::string(kKernel), kernel_text.size()).build().tree;
    boot.contents = std::make_shared<JoinedContents>(std::map<ContentNo, JoinedContent>{
        {content_no(*find_node(*boot.tree, kKernel)), std::move(kernel)}});
    const BuiltTree rest =
        TreeBuilder{}.patterned_file("etc/large", 300'000).file("etc/small", "small").build();
    Layer base;
    base.tree = rest.tree;
    base.contents = rest.store;
    LayerStack stack;
    const Result<void> base_added = stack.add({std::move(base), "", "base"});
    REQUIRE(base_added);
    const Result<void> boot_added = stack.add({std::move(boot), "", "boot"});
    REQUIRE(boot_added);
    Result<Layer> done = std::move(stack).merge();
    REQUIRE(done);
    merged = std::move(*done);
  }

  std::shared_ptr<ImageDevice> device(const testing::AnyFormat& format) const {
    return std::make_shared<ImageDevice>(format.planned(merged.tree), merged.contents);
  }

  TempDir root;
  const std::string host_text = pattern(200'000, 1);
  const std::string plain_text = pattern(120'000, 2);
  const std::string packed_text = pattern(300'000, 3);
  std::string kernel_text;
  Layer merged;

 private:
  void run(const std::string& program, std::vector<std::string> words) const {
    words.insert(words.begin(), {"env", "-C", root.path().string(), program});
    const Ran ran = run_tool(words);
    INFO(ran.output);
    REQUIRE(ran.status == 0);
  }
  Layer read(const std::string& name) const {
    const StreamOptions stream_options;
    auto packed = archive::open_archive_file((root / name).string(), stream_options, null_log());
    REQUIRE(packed);
    auto read = archive::read_archive(*packed, {}, stream_options, nullptr, null_log());
    REQUIRE(read);
    auto layer = archive::make_layer(*read, {}, stream_options, null_log());
    REQUIRE(layer);
    return std::move(layer->layer);
  }
};

/// Where the file's first byte stands.
std::uint64_t kernel_at(const ImageDevice& device) {
  const auto& image = dynamic_cast<const PlannedImage&>(device.image());
  const DataPlacement placed = image.data_at(kKernel);
  REQUIRE(placed.runs.size() == 1);
  return placed.runs.front().range.offset;
}

Result<std::string> read_text(BlockDevice& device, Range range) {
  std::string text(range.length, '?');
  if (Result<void> got = device.read(range.offset, std::as_writable_bytes(std::span(text))); !got) {
    return propagate(got);
  }
  return text;
}

Result<DumpSummary> dump_to(const std::shared_ptr<BlockDevice>& device, const std::string& path) {
  DumpOptions options;
  options.output = DumpFile{path, /*overwrite=*/true};
  return dump(*device, options);
}

/// A server with one export, for programs that are run meanwhile.
class Served {
 public:
  Served(std::shared_ptr<BlockDevice> device, const TempDir& directory)
      : socket_((directory / "socket").string()) {
    auto made = nbd::Server::create(*make_single_export(std::move(device)));
    REQUIRE(made);
    server_ = std::move(*made);
    REQUIRE(server_->listen_unix(socket_));
    thread_ = std::thread([this] { ended_ = server_->run(); });
  }
  ~Served() {
    server_->request_stop();
    thread_.join();
    CHECK(ended_);
  }
  std::string uri() const { return "nbd+unix:///?socket=" + socket_; }

 private:
  std::string socket_;
  std::unique_ptr<nbd::Server> server_;
  Result<void> ended_;  ///< as the server says
  std::thread thread_;
};

}  // namespace

TEST_CASE("a joined file has the bytes of its pieces, by every mover and for every judge") {
  const Sources sources;
  const std::string path = (sources.root / "image").string();
  for (const testing::AnyFormat& format : testing::all_formats()) {
    CAPTURE(format.name);
    const std::shared_ptr<ImageDevice> device = sources.device(format);
    const std::uint64_t at = kernel_at(*device);
    const std::string& want = sources.kernel_text;
    CHECK((read_text(*device, {at, want.size()}).value() == want));
    for (std::uint64_t from = 0; from + 9000 < want.size(); from += 77'777) {
      CHECK((read_text(*device, {at + from, 9000}).value() == want.substr(from, 9000)));
    }

    REQUIRE(dump_to(device, path));
    const std::string image = read_file(path);
    CHECK((image.substr(at, want.size()) == want));
    const Ran judged = run_tool(format.judge(path));
    INFO(judged.output);
    CHECK(judged.status == 0);
    CHECK((run_tool(format.cat(path, std::string(kKernel))).output.ends_with(want)));

    const Served served(device, sources.root);
    const std::string copy = (sources.root / "copy").string();
    const Ran copied = run_tool({"nbdcopy", served.uri(), copy});
    INFO(copied.output);
    CHECK(copied.status == 0);
    CHECK((read_file(copy) == image));
  }
}

TEST_CASE("the map leads to each piece of a joined file") {
  const Sources sources;
  for (const testing::AnyFormat& format : testing::all_formats()) {
    CAPTURE(format.name);
    const std::shared_ptr<ImageDevice> device = sources.device(format);
    const std::uint64_t at = kernel_at(*device);
    struct Row {
      ExtentKind kind;
      std::uint64_t length;
      std::string name;
      bool pinned;
      bool operator==(const Row&) const = default;
    };
    std::vector<Row> rows;
    std::uint64_t position = at;
    for_each_extent(*device, {at, sources.kernel_text.size()}, [&](const Extent& extent) {
      CHECK(extent.offset == position);
      position = extent.end();
      Row row{extent.kind, extent.length, "", false};
      if (extent.kind == ExtentKind::content) {
        row.name = extent.store->name(extent.content);
        const auto pin = extent.store->pin(extent.content);
        REQUIRE(pin);
        row.pinned = pin->file.fd() >= 0;
        if (row.pinned) {
          std::string start(10, '?');
          REQUIRE(::pread(pin->file.fd(), start.data(), start.size(),
                          static_cast<off_t>(pin->file_offset + extent.content_offset)) == 10);
          CHECK(start == sources.kernel_text.substr(extent.offset - at, 10));
        }
      }
      // Where a format cuts a file in the middle of a piece, it is one piece all the same.
      if (!rows.empty() && rows.back().kind == row.kind && rows.back().name == row.name &&
          row.kind != ExtentKind::memory) {
        rows.back().length += row.length;
      } else {
        rows.push_back(row);
      }
      return true;
    });
    const std::vector<Row> want = {{ExtentKind::memory, 8, "", false},
                                   {ExtentKind::content, 150'000, "stub", true},
                                   {ExtentKind::hole, 1'500'000, "", false},
                                   {ExtentKind::content, 100'000, "plain-member", true},
                                   {ExtentKind::content, 50'001, "packed-member", false},
                                   {ExtentKind::memory, 7, "", false}};
    CHECK((rows == want));
  }
}

TEST_CASE("clients are told of the holes in a joined file") {
  const Sources sources;
  const std::shared_ptr<ImageDevice> device =
      sources.device(testing::ext_format(ext2::Variant::ext4, 4096));
  const Served served(device, sources.root);
  const std::string map = run_tool({"nbdinfo", "--map", served.uri()}).output;
  // The zeroes begin and end within blocks.
  const std::uint64_t from = (kernel_at(*device) + 150'008 + 4095) / 4096 * 4096;
  const std::uint64_t to = (kernel_at(*device) + 1'650'008) / 4096 * 4096;
  INFO(map);
  CHECK_THAT(map, Catch::Matches("[^]*\\n *" + std::to_string(from) + " +" +
                                 std::to_string(to - from) + " +3 +hole,zero\\n[^]*"));
}

TEST_CASE("an overlay lies over a joined file as over any other") {
  const Sources sources;
  for (const testing::AnyFormat& format : testing::all_formats()) {
    CAPTURE(format.name);
    const std::shared_ptr<ImageDevice> device = sources.device(format);
    const std::uint64_t at = kernel_at(*device);
    auto store = OverlayStore::in_memory(device->geometry().size_bytes);
    REQUIRE(store);
    Overlay overlay(device, std::move(*store), {});
    std::string want = sources.kernel_text;
    // Parts of blocks: over the header, between zeroes and a member, and in the compressed one.
    for (const std::uint64_t offset : {2u, 1'650'000u, 1'760'000u}) {
      const std::string written(20, '#');
      want.replace(offset, written.size(), written);
      REQUIRE(overlay.write(at + offset, std::as_bytes(std::span(written))));
    }
    CHECK((read_text(overlay, {at, want.size()}).value() == want));
    CHECK((read_text(*device, {at, want.size()}).value() == sources.kernel_text));
  }
}

TEST_CASE("a piece whose file has changed is an error that names it, and no other piece is") {
  for (const testing::AnyFormat& format : testing::all_formats()) {
    CAPTURE(format.name);
    const Sources sources;
    const std::shared_ptr<ImageDevice> device = sources.device(format);
    const std::uint64_t at = kernel_at(*device);
    write_file(sources.root / "host/stub", "something else");
    const auto over_the_piece = read_text(*device, {at, 4096});
    REQUIRE_FALSE(over_the_piece);
    CHECK(over_the_piece.error().code == Errc::source_changed);
    CHECK_THAT(over_the_piece.error().what, Catch::Contains("stub"));
    CHECK((read_text(*device, {at + 1'650'008, 100'000}).value() ==
           sources.plain_text.substr(3, 100'000)));
    const auto dumped = dump_to(device, (sources.root / "image").string());
    REQUIRE_FALSE(dumped);
    CHECK(dumped.error().code == Errc::source_changed);
    CHECK_THAT(dumped.error().what, Catch::Contains("stub"));

    std::filesystem::resize_file(sources.root / "plain.tar", 5000);
    const auto of_the_archive = read_text(*device, {at + 1'650'008, 100});
    REQUIRE_FALSE(of_the_archive);
    CHECK_THAT(of_the_archive.error().what, Catch::Contains("plain.tar"));
  }
}

TEST_CASE("a piece whose file has changed is zeroes, where that is the policy") {
  const Sources sources(OnChange::zero);
  const std::shared_ptr<ImageDevice> device =
      sources.device(testing::ext_format(ext2::Variant::ext4, 4096));
  write_file(sources.root / "host/stub", "something else");
  std::string want = sources.kernel_text;
  want.replace(8, 150'000, std::string(150'000, '\0'));
  CHECK((read_text(*device, {kernel_at(*device), want.size()}).value() == want));
}
