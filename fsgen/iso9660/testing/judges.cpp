// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/testing/judges.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string_view>

#include "support/text.h"
#include "tests/support/extracted.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/materialise.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::iso9660::testing {
namespace {

namespace fs = std::filesystem;

/// The lines of xorriso that object; a name may stand in two lines, so it is looked for anywhere.
std::string objections_in(std::string_view output) {
  std::string found;
  const auto line_at = [&](std::size_t at) {
    const std::size_t begin = output.rfind('\n', at) + 1;
    return printable(output.substr(begin, output.find('\n', at) - begin)) + "\n";
  };
  for (const std::string_view word : {"FAILURE :", "SORRY :", "FATAL :", "WARNING :"}) {
    for (std::size_t at = output.find(word); at != output.npos; at = output.find(word, at + 1)) {
      found += line_at(at);
    }
  }
  for (const std::string_view side : {"(DISK) : ", "(ISO) : "}) {
    for (std::size_t at = output.find(side); at != output.npos; at = output.find(side, at + 1)) {
      const std::string_view what = output.substr(at + side.size());
      // The last moment that a record can say stands for all later ones.
      const bool clamped = what.starts_with("st_mtime") &&
                           what.substr(0, what.find('\n')).find("<>  Dec 31  2155") != what.npos;
      const bool hosts = what.starts_with("st_ctime") || what.starts_with("st_atime");
      if (!clamped && !hosts) found += line_at(at);
    }
  }
  return found;
}

void write_to(const std::shared_ptr<const Image>& image, const BuiltTree& source,
              const fs::path& file) {
  ImageDevice device(image, source.store);
  write_image(device, file);
}

std::string difference(const SourceTree& tree, NodeNo want_no, const SourceTree& found_tree,
                       NodeNo is_no) {
  const Node& want = tree.node(want_no);
  const Node& is = found_tree.node(is_no);
  if (S_ISSOCK(want.mode)) return {};
  if (want.mode != is.mode) return fmt::format("mode {:o}, not {:o}", is.mode, want.mode);
  if (want.uid != is.uid || want.gid != is.gid) return "another owner";
  if (want.size_bytes != is.size_bytes) return "another size";
  constexpr std::int64_t kFirst = -2208988800;  // 1900
  constexpr std::int64_t kLast = 5869583999;    // the end of 2155
  // To libarchive the last second before 1970 looks like a failure, so it reports 1970.
  if (std::clamp(want.mtime_s, kFirst, kLast) != is.mtime_s && want.mtime_s != -1) {
    return fmt::format("mtime {}, not {}", is.mtime_s, want.mtime_s);
  }
  // bsdtar knows hard links by following data.
  if (want.is_regular() && want.size_bytes != 0 && want.link_count != is.link_count) {
    return "another number of links";
  }
  if (want.is_symlink() && tree.symlink_target(want_no) != found_tree.symlink_target(is_no)) {
    return "another target";
  }
  if (want.is_device() && tree.device_number(want_no) != found_tree.device_number(is_no)) {
    return "another device number";
  }
  return {};
}

}  // namespace

std::string objections(const std::shared_ptr<const Image>& image, const BuiltTree& source) {
  const TempDir place(fast_place());
  const std::string file = (place / "image").string();
  write_to(image, source, file);
  const Ran xorriso =
      run_tool({"xorriso", "-drive_class", "harmless", "/dev/shm", "-abort_on", "NEVER", "-indev",
                file, "-check_media", "--", "-find", "/", "-damaged", "-exec", "echo"});
  std::string found = objections_in(xorriso.output);
  if (xorriso.status != 0) found += fmt::format("xorriso: status {}\n", xorriso.status);
  for (const char* hierarchy : {"-R", "-J"}) {
    // Without Joliet it says so, and fails.
    if (hierarchy[1] == 'J' && image->describe(18 * 2048) == "path table L, block 0") continue;
    const Ran isoinfo = run_tool({"isoinfo", "-l", hierarchy, "-i", file});
    if (isoinfo.status != 0) {
      found += fmt::format("isoinfo {}: {}\n", hierarchy, printable(isoinfo.output));
    }
  }
  const Ran seven = run_tool({"7z", "l", file});
  if (seven.status != 0 || seven.output.find("Warnings:") != std::string::npos) {
    found += "7z: " + printable(seven.output) + "\n";
  }
  return found;
}

std::string differences_by_xorriso(const std::shared_ptr<const Image>& image,
                                   const BuiltTree& source) {
  if (!mkvirtfs::testing::may_materialise(source)) return "";
  const TempDir place(fast_place());
  const fs::path tree = place / "tree";
  fs::create_directory(tree);
  mkvirtfs::testing::materialise(source, tree);
  write_to(image, source, place / "image");
  const Ran xorriso =
      run_tool({"xorriso", "-drive_class", "harmless", "/dev/shm", "-abort_on", "NEVER", "-indev",
                (place / "image").string(), "-compare_r", tree.string(), "/"});
  return objections_in(xorriso.output);
}

std::string differences_by_bsdtar(const std::shared_ptr<const Image>& image,
                                  const BuiltTree& source) {
  // bsdtar, too, makes the tree.
  if (!mkvirtfs::testing::may_materialise(source)) return "";
  const TempDir place(fast_place());
  const fs::path out = place / "out";
  fs::create_directory(out);
  write_to(image, source, place / "image");
  const Ran bsdtar = run_tool({"env", "LC_ALL=C", "bsdtar", "-C", out.string(), "--numeric-owner",
                               "-xpPf", (place / "image").string()});
  if (bsdtar.status != 0) return printable(bsdtar.output);
  return mkvirtfs::testing::extracted_differences(
      source, out, mkvirtfs::testing::HardLinks::compare, difference);
}

}  // namespace mkvirtfs::iso9660::testing
