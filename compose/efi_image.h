// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "block/content.h"
#include "block/image.h"
#include "block/joined_contents.h"
#include "compose/read_sources.h"
#include "compose/source_loader.h"
#include "support/error.h"

// The FAT image in an ISO image from which UEFI starts.

namespace mkvirtfs {

/// Where it stands in the ISO image.
inline constexpr std::string_view kEfiImagePath = "boot/efi.img";

/// What it shows of the sources: their directories EFI and loader, with the bytes of their files. A
/// remark counts what is neither a file nor a directory there, which FAT does not have. Errors:
/// those of merging.
Result<ReadSources> efi_part_of(const ReadSources& sources, Remarks& remarks);

/// The bytes of an image as a content: what describes its files in memory, and the files where they
/// are. `store` has the contents that its map names. Errors: those of Image::compute().
Result<JoinedContent> joined_image(const Image& image, std::shared_ptr<ContentStore> store,
                                   std::string name);

}  // namespace mkvirtfs
