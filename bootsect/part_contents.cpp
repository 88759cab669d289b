// SPDX-License-Identifier: BSD-3-Clause
//
// What stands in a partition and is no file system: one joined content, whose pieces are a file,
// zeroes, and the few bytes of a header.
#include <fmt/format.h>

#include <cassert>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>

#include "block/joined_contents.h"
#include "bootsect/disk.h"
#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::uint64_t kSwapPageBytes = 4096;

/// An image that is one content, from its first byte to its last.
class ContentImage final : public Image {
 public:
  ContentImage(std::uint64_t size_bytes, std::string what, std::string volume_id)
      : size_bytes_(size_bytes), what_(std::move(what)), volume_id_(std::move(volume_id)) {}

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  std::uint32_t block_bytes() const noexcept override { return 512; }
  void map(Range range, ExtentSink& sink) const override {
    sink.extent({.offset = range.offset,
                 .length = range.length,
                 .kind = ExtentKind::content,
                 .content = ContentNo{0},
                 .content_offset = range.offset});
  }
  Result<void> compute(std::uint64_t, std::span<std::byte>, ContentStore&) const override {
    assert(false && "nothing is computed here");
    return {};
  }
  std::string describe(std::uint64_t offset) const override {
    return fmt::format("{} at {}", what_, offset);
  }
  std::string volume_id() const override { return volume_id_; }
  std::vector<ImageFact> facts() const override { return {{"size_bytes", size_bytes_}}; }

 private:
  std::uint64_t size_bytes_;
  std::string what_;
  std::string volume_id_;
};

PartContents one_content(JoinedContent content, std::string what, std::string volume_id) {
  const std::uint64_t size_bytes = content.size_bytes();
  std::map<ContentNo, JoinedContent> contents;
  contents.emplace(ContentNo{0}, std::move(content));
  return {std::make_shared<ContentImage>(size_bytes, std::move(what), std::move(volume_id)),
          std::make_shared<JoinedContents>(std::move(contents)), 1};
}

}  // namespace

PartContents planned_contents(std::shared_ptr<const PlannedImage> image,
                              std::shared_ptr<ContentStore> store) {
  const std::uint32_t content_count = image->tree().node_count();
  return {std::move(image), std::move(store), content_count};
}

PartContents raw_contents(std::shared_ptr<ContentStore> store, ContentNo content,
                          std::uint64_t size_bytes, std::string name) {
  JoinedContent joined{name, {ContentPiece::of(std::move(store), content, {0, size_bytes})}};
  return one_content(std::move(joined), "file " + name, "");
}

PartContents blank_contents(std::uint64_t size_bytes) {
  PartContents made = one_content({"zeroes", {ContentPiece::zeroes(size_bytes)}}, "zeroes", "");
  made.is_blank = true;
  return made;
}

PartContents code_contents(std::uint64_t size_bytes, const Patch& code) {
  JoinedContent content{code.what, {}};
  const std::uint64_t end = code.offset + code.bytes.size();
  if (code.offset != 0) content.pieces.push_back(ContentPiece::zeroes(code.offset));
  content.pieces.push_back(ContentPiece::memory(code.bytes));
  if (end != size_bytes) content.pieces.push_back(ContentPiece::zeroes(size_bytes - end));
  return one_content(std::move(content), code.what, "");
}

Result<PartContents> swap_contents(std::uint64_t size_bytes, const Uuid& uuid,
                                   std::string_view label) {
  constexpr std::uint64_t kHeaderAt = 1024;  // what lies before is a boot loader's
  constexpr std::size_t kHeaderBytes = 44;
  constexpr std::size_t kLabelBytes = 16;
  constexpr std::string_view kSignature = "SWAPSPACE2";
  constexpr std::uint64_t kFewestPages = 10;
  if (label.size() > kLabelBytes) {
    return fail_option({"label", std::string(label)},
                       fmt::format("labels of swap space have at most {} bytes", kLabelBytes));
  }
  const std::uint64_t pages = size_bytes / kSwapPageBytes;
  if (pages < kFewestPages) {
    return fail(Errc::does_not_fit,
                fmt::format("swap space has at least {} bytes, and this has {}",
                            kFewestPages * kSwapPageBytes, size_bytes),
                {{"size", fmt::format("{}", kFewestPages * kSwapPageBytes)}});
  }
  if (pages - 1 > 0xFFFFFFFF) {
    return fail(Errc::does_not_fit, fmt::format("swap space of {} bytes has too many pages for its "
                                                "header",
                                                size_bytes));
  }
  std::vector<std::byte> header(kHeaderBytes);
  const std::span<std::byte> out(header);
  store_le(out, 0, std::uint32_t{1});
  store_le(out, 4, static_cast<std::uint32_t>(pages - 1));  // the last page
  std::memcpy(out.data() + 12, uuid.data(), uuid.size());
  std::memcpy(out.data() + 28, label.data(), label.size());
  const auto signature = std::as_bytes(std::span(kSignature));

  JoinedContent content{"swap space", {}};
  const std::uint64_t signature_at = kSwapPageBytes - signature.size();
  content.pieces.push_back(ContentPiece::zeroes(kHeaderAt));
  content.pieces.push_back(ContentPiece::memory(std::move(header)));
  content.pieces.push_back(ContentPiece::zeroes(signature_at - kHeaderAt - kHeaderBytes));
  content.pieces.push_back(ContentPiece::memory({signature.begin(), signature.end()}));
  content.pieces.push_back(ContentPiece::zeroes(size_bytes - kSwapPageBytes));
  return one_content(std::move(content), "swap space", to_string(uuid));
}

}  // namespace mkvirtfs::bootsect
