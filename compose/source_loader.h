// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "compose/remark.h"
#include "compose/resources.h"
#include "compose/source_base.h"
#include "compose/source_facts.h"
#include "compose/source_spec.h"
#include "fsgen/host/scan.h"
#include "fsgen/tree/layer.h"
#include "fsgen/tree/layers_below.h"
#include "support/error.h"

namespace mkvirtfs {

/// Keeps remarks, and hands each to the caller of prepare(). One thread.
class Remarks {
 public:
  explicit Remarks(const Resources& resources) : resources_(resources) {}
  /// `at_fault` is the option that the remark is about, if any; `hints` are as Error has them.
  void add(Remark::About about, LogLevel level, std::string what, Setting at_fault = {},
           std::vector<Setting> hints = {});
  std::vector<Remark> take() { return std::move(remarks_); }

 private:
  const Resources& resources_;
  std::vector<Remark> remarks_;
};

/// A source that was read: names, metadata, and the way to its bytes.
struct LoadedSource {
  Layer layer;
  ScanReport report;
  SourceFacts facts;
  /// Where in the whole the root of the layer stands.
  std::string at;
  /// The host directory in which its files lie, absolute; "" for none.
  std::string root;
  /// What it was read from, besides files that are nodes of the layer.
  std::vector<ContainerFile> containers;
};

/// Reads the directory, archive or container image of `spec`, to be laid over the sources in
/// `below`, if any. `scan` is what `spec` says of scanning. `resources` must outlive the call, its
/// log and its cancel flag the layer.
Result<LoadedSource> load_source(const SourceSpec& spec, const ScanOptions& scan,
                                 const LayersBelow* below, Resources& resources, Remarks& remarks);

}  // namespace mkvirtfs
