// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/content.h"
#include "block/image.h"
#include "bootsect/disk.h"
#include "fsgen/image/patched_image.h"

namespace mkvirtfs::bootsect {

/// A part of a disk, placed. The numbers of its contents in the disk begin at `first_content`.
struct DiskPart {
  PlacedPart placed;
  PartContents contents;
  std::string what;  ///< "partition 1"
  std::uint32_t first_content = 0;
};

/// Parts that lie side by side, tables between them, and holes. Nothing of it overlaps.
class DiskImage final : public Image {
 public:
  struct Identity {
    std::string volume_id;
    std::vector<ImageFact> facts;
    std::uint32_t sector_bytes = 512;
  };
  DiskImage(std::uint64_t size_bytes, std::vector<DiskPart> parts, std::vector<Patch> tables,
            Identity identity);
  DiskImage(const DiskImage&) = delete;
  DiskImage& operator=(const DiskImage&) = delete;

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  std::uint32_t block_bytes() const noexcept override { return identity_.sector_bytes; }
  std::uint32_t minimum_block_bytes() const noexcept override {
    return identity_.sector_bytes > kUsualSectorBytes ? identity_.sector_bytes : 1;
  }
  std::uint32_t preferred_block_bytes() const noexcept override { return preferred_block_bytes_; }
  void map(Range range, ExtentSink& sink) const override;
  Result<void> compute(std::uint64_t offset, std::span<std::byte> out,
                       ContentStore& contents) const override;
  bool has_derived() const noexcept override;
  void derived_from(Range range, ContentRangeSink& sink) const override;
  std::string describe(std::uint64_t offset) const override;
  std::uint64_t described_end(std::uint64_t offset) const override;
  std::string volume_id() const override { return identity_.volume_id; }
  std::vector<ImageFact> facts() const override { return identity_.facts; }
  std::string remark() const override;
  void differences(DifferenceSink& sink) const override;

 private:
  /// The image of a part, or a table.
  struct Piece {
    Range range{};
    const DiskPart* part = nullptr;
    const Patch* table = nullptr;
  };
  std::vector<Piece>::const_iterator first_behind(std::uint64_t offset) const noexcept;
  const Piece* piece_at(std::uint64_t offset) const noexcept;

  std::uint64_t size_bytes_;
  std::vector<DiskPart> parts_;
  std::vector<Patch> tables_;
  Identity identity_;
  std::uint32_t preferred_block_bytes_ = 4096;
  std::vector<Piece> pieces_;  // sorted, disjoint, none is empty
};

/// The contents of all parts under the disk's numbers.
class DiskContents final : public ContentStore {
 public:
  explicit DiskContents(const std::vector<DiskPart>& parts);

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override;
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override;
  bool is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  void fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  bool keeps_fetched(ContentNo content) override;
  Result<Pin> pin(ContentNo content) override;
  Result<void> recheck(ContentNo content, const PinnedFile& file) override;
  /// Leads to the part's own store, so that what moves the bytes asks that one.
  void map(ContentNo content, Range range, ExtentSink& sink) override;
  bool has_joined() const override { return true; }
  std::string name(ContentNo content) const override;
  std::optional<HostFile> host_file(ContentNo content) const override;
  std::uint32_t source_of(ContentNo content) const override;

 private:
  struct Place {
    ContentStore& store;
    ContentNo content;
  };
  Place place_of(ContentNo content) const noexcept;

  std::vector<std::uint32_t> firsts_;
  std::vector<std::shared_ptr<ContentStore>> stores_;
};

}  // namespace mkvirtfs::bootsect
