// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compose/image_spec.h"
#include "compose/resources.h"
#include "exports/export_tree.h"
#include "support/error.h"

namespace mkvirtfs {

/// An image under a name that clients can ask for.
struct ExportSpec {
  std::string name{};         ///< components joined by '/'; may be ""
  std::string description{};  ///< one line for people; "": made from the spec
  ImageSpec image{};
  /// The image is prepared by make_exports() and kept. Else a client's open() prepares it, and when
  /// its last holder has gone it is forgotten.
  bool at_once = false;
};

/// The exports, the first of which is the default one. Each has a device of its own; opening one
/// waits for no other. `resources` and its log outlive the tree.
///
/// Errors: Errc::usage for names that cannot be exports'; those of prepare() for images that are
/// prepared at once. Of the others a failure goes to the client, and to the log.
Result<std::shared_ptr<ExportTree>> make_exports(std::vector<ExportSpec> specs,
                                                 Resources& resources);

}  // namespace mkvirtfs
