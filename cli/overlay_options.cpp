// SPDX-License-Identifier: BSD-3-Clause
#include "cli/overlay_options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <optional>
#include <utility>

#include "block/overlay_file.h"
#include "cli/overlay_directory.h"
#include "fsgen/tree/glob.h"
#include "support/mutex.h"
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

/// The ids of images that have overlays on the disk: twenty clones of one need it once. Any thread.
class OverlayOptions::BaseIds {
 public:
  Result<ImageId> id_of(const std::shared_ptr<BlockDevice>& device) {
    const MutexLock lock(mutex_);
    std::erase_if(known_, [](const Known& known) { return known.device.expired(); });
    for (const Known& known : known_) {
      if (known.device.lock() == device) return known.id;
    }
    const Result<ImageId> id = image_id(*device);
    if (id) known_.push_back({device, *id});
    return id;
  }

 private:
  struct Known {
    std::weak_ptr<BlockDevice> device;
    ImageId id;
  };
  Mutex mutex_;
  std::vector<Known> known_ GUARDED_BY(mutex_);
};

void OverlayOptions::add_to(CLI::App& app, const char* group) {
  app.add_flag("--rw", writable_,
               "Let clients write: what they write is kept apart\nfrom the source")
      ->group(group);
  add_value(
      app, "--overlay", where_, "WHERE",
      "Where that is kept: temp (a file in $TMPDIR, the\ndefault) or memory until the end, or a "
      "file that\nstays, or DIR/ with a file for each export")
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

bool OverlayOptions::is_directory() const {
  boost::system::error_code error;
  return is_persistent() &&
         (where_.ends_with('/') || boost::filesystem::is_directory(where_, error));
}

bool OverlayOptions::is_file() const { return is_persistent() && !is_directory(); }

Result<std::string> OverlayOptions::path_of(std::string_view export_name) const {
  if (is_file()) return where_;
  const Result<std::string> name = overlay_file_name(export_name);
  if (!name) return name;
  return fmt::format("{}{}{}", where_, where_.ends_with('/') ? "" : "/", *name);
}

Result<void> OverlayOptions::check(std::size_t exports) const {
  if (is_file() && (exports > 1 || !clones_.empty())) {
    return fail(Errc::usage, fmt::format("--overlay={0} is for one export, without --clone: a file "
                                         "holds one overlay (try --overlay={0}/)",
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

Result<std::shared_ptr<Overlay>> OverlayOptions::open_file(const std::string& export_name,
                                                           std::shared_ptr<BlockDevice> device,
                                                           const Overlay::Options& limits,
                                                           BaseIds& ids) const {
  const Result<std::string> path = path_of(export_name);
  if (!path) return std::unexpected(path.error());
  const Result<ImageId> base = ids.id_of(device);
  if (!base) return std::unexpected(base.error());
  auto file = OverlayFile::open(*path, device->geometry().size_bytes, *base);
  if (!file) return std::unexpected(std::move(file.error()));
  return std::make_shared<Overlay>(std::move(device), std::move(*file), limits);
}

Result<std::shared_ptr<nbd::OverlayExports>> OverlayOptions::make_exports(
    std::shared_ptr<nbd::ExportTree> below, LogSink& log) const {
  nbd::OverlayExports::Options options;
  const Overlay::Options limits{.most_bytes = size_or_any(most_bytes_)};
  options.make_store = [in_memory = where_ == kMemory,
                        directory = temporary_directory()](std::uint64_t size_bytes) {
    return in_memory ? OverlayStore::in_memory(size_bytes)
                     : OverlayStore::in_directory(directory, size_bytes);
  };
  if (!is_persistent()) {
    options.make_overlay =
        [make_store = options.make_store, limits](
            const std::string&,
            std::shared_ptr<BlockDevice> device) -> Result<std::shared_ptr<Overlay>> {
      Result<std::shared_ptr<OverlayStore>> store = make_store(device->geometry().size_bytes);
      if (!store) return std::unexpected(std::move(store.error()));
      return std::make_shared<Overlay>(std::move(device), std::move(*store), limits);
    };
  } else {
    options.make_overlay = [self = *this, limits, ids = std::make_shared<BaseIds>(), &log](
                               const std::string& name, std::shared_ptr<BlockDevice> device) {
      auto made = self.open_file(name, std::move(device), limits, *ids);
      if (!made && self.is_directory()) {
        log.write(LogLevel::error, fmt::format("the overlay of export {}: {}", printable(name),
                                               printable(made.error().what)));
      }
      return made;
    };
    options.forget = [self = *this](const std::string& name) -> Result<void> {
      const Result<std::string> path = self.path_of(name);
      if (!path) return std::unexpected(path.error());
      if (::unlink(path->c_str()) != 0 && errno != ENOENT) {
        return fail_errno(errno, fmt::format("remove {}", *path));
      }
      return {};
    };
  }
  if (is_directory()) {
    if (Result<void> made = make_overlay_directory(where_); !made) {
      return std::unexpected(std::move(made.error()));
    }
    Result<std::vector<std::string>> kept = exports_in_overlay_directory(where_);
    if (!kept) return std::unexpected(std::move(kept.error()));
    options.kept_names = std::move(*kept);
  }
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
