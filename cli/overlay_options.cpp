// SPDX-License-Identifier: BSD-3-Clause
#include "cli/overlay_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <limits>
#include <optional>
#include <utility>

#include "block/overlay_file.h"
#include "fsgen/tree/glob.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kTemporary = "temp";
constexpr const char* kMemory = "memory";

std::string temporary_directory() {
  const char* given = std::getenv("TMPDIR");
  return given != nullptr && *given != '\0' ? given : "/var/tmp";
}

std::uint64_t size_or_any(const std::string& text) {
  return text.empty() ? std::numeric_limits<std::uint64_t>::max() : *parse_size(text);
}

}  // namespace

void OverlayOptions::add_to(CLI::App& app, const char* group) {
  app.add_flag("--rw", writable_,
               "Let clients write: what they write is kept apart\nfrom the source")
      ->group(group);
  add_value(
      app, "--overlay", where_, "WHERE",
      "Where that is kept: temp (a file in $TMPDIR, the\ndefault) or memory until the end, or a "
      "file that\nstays")
      ->group(group);
  add_value(app, "--overlay-max", most_bytes_, "SIZE", "The most that writes to an export may take")
      ->group(group);
  app.add_option("--clone", clones_,
                 "Exports of these names are writable copies of\nthe default one (repeatable)")
      ->option_text("GLOB")
      ->allow_extra_args(false)
      ->group(group);
  add_value(app, "--clone-max", most_clones_, "N", "Refuse clones beyond so many")->group(group);
}

bool OverlayOptions::wanted() const noexcept {
  return writable_ || !where_.empty() || !clones_.empty();
}

bool OverlayOptions::is_persistent() const noexcept {
  return !where_.empty() && where_ != kTemporary && where_ != kMemory;
}

Result<void> OverlayOptions::check(std::size_t exports) const {
  if (is_persistent() && (exports > 1 || !clones_.empty())) {
    return fail(Errc::usage, fmt::format("--overlay={} is for one export, without --clone: a file "
                                         "holds one overlay",
                                         where_));
  }
  if (!most_bytes_.empty() && !parse_size(most_bytes_)) {
    return fail(Errc::usage, fmt::format("--overlay-max={} is not a size (4G)", most_bytes_));
  }
  if (!most_bytes_.empty() && !wanted()) {
    return fail(Errc::usage, "--overlay-max is for writable exports: --rw or --clone");
  }
  if (!most_clones_.empty() && clones_.empty()) {
    return fail(Errc::usage, "--clone-max is for exports of --clone");
  }
  const std::optional<std::uint64_t> most_clones = parse_size(most_clones_);
  if (!most_clones_.empty() && (!most_clones || *most_clones == 0)) {
    return fail(Errc::usage, fmt::format("--clone-max={} is not a number above 0", most_clones_));
  }
  if (std::ranges::find(clones_, std::string()) != clones_.end()) {
    return fail(Errc::usage, "--clone needs a pattern of names (job-*)");
  }
  return {};
}

std::shared_ptr<nbd::OverlayExports> OverlayOptions::make_exports(
    std::shared_ptr<nbd::ExportTree> below) const {
  nbd::OverlayExports::Options options;
  options.make_store = [in_memory = where_ == kMemory,
                        directory = temporary_directory()](std::uint64_t size_bytes) {
    return in_memory ? OverlayStore::in_memory(size_bytes)
                     : OverlayStore::in_directory(directory, size_bytes);
  };
  options.make_overlay =
      [make_store = options.make_store, path = is_persistent() ? where_ : std::string(),
       most_bytes = size_or_any(most_bytes_)](
          const std::string&,
          std::shared_ptr<BlockDevice> device) -> Result<std::shared_ptr<Overlay>> {
    const std::uint64_t size_bytes = device->geometry().size_bytes;
    if (!path.empty()) {
      const Result<ImageId> base = image_id(*device);
      if (!base) return std::unexpected(base.error());
      auto file = OverlayFile::open(path, size_bytes, *base);
      if (!file) return std::unexpected(std::move(file.error()));
      return std::make_shared<Overlay>(std::move(device), std::move(*file),
                                       Overlay::Options{.most_bytes = most_bytes});
    }
    Result<std::shared_ptr<OverlayStore>> store = make_store(size_bytes);
    if (!store) return std::unexpected(std::move(store.error()));
    return std::make_shared<Overlay>(std::move(device), std::move(*store),
                                     Overlay::Options{.most_bytes = most_bytes});
  };
  if (!clones_.empty()) {
    options.is_clone = [globs = clones_](std::string_view name) {
      return std::ranges::any_of(globs,
                                 [&](const std::string& glob) { return glob_matches(glob, name); });
    };
  }
  if (!most_clones_.empty()) {
    options.most_clones = static_cast<std::size_t>(*parse_size(most_clones_));
  }
  // Without --rw only clones are written.
  options.only_clones = !writable_ && where_.empty();
  return std::make_shared<nbd::OverlayExports>(std::move(below), std::move(options));
}

}  // namespace mkvirtfs::cli
