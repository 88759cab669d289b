// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "cli/command_line.h"
#include "cli/json_text.h"
#include "cli/source_options.h"
#include "cli/streams.h"
#include "compose/read_tree.h"
#include "fsgen/image/format_registry.h"
#include "support/error.h"
#include "support/log.h"

// What the commands share that look inside a source: ls, cat, stat and extract.

namespace mkvirtfs::cli {

/// A source that was read, and what of it is meant.
struct Inside {
  ReadTree read;
  std::string source;
  NodeNo node{};
};

/// SOURCE[:/PATH] and the options of sources.
class InsideOptions {
 public:
  explicit InsideOptions(const FormatRegistry& formats) : formats_(formats) {}

  void add_to(OptionSet& options);
  /// Reads the source, even if it is damaged, and finds the path in it. Symlinks on the way are
  /// followed, and the last one if `follows_last`. `log` must outlive the result.
  Result<Inside> open(LogSink& log, bool follows_last) const;

 private:
  const FormatRegistry& formats_;
  std::string word_;
  SourceOptions source_;
};

/// "drwxr-xr-x", as ls(1) has it.
std::string mode_text(std::uint16_t mode);
/// "file", "directory", "symlink", "fifo", "socket", "character device" or "block device".
std::string_view type_text(std::uint16_t mode);
/// The moment of the last change: "2026-11-30T06:56:12.5Z".
std::string mtime_text(const Node& node);
/// What is known of a node but its extended attributes and its data, for programs.
Json node_json(const SourceTree& tree, NodeNo no, std::string_view path);

/// Output that is written when it is worth it. Somebody who has read enough ends it.
class Lines {
 public:
  explicit Lines(int fd) : fd_(fd) {}
  /// False when it cannot be written.
  bool add(std::string_view text);
  bool flush();

 private:
  const int fd_;
  std::string text_;
};

}  // namespace mkvirtfs::cli
