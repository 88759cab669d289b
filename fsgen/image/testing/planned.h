// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "block/image.h"
#include "fsgen/tree/tree_builder.h"

// What the tests of planners ask of an image.

namespace mkvirtfs::testing {

/// By name.
inline std::map<std::string, std::string> facts_of(const Image& image) {
  std::map<std::string, std::string> facts;
  for (const ImageFact& fact : image.facts()) {
    facts[fact.name] =
        std::visit([](const auto& value) { return fmt::format("{}", value); }, fact.value);
  }
  return facts;
}

/// The bytes that a client would read.
inline std::vector<std::byte> read(const std::shared_ptr<const Image>& image,
                                   const BuiltTree& built, std::uint64_t offset,
                                   std::size_t length) {
  ImageDevice device(image, built.store);
  std::vector<std::byte> bytes(length);
  REQUIRE(device.read(offset, bytes));
  return bytes;
}

}  // namespace mkvirtfs::testing
