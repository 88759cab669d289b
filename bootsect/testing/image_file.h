// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <catch2/catch.hpp>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/image.h"
#include "bootsect/boot_pieces.h"
#include "bootsect/testing/disk_file.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"

namespace mkvirtfs::testing {

/// The bytes of an installed boot piece.
inline std::vector<std::byte> piece(std::string_view name) {
  auto read = bootsect::read_boot_piece(name, "");
  if (!read) FAIL(hinted_text(read.error()));
  return std::move(read->bytes);
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// Writes an image into a file; returns its bytes.
inline std::string dumped(const std::shared_ptr<const Image>& image,
                          const std::shared_ptr<ContentStore>& store, const std::string& path) {
  ImageDevice device(image, store);
  write_image(device, path);
  return bytes_at(path, 0, image->size_bytes());
}

}  // namespace mkvirtfs::testing
