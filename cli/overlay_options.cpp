// SPDX-License-Identifier: BSD-3-Clause
#include "cli/overlay_options.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "block/overlay/file.h"
#include "block/overlay/image_id.h"
#include "block/resized_device.h"
#include "cli/overlay_directory.h"
#include "compose/source_base.h"
#include "fsgen/tree/glob.h"
#include "support/message.h"
#include "support/mutex.h"
#include "support/path.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kTemporary = "temp";
constexpr const char* kMemory = "memory";

std::string temporary_directory() {
  const char* given = std::getenv("TMPDIR");
  return given != nullptr && *given != '\0' ? given : "/var/tmp";
}

bool is_empty_file(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && status.st_size == 0;
}

std::uint64_t size_or_any(const std::string& text) {
  return text.empty() ? std::numeric_limits<std::uint64_t>::max() : *parse_size(text);
}

}  // namespace

/// The ids of images that have overlays on the disk: twenty clones of one need it once. Who asks
/// while it is computed waits for that, but for no other image. Any thread.
class OverlayOptions::BaseIds {
 public:
  Result<ImageId> id_of(const std::shared_ptr<BlockDevice>& device) {
    std::shared_ptr<Known> known;
    {
      MutexLock lock(mutex_);
      std::erase_if(known_, [](const auto& each) { return each->device.expired(); });
      // Not by lock(): what is freed must not be freed here.
      const auto found = std::ranges::find_if(known_, [&](const auto& each) {
        return !each->device.owner_before(device) && !device.owner_before(each->device);
      });
      if (found != known_.end()) {
        known = *found;
        while (!known->id) lock.wait(computed_);
        return *known->id;
      }
      known = known_.emplace_back(std::make_shared<Known>());
      known->device = device;
    }
    Result<ImageId> id = guarded_id_of(*device);
    {
      const MutexLock lock(mutex_);
      known->id = id;
      if (!id) std::erase(known_, known);  // the next one tries again
    }
    computed_.notify_all();
    return id;
  }

 private:
  struct Known {
    std::weak_ptr<BlockDevice> device;
    std::optional<Result<ImageId>> id;
  };

  static Result<ImageId> guarded_id_of(BlockDevice& device) {
    // Whatever goes wrong, those who wait must learn of it.
    try {
      return image_id(device);
    } catch (...) {
      return std::unexpected(error_of_exception("compute the id of the image"));
    }
  }

  Mutex mutex_;
  std::condition_variable_any computed_;
  std::vector<std::shared_ptr<Known>> known_ GUARDED_BY(mutex_);
};

void OverlayOptions::add_to(OptionSet& options, const char* group) {
  options
      .add_flag("--rw", writable_,
                "Let clients write: what they write is kept apart\nfrom the source")
      .group(group);
  options
      .add_value("--overlay", where_, "WHERE",
                 "Where that is kept: temp (a file in $TMPDIR, the\ndefault) or memory until the "
                 "end, or a "
                 "file that\nstays, or DIR/ with a file for each export")
      .group(group);
  options
      .add_value("--overlay-max", most_bytes_, "SIZE", "The most that writes to an export may take")
      .group(group);
  options
      .add_values("--clone", clones_, "GLOB",
                  "Exports of these names are writable copies of\nthe default one (repeatable)")
      .one_value_each()
      .group(group);
  options
      .add_value(
          "--base-check", base_check_, "WHAT",
          "What of the files below an overlay that stayed\nmust be as it was: stat (default), "
          "content, or\nmtime: names, sizes and times alone")
      .one_of({"stat", "content", "mtime"})
      .group(group);
  options
      .add_value("--overlay-base", other_base_, "WHAT",
                 "accept: the files are the same, whatever\n--base-check says; any: read-only over "
                 "any image")
      .one_of({"accept", "any"})
      .group(group);
  options.add_value("--clone-max", most_clones_, "N", "Refuse clones beyond so many").group(group);
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

Result<std::string> OverlayOptions::path_of(std::string_view export_name,
                                            std::string_view main_export) const {
  if (is_file()) {
    if (export_name == main_export) return where_;
    const std::size_t begin = where_.rfind('/') + 1;
    const Result<std::string> name = branch_file_name(where_.substr(begin), export_name);
    if (!name) return name;
    return where_.substr(0, begin).append(*name);
  }
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
  for (const auto& [option, value] :
       {std::pair("--base-check", &base_check_), std::pair("--overlay-base", &other_base_)}) {
    if (!value->empty() && !is_persistent()) {
      return fail(Errc::usage, fmt::format("{}={} is for overlays that stay: --overlay=FILE or "
                                           "--overlay=DIR/",
                                           option, *value));
    }
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
                                                           const std::string& main_export,
                                                           std::shared_ptr<BlockDevice> device,
                                                           const Overlay::Options& limits,
                                                           BaseIds& ids, LogSink& log) const {
  const Result<std::string> path = path_of(export_name, main_export);
  if (!path) return propagate(path);
  const BaseGuard::Rules rules = base_rules();
  if (rules.other == OtherBase::any) {
    auto file = OverlayFile::open_read_only(*path);
    if (!file) return propagate(file);
    const std::uint64_t size_bytes = (*file)->header().size_bytes;
    if (size_bytes != device->geometry().size_bytes) {
      device = std::make_shared<ResizedDevice>(std::move(device), size_bytes);
    }
    Overlay::Options options = limits;
    options.read_only = true;
    return std::make_shared<Overlay>(std::move(device), std::move(*file), options);
  }
  const Result<ImageId> base = ids.id_of(device);
  if (!base) return propagate(base);
  const std::uint64_t size_bytes = device->geometry().size_bytes;
  OverlayFile::BaseCheck check_base;
  if (const auto* prepared = dynamic_cast<const PreparedDevice*>(device.get())) {
    check_base = [guard = std::make_shared<BaseGuard>(*path, *base, size_bytes, prepared->base(),
                                                      rules, log)](const OverlayHeader* found) {
      return guard->check(found);
    };
  }
  auto file = OverlayFile::open(*path, size_bytes, *base, FileOperations::host(), check_base);
  if (!file) return propagate(file);
  return std::make_shared<Overlay>(std::move(device), std::move(*file), limits);
}

BaseGuard::Rules OverlayOptions::base_rules() const {
  BaseGuard::Rules rules;
  if (base_check_ == "content") rules.check = BaseCheckRule::content;
  if (base_check_ == "mtime") rules.check = BaseCheckRule::mtime;
  if (other_base_ == "accept") rules.other = OtherBase::accept;
  if (other_base_ == "any") rules.other = OtherBase::any;
  return rules;
}

void OverlayOptions::keep_temporary(OverlayExports::Options& options,
                                    const Overlay::Options& limits) const {
  const auto make_store = [in_memory = where_ == kMemory,
                           directory = temporary_directory()](std::uint64_t size_bytes) {
    return in_memory ? OverlayStore::in_memory(size_bytes)
                     : OverlayStore::in_directory(directory, size_bytes);
  };
  const auto make_overlay =
      [make_store,
       limits](std::shared_ptr<BlockDevice> device) -> Result<std::shared_ptr<Overlay>> {
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

Result<void> OverlayOptions::keep_on_disk(OverlayExports::Options& options,
                                          const Overlay::Options& limits,
                                          const std::string& main_export, LogSink& log) const {
  options.make_overlay = [self = *this, limits, main_export, ids = std::make_shared<BaseIds>(),
                          &log](const std::string& name, std::shared_ptr<BlockDevice> device) {
    const Result<std::string> path = self.path_of(name, main_export);
    const bool was_empty = path && is_empty_file(*path);
    auto made = self.open_file(name, main_export, std::move(device), limits, *ids, log);
    if (made && was_empty) {
      log.write(LogLevel::warning,
                fmt::format("{}: the file is empty: the overlay begins anew", *path));
    }
    if (!made && (self.is_directory() || name != main_export)) {
      log.write(LogLevel::error,
                fmt::format("the overlay of export {}: {}", name, made.error().what));
    }
    return made;
  };
  options.branch = [self = *this, main_export](
                       Overlay& overlay, const std::string& child,
                       const std::string& origin) -> Result<Overlay::Branch> {
    const Result<std::string> path = self.path_of(child, main_export);
    if (!path) return propagate(path);
    // Where there is one image, its name may change.
    return overlay.branch(*path, self.is_file() ? std::string() : origin);
  };
  options.forget = [self = *this, main_export](const std::string& name) -> Result<void> {
    if (self.base_rules().other == OtherBase::any) {
      return fail(Errc::unsupported, "--overlay-base=any opens overlays read-only");
    }
    const Result<std::string> path = self.path_of(name, main_export);
    if (!path) return propagate(path);
    return OverlayFile::remove(*path);
  };
  Result<std::vector<KeptOverlay>> kept;
  if (is_directory()) {
    if (Result<void> made = make_overlay_directory(where_); !made) return made;
    kept = overlays_in_directory(where_, export_of_overlay_file, log);
    if (!kept) return propagate(kept);
  } else {
    const std::string base = where_.substr(where_.rfind('/') + 1);
    kept = overlays_in_directory(
        directory_of(where_),
        [&](std::string_view file) {
          return file == base ? main_export : export_of_branch_file(base, file);
        },
        log);
    if (!kept) {
      // One may well use a file in a directory that one can not list.
      log.write(LogLevel::warning,
                fmt::format("snapshots beside {} are not found: {}", where_, kept.error().what));
      return {};
    }
  }
  for (KeptOverlay& overlay : *kept) {
    if (overlay.is_branch) {
      options.kept_branches.push_back({overlay.name, std::move(overlay.origin)});
    }
    if (is_directory() || overlay.is_branch) options.kept_names.push_back(std::move(overlay.name));
  }
  return {};
}

Result<std::shared_ptr<OverlayExports>> OverlayOptions::make_exports(
    std::shared_ptr<ExportTree> below, LogSink& log) const {
  OverlayExports::Options options;
  const Overlay::Options limits{.most_bytes = size_or_any(most_bytes_)};
  if (!is_persistent()) {
    keep_temporary(options, limits);
  } else {
    const Result<ExportEntry> main_export = below->find("");
    if (!main_export) return propagate(main_export);
    if (Result<void> kept = keep_on_disk(options, limits, main_export->name, log); !kept) {
      return propagate(kept);
    }
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
  return std::make_shared<OverlayExports>(std::move(below), std::move(options));
}

}  // namespace mkvirtfs::cli
