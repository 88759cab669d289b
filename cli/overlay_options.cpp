// SPDX-License-Identifier: BSD-3-Clause
#include "cli/overlay_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "compose/source_base.h"
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
      .add_value("--base-check", base_check_, "WHAT",
                 "What must be unchanged in the files below\na kept overlay: stat (default), "
                 "content, or\nmtime: names, sizes and times alone")
      .one_of({"stat", "content", "mtime"})
      .group(group);
  options
      .add_value("--overlay-base", other_base_, "WHAT",
                 "accept: the files are the same, whatever\n--base-check says; any: read-only over "
                 "any image")
      .one_of({"accept", "any"})
      .group(group);
  options
      .add_flag(
          "--write-through", write_through_,
          "Answer each write when it is stored, for clients\nthat go on after this server ended")
      .group(group);
  options.add_value("--clone-max", most_clones_, "N", "The most clones; more are refused")
      .group(group);
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
  if (write_through_ && !is_persistent()) {
    return fail(Errc::usage,
                "--write-through is for overlays that stay: --overlay=FILE or "
                "--overlay=DIR/; nothing of a temporary one is left behind a server");
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

BaseGuard::Rules OverlayOptions::base_rules() const {
  BaseGuard::Rules rules;
  if (base_check_ == "content") rules.check = BaseCheckRule::content;
  if (base_check_ == "mtime") rules.check = BaseCheckRule::mtime;
  if (other_base_ == "accept") rules.other = OtherBase::accept;
  if (other_base_ == "any") rules.other = OtherBase::any;
  return rules;
}

DiskShelf OverlayOptions::disk_shelf(std::string main_export, LogSink& log) const {
  const BaseGuard::Rules rules = base_rules();
  DiskShelf shelf;
  shelf.place = is_directory() ? DiskShelf::Place::directory : DiskShelf::Place::file;
  shelf.path = where_;
  shelf.main_export = std::move(main_export);
  shelf.base = rules.other == OtherBase::any ? DiskShelf::Base::any : DiskShelf::Base::same;
  shelf.log = &log;
  shelf.make_base_check = [rules, &log](const std::string& path,
                                        const std::shared_ptr<BlockDevice>& device,
                                        const ImageId& base) -> OverlayFile::BaseCheck {
    const auto* const prepared = dynamic_cast<const PreparedDevice*>(device.get());
    if (prepared == nullptr) return {};
    return [guard = std::make_shared<BaseGuard>(path, base, device->geometry().size_bytes,
                                                prepared->base(), rules, log)](
               const OverlayHeader* found) { return guard->check(found); };
  };
  return shelf;
}

Result<std::shared_ptr<OverlayExports>> OverlayOptions::make_exports(
    std::shared_ptr<ExportTree> below, LogSink& log) const {
  OverlayExports::Options options;
  const Overlay::Options limits{.most_bytes = size_or_any(most_bytes_)};
  if (!is_persistent()) {
    const auto place =
        where_ == kMemory ? TemporaryShelf::Place::memory : TemporaryShelf::Place::directory;
    keep_temporary(options, {place, temporary_directory(), limits});
  } else {
    const Result<ExportEntry> main_export = below->find("");
    if (!main_export) return propagate(main_export);
    DiskShelf shelf = disk_shelf(main_export->name, log);
    shelf.limits = limits;
    if (Result<void> kept = keep_on_disk(options, std::move(shelf)); !kept) {
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
  options.write_through = write_through_;
  // Without --rw only clones are written.
  options.only_clones = !writable_ && where_.empty();
  return std::make_shared<OverlayExports>(std::move(below), std::move(options));
}

}  // namespace mkvirtfs::cli
