// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <string>
#include <utility>

#include "cli/command.h"
#include "cli/error_text.h"
#include "cli/inside.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

class Stat final : public Command {
 public:
  Stat(OptionSet& options, const FormatRegistry& formats) : Command(options), inside_(formats) {
    options.add_flag("--json", json_, "A JSON object").group("Report");
    inside_.add_to(options);
  }
  Result<int> run(const Streams& streams) override;

 private:
  InsideOptions inside_;
  bool json_ = false;
};

std::string text_of(const SourceTree& tree, NodeNo no) {
  const Node& node = tree.node(no);
  std::string text = fmt::format(
      "path   /{}\ntype   {}\nmode   {:04o} {}\nowner  {}:{}\nsize   {}\n"
      "time   {}\nlinks  {}\n",
      printable(tree.path(no)), type_text(node.mode), node.mode & 07777, mode_text(node.mode),
      node.uid, node.gid, node.size_bytes, mtime_text(node), node.link_count);
  if (node.is_symlink()) text += fmt::format("target {}\n", printable(tree.symlink_target(no)));
  if (node.is_device()) {
    text +=
        fmt::format("device {}, {}\n", tree.device_number(no).major, tree.device_number(no).minor);
  }
  if (tree.is_sparse(no)) {
    Range dense;
    for (const Range& run : tree.data_runs(no, dense)) {
      text += fmt::format("data   {} bytes at {}\n", run.length, run.offset);
    }
  }
  for (const Xattr& xattr : tree.xattrs(node.xattrs)) {
    text += fmt::format("xattr  {}={}\n", printable(xattr.name), printable(xattr.value));
  }
  return text;
}

Json json_of(const SourceTree& tree, NodeNo no) {
  const Node& node = tree.node(no);
  Json json = node_json(tree, no, "/" + tree.path(no));
  if (node.is_regular()) {
    Range dense;
    Json data = Json::array();
    for (const Range& run : tree.data_runs(no, dense)) {
      data.add(Json::object().set("offset", run.offset).set("length", run.length));
    }
    json.set("data", std::move(data));
  }
  Json xattrs = Json::object();
  for (const Xattr& xattr : tree.xattrs(node.xattrs)) {
    xattrs.set(printable(xattr.name), hex(xattr.value));
  }
  json.set("xattrs_hex", std::move(xattrs));
  return json;
}

Result<int> Stat::run(const Streams& streams) {
  WordedLog log(streams.err, LogLevel::warning);
  const Result<Inside> inside = inside_.open(log, false);
  if (!inside) return propagate(inside);
  const SourceTree& tree = *inside->read.tree;
  const std::string text =
      json_ ? json_of(tree, inside->node).lines() : text_of(tree, inside->node);
  if (!print(streams.out, text)) return fail(Errc::io, "the report cannot be written");
  return inside->read.is_damaged ? 1 : 0;
}

}  // namespace

std::unique_ptr<Command> make_stat(OptionSet& program, const FormatRegistry& formats) {
  return std::make_unique<Stat>(
      program.add_subcommand("stat", "Say what is known of one entry of a source"), formats);
}

}  // namespace mkvirtfs::cli
