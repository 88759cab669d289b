// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <catch2/catch.hpp>

#include <memory>
#include <string>
#include <utility>

#include "fsgen/archive/archive.h"
#include "fsgen/stream/spool.h"
#include "fsgen/stream/testing/stream_data.h"
#include "support/log.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"

// Archives of a test, read whole, by the helper where that is needed.

namespace mkvirtfs::testing {

/// What a shell prints; a command that fails is a failure of the test.
inline std::string run_shell(const std::string& command) {
  const Ran ran = run_tool({"bash", "-c", "set -euo pipefail; " + command});
  INFO(command << "\n" << ran.output);
  REQUIRE(ran.status == 0);
  return ran.output;
}

inline StreamOptions with_spool() {
  StreamOptions options;
  options.spool = std::make_shared<SpoolSpace>("/var/tmp", std::uint64_t{1} << 30);
  return options;
}

struct Opened {
  archive::Archive archive;
  Layer layer;
};

struct OpenOptions {
  archive::ReadOptions read = {};
  archive::LayerOptions layer = {};
  const archive::IndexCache* cache = nullptr;
  LogSink* log = &null_log();  // outlives what is opened
};

inline Result<Opened> open(std::shared_ptr<ByteSource> source, OpenOptions options = {}) {
  if (!options.read.in_process) options.read.helper.path = MKVIRTFS_READER;
  const StreamOptions stream_options = with_spool();
  Result<archive::Archive> archive = archive::read_archive(
      std::move(source), options.read, stream_options, options.cache, *options.log);
  if (!archive) return propagate(archive);
  Result<archive::ArchiveLayer> layer =
      archive::make_layer(*archive, options.layer, stream_options, *options.log);
  if (!layer) return propagate(layer);
  return Opened{std::move(*archive), std::move(layer->layer)};
}
inline Result<Opened> open(std::string bytes, const std::string& name, OpenOptions options = {}) {
  return open(std::make_shared<MemorySource>(std::move(bytes), name), std::move(options));
}

/// What must be good.
inline Opened whole(Result<Opened> opened) {
  INFO((opened ? "" : opened.error().what));
  REQUIRE(opened);
  return std::move(*opened);
}

/// What must be refused: on one line.
template <class T>
std::string refusal(const Result<T>& opened) {
  REQUIRE_FALSE(opened);
  CHECK(opened.error().what.find('\n') == std::string::npos);
  return hinted_text(opened.error());
}

}  // namespace mkvirtfs::testing
