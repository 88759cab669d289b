// SPDX-License-Identifier: BSD-3-Clause
// directory_disk SOURCE dump FILE | SOURCE serve SOCKET: an ext4 disk of a directory (or of an
// archive, or of a container image), into a file or to NBD clients.
#include <mkvirtfs/block/dump.h>
#include <mkvirtfs/compose/prepare.h>
#include <mkvirtfs/nbd/server.h>

#include <cstdio>
#include <string_view>

using namespace mkvirtfs;

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  Resources resources({.log = &stderr_log()});
  const ImageSpec spec{.sources = {{.path = argv[1]}},
                       .format = "ext4",
                       .options = {{"label", "example"}, {"free", "16M"}}};
  const Result<PreparedImage> prepared = prepare(spec, resources);
  Result<void> done;
  if (!prepared) {
    done = propagate(prepared);
  } else if (std::string_view(argv[2]) == "dump") {
    const auto dumped = dump(*prepared->device, {.output = DumpFile{.path = argv[3]}});
    if (!dumped) done = propagate(dumped);
  } else {
    const auto server = nbd::Server::create(*nbd::make_single_export(prepared->device));
    done = (*server)->listen_unix(argv[3]);
    if (done) done = (*server)->run();
  }
  if (!done) std::fprintf(stderr, "%s\n", done.error().what.c_str());
  return done ? 0 : 1;
}
