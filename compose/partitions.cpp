// SPDX-License-Identifier: BSD-3-Clause
//
// Everything that can be wrong with a partition is looked for before a source is read. Ids derive
// from the trees and the options of all partitions together, before any of them is planned: a file
// of one may name another. Then each is planned where it comes to lie.
#include "compose/partitions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "bootsect/gpt.h"
#include "bootsect/kernel.h"
#include "bootsect/mbr.h"
#include "compose/source_options.h"
#include "support/arithmetic.h"
#include "support/sha256.h"

namespace mkvirtfs {
namespace {

using Holds = PartitionSpec::Holds;

bool format_has(const FormatRegistry& formats, std::string_view format, std::string_view option) {
  const std::span<const OptionRow> rows = formats.find(format)->options;
  return std::ranges::find(rows, option, &OptionRow::name) != rows.end();
}

/// Options and sizes of what is no file system.
Result<void> check_plain(const PartitionSpec& spec) {
  const bool is_swap = spec.holds == Holds::swap;
  for (const auto& [name, values] : spec.options) {
    if (is_swap && (name == "label" || name == "uuid")) continue;
    return fail_option({name, values.empty() ? std::string() : values.front()},
                       is_swap ? "swap space has a label and a uuid" : "it has no file system");
  }
  if (spec.holds != Holds::raw && !spec.size_bytes) {
    return fail(Errc::usage, is_swap ? "swap space needs a size" : "zeroes need a size",
                {{"size"}});
  }
  const std::string* uuid = spec.options.find("uuid");
  if (uuid != nullptr && !parse_uuid(*uuid)) return fail_option({"uuid", *uuid}, "not a UUID");
  return {};
}

/// The format's options that say how large it is.
void size_file_system(PartitionDraft& draft, const FormatRegistry& formats) {
  PartitionSpec& spec = draft.spec;
  if (spec.size_bytes && format_has(formats, draft.format, "size")) {
    spec.options.remove("size");
    spec.options.add("size", fmt::format("{}", *spec.size_bytes));
  }
  if (spec.free_bytes && format_has(formats, draft.format, "free")) {
    spec.options.remove("free");
    spec.options.add("free", fmt::format("{}", *spec.free_bytes));
    spec.free_bytes.reset();
  }
}

/// A digest of all that the disk is made of.
std::array<std::byte, 32> seed_of(const std::vector<PartitionDraft>& drafts,
                                  const DiskSettings& disk) {
  Sha256 digest;
  const auto add = [&](std::string_view text) {
    digest.update(std::as_bytes(std::span(text)));
    digest.update(std::as_bytes(std::span("\n", 1)));
  };
  add(fmt::format("disk {} {} {}", disk.table == bootsect::TableKind::gpt, disk.sector_bytes,
                  disk.size_bytes.value_or(0)));
  if (disk.is_hybrid) add("hybrid");
  for (const PartitionDraft& draft : drafts) {
    const PartitionSpec& spec = draft.spec;
    add(fmt::format("partition {} {} {} {} {} {}", static_cast<int>(spec.holds), draft.format,
                    spec.size_bytes.value_or(0), spec.free_bytes.value_or(0),
                    spec.offset_bytes.value_or(0), spec.in_table));
    add(spec.type);
    add(spec.name);
    for (const auto& [name, values] : spec.options) {
      add(name);
      for (const std::string& value : values) add(value);
    }
    if (!draft.read.tree) continue;
    digest.update(draft.read.tree->id());
  }
  return digest.finish();
}

/// The processor for which the files of a partition are; "" when nothing says so.
std::string architecture_of(const PartitionDraft& draft) {
  for (const SourceSpec& source : draft.spec.sources) {
    if (source.platform) return source.platform->architecture;
  }
  for (const SourceFacts& facts : draft.read.facts) {
    const auto platform = oci::parse_platform(facts.platform);
    if (platform) return platform->architecture;
  }
  if (!draft.read.tree) return {};
  const auto found = bootsect::find_kernel(*draft.read.tree);
  if (!found) return {};
  std::array<std::byte, bootsect::kKernelHeadBytes> head{};
  if (draft.read.tree->node(found->kernel).size_bytes < head.size()) return {};
  if (!draft.read.contents->read(content_no(found->kernel), 0, head)) return {};
  return std::string(bootsect::kernel_architecture(head).value_or(""));
}

/// The type of a partition that says none, by what it holds.
std::string type_of(Holds holds, const Image& image) {
  if (holds == Holds::swap) return "swap";
  if (holds != Holds::file_system) return "linux";
  for (const ImageFact& fact : image.facts()) {
    const auto* const format = std::get_if<std::string>(&fact.value);
    if (fact.name == "format" && format != nullptr && format->starts_with("fat")) return *format;
  }
  return "linux";
}

class PartitionPlanner {
 public:
  PartitionPlanner(const std::vector<PartitionDraft>& drafts, const DiskSettings& disk,
                   const DiskRequest& request)
      : drafts_(drafts), disk_(disk), request_(request) {}

  Result<PlannedPartitions> run();

 private:
  Result<bootsect::Part> part_of(const PartitionDraft& draft);
  Result<bootsect::PartContents> make(const PartitionDraft& draft, std::uint64_t start_bytes);
  Result<bootsect::PartContents> make_file_system(const PartitionDraft& draft,
                                                  std::uint64_t start_bytes);
  Result<bootsect::PartContents> make_swap(const PartitionDraft& draft) const;

  const std::vector<PartitionDraft>& drafts_;
  const DiskSettings& disk_;
  const DiskRequest& request_;
  std::shared_ptr<const PlannedImage> planned_;  // the file system that was planned last
  std::vector<PreparedPartition> prepared_;
};

/// What is wrong with a part, said of the options that were given.
Error in_given_words(Error error, const PartitionDraft& draft, const DiskSettings& disk,
                     bool is_whole) {
  if (!is_whole) return of_partition(std::move(error), word_of(draft.spec));
  // Its size is what the disk leaves.
  if (error.at_fault.option == "size" && disk.size_bytes) {
    error.at_fault.value = fmt::format("{}", *disk.size_bytes);
  }
  return error;
}

Result<bootsect::PartContents> PartitionPlanner::make_file_system(const PartitionDraft& draft,
                                                                  std::uint64_t start_bytes) {
  auto image = draft.planner({.tree = draft.read.tree,
                              .contents = draft.read.contents,
                              .made_at_s = request_.source_date_epoch_s,
                              .threads = request_.threads,
                              .remark = request_.remark,
                              .followed = draft.read.followed,
                              .disk_offset_bytes = start_bytes,
                              .disk_sector_bytes = disk_.sector_bytes});
  if (image && request_.boot != nullptr) {
    image = request_.boot->patch(draft.read, *std::move(image), start_bytes);
  }
  if (!image) return propagate(image);
  planned_ = *image;
  return bootsect::planned_contents(*std::move(image), draft.read.contents);
}

Result<bootsect::PartContents> PartitionPlanner::make_swap(const PartitionDraft& draft) const {
  const OptionValues& options = draft.spec.options;
  const std::string* const label = options.find("label");
  Uuid uuid;
  if (const std::string* given = options.find("uuid")) {
    uuid = parse_uuid(*given).value_or(Uuid{});
  } else {
    Sha256 digest;
    const std::string what = fmt::format("swap {}", &draft - drafts_.data());
    digest.update(std::as_bytes(std::span(what)));
    digest.update(request_.identity.seed);
    const auto bytes = digest.finish();
    uuid = derived_uuid(std::span(bytes).first<16>());
  }
  return bootsect::swap_contents(*draft.spec.size_bytes, uuid, label != nullptr ? *label : "");
}

Result<bootsect::PartContents> PartitionPlanner::make(const PartitionDraft& draft,
                                                      std::uint64_t start_bytes) {
  constexpr NodeNo kOnlyFile{1};
  Result<bootsect::PartContents> made;
  switch (draft.spec.holds) {
    case Holds::file_system:
      made = make_file_system(draft, start_bytes);
      break;
    case Holds::raw: {
      const std::uint64_t size_bytes = draft.read.tree->node(kOnlyFile).size_bytes;
      if (size_bytes == 0) return fail(Errc::usage, "the file has no bytes");
      made = bootsect::raw_contents(draft.read.contents, content_no(kOnlyFile), size_bytes,
                                    draft.spec.sources.front().path);
      break;
    }
    case Holds::swap:
      made = make_swap(draft);
      break;
    case Holds::blank:
      made = bootsect::blank_contents(*draft.spec.size_bytes);
      break;
  }
  if (!made) return made;
  const bool is_esp = request_.boot != nullptr && request_.boot->is_esp(draft.read);
  auto type =
      bootsect::find_partition_type(is_esp ? "esp" : type_of(draft.spec.holds, *made->image), "");
  if (!type) return propagate(type);
  made->type = *std::move(type);
  prepared_.push_back({.placed = {},
                       .holds = draft.spec.holds,
                       .format = draft.format,
                       .name = draft.spec.name,
                       .tree = draft.spec.holds == Holds::file_system ? draft.read.tree : nullptr,
                       .file_system = std::exchange(planned_, nullptr),
                       .image = made->image});
  return made;
}

Result<bootsect::Part> PartitionPlanner::part_of(const PartitionDraft& draft) {
  const PartitionSpec& spec = draft.spec;
  bootsect::Part part;
  part.make = [this, &draft](std::uint64_t start_bytes) { return make(draft, start_bytes); };
  part.in_words = [this, &draft](Error error) {
    return in_given_words(std::move(error), draft, disk_, request_.is_whole);
  };
  if (!spec.sources.empty()) part.source = spec.sources.front().path;
  part.in_table = spec.in_table;
  if (!spec.type.empty()) {
    auto type = bootsect::find_partition_type(spec.type, architecture_of(draft));
    if (!type) return std::unexpected(part.in_words(std::move(type).error()));
    part.type = *std::move(type);
  }
  part.name = spec.name;
  part.active = spec.boots || (request_.boot != nullptr && request_.boot->is_active(draft.read));
  if (part.active) part.attributes |= bootsect::gpt_attributes::kLegacyBootable;
  for (const std::string& attribute : spec.attributes) {
    part.attributes |= bootsect::find_gpt_attribute(attribute).value_or(0);
  }
  part.size_bytes = spec.size_bytes;
  part.free_bytes = spec.free_bytes.value_or(0);
  part.offset_bytes = spec.offset_bytes;
  return part;
}

Result<PlannedPartitions> PartitionPlanner::run() {
  std::vector<bootsect::Part> parts;
  for (const PartitionDraft& draft : drafts_) {
    Result<bootsect::Part> part = part_of(draft);
    if (!part) return propagate(part);
    parts.push_back(*std::move(part));
  }
  bootsect::DiskOptions options;
  options.table = *disk_.table;
  options.is_hybrid = disk_.is_hybrid;
  options.sector_bytes = disk_.sector_bytes;
  options.size_bytes = disk_.size_bytes;
  options.ids = request_.identity.ids;
  if (request_.boot != nullptr) {
    options.boot_code = [this](std::span<const bootsect::PlacedPart> placed) {
      return request_.boot->disk_patches(placed);
    };
  }
  Result<bootsect::Disk> disk = bootsect::plan_disk(parts, options);
  if (!disk) return propagate(disk);
  for (std::size_t at = 0; at < prepared_.size(); ++at) prepared_[at].placed = disk->parts[at];
  return PlannedPartitions{*std::move(disk), std::move(prepared_)};
}

}  // namespace

std::string word_of(const PartitionSpec& spec) {
  if (spec.holds == Holds::swap) return "swap";
  if (spec.holds == Holds::blank) return "blank";
  return spec.sources.empty() ? "SOURCE" : spec.sources.front().path;
}

Error of_partition(Error error, const std::string& word) {
  const auto say = [&](Setting& setting) {
    const bool is_of_disk =
        std::ranges::find(disk_options(), setting.option, &OptionRow::name) != disk_options().end();
    if (setting.option.empty() || is_of_disk) return;
    const std::string value = setting.value.empty() ? "" : "=" + setting.value;
    setting = {"partition", fmt::format("{},{}{}", word, setting.option, value)};
  };
  say(error.at_fault);
  for (Setting& hint : error.hints) say(hint);
  return error;
}

Result<void> check_partition_sources(const PartitionSpec& spec) {
  const std::size_t count = spec.sources.size();
  switch (spec.holds) {
    case Holds::file_system:
      if (count != 0) return {};
      return fail(Errc::usage, "a file system needs a source");
    case Holds::raw:
      if (count == 1) return {};
      return fail(Errc::usage, "what stands there as it is, is one file");
    case Holds::swap:
    case Holds::blank:
      if (count == 0) return {};
      return fail(Errc::usage, "swap space and zeroes have no source");
  }
  __builtin_unreachable();
}

Result<PartitionDraft> draft_partition(PartitionSpec spec, const DiskSettings& disk,
                                       const FormatRegistry& formats) {
  const bool is_gpt = disk.table == bootsect::TableKind::gpt;
  if (!is_gpt && (!spec.id.empty() || !spec.attributes.empty())) {
    return fail(Errc::usage, "ids and attributes of partitions are those of a GPT",
                {{"table", "gpt"}});
  }
  for (const auto& [name, values] : spec.options) {
    if (!formats.is_of_disk(name)) continue;
    return fail_option({name, values.empty() ? std::string() : values.front()},
                       "a disk has this option, and not a partition");
  }
  PartitionDraft draft;
  draft.spec = std::move(spec);
  if (draft.spec.holds != Holds::file_system) {
    if (!draft.spec.format.empty()) {
      return fail_option({"fs", draft.spec.format}, "it has no file system");
    }
    if (Result<void> good = check_plain(draft.spec); !good) return propagate(good);
    return draft;
  }
  draft.format = formats.resolve(draft.spec.format, draft.spec.options);
  if (formats.find(draft.format) != nullptr) size_file_system(draft, formats);
  Result<Planner> planner = formats.configure(draft.format, draft.spec.options);
  if (!planner) return propagate(planner);
  draft.planner = *std::move(planner);
  Result<std::optional<AttributeOverride>> root = read_root(draft.spec.options);
  if (!root) return propagate(root);
  draft.root = *std::move(root);
  const Format& format = *formats.find(draft.format);
  draft.follows_symlinks =
      format.follows_symlinks != nullptr && format.follows_symlinks(draft.spec.options);
  return draft;
}

PartitionSpec whole_disk_partition(const ImageSpec& spec, const DiskSettings& disk,
                                   const FormatRegistry& formats) {
  PartitionSpec whole;
  whole.sources = spec.sources;
  whole.format = spec.format;
  whole.options = formats.without_disk(spec.options);
  whole.options.remove("size");
  whole.options.remove("sector-size");
  if (disk.size_bytes) {
    const std::uint64_t at_end = disk.table == bootsect::TableKind::gpt
                                     ? bootsect::gpt_sectors_at_end(disk.sector_bytes)
                                     : 0;
    const std::uint64_t taken = bootsect::kAlignmentBytes + at_end * disk.sector_bytes;
    const std::uint64_t left = *disk.size_bytes > taken ? *disk.size_bytes - taken : 0;
    // Its end is aligned, too.
    whole.size_bytes = round_down(left, bootsect::kAlignmentBytes);
  }
  return whole;
}

Result<void> check_options(const ImageSpec& spec, const FormatRegistry& formats) {
  const std::string_view whole =
      spec.partitions.empty() ? formats.resolve(spec.format, spec.options) : std::string_view();
  const Result<DiskSettings> disk = read_disk_options(spec.options, whole);
  if (!disk) return propagate(disk);
  const Result<std::optional<BootSettings>> boot = read_boot_options(spec.options);
  if (!boot) return propagate(boot);
  if (*boot) {
    if (const Result<Boot> made = Boot::make(**boot, *disk); !made) return propagate(made);
  }
  if (disk->table) {
    const auto draft = draft_partition(whole_disk_partition(spec, *disk, formats), *disk, formats);
    if (!draft) return propagate(draft);
    return {};
  }
  const OptionValues options = formats.without_disk(spec.options);
  const auto planner = formats.configure(formats.resolve(spec.format, options), options);
  if (!planner) return propagate(planner);
  return {};
}

Result<DiskIdentity> identify_disk(const std::vector<PartitionDraft>& drafts,
                                   const DiskSettings& disk) {
  const auto count = static_cast<std::size_t>(std::ranges::count_if(
      drafts, [](const PartitionDraft& draft) { return draft.spec.in_table; }));
  DiskIdentity identity{seed_of(drafts, disk), {}};
  identity.ids = bootsect::DiskIds::derived(identity.seed, count);
  identity.ids.disk = disk.gpt_id.value_or(identity.ids.disk);
  identity.ids.mbr = disk.mbr_id.value_or(identity.ids.mbr);
  std::size_t index = 0;
  for (const PartitionDraft& draft : drafts) {
    if (!draft.spec.in_table) continue;
    if (!draft.spec.id.empty()) {
      const std::optional<Uuid> id = parse_uuid(draft.spec.id);
      if (!id) return fail_option({"partuuid", draft.spec.id}, "not a UUID");
      identity.ids.partitions[index] = *id;
    }
    ++index;
  }
  return identity;
}

std::uint32_t number_of(const std::vector<PartitionDraft>& drafts, const DiskSettings& disk,
                        std::size_t draft) {
  const auto is_in_table = [](const PartitionDraft& each) { return each.spec.in_table; };
  if (!is_in_table(drafts[draft])) return 0;
  const auto index = std::ranges::count_if(std::span(drafts).first(draft), is_in_table);
  const auto count = std::ranges::count_if(drafts, is_in_table);
  return bootsect::partition_number(*disk.table, static_cast<std::size_t>(index),
                                    static_cast<std::size_t>(count));
}

Result<PlannedPartitions> plan_partitions(const std::vector<PartitionDraft>& drafts,
                                          const DiskSettings& disk, const DiskRequest& request) {
  return PartitionPlanner(drafts, disk, request).run();
}

}  // namespace mkvirtfs
