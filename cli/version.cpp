// SPDX-License-Identifier: BSD-3-Clause
#include "cli/version.h"

#include <ext2fs/ext2fs.h>
#include <fmt/format.h>
#include <gnutls/gnutls.h>

#include <CLI/Version.hpp>
#include <boost/version.hpp>

#include "cli/json_text.h"

namespace mkvirtfs::cli {

std::string version_text() {
  const char* ext2fs_version = nullptr;
  ext2fs_get_library_version(&ext2fs_version, nullptr);
  return fmt::format(
      "mkvirtfs {}\n"
      "libext2fs {}, GnuTLS {}, fmt {}.{}.{}, Boost {}.{}.{}, CLI11 {}, nlohmann-json {}",
      MKVIRTFS_VERSION, ext2fs_version, gnutls_check_version(nullptr), FMT_VERSION / 10000,
      FMT_VERSION / 100 % 100, FMT_VERSION % 100, BOOST_VERSION / 100000,
      BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100, CLI11_VERSION, json_library_version());
}

}  // namespace mkvirtfs::cli
