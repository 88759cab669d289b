// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/content.h"
#include "compose/resources.h"
#include "compose/source_base.h"
#include "compose/source_facts.h"
#include "compose/source_loader.h"
#include "compose/source_spec.h"
#include "fsgen/host/scan.h"
#include "fsgen/tree/layer.h"
#include "fsgen/tree/merge.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs {

/// What of an image matters to reading.
struct ReadSettings {
  bool has_xattrs = true;  ///< the format has extended attributes
  std::optional<std::int64_t> source_date_epoch_s{};
  bool keep_facts = false;                  ///< ImageSpec::keep_base
  std::optional<AttributeOverride> root{};  ///< as read_root() has it
  bool follows_symlinks = false;            ///< as Format has it
};

/// The sources of one file system, laid over each other.
struct ReadSources {
  ReadSettings settings;
  std::vector<PlacedLayer> layers;         ///< of which the tree is made
  std::shared_ptr<const SourceTree> tree;  ///< symlinks followed, where that is asked for
  std::shared_ptr<ContentStore> contents;
  std::vector<Difference> followed;  ///< what stands in the tree instead of symlinks
  /// What an overlay's base is compared with: the sources, their symlinks included.
  std::shared_ptr<const SourceTree> base_tree;
  std::shared_ptr<ContentStore> base_contents;
  std::vector<SourceBase::Source> bases;  ///< in the order of the specs
  std::vector<SourceFacts> facts;

  /// Lays one more layer over them, which belongs to no spec. Errors: those of merge_layers().
  Result<void> add(Layer layer, std::string name);
  /// Takes what the layers make together. Errors: those of follow_symlinks().
  Result<void> take(Layer merged);
};

/// A source that is no file by itself, and the rules with which it was read.
struct ReadDirectory {
  std::string path;
  EntryOptions entries;
};

/// The path that a pattern may have meant, where it begins with that of a source or with "./"; ""
/// if it does not.
std::string path_below(std::string_view source, std::string_view glob);
/// `below` is that path, or "".
void remark_on_unmatched(const Setting& pattern, const std::string& below, Remarks& remarks);

/// Reads the sources of all volumes of one image. One thread; what it refers to outlives it.
class SourceReader {
 public:
  /// `doing` says at any time what is being done, for error_of_exception().
  SourceReader(Resources& resources, Remarks& remarks, std::string& doing);

  /// Errors: as those of load_source() and of merging; ECANCELED.
  Result<ReadSources> read(std::span<const SourceSpec> sources, const ReadSettings& settings);
  /// Once all are read: makes the remarks that are about all of them together.
  ScanReport finish();

 private:
  Result<LoadedSource> load(const SourceSpec& source, const ReadSettings& settings,
                            const LayersBelow* below);

  Resources& resources_;
  Remarks& remarks_;
  std::string& doing_;
  ScanReport passed_over_;
  std::vector<ReadDirectory> directories_;
};

}  // namespace mkvirtfs
