// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/oci/document.h"
#include "fsgen/oci/find_image.h"
#include "fsgen/oci/image_files.h"
#include "fsgen/oci/image_name.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/digest.h"
#include "support/error.h"

namespace mkvirtfs::oci {

/// The files of an image, read and checked, and what is asked of them.
class ImageQuery {
 public:
  ImageQuery(const ImageFiles& files, const ImageName& name,
             const std::optional<Platform>& platform)
      : files_(files), name_(name), platform_(platform) {}

  const ImageFiles& files() const noexcept { return files_; }
  const ImageName& name() const noexcept { return name_; }
  const std::optional<Platform>& platform() const noexcept { return platform_; }
  /// The image, for messages.
  std::string shown() const;
  std::string blob_name(const Descriptor& descriptor) const;

  /// A file that must be there.
  Result<std::shared_ptr<ByteSource>> file(std::string_view path) const;
  /// A blob that must be there, of the size that its descriptor has.
  Result<std::shared_ptr<ByteSource>> blob(const Descriptor& descriptor) const;
  /// The text of a blob, verified.
  Result<std::string> text_of(const Descriptor& descriptor) const;

 private:
  const ImageFiles& files_;
  const ImageName& name_;
  const std::optional<Platform>& platform_;
};

Result<std::string> read_document(ByteSource& source);

/// Whether an image for `there` runs on `wanted`.
bool fits(const Platform& wanted, const Platform& there);

/// An image whose layers are added one after the other, the lowest first.
class ImageDraft {
 public:
  /// Errors: Errc::usage for another platform; Errc::unreadable for too many layers, or another
  /// number of them than the configuration has.
  static Result<ImageDraft> begin(const ImageQuery& query, const std::string& config_text,
                                  const std::string& config_name, std::string id,
                                  std::size_t layer_count);

  void add_layer(std::shared_ptr<ByteSource> bytes, std::optional<Digest> digest);
  ContainerImage finish() && { return std::move(image_); }

 private:
  ContainerImage image_;
  std::vector<Digest> diff_ids_;
};

/// In a layout (image-layout.md of the OCI Image Specification).
Result<ContainerImage> find_in_layout(const ImageQuery& query);
/// In what `docker save` writes.
Result<ContainerImage> find_in_docker_archive(const ImageQuery& query);

}  // namespace mkvirtfs::oci
