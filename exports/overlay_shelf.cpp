// SPDX-License-Identifier: BSD-3-Clause
#include "exports/overlay_shelf.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "block/resized_device.h"
#include "exports/base_ids.h"
#include "exports/overlay_directory.h"
#include "support/path.h"

namespace mkvirtfs {
namespace {

bool is_empty_file(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && status.st_size == 0;
}

/// What the calls of the options share.
class DiskOverlays {
 public:
  explicit DiskOverlays(DiskShelf shelf) : shelf_(std::move(shelf)) {}

  Result<std::shared_ptr<Overlay>> make_overlay(const std::string& export_name,
                                                std::shared_ptr<BlockDevice> device);
  Result<Overlay::Branch> branch(Overlay& overlay, const std::string& child,
                                 const std::string& origin) const;
  Result<void> forget(const std::string& export_name) const;
  /// What is on the disk already.
  Result<std::vector<KeptOverlay>> find_kept() const;

  bool is_directory() const noexcept { return shelf_.place == DiskShelf::Place::directory; }

 private:
  /// Whose name does not say which file is meant: the log does.
  bool needs_name_in_log(const std::string& export_name) const {
    return is_directory() || export_name != shelf_.main_export;
  }
  Result<std::string> path_of(std::string_view export_name) const;
  Result<std::shared_ptr<Overlay>> open(const std::string& path,
                                        std::shared_ptr<BlockDevice> device);
  Result<std::shared_ptr<Overlay>> open_over_any(const std::string& path,
                                                 std::shared_ptr<BlockDevice> device) const;

  const DiskShelf shelf_;
  BaseIds ids_;
};

Result<std::string> DiskOverlays::path_of(std::string_view export_name) const {
  const std::string& where = shelf_.path;
  if (is_directory()) {
    const Result<std::string> name = overlay_file_name(export_name);
    if (!name) return name;
    return fmt::format("{}{}{}", where, where.ends_with('/') ? "" : "/", *name);
  }
  if (export_name == shelf_.main_export) return where;
  const std::size_t begin = where.rfind('/') + 1;
  const Result<std::string> name = branch_file_name(where.substr(begin), export_name);
  if (!name) return name;
  return where.substr(0, begin).append(*name);
}

Result<std::shared_ptr<Overlay>> DiskOverlays::open_over_any(
    const std::string& path, std::shared_ptr<BlockDevice> device) const {
  auto file = OverlayFile::open_read_only(path);
  if (!file) return propagate(file);
  const std::uint64_t size_bytes = (*file)->header().size_bytes;
  if (size_bytes != device->geometry().size_bytes) {
    device = std::make_shared<ResizedDevice>(std::move(device), size_bytes);
  }
  Overlay::Options options = shelf_.limits;
  options.read_only = true;
  return std::make_shared<Overlay>(std::move(device), std::move(*file), options);
}

Result<std::shared_ptr<Overlay>> DiskOverlays::open(const std::string& path,
                                                    std::shared_ptr<BlockDevice> device) {
  if (shelf_.base == DiskShelf::Base::any) return open_over_any(path, std::move(device));
  const Result<ImageId> base = ids_.id_of(device);
  if (!base) return propagate(base);
  OverlayFile::BaseCheck check_base;
  if (shelf_.make_base_check) check_base = shelf_.make_base_check(path, device, *base);
  auto file = OverlayFile::open(path, device->geometry().size_bytes, *base, FileOperations::host(),
                                check_base);
  if (!file) return propagate(file);
  return std::make_shared<Overlay>(std::move(device), std::move(*file), shelf_.limits);
}

Result<std::shared_ptr<Overlay>> DiskOverlays::make_overlay(const std::string& export_name,
                                                            std::shared_ptr<BlockDevice> device) {
  const Result<std::string> path = path_of(export_name);
  const bool was_empty = path && is_empty_file(*path);
  Result<std::shared_ptr<Overlay>> made = path ? open(*path, std::move(device)) : propagate(path);
  if (made && was_empty) {
    shelf_.log->write(LogLevel::warning,
                      fmt::format("{}: the file is empty: the overlay begins anew", *path));
  }
  if (!made && needs_name_in_log(export_name)) {
    shelf_.log->write_with_hints(
        LogLevel::error,
        fmt::format("the overlay of export {}: {}", export_name, made.error().what),
        made.error().hints);
  }
  return made;
}

Result<Overlay::Branch> DiskOverlays::branch(Overlay& overlay, const std::string& child,
                                             const std::string& origin) const {
  const Result<std::string> path = path_of(child);
  if (!path) return propagate(path);
  // Where there is one image, its name may change.
  return overlay.branch(*path, is_directory() ? origin : std::string());
}

Result<void> DiskOverlays::forget(const std::string& export_name) const {
  if (shelf_.base == DiskShelf::Base::any) {
    return fail(Errc::unsupported, "overlays over any image are only read");
  }
  const Result<std::string> path = path_of(export_name);
  if (!path) return propagate(path);
  return OverlayFile::remove(*path);
}

Result<std::vector<KeptOverlay>> DiskOverlays::find_kept() const {
  const std::string& where = shelf_.path;
  if (is_directory()) {
    if (Result<void> made = make_overlay_directory(where); !made) return propagate(made);
    return overlays_in_directory(where, export_of_overlay_file, *shelf_.log);
  }
  const std::string base = where.substr(where.rfind('/') + 1);
  const auto export_of = [&](std::string_view file) {
    return file == base ? shelf_.main_export : export_of_branch_file(base, file);
  };
  auto kept = overlays_in_directory(directory_of(where), export_of, *shelf_.log);
  if (kept) return kept;
  // One may well use a file in a directory that one cannot list.
  shelf_.log->write(LogLevel::warning,
                    fmt::format("snapshots beside {} are not found: {}", where, kept.error().what));
  return std::vector<KeptOverlay>();
}

}  // namespace

void keep_temporary(OverlayExports::Options& options, TemporaryShelf shelf) {
  const auto make_store = [place = shelf.place,
                           directory = std::move(shelf.directory)](std::uint64_t size_bytes) {
    return place == TemporaryShelf::Place::memory
               ? OverlayStore::in_memory(size_bytes)
               : OverlayStore::in_directory(directory, size_bytes);
  };
  const auto make_overlay =
      [make_store, limits = shelf.limits](
          std::shared_ptr<BlockDevice> device) -> Result<std::shared_ptr<Overlay>> {
    Result<std::shared_ptr<OverlayStore>> store = make_store(device->geometry().size_bytes);
    if (!store) return propagate(store);
    return std::make_shared<Overlay>(std::move(device), std::move(*store), limits);
  };
  options.make_overlay = [make_overlay](const std::string&, std::shared_ptr<BlockDevice> device) {
    return make_overlay(std::move(device));
  };
  options.branch = [make_store, make_overlay](Overlay& overlay, const std::string&,
                                              const std::string&) -> Result<Overlay::Branch> {
    Result<std::shared_ptr<OverlayStore>> store = make_store(overlay.geometry().size_bytes);
    if (!store) return propagate(store);
    Result<std::shared_ptr<BlockDevice>> frozen = overlay.snapshot(std::move(*store));
    if (!frozen) return propagate(frozen);
    Result<std::shared_ptr<Overlay>> child = make_overlay(std::move(*frozen));
    if (!child) return propagate(child);
    return Overlay::Branch{std::move(*child), {}};
  };
}

Result<void> keep_on_disk(OverlayExports::Options& options, DiskShelf shelf) {
  const auto overlays = std::make_shared<DiskOverlays>(std::move(shelf));
  Result<std::vector<KeptOverlay>> kept = overlays->find_kept();
  if (!kept) return propagate(kept);
  for (KeptOverlay& overlay : *kept) {
    if (overlay.is_branch) {
      options.kept_branches.push_back({overlay.name, std::move(overlay.origin)});
    }
    if (overlays->is_directory() || overlay.is_branch) {
      options.kept_names.push_back(std::move(overlay.name));
    }
  }
  options.make_overlay = [overlays](const std::string& name, std::shared_ptr<BlockDevice> device) {
    return overlays->make_overlay(name, std::move(device));
  };
  options.branch = [overlays](Overlay& overlay, const std::string& child,
                              const std::string& origin) {
    return overlays->branch(overlay, child, origin);
  };
  options.forget = [overlays](const std::string& name) { return overlays->forget(name); };
  return {};
}

}  // namespace mkvirtfs
