// SPDX-License-Identifier: BSD-3-Clause
#include "exports/overlay_exports.h"

#include <fmt/format.h>

#include <utility>

namespace mkvirtfs {
namespace {

/// Joins what two trees have under one name.
void merge(ExportEntry& entry, const ExportEntry& other) {
  if (!entry.is_export) entry.description = other.description;
  entry.is_export |= other.is_export;
  entry.is_directory |= other.is_directory;
  entry.children.reset();
}

std::string_view component_of(std::string_view name) noexcept {
  return name.substr(name.rfind('/') + 1);  // npos + 1 is 0
}

}  // namespace

/// Keeps an export to one caller that makes or removes its overlay, until it is destroyed.
class OverlayExports::Reservation {
 public:
  /// With the lock held, of a name that is not reserved.
  Reservation(OverlayExports& exports, std::string name, bool is_new_clone) REQUIRES(exports.mutex_)
      : exports_(exports), name_(std::move(name)), is_new_clone_(is_new_clone) {
    exports.reserved_.insert(name_);
    if (is_new_clone_) ++exports.clones_begun_;
  }
  ~Reservation() {
    {
      const MutexLock lock(exports_.mutex_);
      exports_.reserved_.erase(name_);
      if (is_new_clone_) --exports_.clones_begun_;
    }
    exports_.released_.notify_all();
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

 private:
  OverlayExports& exports_;
  const std::string name_;
  const bool is_new_clone_;
};

OverlayExports::OverlayExports(std::shared_ptr<ExportTree> below, Options options)
    : below_(std::move(below)), options_(std::move(options)) {
  const Result<ExportEntry> original = below_->find("");
  const MutexLock lock(mutex_);
  for (const std::string& name : options_.kept_names) {
    on_disk_.insert(name);
    if (may_clone(name) && !below_->find(name)) {
      clones_.emplace(name, original ? original->description : std::string());
    }
  }
  for (const Options::KeptBranch& branch : options_.kept_branches) {
    if (below_->find(branch.name)) continue;  // a source of that name has come since
    const Result<ExportEntry> origin = below_->find(branch.origin);
    clones_.emplace(branch.name, origin ? origin->description : std::string());
    branches_.emplace(branch.name, branch.origin);
    on_disk_.insert(branch.name);
  }
}

Result<std::vector<ExportEntry>> OverlayExports::list(std::string_view directory,
                                                      std::optional<std::string_view> after,
                                                      std::size_t most) {
  const std::vector<ExportEntry> clones = list_clones(directory, after, most);
  Result<std::vector<ExportEntry>> listed = below_->list(directory, after, most);
  if (!listed) {
    // The directory may be one of clones alone; behind its last entry, too.
    const bool is_known = after ? !list_clones(directory, {}, 1).empty() : !clones.empty();
    if (!is_known) return listed;
    listed.emplace();
  }
  if (clones.empty()) return listed;
  std::vector<ExportEntry> merged;
  auto theirs = listed->begin();
  auto ours = clones.begin();
  while (merged.size() < most && (theirs != listed->end() || ours != clones.end())) {
    const bool take_theirs =
        theirs != listed->end() &&
        (ours == clones.end() || component_of(theirs->name) <= component_of(ours->name));
    if (take_theirs) {
      merged.push_back(std::move(*theirs++));
      if (ours != clones.end() && ours->name == merged.back().name) merge(merged.back(), *ours++);
    } else {
      merged.push_back(*ours++);
    }
  }
  return merged;
}

std::vector<ExportEntry> OverlayExports::list_clones(std::string_view directory,
                                                     std::optional<std::string_view> after,
                                                     std::size_t most) const {
  const std::string prefix = directory.empty() ? std::string() : std::string(directory) + '/';
  std::vector<ExportEntry> page;
  const MutexLock lock(mutex_);
  auto at = clones_.lower_bound(prefix);
  if (after && after->starts_with(prefix)) at = clones_.lower_bound(behind_name(*after));
  while (page.size() < most && at != clones_.end() && at->first.starts_with(prefix)) {
    page.push_back(clone_entry(at, at->first.substr(0, at->first.find('/', prefix.size()))));
    at = clones_.lower_bound(behind_name(page.back().name));
  }
  return page;
}

/// What `name` is, when `at` is the first clone of that name or below it.
ExportEntry OverlayExports::clone_entry(Clones::const_iterator at, std::string_view name) const {
  ExportEntry entry{std::string(name), {}, at->first == name, false, std::nullopt};
  if (entry.is_export) {
    entry.description = at->second;
    ++at;
  }
  entry.is_directory = at != clones_.end() && at->first.size() > name.size() &&
                       at->first.starts_with(name) && at->first[name.size()] == '/';
  return entry;
}

bool OverlayExports::may_clone(std::string_view name) const {
  return options_.is_clone && !name.empty() && is_valid_export_name(name) &&
         options_.is_clone(name);
}

std::optional<std::string> OverlayExports::origin_of_branch(std::string_view name) const {
  const MutexLock lock(mutex_);
  const auto place = branches_.find(name);
  if (place == branches_.end()) return std::nullopt;
  return place->second;
}

std::optional<Export> OverlayExports::find_kept(std::string_view name) const {
  const MutexLock lock(mutex_);
  const auto place = kept_.find(name);
  if (place == kept_.end()) return std::nullopt;
  return Export{place->first, place->second.description, place->second.overlay,
                options_.write_through};
}

/// A clone that exists, or a directory of such.
std::optional<ExportEntry> OverlayExports::find_clone(std::string_view name) const {
  if (name.empty()) return std::nullopt;
  const MutexLock lock(mutex_);
  const auto at = clones_.lower_bound(name);
  if (at == clones_.end() || !at->first.starts_with(name)) return std::nullopt;
  ExportEntry entry = clone_entry(at, name);
  if (!entry.is_export && !entry.is_directory) return std::nullopt;
  return entry;
}

Result<ExportEntry> OverlayExports::find(std::string_view name) {
  Result<ExportEntry> found = below_->find(name);
  if (const std::optional<ExportEntry> clone = find_clone(name)) {
    if (!found) return *clone;
    merge(*found, *clone);
  }
  if (found || !may_clone(name)) return found;
  found = below_->find("");
  if (found) found->name = name;
  return found;
}

Result<Export> OverlayExports::open(std::string_view name) {
  if (std::optional<Export> kept = find_kept(name)) return *std::move(kept);
  const Result<ExportEntry> known = below_->find(name);
  std::optional<std::string> origin;
  if (!known) origin = origin_of_branch(name);
  if (!known && !origin && may_clone(name)) origin.emplace();
  if (!known && !origin) return propagate(known);
  const bool is_clone = origin.has_value();
  // This may take long, and no other call must wait for it.
  Result<Export> opened = below_->open(is_clone ? std::string_view(*origin) : name);
  if (!opened && is_clone && !origin->empty()) {
    return propagate(fmt::format("{} began as a snapshot of {}", name, *origin), opened);
  }
  if (!opened || (options_.only_clones && !is_clone)) return opened;
  if (is_clone) {
    opened->name = name;
  } else {
    origin = opened->name;
  }
  return over(*std::move(opened), is_clone, *std::move(origin));
}

std::optional<Result<Export>> OverlayExports::open_at_once(std::string_view name) {
  if (std::optional<Export> kept = find_kept(name)) return *std::move(kept);
  if (options_.only_clones && below_->find(name)) return below_->open_at_once(name);
  return std::nullopt;
}

/// The overlay of an export over the device that it has in the other tree.
Result<Export> OverlayExports::over(Export below, bool is_clone, std::string origin) {
  below.write_through = options_.write_through;
  std::optional<Reservation> reservation;
  bool is_new_clone = false;
  {
    MutexLock lock(mutex_);
    while (reserved_.contains(below.name)) lock.wait(released_);
    const auto place = kept_.find(below.name);
    if (place != kept_.end()) {
      below.device = place->second.overlay;
      return below;
    }
    is_new_clone = is_clone && !clones_.contains(below.name);
    const std::size_t clones = clones_.size() + clones_begun_;
    if (is_new_clone && clones >= options_.most_clones) {
      return fail(
          Errc::no_space,
          fmt::format("{}: there are {} clones already, which is the limit", below.name, clones),
          {{"clone-max"}});
    }
    reservation.emplace(*this, below.name, is_new_clone);
  }
  Result<std::shared_ptr<Overlay>> made =
      options_.make_overlay(below.name, std::move(below.device));
  if (!made) return propagate(made);
  below.device = *made;
  const MutexLock lock(mutex_);
  kept_.emplace(below.name, Kept{below.description, *std::move(made), std::move(origin)});
  if (is_new_clone) clones_.emplace(below.name, below.description);
  if (options_.forget) on_disk_.insert(below.name);
  return below;
}

std::vector<OverlayExports::Named> OverlayExports::overlays() const {
  std::vector<Named> result;
  const MutexLock lock(mutex_);
  for (const auto& [name, kept] : kept_) result.push_back({name, kept.overlay});
  return result;
}

Result<std::shared_ptr<Overlay>> OverlayExports::overlay(const std::string& name) {
  const auto unknown = [&] {
    return fail(Errc::usage, fmt::format("{}: nothing was written there", name));
  };
  {
    const MutexLock lock(mutex_);
    const auto kept = kept_.find(name);
    if (kept != kept_.end()) return kept->second.overlay;
    if (!on_disk_.contains(name)) return unknown();
  }
  const Result<Export> opened = open(name);
  if (!opened) return propagate(opened);
  auto overlay = std::dynamic_pointer_cast<Overlay>(opened->device);
  if (!overlay) return unknown();
  return overlay;
}

bool OverlayExports::is_unwritten(const std::string& name) {
  {
    const MutexLock lock(mutex_);
    if (kept_.contains(name) || on_disk_.contains(name)) return false;
  }
  return below_->find(name) ? !options_.only_clones : may_clone(name);
}

std::vector<std::string> OverlayExports::written_names() const {
  const MutexLock lock(mutex_);
  std::set<std::string> names(on_disk_.begin(), on_disk_.end());
  for (const auto& [name, kept] : kept_) names.insert(name);
  return {names.begin(), names.end()};
}

Result<void> OverlayExports::snapshot(const std::string& name, const std::string& child) {
  if (child.empty() || !is_valid_export_name(child)) {
    return fail(Errc::usage, fmt::format("{}: no export can have that name", child));
  }
  if (below_->find(child)) {
    return fail(Errc::usage, fmt::format("{}: there is such an export", child));
  }
  if (!options_.branch) return fail(Errc::unsupported, "snapshots cannot be kept here");
  const Result<std::shared_ptr<Overlay>> written = overlay(name);
  if (!written) return propagate(written);
  Kept kept;
  std::optional<Reservation> reservation;
  {
    MutexLock lock(mutex_);
    while (reserved_.contains(child)) lock.wait(released_);
    const auto parent = kept_.find(name);
    if (parent == kept_.end()) {
      return fail(Errc::usage, fmt::format("{}: nothing was written there", name));
    }
    if (kept_.contains(child) || clones_.contains(child)) {
      return fail(Errc::usage, fmt::format("{}: there is such an export", child));
    }
    const std::size_t clones = clones_.size() + clones_begun_;
    if (clones >= options_.most_clones) {
      return fail(Errc::no_space,
                  fmt::format("there are {} clones already, which is the limit", clones));
    }
    kept = parent->second;  // and it is not discarded meanwhile
    reservation.emplace(*this, child, true);
  }
  Result<Overlay::Branch> branch = options_.branch(*kept.overlay, child, kept.origin);
  if (!branch) return propagate(branch);
  {
    const MutexLock lock(mutex_);
    clones_.emplace(child, kept.description);
    if (options_.forget) {
      branches_.emplace(child, kept.origin);
      on_disk_.insert(child);
    }
    kept_.emplace(child, Kept{kept.description, std::move(branch->overlay), kept.origin});
  }
  if (!branch->named) {
    return propagate(fmt::format("{} is there, and nothing is lost, but", child), branch->named);
  }
  return std::move(branch->named);
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
  // It is not opened meanwhile, and it is freed without the lock.
  std::optional<Reservation> reservation;
  decltype(kept_)::node_type taken;
  {
    MutexLock lock(mutex_);
    while (reserved_.contains(name)) lock.wait(released_);
    const auto place = kept_.find(name);
    if (place == kept_.end() && !on_disk_.contains(name)) {
      return fail(Errc::usage, fmt::format("{}: nothing was written there", name));
    }
    if (place != kept_.end() && place->second.overlay.use_count() > 1) {
      return fail(Errc::usage, fmt::format("{}: a client has it open", name));
    }
    reservation.emplace(*this, name, false);
    if (place != kept_.end()) taken = kept_.extract(place);
  }
  const Result<void> forgotten = options_.forget ? options_.forget(name) : Result<void>();
  const MutexLock lock(mutex_);
  if (!forgotten) {
    if (!taken.empty()) kept_.insert(std::move(taken));
    return forgotten;
  }
  on_disk_.erase(name);
  branches_.erase(name);
  clones_.erase(name);
  return {};
}

}  // namespace mkvirtfs
