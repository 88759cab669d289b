// SPDX-License-Identifier: BSD-3-Clause
#include "tests/toy_format/toy_format.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "fsgen/image/option_reader.h"
#include "fsgen/image/region_image.h"
#include "fsgen/image/start_table.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::toy {
namespace {

constexpr std::uint32_t kBlockBytes = 512;
constexpr std::uint64_t kEndBytes = 508;  // of packed ends in a block, before their sum
constexpr std::string_view kMagic = "TOY ";
constexpr std::string_view kLabel = "label";

enum class Ends : std::uint8_t { own_blocks, packed };

class ToyImage final : public RegionImage {
 public:
  ToyImage(std::shared_ptr<const SourceTree> tree, std::string label, Ends ends)
      : tree_(std::move(tree)), label_(std::move(label)) {
    std::uint64_t block = 1;
    std::uint64_t end_bytes = 0;
    for (NodeNo number; number < tree_->node_count(); ++number) {
      starts_.add(block);
      ends_.add(end_bytes);
      const Node& node = tree_->node(number);
      if (!node.is_regular()) continue;
      block += node.size_bytes / kBlockBytes;
      const std::uint64_t rest = node.size_bytes % kBlockBytes;
      if (ends == Ends::packed) end_bytes += rest;
      if (ends == Ends::own_blocks && rest != 0) ++block;
    }
    starts_.finish(block);
    ends_.finish(end_bytes);
  }

  std::uint64_t size_bytes() const noexcept override {
    return (starts_.end() + ceil_div(ends_.end(), kEndBytes)) * kBlockBytes;
  }
  std::uint32_t block_bytes() const noexcept override { return kBlockBytes; }
  std::string describe(std::uint64_t offset) const override {
    if (offset < kBlockBytes) return "label";
    return offset < ends_at() ? "file data" : "ends of files";
  }
  std::string volume_id() const override { return label_; }
  std::vector<ImageFact> facts() const override {
    const auto files = std::ranges::count_if(
        tree_->nodes(), [](const Node& node) { return node.is_regular() && node.size_bytes != 0; });
    return {{"file_count", static_cast<std::uint64_t>(files)}};
  }

  const SourceTree& tree() const noexcept override { return *tree_; }
  DataPlacement data_at(std::string_view path) const override {
    const std::optional<NodeNo> no = find_node(*tree_, path);
    if (!no || !tree_->node(*no).is_regular()) return {};
    const std::uint64_t size = tree_->node(*no).size_bytes;
    if (size == 0) return {.kind = DataPlacement::Kind::no_bytes};
    const Range data = data_of_file(*no);
    if (data.length == 0) return {DataPlacement::Kind::embedded, size, {}};
    return {DataPlacement::Kind::stored, size, {{0, data}}};  // without an end that is packed
  }
  std::vector<Range> structure(std::string_view name, std::uint64_t /*number*/) const override {
    if (name != kLabel) return {};
    return {{0, kBlockBytes}};
  }
  std::span<const std::string_view> structure_names() const noexcept override {
    return std::span(&kLabel, 1);
  }

 protected:
  Region region_at(std::uint64_t offset) const override {
    if (offset < kBlockBytes) return Region::computed({0, kBlockBytes});
    if (offset >= ends_at()) {
      const Range range{ends_at(), size_bytes() - ends_at()};
      return {.kind = Region::Kind::derived, .range = range, .data_bytes = range.length};
    }
    const NodeNo file{starts_.thing_at(offset / kBlockBytes)};
    const std::uint64_t begin = starts_.begin_of(file) * kBlockBytes;
    return {.kind = Region::Kind::file,
            .range = {begin, starts_.end_of(file) * kBlockBytes - begin},
            .data_bytes = data_of_file(file).length,
            .file = file,
            .has_holes = true};
  }
  void write_block(std::uint64_t /*block*/, std::span<std::byte> out) const override {
    std::ranges::fill(out, std::byte{0});
    const std::string text = std::string(kMagic) + label_;
    std::memcpy(out.data(), text.data(), text.size());
  }

  /// So many bytes of ends, and their sum: a checksum of what it cannot know before it reads.
  Result<void> derive_block(std::uint64_t block, std::span<std::byte> out,
                            ContentStore& contents) const override {
    std::ranges::fill(out, std::byte{0});
    const std::uint64_t begin = (block - starts_.end()) * kEndBytes;
    const std::uint64_t end = std::min(begin + kEndBytes, ends_.end());
    for (std::uint64_t at = begin; at < end;) {
      const auto [content, range] = end_at(at, end);
      const auto into = out.subspan(at - begin, range.length);
      if (Result<void> got = contents.read(content, range.offset, into); !got) return got;
      at += range.length;
    }
    std::uint32_t sum = 0;
    for (const std::byte byte : out) sum += std::to_integer<std::uint32_t>(byte);
    store_le(out, kEndBytes, sum);
    return {};
  }
  bool has_derived() const noexcept override { return ends_.end() != 0; }
  void derived_from(Range range, ContentRangeSink& sink) const override {
    const std::uint64_t first = (range.offset - ends_at()) / kBlockBytes;
    const std::uint64_t last = (range.end() - 1 - ends_at()) / kBlockBytes;
    const std::uint64_t end = std::min((last + 1) * kEndBytes, ends_.end());
    for (std::uint64_t at = first * kEndBytes; at < end;) {
      const auto [content, part] = end_at(at, end);
      if (!sink.content_range(content, part)) return;
      at += part.length;
    }
  }

 private:
  std::uint64_t ends_at() const noexcept { return starts_.end() * kBlockBytes; }
  /// What of a file stands in blocks of its own.
  Range data_of_file(NodeNo no) const noexcept {
    const std::uint64_t size = tree_->node(no).size_bytes - (ends_.end_of(no) - ends_.begin_of(no));
    return {starts_.begin_of(no) * kBlockBytes, size};
  }
  /// The bytes of a file that are packed at `at`, up to `end`.
  std::pair<ContentNo, Range> end_at(std::uint64_t at, std::uint64_t end) const noexcept {
    const NodeNo no{ends_.thing_at(at)};
    const std::uint64_t left = ends_.end_of(no) - at;
    const std::uint64_t from = tree_->node(no).size_bytes - left;
    return {content_no(no), {from, std::min(left, end - at)}};
  }

  std::shared_ptr<const SourceTree> tree_;
  std::string label_;
  StartTable<std::uint64_t> starts_;  // blocks, by node
  StartTable<std::uint64_t> ends_;    // bytes of packed ends, by node
};

constexpr std::array<FormatName, 1> kNames{{{"toy", ""}}};
constexpr std::array<std::string_view, 2> kCases{"keep", "upper"};
constexpr std::array<std::string_view, 2> kEnds{"own", "packed"};

std::span<const OptionRow> rows() {
  static const std::array<OptionRow, 3> rows{{
      label_option("508 (toy)", "In toy up to 508 bytes."),
      {.name = "toy-case",
       .kind = OptionKind::choice,
       .value_name = "WHAT",
       .help = "Letters of the label",
       .choices = kCases,
       .manual = "What becomes of the label's letters: `keep` (the default) or `upper`."},
      {.name = "toy-ends",
       .kind = OptionKind::choice,
       .value_name = "WHERE",
       .help = "Blocks of the ends of files",
       .choices = kEnds,
       .manual = "Ends of files that fill no block: each in a block of its `own` (the default), or "
                 "`packed` behind all files, with a sum over them in each block."},
  }};
  return rows;
}

Result<Planner> configure(std::string_view /*name*/, const OptionValues& values) {
  OptionReader reader(values);
  std::string label;
  bool upper = false;
  Ends ends = Ends::own_blocks;
  reader.text("label", label);
  reader.choice<bool>("toy-case", {{"keep", false}, {"upper", true}}, upper);
  reader.choice<Ends>("toy-ends", {{"own", Ends::own_blocks}, {"packed", Ends::packed}}, ends);
  if (label.size() > kBlockBytes - kMagic.size()) reader.refuse("label", label, "is too long");
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  if (upper) {
    for (char& c : label) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return [label, ends](const PlanRequest& request) -> Result<std::shared_ptr<const PlannedImage>> {
    return std::make_shared<ToyImage>(request.tree, label, ends);
  };
}

}  // namespace

const Format& format() {
  static const Format format{.family = "toys",
                             .names = kNames,
                             .holds = {},
                             .options = rows(),
                             .manual = "`toy` holds the bytes of files and no names.",
                             .configure = configure};
  return format;
}

}  // namespace mkvirtfs::toy
