// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <catch2/catch.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "fsgen/tree/layer.h"

namespace mkvirtfs::testing {

inline NodeNo number_at(const Layer& layer, std::string_view path) {
  const Node* const node = layer.tree->find_path(path);
  INFO(path);
  REQUIRE(node != nullptr);
  return layer.tree->number_of(*node);
}

/// All bytes of a file, whose holes are zeroes.
inline std::string bytes_of(const Layer& layer, NodeNo no) {
  std::string bytes(layer.tree->node(no).size_bytes, '?');
  const Result<void> read =
      layer.contents->read(content_no(no), 0, std::as_writable_bytes(std::span(bytes)));
  INFO((read ? "" : read.error().what));
  REQUIRE(read);
  return bytes;
}
inline std::string bytes_at(const Layer& layer, std::string_view path) {
  return bytes_of(layer, number_at(layer, path));
}

}  // namespace mkvirtfs::testing
