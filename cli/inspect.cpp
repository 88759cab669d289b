// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "block/image.h"
#include "bootsect/boot_pieces.h"
#include "cli/command.h"
#include "cli/command_image.h"
#include "cli/error_text.h"
#include "cli/image_options.h"
#include "cli/json_text.h"
#include "cli/program_resources.h"
#include "cli/source_options.h"
#include "compose/prepare.h"
#include "fsgen/tree/source_tree.h"
#include "support/log.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Report";
constexpr std::string_view kSource = "source";  // a name that may be no UTF-8: printable() in JSON

/// Collects text and writes it in large pieces: a map has a row for each extent.
class Report {
 public:
  explicit Report(int fd) : fd_(fd) {}
  void add(std::string_view text) {
    text_ += text;
    constexpr std::size_t kPiece = 1 << 16;
    if (text_.size() >= kPiece) flush();
  }
  /// False when the reader has left; what comes then is not written.
  bool flush() {
    good_ = good_ && print(fd_, text_);
    text_.clear();
    return good_;
  }
  bool good() const noexcept { return good_; }

 private:
  const int fd_;
  std::string text_;
  bool good_ = true;
};

std::string_view kind_name(ExtentKind kind) {
  switch (kind) {
    case ExtentKind::hole:
      return "hole";
    case ExtentKind::memory:
      return "memory";
    case ExtentKind::computed:
      return "computed";
    case ExtentKind::content:
      return "content";
    case ExtentKind::derived:
      return "derived";
  }
  __builtin_unreachable();
}

/// What lies at `at`; for metadata and holes, which go on over many things, to the extent's end.
std::string what_lies(const Image& image, const Extent& extent, std::uint64_t at, bool to_end) {
  std::string what = printable(image.describe(at));
  if (!to_end || extent.kind == ExtentKind::content) return what;
  const std::string last = printable(image.describe(extent.end() - 1));
  return last == what ? what : what + " ... " + last;
}

Json json_row(const Extent& extent, const std::string& what) {
  return Json::object()
      .set("offset", extent.offset)
      .set("length", extent.length)
      .set("kind", kind_name(extent.kind))
      .set("what", what);
}

std::string text_row(const Extent& extent, const std::string& what) {
  return fmt::format("{:>16} {:>14}  {:<8}  {}\n", extent.offset, extent.length,
                     kind_name(extent.kind), what);
}

/// What the tree holds, or those of all partitions, by kind.
struct TreeCounts {
  explicit TreeCounts(const PreparedImage& prepared) {
    if (prepared.tree) add(*prepared.tree);
    for (const PreparedPartition& partition : prepared.partitions) {
      if (partition.tree) add(*partition.tree);
    }
  }
  void add(const SourceTree& tree) {
    for (const Node& node : tree.nodes()) {
      if (node.is_directory()) {
        ++directories;
      } else if (node.is_regular()) {
        ++files;
        file_bytes += node.size_bytes;
      } else if (node.is_symlink()) {
        ++symlinks;
      } else {
        ++specials;
      }
      hard_links += node.link_count - 1;
    }
  }

  std::uint64_t directories = 0;
  std::uint64_t files = 0;
  std::uint64_t file_bytes = 0;
  std::uint64_t symlinks = 0;
  std::uint64_t specials = 0;
  std::uint64_t hard_links = 0;
};

/// What each source turned out to be.
Json describe(const std::vector<SourceFacts>& sources) {
  Json rows = Json::array();
  for (const SourceFacts& facts : sources) {
    Json row = Json::object();
    row.set("source_kind", facts.kind);
    if (facts.kind == "archive") {
      row.set("archive_format", facts.format);
      row.set("compression", facts.compression);
      row.set("access", facts.access);
      row.set("kept_index", facts.kept_index);
      row.set("index_bytes", facts.index_bytes);
      row.set("spool_bytes", facts.spool_bytes);
    } else if (facts.kind == "disk image") {
      row.set("disk_format", facts.format);
      row.set("access", facts.access);
      row.set("spool_bytes", facts.spool_bytes);
    } else if (facts.kind == "container image") {
      row.set("image_id", facts.image_id);
      row.set("platform", facts.platform);
      row.set("layer_count", facts.layer_count);
      row.set("packed_bytes", facts.packed_bytes);
      row.set("index_bytes", facts.index_bytes);
      row.set("spool_bytes", facts.spool_bytes);
    }
    rows.add(std::move(row));
  }
  return rows;
}

std::string tree_id_text(const SourceTree& tree) {
  const TreeId id = tree.id();
  return hex({reinterpret_cast<const char*>(id.data()), id.size()});
}

/// What stands in a partition, in one word: of a file system its format.
std::string holds_name(const PreparedPartition& partition) {
  switch (partition.holds) {
    case PartitionSpec::Holds::file_system:
      return partition.format;
    case PartitionSpec::Holds::raw:
      return "raw";
    case PartitionSpec::Holds::swap:
      return "swap";
    case PartitionSpec::Holds::blank:
      return "blank";
  }
  __builtin_unreachable();
}

/// What each partition came to be.
Json describe(const std::vector<PreparedPartition>& partitions) {
  Json rows = Json::array();
  for (const PreparedPartition& partition : partitions) {
    const bootsect::PlacedPart& placed = partition.placed;
    Json row = Json::object();
    if (placed.number != 0) {
      row.set("number", std::uint64_t{placed.number});
      row.set("type", placed.type);
      row.set("partuuid", placed.partuuid);
      row.set("name", partition.name);
    }
    row.set("offset_bytes", placed.range.offset);
    row.set("size_bytes", placed.range.length);
    row.set("holds", holds_name(partition));
    row.set("volume_id", partition.image->volume_id());
    if (partition.tree) row.set("tree_id", tree_id_text(*partition.tree));
    Json image = Json::object();
    for (const ImageFact& fact : partition.image->facts()) {
      std::visit([&](const auto& value) { image.set(fact.name, value); }, fact.value);
    }
    row.set("image", std::move(image));
    rows.add(std::move(row));
  }
  return rows;
}

/// Everything but the map, under names that are kept like an API.
Json describe(const std::string& source, const PreparedImage& prepared) {
  const TreeCounts counts(prepared);
  const ScanReport& passed_over = prepared.report.passed_over;
  Json json = Json::object();
  json.set(kSource, printable(source));
  json.set("sources", describe(prepared.report.sources));
  if (prepared.tree) json.set("tree_id", tree_id_text(*prepared.tree));
  json.set("volume_id", prepared.image->volume_id());
  json.set("source_directory_count", counts.directories);
  json.set("source_file_count", counts.files);
  json.set("source_file_bytes", counts.file_bytes);
  json.set("source_symlink_count", counts.symlinks);
  json.set("source_special_count", counts.specials);
  json.set("source_hard_link_count", counts.hard_links);
  json.set("unreadable_count", passed_over.unreadable_count);
  json.set("vanished_count", passed_over.vanished_count);
  json.set("excluded_count", passed_over.excluded_count);
  json.set("mount_points_not_entered", passed_over.mount_points_not_entered);
  json.set("scan_seconds", prepared.report.scan_seconds);
  json.set("plan_seconds", prepared.report.plan_seconds);
  Json image = Json::object();
  for (const ImageFact& fact : prepared.image->facts()) {
    std::visit([&](const auto& value) { image.set(fact.name, value); }, fact.value);
  }
  json.set("image", std::move(image));
  return json;
}

/// A line for each partition, as partitioning tools have it; what lies outside the table is named
/// by where it lies.
std::string partitions_text(const PreparedImage& prepared) {
  if (prepared.partitions.empty()) return {};
  std::string text = fmt::format("\n{:>4} {:>16} {:>16}  {:<16} {:<12} {}\n", "no", "offset",
                                 "bytes", "type", "holds", "partuuid");
  for (const PreparedPartition& partition : prepared.partitions) {
    const bootsect::PlacedPart& placed = partition.placed;
    text += fmt::format("{:>4} {:>16} {:>16}  {:<16} {:<12} {}{}{}\n",
                        placed.number == 0 ? "-" : fmt::format("{}", placed.number),
                        placed.range.offset, placed.range.length,
                        placed.number == 0 ? "-" : placed.type, holds_name(partition),
                        placed.number == 0 ? "-" : placed.partuuid,
                        partition.name.empty() ? "" : "  ", printable(partition.name));
  }
  return text;
}

std::string text_of(std::string_view name, const Json::Scalar& value) {
  if (const auto* const text = std::get_if<std::string>(&value)) {
    return name == kSource ? *text : printable(*text);
  }
  if (const auto* const flag = std::get_if<bool>(&value)) return *flag ? "yes" : "no";
  if (const auto* const number = std::get_if<double>(&value)) return fmt::format("{:.3f}", *number);
  const std::uint64_t number = std::get<std::uint64_t>(value);
  constexpr std::uint64_t kPlainUpTo = 65536;
  if (!name.ends_with("bytes") || number < kPlainUpTo) return fmt::format("{}", number);
  return fmt::format("{} ({})", number, human_size(number));
}

std::string text_of(const Json& facts) {
  std::string text;
  facts.for_each_scalar([&](std::string_view name, const Json::Scalar& value) {
    std::string words(name);
    std::ranges::replace(words, '_', ' ');
    text += fmt::format("{:<26} {}\n", words, text_of(name, value));
  });
  return text;
}

/// Prints differences as they come.
class DifferenceReport final : public DifferenceSink {
 public:
  DifferenceReport(Report& report, bool json) : report_(report), json_(json) {
    if (json_) report_.add("[");
  }
  bool difference(const Difference& difference) override {
    const std::string path = printable(difference.path);
    if (json_) {
      const Json row = Json::object()
                           .set("kind", difference.kind)
                           .set("path", path)
                           .set("what", printable(difference.what));
      report_.add(first_ ? "\n" : ",\n");
      report_.add(row.one_line());
    } else {
      report_.add(fmt::format("{:<8}  {} {}\n", difference.kind, path, printable(difference.what)));
    }
    first_ = false;
    return report_.good();
  }
  void end() {
    if (json_) report_.add(first_ ? "]\n" : "\n]\n");
  }

 private:
  Report& report_;
  const bool json_;
  bool first_ = true;
};

class Inspect final : public Command {
 public:
  Inspect(OptionSet& options, const FormatRegistry& formats);
  Result<int> run(const Streams& streams) override;

 private:
  /// Sorts out what the parser cannot: whether a word behind --map is its OFFSET or the SOURCE.
  Result<std::vector<PlacedSource>> resolve();
  Result<PreparedImage> prepare_image(const ImageSpec& spec, const Streams& streams,
                                      LogSink& log) const;
  Result<void> report_at(Report& report, const ImageDevice& device, std::uint64_t offset) const;
  void report_map(Report& report, const ImageDevice& device) const;
  std::string boot_pieces_text() const;

  SourceOptions source_;
  ImageOptions image_;
  bool differences_ = false;
  bool boot_pieces_ = false;
  const CommandOption* map_option_ = nullptr;
  std::string map_;
  std::optional<std::uint64_t> map_offset_;
  bool json_ = false;
};

Inspect::Inspect(OptionSet& options, const FormatRegistry& formats)
    : Command(options), image_(formats) {
  source_.add_to(options);
  CommandOption& map =
      options
          .add_value("--map", map_, "[OFFSET]",
                     "Print where each byte comes from;\nwith OFFSET, what lies there")
          .expects(0, 1)
          .group(kGroup);
  map_option_ = &map;
  options
      .add_flag("--differences", differences_,
                "List what is not in the image as it is in\nthe source")
      .excludes(map)
      .group(kGroup);
  options
      .add_flag("--boot-pieces", boot_pieces_,
                "List the files of packages that boot loaders\nare made of; no SOURCE is needed")
      .excludes(map)
      .group(kGroup);
  options.add_flag("--json", json_, "Print JSON").group(kGroup);
  image_.add_to(options);
}

Result<std::vector<PlacedSource>> Inspect::resolve() {
  Result<std::vector<PlacedSource>> sources = source_.words();
  if (!sources) return sources;
  if (!map_.empty()) {
    map_offset_ = parse_size(map_);
    if (!map_offset_) {
      if (!sources->empty()) {
        return fail(Errc::usage, fmt::format("--map={} is not an offset (65536, 64K, 1GiB)", map_));
      }
      sources->push_back({map_, ""});
    }
  }
  return sources;
}

Result<PreparedImage> Inspect::prepare_image(const ImageSpec& spec, const Streams& streams,
                                             LogSink& log) const {
  Resources resources(program_resources(log, image_.formats()));
  resources.outputs().add_descriptor(streams.out, "the file of standard output");
  resources.outputs().add_descriptor(streams.err, "the file of standard error");
  raise_open_file_limit();
  return prepare(spec, resources);
}

Result<void> Inspect::report_at(Report& report, const ImageDevice& device,
                                std::uint64_t offset) const {
  const Image& image = device.image();
  if (offset >= image.size_bytes()) {
    return fail(Errc::usage, fmt::format("--map={} lies behind the image's end at {}", map_,
                                         image.size_bytes()));
  }
  for_each_extent(device, {0, image.size_bytes()}, [&](const Extent& extent) {
    if (extent.end() <= offset) return true;
    const std::string what = what_lies(image, extent, offset, /*to_end=*/false);
    report.add(json_ ? json_row(extent, what).lines() : text_row(extent, what));
    return false;
  });
  return {};
}

void Inspect::report_map(Report& report, const ImageDevice& device) const {
  const Image& image = device.image();
  if (!json_)
    report.add(fmt::format("{:>16} {:>14}  {:<8}  {}\n", "offset", "length", "kind", "what"));
  bool first = true;
  for_each_extent(device, {0, image.size_bytes()}, [&](const Extent& extent) {
    const std::string what = what_lies(image, extent, extent.offset, /*to_end=*/true);
    if (json_) {
      report.add(first ? "[\n" : ",\n");
      report.add(json_row(extent, what).one_line());
    } else {
      report.add(text_row(extent, what));
    }
    first = false;
    return report.good();
  });
  if (json_) report.add(first ? "[]\n" : "\n]\n");
}

std::string Inspect::boot_pieces_text() const {
  const OptionValues values = image_.values();
  const std::string* const directory = values.find("boot-files");
  Json rows = Json::array();
  std::string text =
      fmt::format("{:<14} {:<16} {:<22} {}\n", "piece", "package", "version", "path");
  for (const bootsect::BootPieceState& piece :
       bootsect::boot_piece_states(directory != nullptr ? *directory : std::string())) {
    const std::string version = !piece.is_there         ? "missing"
                                : piece.version.empty() ? "unknown"
                                                        : piece.version;
    text += fmt::format("{:<14} {:<16} {:<22} {}\n", piece.name, piece.package, version,
                        printable(piece.path));
    Json row = Json::object();
    row.set("piece", std::string(piece.name));
    row.set("package", std::string(piece.package));
    row.set("path", printable(piece.path));
    row.set("is_there", piece.is_there);
    row.set("version", piece.version);
    rows.add(std::move(row));
  }
  return json_ ? rows.lines() : text;
}

Result<int> Inspect::run(const Streams& streams) {
  if (boot_pieces_) {
    if (!print(streams.out, boot_pieces_text())) return fail(Errc::io, "write standard output");
    return 0;
  }
  const Result<std::vector<PlacedSource>> words = resolve();
  if (!words) return propagate(words);
  const Result<ImageSpec> spec = command_image(source_, *words, image_);
  if (!spec) return propagate(spec);
  WordedLog log(streams.err, LogLevel::info);
  const Result<PreparedImage> prepared = prepare_image(*spec, streams, log);
  if (!prepared) return propagate(prepared);
  Report report(streams.out);
  if (map_offset_) {
    if (Result<void> told = report_at(report, *prepared->device, *map_offset_); !told) {
      return propagate(told);
    }
  } else if (map_option_->is_given()) {
    report_map(report, *prepared->device);
  } else if (differences_) {
    DifferenceReport rows(report, json_);
    prepared->image->differences(rows);
    rows.end();
  } else {
    Json facts = describe(to_string(all_sources(*spec)), *prepared);
    if (json_ && !prepared->partitions.empty()) {
      facts.set("partitions", describe(prepared->partitions));
    }
    report.add(json_ ? facts.lines() : text_of(facts) + partitions_text(*prepared));
  }
  if (!report.flush()) return fail(Errc::io, "write standard output");
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_inspect(OptionSet& program, const FormatRegistry& formats) {
  return std::make_unique<Inspect>(
      program.add_subcommand("inspect", "Report sizes, counts, features, ids and the map"),
      formats);
}

}  // namespace mkvirtfs::cli
