// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/erofs/testing/judges.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>
#include <stdexcept>

#include "support/text.h"
#include "tests/support/extracted.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/materialise.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::erofs::testing {
namespace {

namespace fs = std::filesystem;

std::string difference(const SourceTree& tree, NodeNo want_no, const SourceTree& found,
                       NodeNo is_no) {
  const Node& want = tree.node(want_no);
  const Node& is = found.node(is_no);
  // The bits of another user and group are gone with its chown().
  const unsigned lost = !want.is_directory() ? S_ISUID | S_ISGID : 0;
  if ((want.mode & ~lost) != (is.mode & ~lost))
    return fmt::format("mode {:o}, not {:o}", is.mode, want.mode);
  if (want.uid != is.uid || want.gid != is.gid) return "another owner";
  // It writes what is behind a hole where the hole begins.
  const bool lost_holes = tree.is_sparse(want_no) && is.size_bytes < want.size_bytes;
  if (want.size_bytes != is.size_bytes && !lost_holes) {
    return "another size";
  }
  if (want.mtime() != is.mtime()) return fmt::format("mtime {}, not {}", is.mtime_s, want.mtime_s);
  if (want.is_symlink() && tree.symlink_target(want_no) != found.symlink_target(is_no)) {
    return "another target";
  }
  if (want.is_device() && tree.device_number(want_no) != found.device_number(is_no)) {
    return "another device number";
  }
  return {};
}

}  // namespace

std::string objections_of_fsck(const std::shared_ptr<const Image>& image, const BuiltTree& source) {
  if (!mkvirtfs::testing::may_materialise(source)) return "";
  const TempDir place(fast_place());
  const std::string file = (place / "image").string();
  const fs::path out = place / "out";
  ImageDevice device(image, source.store);
  write_image(device, file);
  const Ran fsck = run_tool({"fsck.erofs", "--extract=" + out.string(), "--preserve", file});
  if (fsck.status != 0 || fsck.output.find("<E>") != std::string::npos) {
    return "fsck.erofs: " + printable(fsck.output) + "\n";
  }
  return mkvirtfs::testing::extracted_differences(source, out, mkvirtfs::testing::HardLinks::ignore,
                                                  difference);
}

}  // namespace mkvirtfs::erofs::testing
