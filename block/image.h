// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "block/content.h"
#include "block/device.h"
#include "block/extent.h"
#include "support/error.h"

namespace mkvirtfs {

/// One line of what `inspect` says of an image. `name` is kept like an API: snake_case, with
/// its unit.
struct ImageFact {
  std::string name;
  std::variant<std::uint64_t, std::string> value;
};

/// Something that the image does not show as the source has it.
struct Difference {
  std::string kind;  ///< one word, kept like an API: "skipped", "mapped", "followed"
  std::string path;  ///< in the source, raw bytes
  std::string what;  ///< in words that follow the path: "is a symlink"
};

/// Receives differences one after the other.
class DifferenceSink {
 public:
  /// Returns false to stop.
  virtual bool difference(const Difference& difference) = 0;

 protected:
  ~DifferenceSink() = default;
};

/// Receives ranges of files' bytes.
class ContentRangeSink {
 public:
  /// Returns false to stop.
  virtual bool content_range(ContentNo content, Range range) = 0;

 protected:
  ~ContentRangeSink() = default;
};

/// What a plan() returns: where every byte of a file system lies. Immutable, so every method may
/// run on several threads at once; the same source and options give the same image anywhere (law
/// 1).
class Image {
 public:
  virtual ~Image() = default;

  virtual std::uint64_t size_bytes() const noexcept = 0;
  virtual std::uint32_t block_bytes() const noexcept = 0;
  /// What a reader must ask for multiples of: the sector of a disk that is to have such sectors.
  virtual std::uint32_t minimum_block_bytes() const noexcept { return 1; }
  /// What readers do best to ask for, a power of two; 4096 at least where media have no say in it.
  virtual std::uint32_t preferred_block_bytes() const noexcept {
    return block_bytes() < 4096 ? 4096 : block_bytes();
  }

  /// As BlockDevice::map, but content extents name no store: an image does not know who holds the
  /// bytes.
  virtual void map(Range range, ExtentSink& sink) const = 0;

  /// Writes the bytes from `offset` into `out`; the caller stays inside one `computed` or `derived`
  /// extent. What is derived is made of bytes of `contents`, which has the numbers that map() says;
  /// how long each thing is was known when it was planned. Fails as its reads do, with an error
  /// that names the file; what is computed never fails. Any thread, and without a lock while it
  /// reads.
  virtual Result<void> compute(std::uint64_t offset, std::span<std::byte> out,
                               ContentStore& contents) const = 0;

  /// Whether map() may say `derived`. Constant.
  virtual bool has_derived() const noexcept { return false; }
  /// The bytes of files of which compute() makes `range`, which lies inside one `derived` extent.
  virtual void derived_from(Range range, ContentRangeSink& sink) const {
    static_cast<void>(range);
    static_cast<void>(sink);
  }

  /// What lies at `offset`, for people: "inode table, group 3, inodes 49153-49168", "file
  /// usr/bin/env at 8192".
  virtual std::string describe(std::uint64_t offset) const = 0;
  /// Where what describe(offset) speaks of ends, at least one byte later; what the extents of map()
  /// join may be several things.
  virtual std::uint64_t described_end(std::uint64_t offset) const {
    static_cast<void>(offset);
    return size_bytes();
  }

  /// The volume's identity as the format prints it (a UUID, a serial number).
  virtual std::string volume_id() const = 0;

  /// Sizes, counts and features, in the order in which they are worth reading.
  virtual std::vector<ImageFact> facts() const = 0;

  /// On one line, how much the image does not show as the source has it; empty when that is
  /// nothing. differences() lists it.
  virtual std::string remark() const { return {}; }
  virtual void differences(DifferenceSink& sink) const { static_cast<void>(sink); }

 protected:
  Image() = default;
  Image(const Image&) = default;
  Image& operator=(const Image&) = default;
};

/// An Image and the store of its files' bytes, seen as a read-only device. Shares ownership of
/// both.
class ImageDevice : public BlockDevice {
 public:
  ImageDevice(std::shared_ptr<const Image> image, std::shared_ptr<ContentStore> store);

  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override;
  void map(Range range, ExtentSink& sink) const override;
  /// What an image computes takes no waiting; what it derives waits for files that are not at hand.
  bool may_wait(DeviceCall call, Range range) const override;

  const Image& image() const noexcept { return *image_; }
  ContentStore& contents() const noexcept { return *store_; }

 private:
  std::shared_ptr<const Image> image_;
  std::shared_ptr<ContentStore> store_;
  bool has_derived_;
  bool has_joined_;
  Geometry geometry_;
};

}  // namespace mkvirtfs
