// SPDX-License-Identifier: BSD-3-Clause
//
// Parts are placed in their order, one cursor through the disk. Each is made when its start is
// known, and its size moves the cursor on. Then come the table, which needs all of them, and one
// check that nothing overlaps, the table's own sectors included.
#include "bootsect/disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <string_view>
#include <utility>

#include "bootsect/disk_image.h"
#include "bootsect/gpt.h"
#include "bootsect/mbr.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/sha256.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::uint64_t kMostBytes = std::numeric_limits<std::int64_t>::max();  // what off_t has
constexpr std::size_t kPrimariesBesideLogicals = kMostPrimaries - 1;
constexpr std::uint32_t kFirstLogical = 5;
constexpr std::uint64_t kMostMbrSectors = 0xFFFFFFFF;

std::string name_of(const Part& part, std::uint32_t number) {
  std::string what =
      number == 0 ? "the part outside the table" : fmt::format("partition {}", number);
  return part.source.empty() ? what : fmt::format("{} ({})", what, part.source);
}

class DiskPlan {
 public:
  DiskPlan(std::span<const Part> wanted, const DiskOptions& options)
      : wanted_(wanted),
        options_(options),
        table_count_(static_cast<std::size_t>(
            std::ranges::count_if(wanted, [](const Part& part) { return part.in_table; }))) {}

  Result<Disk> run() {
    for (const Part& part : wanted_) {
      Result<void> done = check(part);
      if (done) done = place(part);
      if (!done) return of_part(part, std::move(done).error());
    }
    if (Result<void> done = choose_size(); !done) return propagate(done);
    if (Result<void> done = check_overlaps(); !done) return propagate(done);
    auto tables = options_.table == TableKind::gpt ? make_gpt() : make_mbr();
    if (!tables) return propagate(tables);
    if (Result<void> done = add_boot_code(*tables); !done) return propagate(done);
    return finish(*std::move(tables));
  }

 private:
  bool is_gpt() const noexcept { return options_.table == TableKind::gpt; }
  bool is_logical(std::uint32_t number) const noexcept {
    return !is_gpt() && number >= kFirstLogical;
  }
  std::uint32_t next_number() const noexcept {
    return partition_number(options_.table, placed_in_table_, table_count_);
  }
  std::uint64_t sectors(std::uint64_t bytes) const noexcept {
    return bytes / options_.sector_bytes;
  }

  static std::unexpected<Error> of_part(const Part& part, Error error) {
    return std::unexpected(part.in_words ? part.in_words(std::move(error)) : std::move(error));
  }
  Result<void> check(const Part& part) const;
  Result<std::uint64_t> start_of(const Part& part, std::uint32_t number) const;
  Result<std::uint64_t> size_of(const Part& part, const DiskPart& made) const;
  Result<void> place(const Part& part);
  Result<void> choose_size();
  Result<void> check_type(const Part& part, const PartitionType& type) const;
  Result<void> check_overlaps();
  bool put_in_blank_part(const Patch& code);
  Result<void> add_boot_code(std::vector<Patch>& tables);
  Result<std::vector<Patch>> make_gpt() const;
  MbrPartition in_mbr(const Part& part, const DiskPart& made) const;
  Result<std::vector<MbrPartition>> shown_in_mbr() const;
  Result<std::vector<Patch>> make_mbr() const;
  Disk finish(std::vector<Patch> tables);

  /// Calls `visit(part wanted, part made)` for those in the table.
  template <class Visit>
  void for_each_in_table(Visit&& visit) const {
    for (std::size_t at = 0; at < made_.size(); ++at) {
      if (wanted_[at].in_table) visit(wanted_[at], made_[at]);
    }
  }

  std::span<const Part> wanted_;
  const DiskOptions& options_;
  std::size_t table_count_;
  std::size_t placed_in_table_ = 0;
  std::uint64_t cursor_ = 0;  // behind the part that was placed last
  std::uint64_t end_ = 0;     // behind all of them
  std::uint32_t next_content_ = 0;
  std::uint64_t size_bytes_ = 0;
  std::vector<DiskPart> made_;
  struct Taken {
    Range range;
    std::string what;
    const Part* part = nullptr;  // null: a table
  };
  std::vector<Taken> taken_;  // by tables and parts, in the order in which they lie
};

/// What speaks against a part whatever stands in it.
Result<void> DiskPlan::check(const Part& part) const {
  const auto whole_sectors = [&](std::string_view option, std::optional<std::uint64_t> value) {
    if (!value || *value % options_.sector_bytes == 0) return Result<void>();
    return Result<void>(
        fail_option({std::string(option), fmt::format("{}", *value)},
                    fmt::format("not a multiple of the sector's {} bytes", options_.sector_bytes)));
  };
  if (Result<void> done = whole_sectors("size", part.size_bytes); !done) return done;
  if (Result<void> done = whole_sectors("offset", part.offset_bytes); !done) return done;
  if (!part.in_table) return {};
  if (!is_gpt() && !part.name.empty()) {
    return fail_option({"name", part.name}, "partitions of an MBR have no names",
                       {{"table", "gpt"}});
  }
  if (!is_gpt()) return {};
  const Result<std::u16string> name = gpt_name(part.name);
  return name ? Result<void>() : propagate(name);
}

Result<void> DiskPlan::check_type(const Part& part, const PartitionType& type) const {
  if (!part.in_table || (is_gpt() ? type.guid.has_value() : type.mbr.has_value())) return {};
  return fail_option({"type", type.name},
                     fmt::format("{} has no such type", is_gpt() ? "a GPT" : "an MBR"),
                     {{"table", is_gpt() ? "mbr" : "gpt"}});
}

Result<std::uint64_t> DiskPlan::start_of(const Part& part, std::uint32_t number) const {
  if (part.offset_bytes) {
    // A logical partition has its EBR before it.
    if (is_logical(number) && *part.offset_bytes < 2 * kAlignmentBytes) {
      return fail_option(
          {"offset", fmt::format("{}", *part.offset_bytes)},
          fmt::format("logical partitions begin at {} at least", 2 * kAlignmentBytes));
    }
    return *part.offset_bytes;
  }
  // The first MiB is the table's and boot code's.
  std::uint64_t start = round_up(std::max(cursor_, kAlignmentBytes), kAlignmentBytes);
  if (is_logical(number)) start += kAlignmentBytes;
  return start;
}

Result<std::uint64_t> DiskPlan::size_of(const Part& part, const DiskPart& made) const {
  const std::uint64_t image_bytes = made.contents.image->size_bytes();
  if (part.size_bytes) {
    if (*part.size_bytes >= image_bytes && *part.size_bytes != 0) return *part.size_bytes;
    return fail(
        Errc::does_not_fit,
        fmt::format("{} has {} bytes, and what stands in it needs {}", made.what, *part.size_bytes,
                    image_bytes),
        {{"size", fmt::format("{}", round_up<std::uint64_t>(image_bytes, options_.sector_bytes))}});
  }
  const auto sum = checked_add(image_bytes, part.free_bytes);
  if (!sum || *sum > kMostBytes) {
    return fail(Errc::does_not_fit, fmt::format("{} is too big", made.what));
  }
  if (*sum == 0) return fail(Errc::usage, fmt::format("{} has no bytes", made.what), {{"size"}});
  return round_up<std::uint64_t>(*sum, options_.sector_bytes);
}

Result<void> DiskPlan::place(const Part& part) {
  DiskPart made;
  if (part.in_table) made.placed.number = next_number();
  made.what = name_of(part, made.placed.number);
  const Result<std::uint64_t> start = start_of(part, made.placed.number);
  if (!start) return propagate(start);
  auto contents = part.make(*start);
  if (!contents) return propagate(made.what, contents);
  made.contents = *std::move(contents);
  if (!part.type.name.empty()) made.contents.type = part.type;
  if (Result<void> done = check_type(part, made.contents.type); !done) return done;
  const Result<std::uint64_t> size = size_of(part, made);
  if (!size) return propagate(size);
  const auto end = checked_add(*start, *size);
  if (!end || *end > kMostBytes) {
    return fail(Errc::does_not_fit, fmt::format("{} ends too far behind", made.what));
  }
  made.placed.range = {*start, *size};
  if (part.in_table) made.placed.type = made.contents.type.name;
  made.first_content = next_content_;
  const auto next = checked_add(next_content_, made.contents.content_count);
  if (!next) return fail(Errc::does_not_fit, "all parts together have too many files");
  next_content_ = *next;
  cursor_ = *end;
  end_ = std::max(end_, *end);
  if (part.in_table) ++placed_in_table_;
  made_.push_back(std::move(made));
  return {};
}

Result<void> DiskPlan::choose_size() {
  const std::uint64_t at_end =
      is_gpt() ? gpt_sectors_at_end(options_.sector_bytes) * options_.sector_bytes : 0;
  const std::uint64_t needed = std::max(end_, kAlignmentBytes) + at_end;
  size_bytes_ = options_.size_bytes.value_or(round_up(needed, kAlignmentBytes));
  if (size_bytes_ % options_.sector_bytes != 0) {
    return fail_option(
        {"size", fmt::format("{}", size_bytes_)},
        fmt::format("not a multiple of the sector's {} bytes", options_.sector_bytes));
  }
  if (size_bytes_ < needed) {
    return fail(Errc::does_not_fit,
                fmt::format("the disk has {} bytes, and its parts need {}", size_bytes_, needed),
                {{"size", fmt::format("{}", needed)}});
  }
  return {};
}

Result<void> DiskPlan::check_overlaps() {
  std::vector<Taken>& taken = taken_;
  const std::uint64_t sector = options_.sector_bytes;
  if (is_gpt()) {
    const std::uint64_t at_end = gpt_sectors_at_end(options_.sector_bytes) * sector;
    const std::uint64_t at_start = gpt_sectors_at_start(options_.sector_bytes) * sector;
    taken.push_back({{kMbrCodeBytes, at_start - kMbrCodeBytes}, "the GPT"});
    taken.push_back({{size_bytes_ - at_end, at_end}, "the backup GPT"});
  } else {
    taken.push_back({{kMbrCodeBytes, kMbrBytes - kMbrCodeBytes}, "the MBR"});
  }
  for (std::size_t at = 0; at < made_.size(); ++at) {
    const DiskPart& part = made_[at];
    taken.push_back({part.placed.range, part.what, &wanted_[at]});
    if (is_logical(part.placed.number)) {
      taken.push_back({{part.placed.range.offset - kAlignmentBytes, sector},
                       fmt::format("the boot record of {}", part.what),
                       &wanted_[at]});
    }
  }
  std::ranges::sort(taken, {}, [](const Taken& each) { return each.range.offset; });
  for (std::size_t at = 1; at < taken.size(); ++at) {
    const Taken& before = taken[at - 1];
    const Taken& here = taken[at];
    if (before.range.end() <= here.range.offset) continue;
    std::unexpected<Error> overlap = fail(
        Errc::usage,
        fmt::format("{}, bytes {} to {}, overlaps {}, bytes {} to {}", here.what, here.range.offset,
                    here.range.end() - 1, before.what, before.range.offset, before.range.end() - 1),
        {{"offset"}});
    const Part* const part = here.part != nullptr ? here.part : before.part;
    if (part == nullptr) return overlap;
    return of_part(*part, std::move(overlap).error());
  }
  return {};
}

/// False when it does not lie wholly in a blank part.
bool DiskPlan::put_in_blank_part(const Patch& code) {
  for (DiskPart& part : made_) {
    const Range& range = part.placed.range;
    const std::uint64_t size_bytes = part.contents.image->size_bytes();
    if (!part.contents.is_blank || code.offset < range.offset ||
        code.offset - range.offset > size_bytes ||
        code.bytes.size() > size_bytes - (code.offset - range.offset)) {
      continue;
    }
    Patch inside = code;
    inside.offset -= range.offset;
    PartContents made = code_contents(size_bytes, inside);
    made.type = part.contents.type;
    part.contents = std::move(made);
    return true;
  }
  return false;
}

Result<void> DiskPlan::add_boot_code(std::vector<Patch>& tables) {
  if (!options_.boot_code) return {};
  std::vector<PlacedPart> placed;
  for (const DiskPart& made : made_) placed.push_back(made.placed);
  auto patches = options_.boot_code(placed);
  if (!patches) return propagate(patches);
  for (Patch& patch : *patches) {
    if (patch.bytes.empty() || put_in_blank_part(patch)) continue;
    const Range range{patch.offset, patch.bytes.size()};
    for (const Taken& each : taken_) {
      if (range.offset >= each.range.end() || each.range.offset >= range.end()) continue;
      return fail(Errc::does_not_fit,
                  fmt::format("{}, bytes {} to {}, does not fit before {} at {}", patch.what,
                              range.offset, range.end() - 1, each.what, each.range.offset));
    }
    tables.push_back(std::move(patch));
  }
  return {};
}

Result<std::vector<Patch>> DiskPlan::make_gpt() const {
  GptTable table{.sector_bytes = options_.sector_bytes,
                 .sector_count = sectors(size_bytes_),
                 .disk_id = options_.ids.disk,
                 .partitions = {}};
  assert(options_.ids.partitions.size() >= table_count_);
  for_each_in_table([&](const Part& part, const DiskPart& made) {
    table.partitions.push_back({.type = *made.contents.type.guid,
                                .id = options_.ids.partitions[made.placed.number - 1],
                                .first_sector = sectors(made.placed.range.offset),
                                .sector_count = sectors(made.placed.range.length),
                                .attributes = part.attributes,
                                .name = part.name});
  });
  if (options_.is_hybrid) {
    auto shown = shown_in_mbr();
    if (!shown) return propagate(shown);
    table.in_mbr = *std::move(shown);
    table.mbr_id = options_.ids.mbr;
  }
  return gpt_table(table);
}

/// Of a type and an end that an MBR has.
MbrPartition DiskPlan::in_mbr(const Part& part, const DiskPart& made) const {
  const Range& range = made.placed.range;
  return {.type = *made.contents.type.mbr,
          .active = part.active,
          .first_sector = static_cast<std::uint32_t>(sectors(range.offset)),
          .sector_count = static_cast<std::uint32_t>(sectors(range.length))};
}

/// The first ones that an MBR has room and words for, in their order; what boots is one of them.
Result<std::vector<MbrPartition>> DiskPlan::shown_in_mbr() const {
  std::vector<MbrPartition> shown;
  for_each_in_table([&](const Part& part, const DiskPart& made) {
    if (!made.contents.type.mbr || sectors(made.placed.range.end()) > kMostMbrSectors) return;
    if (shown.size() < kMostInHybrid) {
      shown.push_back(in_mbr(part, made));
    } else if (part.active &&
               std::ranges::none_of(shown, [](const MbrPartition& each) { return each.active; })) {
      shown.back() = in_mbr(part, made);
    }
  });
  if (!shown.empty()) return shown;
  return fail(Errc::usage,
              "an MBR can show none of these partitions: not by their types, or not "
              "where they end",
              {{"table", "gpt"}});
}

Result<std::vector<Patch>> DiskPlan::make_mbr() const {
  MbrTable table{.sector_bytes = options_.sector_bytes,
                 .disk_id = options_.ids.mbr,
                 .primaries = {},
                 .logicals = {}};
  Result<void> done;
  std::uint64_t extended_start = 0;
  std::uint64_t extended_end = 0;
  for_each_in_table([&](const Part& part, const DiskPart& made) {
    if (!done) return;
    const Range& range = made.placed.range;
    if (sectors(range.end()) > kMostMbrSectors) {
      done = fail(Errc::does_not_fit,
                  fmt::format("{} ends at byte {}; an MBR ends at {}", made.what, range.end(),
                              kMostMbrSectors * options_.sector_bytes),
                  {{"table", "gpt"}});
      return;
    }
    const MbrPartition entry = in_mbr(part, made);
    if (!is_logical(made.placed.number)) {
      table.primaries.push_back(entry);
      return;
    }
    const std::uint64_t ebr = range.offset - kAlignmentBytes;
    if (ebr < extended_end) {
      done = fail(Errc::usage,
                  fmt::format("{} lies before a logical partition that precedes it", made.what),
                  {{"offset"}});
      return;
    }
    if (table.logicals.empty()) extended_start = ebr;
    extended_end = range.end();
    table.logicals.push_back({entry, static_cast<std::uint32_t>(sectors(ebr))});
  });
  if (!done) return propagate(done);
  for (std::size_t at = 0; at < made_.size(); ++at) {
    const DiskPart& made = made_[at];
    const Range& range = made.placed.range;
    if (is_logical(made.placed.number) || range.offset >= extended_end ||
        range.end() <= extended_start) {
      continue;
    }
    return of_part(wanted_[at],
                   fail(Errc::usage, fmt::format("{} lies between logical partitions", made.what),
                        {{"offset"}})
                       .error());
  }
  return mbr_table(table);
}

Disk DiskPlan::finish(std::vector<Patch> tables) {
  DiskImage::Identity identity;
  identity.sector_bytes = options_.sector_bytes;
  identity.volume_id =
      is_gpt() ? to_string(options_.ids.disk) : fmt::format("{:08x}", options_.ids.mbr);
  identity.facts = {{"size_bytes", size_bytes_},
                    {"partition_table", std::string(options_.is_hybrid ? "hybrid"
                                                    : is_gpt()         ? "gpt"
                                                                       : "mbr")},
                    {"disk_id", identity.volume_id},
                    {"sector_bytes", std::uint64_t{options_.sector_bytes}},
                    {"partition_count", std::uint64_t{table_count_}}};
  Disk disk;
  for (std::size_t at = 0; at < made_.size(); ++at) {
    PlacedPart& placed = made_[at].placed;
    if (placed.number != 0) {
      placed.partuuid = partuuid(options_.table, options_.ids, placed.number);
    }
    disk.parts.push_back(placed);
  }
  disk.store = std::make_shared<DiskContents>(made_);
  disk.image = std::make_shared<DiskImage>(size_bytes_, std::move(made_), std::move(tables),
                                           std::move(identity));
  return disk;
}

}  // namespace

std::uint32_t partition_number(TableKind table, std::size_t index, std::size_t count) noexcept {
  const bool has_logicals = table == TableKind::mbr && count > kMostPrimaries;
  const auto number = static_cast<std::uint32_t>(index + 1);
  return has_logicals && number > kPrimariesBesideLogicals ? number + 1 : number;
}

std::string partuuid(TableKind table, const DiskIds& ids, std::uint32_t number) {
  return table == TableKind::gpt ? to_string(ids.partitions[number - 1])
                                 : fmt::format("{:08x}-{:02x}", ids.mbr, number);
}

DiskIds DiskIds::derived(std::span<const std::byte> seed, std::size_t partition_count) {
  const auto digest_of = [&](std::string_view what, std::uint32_t number) {
    Sha256 digest;
    const std::string text = fmt::format("mkvirtfs disk 1\n{} {}\n", what, number);
    digest.update(std::as_bytes(std::span(text)));
    digest.update(seed);
    return digest.finish();
  };
  const auto uuid_of = [](const std::array<std::byte, 32>& digest) {
    return derived_uuid(std::span(digest).first<16>());
  };
  DiskIds ids;
  const auto of_disk = digest_of("disk", 0);
  ids.disk = uuid_of(of_disk);
  // 0 means that a disk has none.
  ids.mbr = std::max(load_le<std::uint32_t>(of_disk, 16), std::uint32_t{1});
  for (std::size_t number = 1; number <= partition_count; ++number) {
    ids.partitions.push_back(uuid_of(digest_of("partition", static_cast<std::uint32_t>(number))));
  }
  return ids;
}

Result<Disk> plan_disk(std::span<const Part> parts, const DiskOptions& options) {
  assert(options.sector_bytes == 512 || options.sector_bytes == 4096);
  return DiskPlan(parts, options).run();
}

}  // namespace mkvirtfs::bootsect
