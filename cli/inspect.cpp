// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "block/image.h"
#include "cli/command.h"
#include "cli/image_options.h"
#include "cli/prepared_image.h"
#include "cli/source_options.h"
#include "fsgen/tree/source_tree.h"
#include "support/log.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Report";
using Json = nlohmann::ordered_json;

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
  return {{"offset", extent.offset},
          {"length", extent.length},
          {"kind", kind_name(extent.kind)},
          {"what", what}};
}

std::string text_row(const Extent& extent, const std::string& what) {
  return fmt::format("{:>16} {:>14}  {:<8}  {}\n", extent.offset, extent.length,
                     kind_name(extent.kind), what);
}

/// What the tree holds, by kind.
struct TreeCounts {
  explicit TreeCounts(const SourceTree& tree) {
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
    Json row;
    row["source_kind"] = facts.kind;
    if (facts.kind == "archive") {
      row["archive_format"] = facts.format;
      row["compression"] = facts.compression;
      row["access"] = facts.access;
      row["kept_index"] = facts.kept_index;
      row["index_bytes"] = facts.index_bytes;
      row["spool_bytes"] = facts.spool_bytes;
    } else if (facts.kind == "container image") {
      row["image_id"] = facts.image_id;
      row["platform"] = facts.platform;
      row["layer_count"] = facts.layer_count;
      row["packed_bytes"] = facts.packed_bytes;
    }
    if (facts.kind == "container image") {
      row["image_id"] = facts.image_id;
      row["platform"] = facts.platform;
      row["layer_count"] = facts.layer_count;
      row["packed_bytes"] = facts.packed_bytes;
      row["index_bytes"] = facts.index_bytes;
      row["spool_bytes"] = facts.spool_bytes;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

/// Everything but the map, under names that are kept like an API.
Json describe(const std::string& source, const PreparedImage& prepared) {
  const SourceTree& tree = *prepared.tree;
  const TreeCounts counts(tree);
  const ScanReport& report = prepared.report;
  const TreeId tree_id = tree.id();
  Json json;
  json["source"] = printable(source);
  json["sources"] = describe(prepared.sources);
  json["tree_id"] = hex({reinterpret_cast<const char*>(tree_id.data()), tree_id.size()});
  json["volume_id"] = prepared.image->volume_id();
  json["source_directory_count"] = counts.directories;
  json["source_file_count"] = counts.files;
  json["source_file_bytes"] = counts.file_bytes;
  json["source_symlink_count"] = counts.symlinks;
  json["source_special_count"] = counts.specials;
  json["source_hard_link_count"] = counts.hard_links;
  json["unreadable_count"] = report.unreadable_count;
  json["vanished_count"] = report.vanished_count;
  json["excluded_count"] = report.excluded_count;
  json["mount_points_not_entered"] = report.mount_points_not_entered;
  json["scan_seconds"] = prepared.scan_seconds;
  json["plan_seconds"] = prepared.plan_seconds;
  Json image;
  for (const ImageFact& fact : prepared.image->facts()) {
    std::visit([&](const auto& value) { image[fact.name] = value; }, fact.value);
  }
  json["image"] = std::move(image);
  return json;
}

std::string text_of(const Json& facts) {
  std::string text;
  for (const auto& [name, value] : facts.items()) {
    if (value.is_structured()) {
      const Json rows = value.is_array() ? value : Json::array({value});
      for (const Json& row : rows) text += text_of(row);
      continue;
    }
    std::string words = name;
    std::ranges::replace(words, '_', ' ');
    std::string shown;
    if (value.is_string()) {
      shown = printable(value.get<std::string>());
    } else if (value.is_boolean()) {
      shown = value.get<bool>() ? "yes" : "no";
    } else if (value.is_number_float()) {
      shown = fmt::format("{:.3f}", value.get<double>());
    } else {
      shown = fmt::format("{}", value.get<std::uint64_t>());
      constexpr std::uint64_t kPlainUpTo = 65536;
      if (name.ends_with("bytes") && value.get<std::uint64_t>() >= kPlainUpTo) {
        shown += fmt::format(" ({})", human_size(value.get<std::uint64_t>()));
      }
    }
    text += fmt::format("{:<26} {}\n", words, shown);
  }
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
      const Json row = {
          {"kind", difference.kind}, {"path", path}, {"what", printable(difference.what)}};
      report_.add(first_ ? "\n" : ",\n");
      report_.add(row.dump());
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
  Inspect(CLI::App& inspect_app, const FormatRegistry& formats);
  Result<int> run(const Streams& streams) override;

 private:
  /// Sorts out what the parser can not: whether a word behind --map is its OFFSET or the SOURCE.
  Result<void> resolve();
  Result<void> report_at(Report& report, const Image& image, std::uint64_t offset) const;
  void report_map(Report& report, const Image& image) const;

  SourceOptions source_;
  ImageOptions image_;
  bool differences_ = false;
  CLI::Option* map_option_ = nullptr;
  std::string map_;
  std::optional<std::uint64_t> map_offset_;
  bool json_ = false;
};

Inspect::Inspect(CLI::App& inspect_app, const FormatRegistry& formats)
    : Command(inspect_app), image_(formats) {
  source_.add_to(inspect_app);
  inspect_app.get_option("SOURCE")->required(false);
  map_option_ = inspect_app
                    .add_option("--map", map_,
                                "Print where each byte comes from;\nwith OFFSET, what lies there")
                    ->option_text("[OFFSET]")
                    ->expected(0, 1)
                    ->group(kGroup);
  inspect_app
      .add_flag("--differences", differences_,
                "List what is not in the image as it is in\nthe source")
      ->excludes(map_option_)
      ->group(kGroup);
  inspect_app.add_flag("--json", json_, "Print JSON")->group(kGroup);
  image_.add_to(inspect_app);
}

Result<void> Inspect::resolve() {
  if (Result<void> taken = source_.take_sources(); !taken) return taken;
  if (!map_.empty()) {
    map_offset_ = parse_size(map_);
    if (!map_offset_) {
      if (!source_.sources.empty()) {
        return fail(Errc::usage, fmt::format("--map={} is not an offset (65536, 64K, 1GiB)", map_));
      }
      source_.sources.push_back({map_, ""});
    }
  }
  if (source_.sources.empty()) {
    return fail(Errc::usage, "SOURCE is required (see mkvirtfs inspect --help)");
  }
  return {};
}

Result<void> Inspect::report_at(Report& report, const Image& image, std::uint64_t offset) const {
  if (offset >= image.size_bytes()) {
    return fail(Errc::usage, fmt::format("--map={} lies behind the image's end at {}", map_,
                                         image.size_bytes()));
  }
  for_each_extent(image, {0, image.size_bytes()}, [&](const Extent& extent) {
    if (extent.end() <= offset) return true;
    const std::string what = what_lies(image, extent, offset, /*to_end=*/false);
    report.add(json_ ? json_row(extent, what).dump(2) + "\n" : text_row(extent, what));
    return false;
  });
  return {};
}

void Inspect::report_map(Report& report, const Image& image) const {
  if (!json_)
    report.add(fmt::format("{:>16} {:>14}  {:<8}  {}\n", "offset", "length", "kind", "what"));
  bool first = true;
  for_each_extent(image, {0, image.size_bytes()}, [&](const Extent& extent) {
    const std::string what = what_lies(image, extent, extent.offset, /*to_end=*/true);
    if (json_) {
      report.add(first ? "[\n" : ",\n");
      report.add(json_row(extent, what).dump());
    } else {
      report.add(text_row(extent, what));
    }
    first = false;
    return report.good();
  });
  if (json_) report.add(first ? "[]\n" : "\n]\n");
}

Result<int> Inspect::run(const Streams& streams) {
  if (Result<void> good = resolve(); !good) return std::unexpected(std::move(good.error()));
  const auto outputs = std::make_shared<RunOutputs>();
  outputs->add_descriptor(streams.out, "the file of standard output");
  outputs->add_descriptor(streams.err, "the file of standard error");
  source_.outputs = outputs;
  FdLog log(streams.err, LogLevel::info);
  const Result<PreparedImage> prepared = prepare_image(source_, image_, log);
  if (!prepared) return std::unexpected(prepared.error());
  Report report(streams.out);
  if (map_offset_) {
    if (Result<void> told = report_at(report, *prepared->image, *map_offset_); !told) {
      return std::unexpected(std::move(told.error()));
    }
  } else if (map_option_->count() != 0) {
    report_map(report, *prepared->image);
  } else if (differences_) {
    DifferenceReport rows(report, json_);
    prepared->image->differences(rows);
    rows.end();
  } else {
    const Json facts = describe(to_string(source_.sources), *prepared);
    report.add(json_ ? facts.dump(2) + "\n" : text_of(facts));
  }
  if (!report.flush()) return fail(Errc::io, "write standard output");
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_inspect(CLI::App& program, const FormatRegistry& formats) {
  return std::make_unique<Inspect>(
      *program.add_subcommand("inspect", "Report sizes, counts, features, ids and the map"),
      formats);
}

}  // namespace mkvirtfs::cli
