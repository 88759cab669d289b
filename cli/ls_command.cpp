// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/error_text.h"
#include "cli/inside.h"
#include "fsgen/tree/tree_path.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

class Ls final : public Command {
 public:
  Ls(OptionSet& options, const FormatRegistry& formats) : Command(options), inside_(formats) {
    constexpr const char* kGroup = "Report";
    options.add_flag("-l", long_, "Mode, links, owners, size and time, too").group(kGroup);
    options.add_flag("-R,--recursive", recursive_, "All levels below, as paths").group(kGroup);
    options.add_flag("--json", json_, "An array of JSON objects, one a line").group(kGroup);
    inside_.add_to(options);
  }
  Result<int> run(const Streams& streams) override;

 private:
  std::string line_of(const SourceTree& tree, NodeNo no, std::string_view path) const;
  bool add(Lines& lines, const SourceTree& tree, NodeNo no, std::string_view path);
  bool add_directory(Lines& lines, const SourceTree& tree, NodeNo no);

  InsideOptions inside_;
  bool long_ = false;
  bool recursive_ = false;
  bool json_ = false;
  bool is_first_ = true;
};

std::string Ls::line_of(const SourceTree& tree, NodeNo no, std::string_view path) const {
  if (!long_) return printable(path) + "\n";
  const Node& node = tree.node(no);
  std::string size = fmt::format("{}", node.size_bytes);
  if (node.is_device()) {
    size = fmt::format("{}, {}", tree.device_number(no).major, tree.device_number(no).minor);
  }
  std::string line =
      fmt::format("{} {:>3} {:>5} {:>5} {:>12} {} {}", mode_text(node.mode), node.link_count,
                  node.uid, node.gid, size, mtime_text(node).substr(0, 19), printable(path));
  if (node.is_symlink()) line += " -> " + printable(tree.symlink_target(no));
  return line + "\n";
}

bool Ls::add(Lines& lines, const SourceTree& tree, NodeNo no, std::string_view path) {
  if (!json_) return lines.add(line_of(tree, no, path));
  const bool good = lines.add((is_first_ ? "[\n" : ",\n") + node_json(tree, no, path).one_line());
  is_first_ = false;
  return good;
}

/// Depth first, each directory before what is in it; paths begin below it.
bool Ls::add_directory(Lines& lines, const SourceTree& tree, NodeNo no) {
  struct Level {
    const Directory* directory;
    std::size_t next = 0;
    std::string path;
  };
  std::vector<Level> levels;
  levels.push_back({&tree.directory(tree.directory_no(no)), 0, ""});
  while (!levels.empty()) {
    Level& level = levels.back();
    const auto entries = tree.entries(*level.directory);
    if (level.next == entries.size()) {
      levels.pop_back();
      continue;
    }
    const Entry entry = entries[level.next++];
    std::string path = join_path(level.path, tree.name(*level.directory, entry));
    if (!add(lines, tree, entry.node, path)) return false;
    if (recursive_ && tree.node(entry.node).is_directory()) {
      levels.push_back({&tree.directory(tree.directory_no(entry.node)), 0, std::move(path)});
    }
  }
  return true;
}

Result<int> Ls::run(const Streams& streams) {
  WordedLog log(streams.err, LogLevel::warning);
  const Result<Inside> inside = inside_.open(log, false);
  if (!inside) return propagate(inside);
  const SourceTree& tree = *inside->read.tree;
  Lines lines(streams.out);
  bool good = tree.node(inside->node).is_directory()
                  ? add_directory(lines, tree, inside->node)
                  : add(lines, tree, inside->node, tree.path(inside->node));
  if (json_) good = good && lines.add(is_first_ ? "[]\n" : "\n]\n");
  if (!good || !lines.flush()) return fail(Errc::io, "the list cannot be written");
  return inside->read.is_damaged ? 1 : 0;
}

}  // namespace

std::unique_ptr<Command> make_ls(OptionSet& program, const FormatRegistry& formats) {
  return std::make_unique<Ls>(program.add_subcommand("ls", "List what is in a source"), formats);
}

}  // namespace mkvirtfs::cli
