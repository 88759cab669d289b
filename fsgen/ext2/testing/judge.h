// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

#include "block/image.h"
#include "fsgen/ext2/testing/read_back.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/foreign_tools.h"

namespace mkvirtfs::ext2::testing {

/// Writes the image out, has e2fsck look at it and libext2fs read it back. Returns all that they
/// have to say against it; empty when the image is the source and nothing else.
inline std::string objections(const std::shared_ptr<const Image>& image, const BuiltTree& source) {
  // In memory: a host file system may end at 16 TiB, and it is faster.
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  if (!file) throw std::runtime_error("memfd_create");
  ImageDevice device(image, source.store);
  write_image(device, file);
  const std::string path = fmt::format("/proc/{}/fd/{}", ::getpid(), file.get());
  const Ran fsck = run_tool({"e2fsck", "-fn", path});
  // Beside its five passes and the closing count e2fsck has nothing to say of a clean file system.
  const bool silent = fsck.output.find("? no") == std::string::npos &&
                      fsck.output.find("WARNING") == std::string::npos &&
                      fsck.output.find("Fix") == std::string::npos;
  const std::string of_fsck = fsck.status == 0 && silent ? "" : fsck.output;
  return of_fsck + differences(path, source);
}

}  // namespace mkvirtfs::ext2::testing
