// SPDX-License-Identifier: BSD-3-Clause
// generated_disk SOCKET: a disk of 8 EiB less 1 GiB, the largest that all clients take, which
// nobody stores. Each 8 bytes of it are their own offset, most significant byte first.
#include <mkvirtfs/nbd/server.h>

#include <cstdio>

using namespace mkvirtfs;

class GeneratedDisk final : public BlockDevice {
 public:
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    for (std::byte& byte : out) {
      byte = static_cast<std::byte>((offset & ~std::uint64_t{7}) >> (56 - 8 * (offset & 7)));
      ++offset;
    }
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    if (range.length != 0) sink.extent({range.offset, range.length, ExtentKind::computed});
  }
  /// It computes, and waits for nothing: the server need not ask it on another thread.
  bool may_wait(DeviceCall, Range) const override { return false; }

 private:
  const Geometry geometry_{.size_bytes = (std::uint64_t{1} << 63) - (1U << 30)};
};

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto server =
      nbd::Server::create(*nbd::make_single_export(std::make_shared<GeneratedDisk>()));
  Result<void> done = (*server)->listen_unix(argv[1]);
  if (done) done = (*server)->run();
  if (!done) std::fprintf(stderr, "%s\n", done.error().what.c_str());
  return done ? 0 : 1;
}
