// SPDX-License-Identifier: BSD-3-Clause
#include "vm/machine.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <iterator>
#include <string_view>

namespace mkvirtfs::vm {
namespace {

Machine some_machine() {
  Machine machine;
  machine.disk_socket = "/tmp/a,b/socket";
  machine.direct = DirectKernel{"/tmp/kernel", "/tmp/initrd", "root=/dev/vda rw"};
  return machine;
}

/// The word behind `option`; "" when there is none.
std::string value_of(const std::vector<std::string>& words, std::string_view option) {
  const auto at = std::ranges::find(words, option);
  return at == words.end() || std::next(at) == words.end() ? "" : *std::next(at);
}

}  // namespace

TEST_CASE("a machine boots its kernel itself, with nothing of QEMU's defaults") {
  const std::vector<std::string> words = qemu_arguments(some_machine());
  CHECK(value_of(words, "-kernel") == "/tmp/kernel");
  CHECK(value_of(words, "-initrd") == "/tmp/initrd");
  CHECK(value_of(words, "-append") == "root=/dev/vda rw");
  CHECK(value_of(words, "-accel") == "tcg");
  CHECK(value_of(words, "-cpu") == "max");
  CHECK(value_of(words, "-m") == "1024M");
  CHECK(std::ranges::count(words, "-nodefaults") == 1);
  CHECK(value_of(words, "-blockdev") ==
        "driver=nbd,node-name=disk,server.type=unix,server.path=/tmp/a,,b/socket,discard=unmap");
}

TEST_CASE("a machine with KVM has the processor of the host") {
  Machine machine = some_machine();
  machine.accelerator = Accelerator::kvm;
  machine.cpus = 3;
  machine.direct->initrd.clear();
  machine.disk_is_read_only = true;
  const std::vector<std::string> words = qemu_arguments(machine);
  CHECK(value_of(words, "-accel") == "kvm");
  CHECK(value_of(words, "-cpu") == "host");
  CHECK(value_of(words, "-smp") == "3");
  CHECK(std::ranges::count(words, "-initrd") == 0);
  CHECK(value_of(words, "-blockdev").ends_with(",read-only=on"));
}

TEST_CASE("firmware starts what the disk has") {
  Machine machine = some_machine();
  machine.direct.reset();
  std::vector<std::string> words = qemu_arguments(machine);
  CHECK(std::ranges::count(words, "-kernel") == 0);
  CHECK(std::ranges::count(words, "VGA") == 1);
  CHECK(std::ranges::count(words, "virtio-blk-pci,drive=disk,bootindex=0") == 1);
  machine.flash = Flash{"/fw/code", "/tmp/a,b/vars", true};
  machine.disk_block_bytes = 4096;
  words = qemu_arguments(machine);
  CHECK(value_of(words, "-machine") == "q35,smm=on");
  CHECK(value_of(words, "-global") == "driver=cfi.pflash01,property=secure,value=on");
  CHECK(value_of(words, "-drive") == "if=pflash,unit=0,format=raw,readonly=on,file=/fw/code");
  CHECK(std::ranges::count(words, "if=pflash,unit=1,format=raw,file=/tmp/a,,b/vars") == 1);
  CHECK(std::ranges::count(words, "VGA") == 0);
  CHECK(std::ranges::count(words,
                           "virtio-blk-pci,drive=disk,logical_block_size=4096,"
                           "physical_block_size=4096,bootindex=0") == 1);
}

TEST_CASE("a port of the host leads to the guest") {
  Machine machine = some_machine();
  CHECK(value_of(qemu_arguments(machine), "-netdev") == "user,id=network");
  machine.ssh_port = 40022;
  CHECK(value_of(qemu_arguments(machine), "-netdev") ==
        "user,id=network,hostfwd=tcp:127.0.0.1:40022-:22");
}

TEST_CASE("a directory is shared by the memory that the guest has") {
  Machine machine = some_machine();
  machine.share_socket = "/tmp/share";
  machine.status_socket = "/tmp/status";
  const std::vector<std::string> words = qemu_arguments(machine);
  CHECK(value_of(words, "-object") == "memory-backend-memfd,id=memory,size=1024M,share=on");
  CHECK(value_of(words, "-machine") == "q35,memory-backend=memory");
  CHECK(std::ranges::count(words, "vhost-user-fs-pci,chardev=share,tag=share") == 1);
  CHECK(std::ranges::count(words, "socket,id=share,path=/tmp/share") == 1);
  CHECK(std::ranges::count(words, "virtserialport,chardev=status,name=mkvirtfs.status") == 1);
}

TEST_CASE("a line for a shell quotes what is not plain") {
  CHECK(shell_line({"qemu", "-append", "root=/dev/vda rw", "it's", ""}) ==
        "qemu -append 'root=/dev/vda rw' 'it'\\''s' ''");
}

}  // namespace mkvirtfs::vm
