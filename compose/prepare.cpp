// SPDX-License-Identifier: BSD-3-Clause
// From a spec to an image: what can be wrong with the spec is looked for first, so that a typing
// error does not wait for a scan. Then the sources are read and merged; the tree is planned, or
// those of all partitions are, and a device joins the plan and the files' bytes.
#include "compose/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bootsect/mbr.h"
#include "compose/boot.h"
#include "compose/boot_files.h"
#include "compose/disk_options.h"
#include "compose/efi_image.h"
#include "compose/named_ids.h"
#include "compose/partitions.h"
#include "compose/read_sources.h"
#include "compose/source_base.h"
#include "compose/source_name.h"
#include "compose/source_options.h"
#include "fsgen/tree/tree_builder.h"
#include "support/arithmetic.h"
#include "support/message.h"
#include "support/sha256.h"

namespace mkvirtfs {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

constexpr std::uint64_t kBiosBootBytes = std::uint64_t{1} << 20;
constexpr std::string_view kEspType = "esp";
constexpr std::string_view kEfiImageFormat = "fat";

bool is_esp(const PartitionDraft& draft) {
  if (draft.spec.type.empty() || !draft.spec.in_table) return false;
  const auto type = bootsect::find_partition_type(draft.spec.type, "");
  return type && type->name == kEspType;
}

/// The smallest number of threads that a source asks for.
class ThreadLimit {
 public:
  void add(std::span<const SourceSpec> sources) {
    for (const SourceSpec& source : sources) {
      if (source.threads == 0) continue;
      least_ = least_ == 0 ? source.threads : std::min(least_, source.threads);
    }
  }
  unsigned value(const Resources& resources) const {
    return least_ != 0 ? least_ : resources.options().threads;
  }

 private:
  unsigned least_ = 0;
};

/// One call of prepare(). `doing` says at any time what is being done, for error_of_exception().
class Preparation {
 public:
  Preparation(const ImageSpec& spec, Resources& resources, std::string& doing)
      : spec_(spec), resources_(resources), remarks_(resources), doing_(doing) {}

  Result<PreparedImage> run();

 private:
  Result<void> check();
  Result<void> check_sources(std::span<const SourceSpec> sources);
  Result<void> check_canceled() const;
  Result<void> draft_disk();
  Result<void> add_bios_boot();
  Result<void> add_esp();
  Result<void> read_esp(PartitionDraft& draft);
  ReadSettings settings_of(std::string_view format, const std::optional<AttributeOverride>& root,
                           bool follows_symlinks) const;
  Result<void> read_sources();
  Result<void> add_boot();
  Result<void> add_efi_image();
  std::vector<BootVolume> boot_volumes();
  std::array<std::byte, 32> image_seed() const;
  Result<std::string> bare_volume_id() const;
  Result<void> keep_volume_id(const std::string& id);
  Result<void> plan();
  Result<void> plan_disk();
  void remark_on_plan(const PlannedImage& planned, const OptionValues& options,
                      std::span<const SourceSpec> sources);
  std::function<void(std::string)> seed_remarks();
  void remark_on_ids();
  SourceBase::Source own_loader_base();
  void make_device();

  const FormatRegistry& formats() const { return *resources_.options().formats; }

  const ImageSpec& spec_;
  Resources& resources_;
  Remarks remarks_;
  std::string& doing_;

  bool reads_standard_input_ = false;
  ThreadLimit threads_;
  DiskSettings disk_;
  std::optional<Boot> boot_;
  std::optional<SourceSpec> own_loader_;  // what boots, of the user's own
  ReadSources own_loader_read_;
  std::vector<PartitionDraft> drafts_;  // of a disk, as what follows
  DiskIdentity identity_;
  std::string format_;    // of what is no disk, as what follows
  OptionValues options_;  // of the format
  std::optional<AttributeOverride> root_;
  bool follows_symlinks_ = false;
  Planner planner_;
  ReadSources read_;
  ReadSources efi_read_;  // of the volume for UEFI in an ISO image
  std::shared_ptr<ContentStore> contents_;
  PreparedImage prepared_;
};

Result<void> Preparation::check_sources(std::span<const SourceSpec> sources) {
  for (const SourceSpec& source : sources) {
    if (Result<void> good = check_source_path(source.path); !good) return good;
    if (Result<void> good = check_place(source.at); !good) return good;
    if (source.path == "-" && std::exchange(reads_standard_input_, true)) {
      return fail(Errc::usage, "standard input can be read once, and two sources want it");
    }
  }
  threads_.add(sources);
  return {};
}

Result<void> Preparation::check() {
  const bool has_partitions = !spec_.partitions.empty();
  if (spec_.sources.empty() && !has_partitions) {
    return fail(Errc::usage, "an image needs a source");
  }
  if (Result<void> good = check_sources(spec_.sources); !good) return good;
  const std::string_view whole =
      has_partitions ? std::string_view() : formats().resolve(spec_.format, spec_.options);
  Result<DiskSettings> disk = read_disk_options(spec_.options, whole);
  if (!disk) return propagate(disk);
  disk_ = *disk;
  Result<std::optional<BootSettings>> boot = read_boot_options(spec_.options);
  if (!boot) return propagate(boot);
  if (*boot) {
    Result<Boot> made = Boot::make(**boot, disk_);
    if (!made) return propagate(made);
    boot_ = *std::move(made);
    if (const std::string& path = boot_->own_loader_path(); !path.empty()) {
      own_loader_ = SourceSpec{.path = path, .at = "loader", .is_file = true};
      if (Result<void> good = check_sources(std::span(&*own_loader_, 1)); !good) return good;
    }
  }
  if (disk_.table) return draft_disk();
  options_ = formats().without_disk(spec_.options);
  format_ = formats().resolve(spec_.format, options_);
  Result<Planner> planner = formats().configure(format_, options_);
  if (!planner) return propagate(planner);
  planner_ = std::move(*planner);
  Result<std::optional<AttributeOverride>> root = read_root(options_);
  if (!root) return propagate(root);
  root_ = std::move(*root);
  const Format& format = *formats().find(format_);
  follows_symlinks_ = format.follows_symlinks != nullptr && format.follows_symlinks(options_);
  return {};
}

Result<void> Preparation::draft_disk() {
  std::vector<PartitionSpec> partitions = spec_.partitions;
  if (partitions.empty()) {
    DiskSettings left = disk_;
    std::uint64_t others_bytes = boot_ && boot_->wants_bios_boot() ? kBiosBootBytes : 0;
    if (disk_.esp_bytes) others_bytes += round_up(*disk_.esp_bytes, bootsect::kAlignmentBytes);
    if (left.size_bytes) *left.size_bytes -= std::min(*left.size_bytes, others_bytes);
    partitions.push_back(whole_disk_partition(spec_, left, formats()));
  } else if (!spec_.sources.empty() || !spec_.format.empty()) {
    return fail(Errc::usage, "beside partitions there is no source and no file system",
                {{"partition"}});
  } else {
    OptionValues rest = formats().without_disk(spec_.options);
    for (const std::string_view of_disk : {"size", "sector-size"}) rest.remove(of_disk);
    for (const auto& [name, values] : rest) {
      return fail_option({name, values.empty() ? std::string() : values.front()},
                         "a partition has this option, and not the disk", {{"partition"}});
    }
  }
  std::size_t number = 0;
  for (PartitionSpec& partition : partitions) {
    ++number;
    if (!spec_.partitions.empty()) {
      Result<void> good = check_sources(partition.sources);
      if (good) good = check_partition_sources(partition);
      if (!good) return propagate(fmt::format("partition {}", number), good);
    }
    const std::string word = word_of(partition);
    Result<PartitionDraft> draft = draft_partition(std::move(partition), disk_, formats());
    if (!draft && spec_.partitions.empty()) return propagate(draft);
    if (!draft) return std::unexpected(of_partition(std::move(draft).error(), word));
    drafts_.push_back(*std::move(draft));
  }
  if (Result<void> good = add_esp(); !good) return good;
  return add_bios_boot();
}

/// Behind the partitions that the user has named; what boots puts files into it.
Result<void> Preparation::add_esp() {
  if (!disk_.esp_bytes) return {};
  if (std::ranges::any_of(drafts_, is_esp)) {
    return fail_option({"esp", fmt::format("{}", *disk_.esp_bytes)},
                       "a partition has the type esp already");
  }
  PartitionSpec spec;
  spec.format = "fat";
  spec.size_bytes = disk_.esp_bytes;
  spec.type = kEspType;
  Result<PartitionDraft> draft = draft_partition(std::move(spec), disk_, formats());
  if (!draft) return propagate(draft);
  drafts_.push_back(*std::move(draft));
  return {};
}

/// It has no sources.
Result<void> Preparation::read_esp(PartitionDraft& draft) {
  draft.read.settings = settings_of(draft.format, draft.root, draft.follows_symlinks);
  BuiltTree empty = TreeBuilder{}.build();
  draft.read.base_tree = empty.tree;
  draft.read.base_contents = empty.store;
  Layer layer;
  layer.tree = std::move(empty.tree);
  layer.contents = std::move(empty.store);
  return draft.read.add(std::move(layer), std::string(kEspType));
}

/// One behind all others, unless there is one.
Result<void> Preparation::add_bios_boot() {
  if (!boot_ || !boot_->wants_bios_boot()) return {};
  const Result<bootsect::PartitionType> type = bootsect::find_partition_type("bios-boot", "");
  if (!type) return propagate(type);
  const bool has_one = std::ranges::any_of(drafts_, [&](const PartitionDraft& draft) {
    const auto given = bootsect::find_partition_type(draft.spec.type, "");
    return draft.spec.in_table && given && given->guid == type->guid;
  });
  if (has_one) return {};
  PartitionSpec spec;
  spec.holds = PartitionSpec::Holds::blank;
  spec.size_bytes = kBiosBootBytes;
  spec.type = type->name;
  Result<PartitionDraft> draft = draft_partition(std::move(spec), disk_, formats());
  if (!draft) return propagate(draft);
  drafts_.push_back(*std::move(draft));
  return {};
}

Result<void> Preparation::check_canceled() const {
  if (!resources_.is_canceled()) return {};
  return fail_errno(Errc::io, ECANCELED, doing_);
}

ReadSettings Preparation::settings_of(std::string_view format,
                                      const std::optional<AttributeOverride>& root,
                                      bool follows_symlinks) const {
  const Format* const known = formats().find(format);
  return {.has_xattrs = known == nullptr || known->holds.xattrs,
          .source_date_epoch_s = spec_.source_date_epoch_s,
          .keep_facts = spec_.keep_base,
          .root = root,
          .follows_symlinks = follows_symlinks};
}

Result<void> Preparation::read_sources() {
  const Stopwatch time;
  SourceReader reader(resources_, remarks_, doing_);
  const auto read = [&](std::span<const SourceSpec> sources, const ReadSettings& settings,
                        ReadSources& place) -> Result<void> {
    Result<ReadSources> done = reader.read(sources, settings);
    if (!done) return propagate(done);
    place = *std::move(done);
    std::ranges::copy(place.facts, std::back_inserter(prepared_.report.sources));
    return {};
  };
  for (PartitionDraft& draft : drafts_) {
    if (draft.spec.holds == PartitionSpec::Holds::file_system && draft.spec.sources.empty()) {
      if (Result<void> good = read_esp(draft); !good) return good;
      continue;
    }
    if (draft.spec.sources.empty()) continue;
    if (Result<void> good =
            read(draft.spec.sources, settings_of(draft.format, draft.root, draft.follows_symlinks),
                 draft.read);
        !good)
      return good;
  }
  if (drafts_.empty()) {
    if (Result<void> good =
            read(spec_.sources, settings_of(format_, root_, follows_symlinks_), read_);
        !good)
      return good;
  }
  if (own_loader_) {
    Result<ReadSources> loader = reader.read(std::span(&*own_loader_, 1),
                                             {.has_xattrs = false, .keep_facts = spec_.keep_base});
    if (!loader) return propagate(loader);
    own_loader_read_ = *std::move(loader);
    boot_->set_own_loader(own_loader_read_);
  }
  prepared_.report.passed_over = reader.finish();
  prepared_.report.scan_seconds = time.seconds();
  return {};
}

std::vector<BootVolume> Preparation::boot_volumes() {
  std::vector<BootVolume> volumes;
  if (drafts_.empty()) volumes.push_back({.format = format_, .read = &read_});
  if (efi_read_.tree) {
    volumes.push_back(
        {.format = kEfiImageFormat, .read = &efi_read_, .is_esp = true, .is_efi_image = true});
  }
  for (std::size_t at = 0; at < drafts_.size(); ++at) {
    PartitionDraft& draft = drafts_[at];
    if (draft.spec.holds != PartitionSpec::Holds::file_system) continue;
    const std::uint32_t number = number_of(drafts_, disk_, at);
    if (number == 0) continue;  // what boots looks into the table
    volumes.push_back({.format = draft.format,
                       .read = &draft.read,
                       .is_root = draft.spec.type.starts_with("root"),
                       .is_esp = is_esp(draft),
                       .is_chosen = draft.spec.boots,
                       .partition = number,
                       .partuuid = bootsect::partuuid(*disk_.table, identity_.ids, number)});
  }
  return volumes;
}

/// A digest of what an image without a table is made of.
std::array<std::byte, 32> Preparation::image_seed() const {
  Sha256 digest;
  digest.update(read_.tree->id());
  const auto add = [&](std::string_view text) {
    digest.update(std::as_bytes(std::span(text)));
    digest.update(std::as_bytes(std::span("\n", 1)));
  };
  add(format_);
  for (const auto& [name, values] : options_) {
    add(name);
    for (const std::string& value : values) add(value);
  }
  return digest.finish();
}

/// The id that the volume would have without what is added to it for booting. It derives from the
/// tree, so a plan is made for nothing else.
Result<std::string> Preparation::bare_volume_id() const {
  assert(drafts_.empty());
  auto planned = planner_({.tree = read_.tree,
                           .contents = read_.contents,
                           .made_at_s = spec_.source_date_epoch_s,
                           .threads = threads_.value(resources_)});
  if (!planned) return propagate(planned);
  return (*planned)->volume_id();
}

Result<void> Preparation::keep_volume_id(const std::string& id) {
  options_.remove("uuid");
  options_.add("uuid", id);
  Result<Planner> planner = formats().configure(format_, options_);
  if (!planner) return propagate(planner);
  planner_ = *std::move(planner);
  return {};
}

/// Ids are derived before files are added: these may name them.
Result<void> Preparation::add_boot() {
  doing_ = "add a boot loader";
  if (!drafts_.empty()) {
    Result<DiskIdentity> identity = identify_disk(drafts_, disk_);
    if (!identity) return propagate(identity);
    identity_ = *std::move(identity);
  }
  if (!boot_) return {};
  if (drafts_.empty() && format_ == "iso" && boot_->wants_efi_image()) {
    Result<ReadSources> part = efi_part_of(read_, remarks_);
    if (!part) return propagate(part);
    efi_read_ = *std::move(part);
  }
  const std::vector<BootVolume> volumes = boot_volumes();
  if (Result<void> good = boot_->choose(volumes); !good) return good;
  const auto seed = drafts_.empty() ? image_seed() : identity_.seed;
  Result<void> added = boot_->add_files(
      resources_.made_pieces(), volumes, seed, [this] { return bare_volume_id(); }, remarks_);
  if (!added) return added;
  if (boot_->named_volume_id()) {
    if (Result<void> good = keep_volume_id(*boot_->named_volume_id()); !good) return good;
  }
  return efi_read_.tree ? add_efi_image() : Result<void>();
}

/// Into the ISO image, as a file: planned by itself, and without a copy of the files in it.
Result<void> Preparation::add_efi_image() {
  OptionValues options;
  options.add("free", "0");
  const Result<Planner> planner = formats().configure(std::string(kEfiImageFormat), options);
  if (!planner) return propagate(planner);
  auto planned = (*planner)({.tree = efi_read_.tree,
                             .contents = efi_read_.contents,
                             .made_at_s = spec_.source_date_epoch_s,
                             .threads = threads_.value(resources_),
                             .remark = seed_remarks()});
  if (!planned) return propagate("the image that UEFI starts", planned);
  Result<JoinedContent> joined =
      joined_image(**planned, efi_read_.contents, std::string(kEfiImagePath));
  if (!joined) return propagate(joined);
  BootFiles files;
  files.add(std::string(kEfiImagePath), *std::move(joined));
  return read_.add(files.layer(read_.tree->newest_mtime()), "the image that UEFI starts");
}

Result<void> Preparation::plan_disk() {
  const DiskRequest request{.identity = identity_,
                            .boot = boot_ ? &*boot_ : nullptr,
                            .is_whole = spec_.partitions.empty(),
                            .source_date_epoch_s = spec_.source_date_epoch_s,
                            .threads = threads_.value(resources_),
                            .remark = seed_remarks()};
  Result<PlannedPartitions> planned = plan_partitions(drafts_, disk_, request);
  if (!planned) return propagate(planned);
  prepared_.image = std::move(planned->disk.image);
  prepared_.partitions = std::move(planned->partitions);
  for (std::size_t at = 0; at < drafts_.size(); ++at) {
    const PlannedImage* const planned_system = prepared_.partitions[at].file_system.get();
    if (planned_system == nullptr) continue;
    remark_on_plan(*planned_system, drafts_[at].spec.options, drafts_[at].spec.sources);
  }
  contents_ = std::move(planned->disk.store);
  return {};
}

/// What a plan says of a file system beside what it does not show of it.
void Preparation::remark_on_plan(const PlannedImage& planned, const OptionValues& options,
                                 std::span<const SourceSpec> sources) {
  if (std::string switched_on = planned.switched_on(); !switched_on.empty()) {
    remarks_.add(Remark::About::switched_on, LogLevel::warning, std::move(switched_on));
  }
  const std::string gave_way = planned.gave_way();
  if (const std::string* size = options.find("size"); size != nullptr && !gave_way.empty()) {
    remarks_.add(Remark::About::gave_way, LogLevel::warning,
                 fmt::format("no room for what is there by default: {}", gave_way),
                 {"size", *size});
  }
  for (const Setting& pattern : planned.unmatched()) {
    std::string below;
    for (const SourceSpec& source : sources) {
      if (below.empty()) below = path_below(source.path, pattern.value);
    }
    remark_on_unmatched(pattern, below, remarks_);
  }
}

std::function<void(std::string)> Preparation::seed_remarks() {
  return [this](std::string what) {
    remarks_.add(Remark::About::seed_file, LogLevel::warning, std::move(what));
  };
}

Result<void> Preparation::plan() {
  const Stopwatch time;
  doing_ = "plan the image";
  if (Result<void> goes_on = check_canceled(); !goes_on) return goes_on;
  if (!drafts_.empty()) {
    if (Result<void> good = plan_disk(); !good) return good;
  } else {
    prepared_.tree = read_.tree;
    contents_ = read_.contents;
    PlanRequest request{.tree = prepared_.tree,
                        .contents = contents_,
                        .made_at_s = spec_.source_date_epoch_s,
                        .threads = threads_.value(resources_),
                        .remark = seed_remarks(),
                        .followed = read_.followed};
    if (boot_) boot_->add_wishes(read_, request);
    auto planned = planner_(request);
    if (planned && boot_) planned = boot_->patch(read_, *std::move(planned), 0);
    if (!planned) return propagate(planned);
    remark_on_plan(**planned, options_, spec_.sources);
    prepared_.image = std::move(*planned);
  }
  prepared_.report.plan_seconds = time.seconds();
  if (std::string remark = prepared_.image->remark(); !remark.empty()) {
    remarks_.add(Remark::About::differences, LogLevel::warning, std::move(remark));
  }
  std::uint64_t nodes = prepared_.tree ? prepared_.tree->node_count() : 0;
  for (const PreparedPartition& each : prepared_.partitions) {
    if (each.tree) nodes += each.tree->node_count();
  }
  resources_.log().write(LogLevel::debug,
                         fmt::format("scanned {} nodes in {:.3f} s, planned in {:.3f} s", nodes,
                                     prepared_.report.scan_seconds, prepared_.report.plan_seconds));
  return {};
}

/// What a disk, or what boots, is asked for by its own files.
void Preparation::remark_on_ids() {
  if (!boot_ && drafts_.empty()) return;
  const auto label_of = [](const Image& image) {
    for (const ImageFact& fact : image.facts()) {
      if (fact.name == "label") return std::get<std::string>(fact.value);
    }
    return std::string();
  };
  std::vector<NamedVolume> volumes;
  if (drafts_.empty()) {
    volumes.push_back({.tree = read_.tree,
                       .contents = read_.contents,
                       .uuid = prepared_.image->volume_id(),
                       .label = label_of(*prepared_.image)});
  }
  for (std::size_t at = 0; at < drafts_.size(); ++at) {
    const PreparedPartition& partition = prepared_.partitions[at];
    volumes.push_back({.what = partition.placed.number == 0
                                   ? "the part outside the table"
                                   : fmt::format("partition {}", partition.placed.number),
                       .tree = partition.tree,
                       .contents = drafts_[at].read.contents,
                       .uuid = partition.image->volume_id(),
                       .label = label_of(*partition.image),
                       .partuuid = partition.placed.partuuid,
                       .name = partition.name});
    if (const std::string* label = drafts_[at].spec.options.find("label")) {
      volumes.back().label = *label;
    }
  }
  NamedPlace place{.has_partitions = !spec_.partitions.empty()};
  for (std::size_t at = 0; at < drafts_.size(); ++at) {
    if (drafts_[at].spec.holds != PartitionSpec::Holds::raw) continue;
    place.unknown += (place.unknown.empty() ? "" : ", ") + volumes[at].what;
  }
  doing_ = "look for ids in the sources' configurations";
  remark_on_named_ids(volumes, place, remarks_);
}

/// The user's loader stands in no tree of the sources. What came through a pipe is a container
/// already.
SourceBase::Source Preparation::own_loader_base() {
  SourceBase::Source base = std::move(own_loader_read_.bases.front());
  if (!base.containers.empty()) return base;
  constexpr NodeNo kOnlyFile{1};
  const ContentNo content = content_no(kOnlyFile);
  const auto file = own_loader_read_.contents->host_file(content);
  base.containers.push_back(container_of(file ? file->path : base.place.word,
                                         own_loader_read_.contents, content,
                                         own_loader_read_.tree->node(kOnlyFile).size_bytes));
  return base;
}

void Preparation::make_device() {
  if (!spec_.keep_base) {
    prepared_.device = std::make_shared<ImageDevice>(prepared_.image, contents_);
    return;
  }
  const auto base = std::make_shared<SourceBase>();
  base->options = spec_.given_options;
  if (drafts_.empty()) {
    base->add(std::move(read_.bases), {"", read_.base_tree, read_.base_contents});
  }
  std::size_t number = 0;
  for (PartitionDraft& draft : drafts_) {
    ++number;
    // An EFI system partition that is made belongs to no source: what its files are made of does.
    if (!draft.read.tree || draft.read.bases.empty()) continue;
    base->add(std::move(draft.read.bases),
              {fmt::format("{}", number), draft.read.base_tree, draft.read.base_contents});
  }
  if (own_loader_) base->sources.push_back(own_loader_base());
  prepared_.device = std::make_shared<PreparedDevice>(prepared_.image, contents_, base);
}

Result<PreparedImage> Preparation::run() {
  if (Result<void> good = check(); !good) return propagate(good);
  if (Result<void> good = read_sources(); !good) return propagate(good);
  if (Result<void> good = add_boot(); !good) return propagate(good);
  if (Result<void> good = plan(); !good) return propagate(good);
  remark_on_ids();
  make_device();
  prepared_.report.remarks = remarks_.take();
  return std::move(prepared_);
}

}  // namespace

Result<PreparedImage> prepare(const ImageSpec& spec, Resources& resources) noexcept {
  std::string doing;  // no memory yet, so that nothing can throw out of here
  try {
    doing = "prepare the image";
    return Preparation(spec, resources, doing).run();
  } catch (...) {
    return std::unexpected(error_of_exception(doing));
  }
}

}  // namespace mkvirtfs
