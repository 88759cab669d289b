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

namespace mkvirtfs::toy {
namespace {

constexpr std::uint32_t kBlockBytes = 512;
constexpr std::string_view kMagic = "TOY ";
constexpr std::string_view kLabel = "label";

class ToyImage final : public RegionImage {
 public:
  ToyImage(std::shared_ptr<const SourceTree> tree, std::string label)
      : tree_(std::move(tree)), label_(std::move(label)) {
    std::uint64_t block = 1;
    for (NodeNo number = 0; number < tree_->node_count(); ++number) {
      starts_.add(block);
      const Node& node = tree_->node(number);
      if (node.is_regular()) block += ceil_div<std::uint64_t>(node.size_bytes, kBlockBytes);
    }
    starts_.finish(block);
  }

  std::uint64_t size_bytes() const noexcept override { return starts_.end() * kBlockBytes; }
  std::uint32_t block_bytes() const noexcept override { return kBlockBytes; }
  std::string describe(std::uint64_t offset) const override {
    return offset < kBlockBytes ? "label" : "file data";
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
    if (starts_.is_empty(*no)) return {.kind = DataPlacement::Kind::no_bytes};
    const std::uint64_t size = tree_->node(*no).size_bytes;
    return {DataPlacement::Kind::stored, size, {{0, {starts_.begin_of(*no) * kBlockBytes, size}}}};
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
    const NodeNo file = starts_.thing_at(offset / kBlockBytes);
    const std::uint64_t begin = starts_.begin_of(file) * kBlockBytes;
    return {.kind = Region::Kind::file,
            .range = {begin, starts_.end_of(file) * kBlockBytes - begin},
            .data_bytes = tree_->node(file).size_bytes,
            .file = file,
            .has_holes = true};
  }
  void write_block(std::uint64_t /*block*/, std::span<std::byte> out) const override {
    std::ranges::fill(out, std::byte{0});
    const std::string text = std::string(kMagic) + label_;
    std::memcpy(out.data(), text.data(), text.size());
  }

 private:
  std::shared_ptr<const SourceTree> tree_;
  std::string label_;
  StartTable<std::uint64_t> starts_;  // blocks, by node
};

constexpr std::array<FormatName, 1> kNames{{{"toy", ""}}};
constexpr std::array<std::string_view, 2> kCases{"keep", "upper"};

std::span<const OptionRow> rows() {
  static const std::array<OptionRow, 2> rows{{
      label_option("508 (toy)", "In toy up to 508 bytes."),
      {.name = "toy-case",
       .kind = OptionKind::choice,
       .value_name = "WHAT",
       .help = "Letters of the label",
       .choices = kCases,
       .manual = "What becomes of the label's letters: `keep` (the default) or `upper`."},
  }};
  return rows;
}

Result<Planner> configure(std::string_view /*name*/, const OptionValues& values) {
  OptionReader reader(values);
  std::string label;
  bool upper = false;
  reader.text("label", label);
  reader.choice<bool>("toy-case", {{"keep", false}, {"upper", true}}, upper);
  if (label.size() > kBlockBytes - kMagic.size()) reader.refuse("label", label, "is too long");
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  if (upper) {
    for (char& c : label) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return [label](const PlanRequest& request) -> Result<std::shared_ptr<const PlannedImage>> {
    return std::make_shared<ToyImage>(request.tree, label);
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
