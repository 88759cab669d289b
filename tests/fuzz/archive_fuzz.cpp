// SPDX-License-Identifier: BSD-3-Clause
// Archives of every format, manifests, and kept logs of members. Whatever the bytes are, they give
// a tree or an error of one line. After a tree: its files read the same twice, or fail; the log of
// its members opens again from its bytes and gives the same tree; what can be pinned lies inside
// what is pinned. A manifest's files are those of a directory with "file" and "a b/file" in it, and
// nothing beside that directory is ever read.
//
// Input: u8 flags (1: the rest is a log of members; 2: names are stripped; 4: links may lead out;
// 8: manifests are none; 16: empty blocks do not end a tar; 32: pax global headers are ignored; 64:
// only what is read without a helper), then the archive.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../support/temp_dir.h"
#include "fsgen/archive/archive.h"
#include "fuzz_require.h"

using namespace mkvirtfs;
using namespace mkvirtfs::archive;

namespace {

using Bytes = std::span<const std::byte>;

class Packed final : public ByteSource {
 public:
  explicit Packed(Bytes bytes) : bytes_(bytes.begin(), bytes.end()) {}
  std::uint64_t size_bytes() const noexcept override { return bytes_.size(); }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    FUZZ_REQUIRE(offset <= bytes_.size() && out.size() <= bytes_.size() - offset);
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  }
  std::string name() const override { return "input"; }

 private:
  const std::vector<std::byte> bytes_;
};

constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;

StreamOptions stream_options() {
  StreamOptions options;
  options.index_memory_bytes = 100'000;
  options.decoder_memory_bytes = std::uint64_t{16} << 20;
  options.most_unpacked_bytes = std::uint64_t{4} << 20;
  options.cache = std::make_shared<ChunkCache>(std::uint64_t{1} << 20);
  options.spool = std::make_shared<SpoolSpace>(fast_place().string(), std::uint64_t{4} << 20);
  return options;
}

constexpr std::string_view kSecret = "not for manifests";

/// Where manifests find their contents; what lies beside it must never be seen.
std::string contents_directory() {
  static const TempDir outer(fast_place());
  static const std::filesystem::path directory = [] {
    const std::filesystem::path inner = outer / "inner";
    std::filesystem::create_directories(inner / "a b");
    write_file(inner / "file", "12345");
    write_file(inner / "a b/file", std::string(5000, 'x'));
    write_file(outer / "secret", kSecret);
    std::filesystem::create_symlink("../secret", inner / "link");
    return inner;
  }();
  return directory.string();
}

bool holds_secret(Bytes bytes) {
  const auto secret = std::as_bytes(std::span(kSecret));
  return std::ranges::search(bytes, secret).begin() != bytes.end();
}

void read_files(const Layer& layer, bool is_manifest) {
  std::vector<std::byte> once(8192);
  std::vector<std::byte> again(8192);
  const std::uint32_t count = std::min<std::uint32_t>(layer.tree->node_count(), 200);
  for (NodeNo no; no < count; ++no) {
    const Node& node = layer.tree->node(no);
    if (!node.is_regular()) continue;
    for (const std::uint64_t offset : {std::uint64_t{0}, node.size_bytes / 2}) {
      const auto size = std::min<std::uint64_t>(node.size_bytes - offset, once.size());
      const auto whole = std::span(once).first(size);
      const Result<void> read = layer.contents->read(content_no(no), offset, whole);
      if (!read) {
        FUZZ_REQUIRE(!read.error().what.empty());
        continue;
      }
      FUZZ_REQUIRE(!is_manifest || !holds_secret(whole));
      // The second half first.
      const auto halves = std::span(again).first(size);
      const std::size_t half = size / 2;
      const bool both = layer.contents->read(content_no(no), offset + half, halves.subspan(half)) &&
                        layer.contents->read(content_no(no), offset, halves.first(half));
      FUZZ_REQUIRE(both && std::ranges::equal(whole, halves));
    }
  }
}

/// The log's members, as if they lay in the bytes of the log itself: stored, in pieces, deflated.
void read_members_of(const MemberLog& log, Bytes stream, const LayerOptions& options) {
  Archive archive;
  archive.name = "input";
  archive.stream = std::make_shared<Packed>(stream);
  Member member;
  for (MemberLog::Position at = 0; at < log.end();) {
    at = log.read(at, member);
    if (member.place == MemberPlace::host || member.place == MemberPlace::spooled) return;
    if (!archive.members.append(member)) return;
  }
  if (!check_places(archive, {5000, kMostBytes})) return;
  const Result<ArchiveLayer> layer = make_layer(archive, options, stream_options(), null_log());
  if (layer) read_files(layer->layer, false);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const unsigned flags = data[0];
  const Bytes input = std::as_bytes(std::span(data, size)).subspan(1);
  LayerOptions options;
  options.unsafe_names = (flags & 2) != 0 ? UnsafeNames::strip : UnsafeNames::error;
  options.outward_links = (flags & 4) != 0;

  if ((flags & 1) != 0) {
    const Result<MemberLog> log = MemberLog::open({input.begin(), input.end()});
    if (!log) return 0;
    const Result<LayerTree> made = make_layer_tree(*log, "input", options, null_log());
    if (made) FUZZ_REQUIRE(made->places.size() == made->layer.tree->node_count());
    read_members_of(*log, input, options);
    return 0;
  }

  ReadOptions read_options;
  read_options.limits = {5000, kMostBytes};
  read_options.passphrases = {"passphrase"};
  read_options.in_process = (flags & 64) == 0;
  if ((flags & 8) == 0) read_options.manifest_directory = contents_directory();
  read_options.ignores_zeros = (flags & 16) != 0;
  if ((flags & 32) != 0) read_options.pax_globals = PaxGlobals::ignore;
  const StreamOptions stream = stream_options();
  const Result<Archive> archive =
      read_archive(std::make_shared<Packed>(input), read_options, stream, nullptr, null_log());
  if (!archive) {
    FUZZ_REQUIRE(!archive.error().what.empty());
    return 0;
  }
  FUZZ_REQUIRE(archive->manifest_directory.empty() || (flags & 8) == 0);
  const Result<ArchiveLayer> made = make_layer(*archive, options, stream, null_log());
  const Bytes kept = archive->members.bytes();
  const Result<MemberLog> log = MemberLog::open({kept.begin(), kept.end()});
  FUZZ_REQUIRE(log && log->member_count() == archive->members.member_count());
  const Result<LayerTree> again = make_layer_tree(*log, "input", options, null_log());
  FUZZ_REQUIRE(made.has_value() == again.has_value());
  if (!made) return 0;
  FUZZ_REQUIRE(made->layer.tree->id() == again->layer.tree->id());
  read_files(made->layer, !archive->manifest_directory.empty());
  return 0;
}
