// SPDX-License-Identifier: BSD-3-Clause
#include "cli/image_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <optional>

#include "cli/source_options.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Image";

Result<std::uint64_t> size_value(const char* option, const std::string& text) {
  const std::optional<std::uint64_t> size = parse_size(text);
  if (!size) {
    return fail(Errc::usage, fmt::format("{}={} is not a size (1536, 64M, 4GiB)", option, text));
  }
  return *size;
}

Result<std::uint32_t> number_value(const char* option, const std::string& text,
                                   std::uint32_t most) {
  const std::optional<std::uint64_t> number = parse_size(text);
  if (!number || *number > most) {
    return fail(Errc::usage, fmt::format("{}={} is not a number up to {}", option, text, most));
  }
  return static_cast<std::uint32_t>(*number);
}

Result<std::variant<ext2::FreeBytes, ext2::FreePercent>> free_value(const std::string& text) {
  if (!text.ends_with('%')) {
    const Result<std::uint64_t> size = size_value("--free", text);
    if (!size) return std::unexpected(size.error());
    return ext2::FreeBytes{*size};
  }
  constexpr std::uint64_t kMostPercent = 100'000;
  const std::optional<std::uint64_t> percent =
      parse_size(std::string_view(text).substr(0, text.size() - 1));
  if (!percent || *percent > kMostPercent) {
    return fail(Errc::usage, fmt::format("--free={} is neither a size nor N%", text));
  }
  return ext2::FreePercent{static_cast<std::uint32_t>(*percent)};
}

/// Puts the value of `parsed` into `place`, or its error into `failure` if there is none yet.
template <class Value, class Place>
void take(Result<Value> parsed, Place& place, std::optional<Error>& failure) {
  if (parsed) {
    place = std::move(*parsed);
  } else if (!failure) {
    failure = std::move(parsed.error());
  }
}

}  // namespace

void ImageOptions::add_to(CLI::App& app) {
  app.add_option("--fs", format_, "File system: ext2 (default), ext3, ext4")
      ->option_text("FORMAT")
      ->check(CLI::IsMember({"ext2", "ext3", "ext4"}))
      ->group(kGroup);
  CLI::Option* size = add_value(app, "--size", size_, "SIZE", "Exactly this large")->group(kGroup);
  add_value(app, "--free", free_, "SIZE|%", "Room to leave (default: 10%, at least 64M)")
      ->excludes(size)
      ->group(kGroup);
  add_value(app, "--inodes", inodes_, "N", "At least so many inodes")->group(kGroup);
  add_value(app, "--label", label_, "TEXT", "Volume label, up to 16 bytes")->group(kGroup);
  add_value(app, "--uuid", uuid_, "UUID", "Volume UUID (default: made from the contents)")
      ->group(kGroup);
  add_value(app, "--block-size", block_size_, "BYTES", "1024, 2048 or 4096")->group(kGroup);
  add_value(app, "--inode-size", inode_size_, "BYTES", "128 or 256")->group(kGroup);
  CLI::Option* journal =
      app.add_flag("--journal", journal_, "Have a journal (ext3 always has)")->group(kGroup);
  app.add_flag("--no-journal", no_journal_, "Have none")->excludes(journal)->group(kGroup);
  add_value(app, "--reserved", reserved_, "PERCENT", "Blocks kept for root (default 0)")
      ->group(kGroup);
  app.add_option("--features", features_, "As mke2fs -O: dir_index,^metadata_csum...")
      ->option_text("LIST")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group(kGroup);
}

Result<ext2::Options> ImageOptions::ext2_options() const {
  ext2::Options options;
  std::optional<Error> failure;
  options.variant = format_ == "ext4"   ? ext2::Variant::ext4
                    : format_ == "ext3" ? ext2::Variant::ext3
                                        : ext2::Variant::ext2;
  constexpr std::uint32_t kAny = std::numeric_limits<std::uint32_t>::max();
  if (!size_.empty()) take(size_value("--size", size_), options.size_bytes, failure);
  if (!free_.empty()) take(free_value(free_), options.free, failure);
  if (!inodes_.empty()) take(number_value("--inodes", inodes_, kAny), options.inodes, failure);
  if (!block_size_.empty()) {
    take(number_value("--block-size", block_size_, kAny), options.block_bytes, failure);
  }
  if (!inode_size_.empty()) {
    take(number_value("--inode-size", inode_size_, kAny), options.inode_bytes, failure);
  }
  if (!reserved_.empty()) {
    take(number_value("--reserved", reserved_, 50), options.reserved_percent, failure);
  }
  if (!uuid_.empty()) {
    options.uuid = ext2::parse_uuid(uuid_);
    if (!options.uuid && !failure) {
      failure = Error{Errc::usage, 0, fmt::format("--uuid={} is not a UUID", uuid_)};
    }
  }
  if (failure) return std::unexpected(std::move(*failure));
  // 0 is the planner's word for "not given".
  if (!block_size_.empty() && options.block_bytes == 0) {
    return fail(Errc::usage, "--block-size=0 is not 1024, 2048 or 4096");
  }
  if (!inode_size_.empty() && options.inode_bytes == 0) {
    return fail(Errc::usage, "--inode-size=0 is not 128 or 256");
  }
  options.label = label_;
  if (journal_) options.journal = true;
  if (no_journal_) options.journal = false;
  options.features = features_;
  const Result<std::optional<std::int64_t>> epoch = source_date_epoch();
  if (!epoch) return std::unexpected(epoch.error());
  options.made_at_s = *epoch;
  return options;
}

}  // namespace mkvirtfs::cli
