// SPDX-License-Identifier: BSD-3-Clause
#include "tests/toy_format/toy_format.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "fsgen/image/option_reader.h"

namespace mkvirtfs::toy {
namespace {

constexpr std::uint32_t kBlockBytes = 512;
constexpr std::string_view kMagic = "TOY ";

struct PlacedFile {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  ContentNo content{};
};

class ToyImage final : public Image {
 public:
  ToyImage(const SourceTree& tree, std::string label) : label_(std::move(label)) {
    for (NodeNo number = 0; number < tree.node_count(); ++number) {
      const Node& node = tree.node(number);
      if (!node.is_regular() || node.size_bytes == 0) continue;
      files_.push_back({size_bytes_, node.size_bytes, ContentNo{number}});
      size_bytes_ += (node.size_bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    }
  }

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  std::uint32_t block_bytes() const noexcept override { return kBlockBytes; }

  void map(Range range, ExtentSink& sink) const override {
    const auto emit = [&](const Extent& extent) {
      if (extent.end() <= range.offset || extent.offset >= range.end()) return true;
      return sink.extent(extent.clipped(std::max(extent.offset, range.offset), range.end()));
    };
    if (!emit({.offset = 0, .length = kBlockBytes, .kind = ExtentKind::computed})) return;
    for (const PlacedFile& file : files_) {
      if (!emit({.offset = file.offset,
                 .length = file.length,
                 .kind = ExtentKind::content,
                 .content = file.content})) {
        return;
      }
      const std::uint64_t end = file.offset + file.length;
      const std::uint64_t rest = (kBlockBytes - end % kBlockBytes) % kBlockBytes;
      if (rest != 0 && !emit({.offset = end, .length = rest})) return;
    }
  }

  void compute(std::uint64_t offset, std::span<std::byte> out) const override {
    std::array<char, kBlockBytes> block{};
    const std::string text = std::string(kMagic) + label_;
    std::ranges::copy(text, block.begin());
    std::memcpy(out.data(), block.data() + offset, out.size());
  }

  std::string describe(std::uint64_t offset) const override {
    return offset < kBlockBytes ? "label" : "file data";
  }
  std::string volume_id() const override { return label_; }
  std::vector<ImageFact> facts() const override {
    return {{"file_count", std::uint64_t{files_.size()}}};
  }

 private:
  std::string label_;
  std::uint64_t size_bytes_ = kBlockBytes;
  std::vector<PlacedFile> files_;
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
  return [label](const PlanRequest& request) -> Result<std::shared_ptr<const Image>> {
    return std::make_shared<ToyImage>(*request.tree, label);
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
