// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <catch2/catch.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fsgen/erofs/plan.h"
#include "fsgen/ext2/plan.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/image/planned_image.h"
#include "fsgen/iso9660/plan.h"

namespace mkvirtfs::testing {

/// A planner with its options, and the judge of its images.
struct AnyFormat {
  using Plan = std::function<Result<std::shared_ptr<const PlannedImage>>(
      std::shared_ptr<const SourceTree> tree)>;

  std::string name;
  Plan plan;
  /// What tool and arguments say that an image is right, and prints a file of it.
  std::function<std::vector<std::string>(const std::string& image)> judge;
  std::function<std::vector<std::string>(const std::string& image, const std::string& path)> cat;

  std::shared_ptr<const PlannedImage> planned(std::shared_ptr<const SourceTree> tree) const {
    auto image = plan(std::move(tree));
    if (!image) FAIL(name << ": " << image.error().what);
    return *image;
  }
};

inline AnyFormat ext_format(ext2::Variant variant, std::uint32_t block_bytes) {
  return {
      .name = "ext of " + std::to_string(block_bytes),
      .plan =
          [=](std::shared_ptr<const SourceTree> tree) {
            ext2::Options options;
            options.variant = variant;
            options.block_bytes = block_bytes;
            options.journal = variant != ext2::Variant::ext2;
            options.size_bytes = std::uint64_t{96} << 20;
            return ext2::plan(std::move(tree), options);
          },
      .judge =
          [](const std::string& image) { return std::vector<std::string>{"e2fsck", "-fn", image}; },
      .cat =
          [](const std::string& image, const std::string& path) {
            return std::vector<std::string>{"debugfs", "-R", "cat /" + path, image};
          }};
}

inline AnyFormat fat_format(fat32::Width width) {
  return {.name = std::string(fat32::name_of(width)),
          .plan =
              [=](std::shared_ptr<const SourceTree> tree) {
                fat32::Options options;
                options.width = width;
                options.symlinks = fat32::Symlinks::skip;
                if (width == fat32::Width::fat12) options.size_bytes = 8u << 20;
                return fat32::plan(std::move(tree), options);
              },
          .judge =
              [](const std::string& image) {
                return std::vector<std::string>{"fsck.fat", "-nv", image};
              },
          .cat =
              [](const std::string& image, const std::string& path) {
                return std::vector<std::string>{"mtype", "-i", image, "::/" + path};
              }};
}

inline AnyFormat iso_format() {
  return {.name = "iso",
          .plan =
              [](std::shared_ptr<const SourceTree> tree) {
                iso9660::Options options;
                options.boot.catalog = true;
                options.boot.tail_bytes = 4096;
                return iso9660::plan(std::move(tree), options);
              },
          .judge =
              [](const std::string& image) {
                return std::vector<std::string>{"xorriso",        "-abort_on",    "SORRY", "-indev",
                                                "stdio:" + image, "-check_media", "--"};
              },
          .cat =
              [](const std::string& image, const std::string& path) {
                return std::vector<std::string>{"isoinfo", "-R", "-i", image, "-x", "/" + path};
              }};
}

inline AnyFormat erofs_format() {
  return {
      .name = "erofs",
      .plan =
          [](std::shared_ptr<const SourceTree> tree) { return erofs::plan(std::move(tree), {}); },
      .judge =
          [](const std::string& image) {
            return std::vector<std::string>{"fsck.erofs", "--extract", image};
          },
      .cat =
          [](const std::string& image, const std::string& path) {
            const std::string extract =
                "out=$(mktemp -d) && fsck.erofs --extract=\"$out/tree\" \"$0\" >\"$out/said\" "
                "2>&1 && cat \"$out/tree/$1\"; rm -rf \"$out\"";
            return std::vector<std::string>{"sh", "-c", extract, image, path};
          }};
}

inline std::vector<AnyFormat> all_formats() {
  return {ext_format(ext2::Variant::ext2, 1024),
          ext_format(ext2::Variant::ext3, 2048),
          ext_format(ext2::Variant::ext4, 1024),
          ext_format(ext2::Variant::ext4, 4096),
          fat_format(fat32::Width::fat12),
          fat_format(fat32::Width::fat16),
          fat_format(fat32::Width::fat32),
          iso_format(),
          erofs_format()};
}

}  // namespace mkvirtfs::testing
