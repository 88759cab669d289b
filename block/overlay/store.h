// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "block/content.h"
#include "block/file_operations.h"
#include "block/page_cache.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs {

/// Where an overlay keeps what was written: a sparse file in which the bytes of the device stand at
/// their own offsets, behind `data_offset`. As a ContentStore it has one content, kContent, whose
/// bytes these are; the kernel can move them like those of any file.
///
/// Every method may run on several threads at once. Knows nothing of blocks and their states.
class OverlayStore final : public ContentStore {
 public:
  static constexpr ContentNo kContent{0};

  /// A file without a name in `directory`, which is gone with the store.
  static Result<std::shared_ptr<OverlayStore>> in_directory(const std::string& directory,
                                                            std::uint64_t size_bytes);
  /// The same in memory, as far as the host has some.
  static Result<std::shared_ptr<OverlayStore>> in_memory(std::uint64_t size_bytes);

  OverlayStore(UniqueFd file, std::uint64_t data_offset, std::string name,
               FileOperations& operations = FileOperations::host());

  Result<void> write(std::uint64_t offset, std::span<const std::byte> bytes);
  /// Gives the space of the range back; it reads as zeroes then. Only advice: where the file system
  /// cannot do it, the old bytes stay, and must not be read any more.
  void discard(Range range) noexcept;
  /// Makes the range read as zeroes and later writes there find their space taken already.
  Result<void> allocate_zeroes(Range range);
  /// Whether the file's file system may make its callers wait. Asks it the first time alone.
  FileWaits waits();

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override;
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override;
  bool is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  void fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  bool keeps_fetched(ContentNo content) override;
  Result<Pin> pin(ContentNo content) override;
  Result<void> recheck(ContentNo content, const PinnedFile& file) override;
  std::string name(ContentNo content) const override;

  int fd() const noexcept { return file_->get(); }

 private:
  const std::shared_ptr<const UniqueFd> file_;
  const std::uint64_t data_offset_;
  const std::string name_;  // for messages
  FileOperations& operations_;
  HostReader reader_;
  HostReader::Memo memo_;
};

}  // namespace mkvirtfs
