// SPDX-License-Identifier: BSD-3-Clause
#include "cli/inside.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "block/file_facts.h"
#include "cli/overlay_base.h"
#include "cli/program_resources.h"
#include "compose/source_options.h"
#include "support/text.h"

namespace mkvirtfs::cli {

void InsideOptions::add_to(OptionSet& options) {
  options
      .add_value("SOURCE[:/PATH]", word_, " ",
                 "A directory, an archive, a disk image or\noci:PATH, and what is meant of it")
      .required();
  source_.add_reading_options_to(options);
}

Result<Inside> InsideOptions::open(LogSink& log, bool follows_last) const {
  Result<SourceSpec> spec = read_source_options(source_.values());
  if (!spec) return propagate(spec);
  ItemName name = split_item_name(word_);
  spec->path = name.source;
  // What can be read is shown, and the exit status says that something is missing.
  spec->skip_unreadable = true;
  spec->keep_unreadable = true;
  raise_open_file_limit();
  Resources resources(program_resources(log, formats_));
  Result<ReadTree> read = read_tree(*spec, resources);
  if (!read) return propagate(read);
  const Result<NodeNo> node = find_item(*read->tree, name.path, follows_last);
  if (!node) return std::unexpected(with_context(name.source, node.error()));
  return Inside{std::move(*read), std::move(name.source), *node};
}

std::string mode_text(std::uint16_t mode) {
  std::string text = S_ISDIR(mode)    ? "d"
                     : S_ISLNK(mode)  ? "l"
                     : S_ISFIFO(mode) ? "p"
                     : S_ISSOCK(mode) ? "s"
                     : S_ISCHR(mode)  ? "c"
                     : S_ISBLK(mode)  ? "b"
                                      : "-";
  for (const int shift : {6, 3, 0}) {
    const unsigned bits = mode >> shift;
    text += (bits & 4) != 0 ? 'r' : '-';
    text += (bits & 2) != 0 ? 'w' : '-';
    text += (bits & 1) != 0 ? 'x' : '-';
  }
  // A letter in the place of an x; a capital where there is no x.
  const auto mark = [&](unsigned bit, std::size_t at, char with_x, char without) {
    if ((mode & bit) != 0) text[at] = text[at] == 'x' ? with_x : without;
  };
  mark(S_ISUID, 3, 's', 'S');
  mark(S_ISGID, 6, 's', 'S');
  mark(S_ISVTX, 9, 't', 'T');
  return text;
}

std::string_view type_text(std::uint16_t mode) {
  if (S_ISDIR(mode)) return "directory";
  if (S_ISLNK(mode)) return "symlink";
  if (S_ISFIFO(mode)) return "fifo";
  if (S_ISSOCK(mode)) return "socket";
  if (S_ISCHR(mode)) return "character device";
  if (S_ISBLK(mode)) return "block device";
  return "file";
}

std::string mtime_text(const Node& node) {
  return to_string(FileTime{node.mtime_s, node.mtime_ns});
}

Json node_json(const SourceTree& tree, NodeNo no, std::string_view path) {
  const Node& node = tree.node(no);
  Json json = Json::object();
  json.set("path", printable(path));
  json.set("type", type_text(node.mode));
  json.set("mode", fmt::format("{:04o}", node.mode & 07777));
  json.set("uid", std::uint64_t{node.uid});
  json.set("gid", std::uint64_t{node.gid});
  json.set("size", node.size_bytes);
  json.set("mtime", mtime_text(node));
  json.set("links", std::uint64_t{node.link_count});
  if (node.is_symlink()) json.set("target", printable(tree.symlink_target(no)));
  if (node.is_device()) {
    json.set("major", std::uint64_t{tree.device_number(no).major});
    json.set("minor", std::uint64_t{tree.device_number(no).minor});
  }
  return json;
}

bool Lines::add(std::string_view text) {
  constexpr std::size_t kEnough = 32U << 10;
  text_ += text;
  return text_.size() < kEnough || flush();
}

bool Lines::flush() { return print(fd_, std::exchange(text_, {})); }

}  // namespace mkvirtfs::cli
