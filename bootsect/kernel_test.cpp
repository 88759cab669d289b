// SPDX-License-Identifier: BSD-3-Clause
#include "bootsect/kernel.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "fsgen/tree/tree_builder.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;

namespace {

struct Paths {
  std::string kernel;
  std::vector<std::string> initrds;

  friend bool operator==(const Paths&, const Paths&) = default;
};

Paths found_in(const TreeBuilder& builder) {
  const BuiltTree built = builder.build();
  const auto found = find_kernel(*built.tree);
  if (!found) return {};
  Paths paths{built.tree->path(found->kernel), {}};
  for (const NodeNo initrd : found->initrds) paths.initrds.push_back(built.tree->path(initrd));
  return paths;
}

}  // namespace

TEST_CASE("versions are ordered by their numbers, and a candidate comes before its release") {
  const std::vector<std::string> ascending{"5.10.0-9-amd64", "5.10.0-10-amd64", "5.10.0-010b",
                                           "6.1.0-31-amd64", "6.2-rc1",         "6.2",
                                           "6.2.1",          "6.10.1"};
  for (std::size_t at = 1; at < ascending.size(); ++at) {
    INFO(ascending[at - 1] << " and " << ascending[at]);
    CHECK(is_older(ascending[at - 1], ascending[at]));
    CHECK(!is_older(ascending[at], ascending[at - 1]));
  }
  CHECK(!is_older("6.1", "6.1"));
}

TEST_CASE("the newest kernel is found, modules first, then boot, then the link") {
  TreeBuilder builder;
  builder.file("boot/real", "k").symlink("vmlinuz", "/boot/real");
  CHECK(found_in(builder) == Paths{"boot/real", {}});
  builder.file("boot/first", "i").symlink("initrd.img", "boot/first");
  CHECK(found_in(builder) == Paths{"boot/real", {"boot/first"}});
  builder.file("boot/vmlinuz-5.10.0-9-amd64", "k").file("boot/vmlinuz-5.10.0-10-amd64", "k");
  builder.file("boot/vmlinuz-0-rescue-1234", "k").file("boot/vmlinuz-99-rescue", "k");
  builder.file("boot/initrd.img-5.10.0-9-amd64", "i");
  CHECK(found_in(builder) == Paths{"boot/vmlinuz-5.10.0-10-amd64", {}});
  builder.file("boot/initramfs-5.10.0-10-amd64.img", "i");
  CHECK(found_in(builder) ==
        Paths{"boot/vmlinuz-5.10.0-10-amd64", {"boot/initramfs-5.10.0-10-amd64.img"}});
  builder.file("usr/lib/modules/5.4/vmlinuz", "k").file("boot/initrd-5.4", "i");
  CHECK(found_in(builder) == Paths{"usr/lib/modules/5.4/vmlinuz", {"boot/initrd-5.4"}});
  builder.file("usr/lib/modules/5.4/initrd", "i");
  CHECK(found_in(builder) == Paths{"usr/lib/modules/5.4/vmlinuz", {"usr/lib/modules/5.4/initrd"}});
}

TEST_CASE(
    "a boot directory by itself has its kernel in its root; links that lead nowhere are none") {
  CHECK(found_in(TreeBuilder().file("vmlinuz-6.1", "k").file("initrd.img-6.1", "i")) ==
        Paths{"vmlinuz-6.1", {"initrd.img-6.1"}});
  CHECK(found_in(TreeBuilder().symlink("vmlinuz", "vmlinuz")) == Paths{});
  CHECK(found_in(TreeBuilder().symlink("vmlinuz", "boot/none")) == Paths{});
  CHECK(found_in(TreeBuilder().directory("boot/vmlinuz-6.1")) == Paths{});
}

TEST_CASE("a kernel says for which processor it is") {
  std::vector<std::byte> head(kKernelHeadBytes);
  const auto put = [&](std::size_t at, std::string_view text) {
    for (const char c : text) head[at++] = static_cast<std::byte>(c);
  };
  CHECK(!kernel_architecture(head));
  CHECK(!kernel_architecture({}));
  put(0x38, "ARM\x64");
  CHECK(kernel_architecture(head) == "arm64");
  put(0x202, "HdrS");
  CHECK(kernel_architecture(head) == "x86");
  put(0x206, "\x0f\x02");
  put(0x236, "\x01");
  CHECK(kernel_architecture(head) == "x86-64");
}
