// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/overlay_exports.h"

#include <fmt/format.h>

#include <utility>

#include "support/text.h"

namespace mkvirtfs::nbd {

OverlayExports::OverlayExports(std::shared_ptr<ExportTree> below, Options options)
    : below_(std::move(below)), options_(std::move(options)) {}

Result<std::vector<ExportEntry>> OverlayExports::list(std::string_view directory,
                                                      std::optional<std::string_view> after,
                                                      std::size_t most) {
  return below_->list(directory, after, most);
}

bool OverlayExports::may_clone(std::string_view name) const {
  return options_.is_clone && !name.empty() && is_valid_export_name(name) &&
         options_.is_clone(name);
}

std::optional<Export> OverlayExports::find_kept(std::string_view name) const {
  const MutexLock lock(mutex_);
  const auto place = kept_.find(name);
  if (place == kept_.end()) return std::nullopt;
  return Export{place->first, place->second.description, place->second.overlay};
}

Result<ExportEntry> OverlayExports::find(std::string_view name) {
  if (const std::optional<Export> kept = find_kept(name)) {
    ExportEntry entry;
    entry.name = kept->name;
    entry.description = kept->description;
    return entry;
  }
  Result<ExportEntry> found = below_->find(name);
  if (found || !may_clone(name)) return found;
  found = below_->find("");
  if (found) found->name = name;
  return found;
}

Result<Export> OverlayExports::open(std::string_view name) {
  if (std::optional<Export> kept = find_kept(name)) return *std::move(kept);
  const Result<ExportEntry> known = below_->find(name);
  const bool is_clone = !known && may_clone(name);
  if (!known && !is_clone) return std::unexpected(known.error());
  // This may take long; nobody else shall wait for it.
  Result<Export> opened = below_->open(is_clone ? std::string_view() : name);
  if (!opened || (options_.only_clones && !is_clone)) return opened;
  if (is_clone) opened->name = name;
  const MutexLock lock(mutex_);
  auto place = kept_.find(opened->name);
  if (place == kept_.end()) {
    if (is_clone && clones_ >= options_.most_clones) {
      return fail(Errc::no_space,
                  fmt::format("there are {} clones already, which is the limit", clones_));
    }
    Result<std::shared_ptr<Overlay>> made =
        options_.make_overlay(opened->name, std::move(opened->device));
    if (!made) return std::unexpected(std::move(made.error()));
    place =
        kept_.emplace(opened->name, Kept{opened->description, std::move(*made), is_clone}).first;
    if (is_clone) ++clones_;
  }
  opened->device = place->second.overlay;
  return opened;
}

std::vector<OverlayExports::Named> OverlayExports::overlays() const {
  std::vector<Named> result;
  const MutexLock lock(mutex_);
  for (const auto& [name, kept] : kept_) result.push_back({name, kept.overlay});
  return result;
}

Result<void> OverlayExports::snapshot(const std::string& name, const std::string& child) {
  if (child.empty() || !is_valid_export_name(child)) {
    return fail(Errc::usage, fmt::format("{}: no export can have that name", printable(child)));
  }
  if (below_->find(child)) {
    return fail(Errc::usage, fmt::format("{}: there is such an export", printable(child)));
  }
  if (!options_.make_store) return fail(Errc::unsupported, "snapshots can not be kept here");
  const MutexLock lock(mutex_);
  const auto parent = kept_.find(name);
  if (parent == kept_.end()) {
    return fail(Errc::usage, fmt::format("{}: nothing was written there", printable(name)));
  }
  if (kept_.contains(child)) {
    return fail(Errc::usage, fmt::format("{}: there is such an export", printable(child)));
  }
  if (clones_ >= options_.most_clones) {
    return fail(Errc::no_space,
                fmt::format("there are {} clones already, which is the limit", clones_));
  }
  Overlay& overlay = *parent->second.overlay;
  auto store = options_.make_store(overlay.geometry().size_bytes);
  if (!store) return std::unexpected(std::move(store.error()));
  Result<std::shared_ptr<BlockDevice>> frozen = overlay.snapshot(std::move(*store));
  if (!frozen) return std::unexpected(std::move(frozen.error()));
  auto made = options_.make_overlay(child, std::move(*frozen));
  if (!made) return std::unexpected(std::move(made.error()));
  kept_.emplace(child, Kept{parent->second.description, std::move(*made), true});
  ++clones_;
  return {};
}

Result<void> OverlayExports::flush() const {
  Result<void> first;
  for (const Named& named : overlays()) {
    Result<void> flushed = named.overlay->flush();
    if (first && !flushed) first = std::move(flushed);
  }
  return first;
}

Result<void> OverlayExports::discard(const std::string& name) {
  std::shared_ptr<Overlay> last;  // freed without the lock
  const MutexLock lock(mutex_);
  const auto place = kept_.find(name);
  if (place == kept_.end()) {
    return fail(Errc::usage, fmt::format("{}: nothing was written there", printable(name)));
  }
  if (place->second.overlay.use_count() > 1) {
    return fail(Errc::usage, fmt::format("{}: a client has it open", printable(name)));
  }
  last = std::move(place->second.overlay);
  if (place->second.is_clone) --clones_;
  kept_.erase(place);
  return {};
}

}  // namespace mkvirtfs::nbd
