// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/store.h"

#include <fcntl.h>
#include <linux/magic.h>

#include <catch2/catch.hpp>
#include <span>
#include <string>

#include "block/testing/deaf_file_system.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {

TEST_CASE("a store on a file system without RWF_NOWAIT leaves every read to a job") {
  const TempDir dir;
  write_file(dir / "overlay", std::string(8192, 'x'));
  const long magic = GENERATE(long{FUSE_SUPER_MAGIC}, long{TMPFS_MAGIC});
  testing::DeafFileSystem files(magic);
  OverlayStore store(UniqueFd(::open((dir / "overlay").c_str(), O_RDONLY | O_CLOEXEC)), 4096,
                     "an overlay", files);
  const bool in_memory = magic == TMPFS_MAGIC;
  std::string text(4, '?');
  CHECK(store.read_at_once(OverlayStore::kContent, 0, std::as_writable_bytes(std::span(text))) ==
        in_memory);
  CHECK(text == (in_memory ? "xxxx" : "????"));
  CHECK(store.is_at_hand(OverlayStore::kContent, 0, 4096) == in_memory);
  CHECK(store.keeps_fetched(OverlayStore::kContent) == in_memory);
  REQUIRE(store.read(OverlayStore::kContent, 0, std::as_writable_bytes(std::span(text))));
  CHECK(text == "xxxx");
}

}  // namespace mkvirtfs
