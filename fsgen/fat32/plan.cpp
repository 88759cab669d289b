// SPDX-License-Identifier: BSD-3-Clause
//
// The number of clusters decides the width of the FAT, and its width how many clusters a volume may
// have: widths and cluster sizes are tried in order of preference, and the first legal layout with
// room for the contents is taken. With a given size the number of clusters follows from it; without
// one it follows from the contents and the wish for room.
#include "fsgen/fat32/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <string>
#include <utility>
#include <vector>

#include "fsgen/fat32/contents.h"
#include "fsgen/fat32/fat_image.h"
#include "fsgen/fat32/layout.h"
#include "fsgen/fat32/volume.h"
#include "fsgen/image/size_search.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/sha256.h"
#include "support/text.h"

namespace mkvirtfs::fat32 {
namespace {

constexpr std::uint64_t kMi = 1u << 20;
constexpr std::uint64_t kFat12Below = 16 * kMi;
constexpr std::uint64_t kFat16Below = 512 * kMi;
constexpr std::uint32_t kUsualRootEntries = 512;
constexpr std::uint32_t kLeastRootRoom = 256;
constexpr std::uint32_t kMostRootEntries = 65535;
/// Windows takes 4085 and 4086 clusters for FAT12: never chosen where there is a choice.
constexpr std::uint32_t kLeastChosenOfFat16 = 4087;
constexpr std::size_t kLabelBytes = 11;
constexpr std::array<Width, 3> kWidths = {Width::fat12, Width::fat16, Width::fat32};

std::string shown(std::uint64_t size_bytes) {
  return fmt::format("{} ({})", size_bytes, human_size(size_bytes));
}

std::string upper(std::string_view name) {
  std::string out(name);
  std::ranges::transform(out, out.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  });
  return out;
}

/// Chooses width, cluster size and number of clusters.
class Sizer {
 public:
  Sizer(const Contents& contents, const Options& options)
      : contents_(contents), options_(options) {}

  struct Sized {
    Layout layout;
    std::uint64_t size_bytes;
    bool root_room_gave_way = false;  ///< there was no room for it
  };

  Result<Sized> choose() const {
    if (Result<void> root = check_root(); !root) return propagate(root);
    return options_.size_bytes ? choose_in(*options_.size_bytes) : choose_free();
  }

 private:
  /// Whether a root directory that cannot grow has slots for entries to come.
  enum class RootRoom : std::uint8_t { none, spare };

  Shape shape(Width width, std::uint32_t cluster_bytes, RootRoom room) const noexcept {
    Shape shape{width, options_.sector_bytes, cluster_bytes, 0};
    if (width == Width::fat32) return shape;
    std::uint32_t slots = root_slots();
    if (room == RootRoom::spare) slots += std::max(kLeastRootRoom, root_slots());
    const std::uint32_t unit = options_.sector_bytes / kSlotBytes;
    const std::uint32_t most =
        std::max(kMostRootEntries / unit * unit, round_up(root_slots(), unit));
    shape.root_entries = std::min(round_up(std::max(kUsualRootEntries, slots), unit), most);
    return shape;
  }
  /// The least that the source needs.
  Shape shape(Width width, std::uint32_t cluster_bytes) const noexcept {
    return shape(width, cluster_bytes, RootRoom::none);
  }
  RootRoom default_room() const noexcept {
    return options_.defaults == Defaults::v0_1 ? RootRoom::none : RootRoom::spare;
  }
  std::uint32_t root_slots() const noexcept { return contents_.directories()[0].slot_count; }

  /// The root directory of FAT12 and FAT16 counts its slots in 16 bits.
  bool root_fits(Width width) const noexcept {
    return width == Width::fat32 || shape(width, 512).root_entries <= kMostRootEntries;
  }
  Result<void> check_root() const {
    if (!options_.width || root_fits(*options_.width)) return {};
    return fail(Errc::does_not_fit,
                fmt::format("the source's root needs {} slots; in {} they end at {}", root_slots(),
                            upper(name_of(*options_.width)), kMostRootEntries),
                {{"fs", "fat32"}});
  }

  /// Cluster sizes that may be chosen, ascending.
  std::vector<std::uint32_t> cluster_sizes() const {
    if (options_.cluster_bytes != 0) return {options_.cluster_bytes};
    std::vector<std::uint32_t> sizes;
    for (std::uint32_t bytes = options_.sector_bytes; bytes <= kMostAutoCluster; bytes *= 2) {
      sizes.push_back(bytes);
    }
    return sizes;
  }

  std::vector<Width> widths(std::uint64_t size_bytes) const {
    if (options_.width) return {*options_.width};
    const Width best = size_bytes < kFat12Below   ? Width::fat12
                       : size_bytes < kFat16Below ? Width::fat16
                                                  : Width::fat32;
    // What the size asks for, then wider, then narrower.
    std::vector<Width> order;
    for (const Width width : kWidths) {
      if (width >= best) order.push_back(width);
    }
    for (const Width width : {Width::fat16, Width::fat12}) {
      if (width < best) order.push_back(width);
    }
    std::erase_if(order, [this](Width width) { return !root_fits(width); });
    return order;
  }

  std::uint64_t needed(const Layout& layout) const noexcept {
    return clusters_needed(contents_, layout.width, layout.cluster_bytes);
  }

  // With a given size.

  Result<Sized> choose_in(std::uint64_t size_bytes) const {
    if (const std::optional<Layout> floppy = usual_floppy(size_bytes)) {
      if (fits_in(*floppy)) return Sized{*floppy, size_bytes};
      if (options_.defaults != Defaults::v0_1) return beyond_floppy(*floppy, size_bytes);
    }
    const std::uint64_t sectors = size_bytes / options_.sector_bytes;
    bool any_legal = false;
    for (const Width width : widths(size_bytes)) {
      const std::vector<std::uint32_t> sizes = cluster_sizes();
      std::vector<std::uint32_t> order = sizes;
      if (width == Width::fat32) {
        // The usual size first, then larger ones, then smaller ones.
        const auto usual = std::ranges::lower_bound(order, usual_cluster_bytes(size_bytes));
        std::reverse(order.begin(), usual);
        std::rotate(order.begin(), usual, order.end());
      }
      for (const bool chosen : {true, false}) {
        for (const std::uint32_t cluster_bytes : order) {
          // Room in the root gives way before anything else does.
          for (const RootRoom room : {default_room(), RootRoom::none}) {
            const auto layout = layout_in_sectors(shape(width, cluster_bytes, room), sectors);
            if (!layout || !layout->is_legal()) continue;
            any_legal = true;
            if (chosen && width == Width::fat16 && layout->cluster_count < kLeastChosenOfFat16) {
              continue;
            }
            if (needed(*layout) > layout->cluster_count) continue;
            return Sized{*layout, size_bytes, room != default_room()};
          }
        }
      }
    }
    return any_legal ? too_small(size_bytes) : illegal(size_bytes);
  }

  std::optional<Layout> usual_floppy(std::uint64_t size_bytes) const {
    if (options_.width.value_or(Width::fat12) != Width::fat12 || options_.sector_bytes != 512) {
      return std::nullopt;
    }
    std::optional<Layout> floppy = floppy_layout(size_bytes);
    if (floppy && options_.cluster_bytes != 0 && options_.cluster_bytes != floppy->cluster_bytes) {
      return std::nullopt;
    }
    return floppy;
  }

  bool fits_in(const Layout& floppy) const noexcept {
    return root_slots() <= floppy.root_entries && needed(floppy) <= floppy.cluster_count;
  }

  /// A drive knows the geometry of a diskette by its size: it has no other.
  std::unexpected<Error> beyond_floppy(const Layout& floppy, std::uint64_t size_bytes) const {
    std::string what =
        root_slots() > floppy.root_entries
            ? fmt::format("{} slots in its root directory, and the source needs {}",
                          floppy.root_entries, root_slots())
            : fmt::format("{} clusters of {} bytes, and the source needs {}", floppy.cluster_count,
                          floppy.cluster_bytes, needed(floppy));
    return std::unexpected(
        Error{Errc::does_not_fit,
              0,
              fmt::format("a diskette of {} KiB has {}", size_bytes / 1024, what),
              {"size", std::to_string(size_bytes)},
              {{"", "another size"}}});
  }

  /// The smallest and the largest volume of a width, with the clusters that it may have.
  struct Bounds {
    std::uint64_t least_bytes;
    std::uint64_t most_bytes;
  };
  std::optional<Bounds> bounds(Width width, std::uint64_t least_clusters_wanted) const {
    std::optional<Bounds> all;
    for (const std::uint32_t cluster_bytes : cluster_sizes()) {
      const std::uint64_t least = std::max<std::uint64_t>(
          least_clusters(width),
          least_clusters_wanted != 0 ? clusters_needed(contents_, width, cluster_bytes) : 0);
      if (least > most_clusters(width)) continue;
      const Layout smallest =
          layout_of_clusters(shape(width, cluster_bytes), static_cast<std::uint32_t>(least));
      if (!smallest.is_legal()) continue;
      Layout largest = layout_of_clusters(shape(width, cluster_bytes), most_clusters(width));
      if (!largest.is_legal()) {
        const auto cut = layout_in_sectors(shape(width, cluster_bytes), ~std::uint32_t{0});
        if (cut) largest = *cut;
      }
      if (!all) all = Bounds{smallest.size_bytes(), largest.size_bytes()};
      all->least_bytes = std::min(all->least_bytes, smallest.size_bytes());
      all->most_bytes = std::max(all->most_bytes, largest.size_bytes());
    }
    return all;
  }

  std::unexpected<Error> illegal(std::uint64_t size_bytes) const {
    std::string sizes;
    for (const Width width : kWidths) {
      if (options_.width && width != *options_.width) continue;
      const std::optional<Bounds> can = bounds(width, 0);
      if (!can) continue;
      if (!sizes.empty()) sizes += ", ";
      sizes += fmt::format("{} from {} to {}", upper(name_of(width)), shown(can->least_bytes),
                           shown(can->most_bytes));
    }
    const std::string clusters =
        options_.cluster_bytes == 0
            ? ""
            : fmt::format(" with clusters of {} bytes", options_.cluster_bytes);
    const std::optional<Bounds> can = bounds(Width::fat32, 0);
    const bool beyond_fat32 = options_.width.value_or(Width::fat32) == Width::fat32 && can &&
                              size_bytes > can->most_bytes;
    return std::unexpected(Error{
        Errc::does_not_fit,
        0,
        fmt::format("cannot be {}{}: {}", options_.width ? upper(name_of(*options_.width)) : "FAT",
                    clusters, sizes.empty() ? "no size can" : "these sizes can: " + sizes),
        {"size", std::to_string(size_bytes)},
        beyond_fat32 ? ways_beyond(size_bytes) : std::vector<Setting>()});
  }

  /// What helps when FAT32, as it was asked for, ends below this size.
  std::vector<Setting> ways_beyond(std::uint64_t size_bytes) const {
    std::vector<Setting> ways{{"fs", "ext4"}};
    constexpr std::uint32_t kMostSector = 4096;
    const std::uint64_t most_clusters_of_all = most_clusters(Width::fat32);
    if (size_bytes / kMostSector > kMostSectors ||
        size_bytes / kMostCluster > most_clusters_of_all) {
      return ways;
    }
    const bool too_many_clusters = size_bytes / cluster_sizes().back() > most_clusters_of_all;
    const bool too_many_sectors =
        size_bytes / options_.sector_bytes > kMostSectors || !too_many_clusters;
    const bool larger_sectors = too_many_sectors && options_.sector_bytes < kMostSector;
    const bool larger_clusters =
        too_many_clusters || (larger_sectors && cluster_sizes().back() < kMostSector);
    if (larger_sectors && larger_clusters) {
      ways.push_back(
          {"", fmt::format("sectors of {} bytes with clusters of {}", kMostSector, kMostCluster)});
    } else if (larger_sectors) {
      ways.push_back({"sector-size", std::to_string(kMostSector)});
    } else if (larger_clusters) {
      ways.push_back({"cluster-size", std::to_string(kMostCluster)});
    }
    return ways;
  }

  std::unexpected<Error> too_small(std::uint64_t size_bytes) const {
    std::optional<std::uint64_t> smallest;
    for (const Width width : kWidths) {
      if ((options_.width && width != *options_.width) || !root_fits(width)) continue;
      const std::optional<Bounds> can = bounds(width, 1);
      if (can && (!smallest || can->least_bytes < *smallest)) smallest = can->least_bytes;
    }
    if (!smallest || *smallest <= size_bytes) {
      const std::vector<Width> order = widths(size_bytes);
      return too_big(*std::ranges::max_element(order));
    }
    return size_too_small(size_bytes, *smallest);
  }

  // Without a given size.

  std::uint64_t free_clusters(Width width, std::uint32_t cluster_bytes, std::uint64_t used) const {
    return free_units(options_.free, used, cluster_bytes,
                      width == Width::fat12 ? 0 : kLeastDefaultFreeBytes);
  }

  /// Whether a volume may have less room than is wished, as much as its format lets it have.
  enum class FreeWish : std::uint8_t { as_wished, as_far_as_it_goes };

  /// The volume with clusters of this size; nullopt when it cannot be.
  std::optional<Layout> with_free(Width width, std::uint32_t cluster_bytes, FreeWish wish) const {
    const std::uint64_t used = clusters_needed(contents_, width, cluster_bytes);
    const std::uint64_t most = most_clusters(width);
    if (used > most) return std::nullopt;
    std::uint64_t wanted = used + std::min(free_clusters(width, cluster_bytes, used), 2 * most);
    wanted = std::max<std::uint64_t>(
        wanted, width == Width::fat16 ? kLeastChosenOfFat16 : least_clusters(width));
    const Shape chosen = shape(width, cluster_bytes, default_room());
    if (wish == FreeWish::as_far_as_it_goes) {
      // As much as there can be: neither clusters nor sectors can be counted further.
      const auto largest = layout_in_sectors(chosen, ~std::uint32_t{0});
      wanted = std::min({wanted, most, std::uint64_t{largest ? largest->cluster_count : 0}});
      if (wanted < used) return std::nullopt;
    }
    if (wanted > most) return std::nullopt;
    const Layout exact = layout_of_clusters(chosen, static_cast<std::uint32_t>(wanted));
    if (!exact.is_legal()) return std::nullopt;
    // Whole MiB, with clusters in what that adds.
    const auto rounded = layout_in_sectors(
        chosen, round_up(exact.size_bytes(), kRoundSizeBytes) / options_.sector_bytes);
    return rounded && rounded->is_legal() ? *rounded : exact;
  }

  Result<Sized> choose_free() const {
    const auto sized = [](const Layout& layout) {
      return Sized{layout, round_up(layout.size_bytes(), kRoundSizeBytes)};
    };
    const std::vector<std::uint32_t> sizes = cluster_sizes();
    const std::uint32_t middle = options_.cluster_bytes != 0
                                     ? options_.cluster_bytes
                                     : std::max(options_.sector_bytes, 4096u);
    const std::uint64_t used = clusters_needed(contents_, Width::fat32, middle);
    const std::uint64_t about =
        (used + free_clusters(Width::fat16, middle, used)) * std::uint64_t{middle};
    const std::vector<Width> order = widths(about);
    for (const FreeWish wish : {FreeWish::as_wished, FreeWish::as_far_as_it_goes}) {
      if (wish == FreeWish::as_far_as_it_goes && options_.free) continue;  // it was asked for
      for (const Width width : order) {
        for (const std::uint32_t cluster_bytes : sizes) {
          const auto layout = with_free(width, cluster_bytes, wish);
          if (!layout) continue;
          const bool smaller_than_usual =
              width == Width::fat32 && cluster_bytes < usual_cluster_bytes(layout->size_bytes()) &&
              cluster_bytes != sizes.back();
          if (!smaller_than_usual) return sized(*layout);
        }
      }
    }
    return too_big(*std::ranges::max_element(order));
  }

  std::unexpected<Error> too_big(Width width) const {
    const std::uint32_t cluster_bytes = cluster_sizes().back();
    const std::uint64_t used = clusters_needed(contents_, width, cluster_bytes);
    const std::uint64_t wanted =
        used + (options_.free ? free_clusters(width, cluster_bytes, used) : 0);
    const std::optional<Bounds> can = bounds(width, 0);
    // What is left of the image beside its clusters may be what does not fit.
    const std::uint64_t wanted_bytes = wanted * cluster_bytes;
    std::vector<Setting> ways{{"fs", "fat32"}};
    if (width == Width::fat32) {
      ways = ways_beyond(std::max(wanted_bytes, can ? can->most_bytes + 1 : 0));
    }
    return fail(Errc::does_not_fit,
                fmt::format("the image needs {} of clusters; {} with sectors of {} bytes and "
                            "clusters of {} ends at {}",
                            human_size(wanted_bytes), upper(name_of(width)), options_.sector_bytes,
                            cluster_bytes, can ? human_size(can->most_bytes) : "nothing"),
                std::move(ways));
  }

  const Contents& contents_;
  const Options& options_;
};

/// The label as the volume has it.
Result<std::string> checked_label(const std::string& given) {
  constexpr std::string_view kForbidden = "\"*+,./:;<=>?[\\]|";
  std::string label;
  for (const char c : given) {
    if (c < 0x20 || c >= 0x7F || kForbidden.find(c) != kForbidden.npos) {
      return fail_option({"label", given},
                         fmt::format("FAT labels are ASCII without any of {}", kForbidden));
    }
  }
  if (given.size() > kLabelBytes) {
    return fail_option({"label", given},
                       fmt::format("FAT labels are up to {} characters, this one is {}",
                                   kLabelBytes, given.size()));
  }
  if (given.starts_with(' ')) {
    return fail_option({"label", given}, "FAT labels do not begin with a blank");
  }
  label = upper(given);
  while (label.ends_with(' ')) label.pop_back();
  return label;
}

Result<void> check(const Options& options) {
  if (!std::has_single_bit(options.sector_bytes) || options.sector_bytes < 512 ||
      options.sector_bytes > 4096) {
    return fail_option({"sector-size", std::to_string(options.sector_bytes)},
                       "FAT sectors are 512, 1024, 2048 or 4096 bytes");
  }
  if (options.cluster_bytes != 0 &&
      (!std::has_single_bit(options.cluster_bytes) || options.cluster_bytes < 512 ||
       options.cluster_bytes > kMostCluster)) {
    return fail_option(
        {"cluster-size", std::to_string(options.cluster_bytes)},
        fmt::format("FAT clusters are a power of two from 512 to {} bytes", kMostCluster));
  }
  if (options.cluster_bytes != 0 && options.cluster_bytes < options.sector_bytes) {
    return fail_option({"cluster-size", std::to_string(options.cluster_bytes)},
                       fmt::format("less than a sector of {} bytes", options.sector_bytes));
  }
  if (options.size_bytes && options.free) {
    return fail_option({"free"}, kFreeOfGivenSize);
  }
  return {};
}

/// The volume id derives from the source and the options alone (law 1).
std::uint32_t derived_id(const Contents& contents, const Layout& layout) {
  const Options& options = contents.options();
  Sha256 digest;
  const TreeId tree_id = contents.tree().id();
  const std::string what = fmt::format(
      "mkvirtfs fat 1\n{}\n{}\n{} {} {} {}\n{} {} {} {}\n{} {}\n", name_of(layout.width),
      contents.label(), layout.sector_bytes, layout.cluster_bytes, layout.cluster_count,
      options.hidden_sectors, std::to_underlying(options.symlinks),
      std::to_underlying(options.bad_names), std::to_underlying(options.case_clashes),
      options.skip_unfit, options.time_zone.local,
      options.time_zone.local ? 0 : options.time_zone.offset_minutes);
  digest.update(std::as_bytes(std::span(what)));
  const auto add_patterns = [&](char attribute, const std::vector<std::string>& patterns) {
    for (const std::string& pattern : patterns) {
      const std::string text = fmt::format("{} {} {}\n", attribute, pattern.size(), pattern);
      digest.update(std::as_bytes(std::span(text)));
    }
  };
  add_patterns('h', options.hidden);
  add_patterns('s', options.system);
  add_patterns('r', options.read_only);
  digest.update(tree_id);
  const auto bytes = digest.finish();
  return load_le<std::uint32_t>(bytes, 0);
}

}  // namespace

std::optional<std::uint32_t> parse_volume_id(std::string_view text) noexcept {
  const bool has_dash = text.size() == 9 && text[4] == '-';
  if (text.size() != 8 && !has_dash) return std::nullopt;
  std::uint32_t id = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (has_dash && i == 4) continue;
    const char c = text[i];
    unsigned digit;
    if (c >= '0' && c <= '9') {
      digit = static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a') + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<unsigned>(c - 'A') + 10;
    } else {
      return std::nullopt;
    }
    id = id << 4 | digit;
  }
  return id;
}

std::string volume_id_text(std::uint32_t id) {
  return fmt::format("{:04X}-{:04X}", id >> 16, id & 0xFFFF);
}

Result<std::shared_ptr<const PlannedImage>> plan(std::shared_ptr<const SourceTree> tree,
                                                 const Options& given) {
  if (Result<void> good = check(given); !good) return propagate(good);
  Options options = given;
  Result<std::string> label = checked_label(given.label);
  if (!label) return propagate(label);
  options.label = std::move(*label);
  Result<std::unique_ptr<const Contents>> contents = Contents::make(std::move(tree), options);
  if (!contents) return propagate(contents);
  const Result<Sizer::Sized> sized = Sizer(**contents, options).choose();
  if (!sized) return propagate(sized);
  const std::uint32_t id =
      options.volume_id ? *options.volume_id : derived_id(**contents, sized->layout);
  return std::make_shared<FatImage>(std::move(*contents), sized->layout, id, sized->size_bytes,
                                    sized->root_room_gave_way);
}

}  // namespace mkvirtfs::fat32
