// SPDX-License-Identifier: BSD-3-Clause
//
// The line is for QEMU 7.2 and later: nothing of its defaults is used, so that a machine is the
// same with every version.
#include "vm/machine.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "vm/initrd.h"

namespace mkvirtfs::vm {
namespace {

constexpr std::uint32_t kUsualBlockBytes = 512;
constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

/// A value inside a list that commas divide: ",," is a comma there.
std::string escaped(std::string_view value) {
  std::string text;
  for (const char c : value) text.append(c == ',' ? 2 : 1, c);
  return text;
}

/// Collects options with their values.
class Arguments {
 public:
  void add(std::string option) { words_.push_back(std::move(option)); }
  void add(std::string option, std::string value) {
    words_.push_back(std::move(option));
    words_.push_back(std::move(value));
  }
  std::vector<std::string> take() && { return std::move(words_); }

 private:
  std::vector<std::string> words_;
};

void add_board(const Machine& machine, Arguments& arguments) {
  const bool is_kvm = machine.accelerator == Accelerator::kvm;
  // The firmware alone may write its variables: it does so in the processor's management mode.
  const bool is_secure = machine.flash && machine.flash->is_secure;
  std::string board = is_secure ? "q35,smm=on" : "q35";
  if (!machine.share_socket.empty()) {
    // virtiofsd reads and writes the guest's memory.
    board += ",memory-backend=memory";
    arguments.add("-object", fmt::format("memory-backend-memfd,id=memory,size={}M,share=on",
                                         machine.memory_bytes / kMebibyte));
  }
  arguments.add("-machine", board);
  if (is_secure) arguments.add("-global", "driver=cfi.pflash01,property=secure,value=on");
  arguments.add("-accel", is_kvm ? "kvm" : "tcg");
  arguments.add("-cpu", is_kvm ? "host" : "max");
  arguments.add("-smp", std::to_string(machine.cpus));
  arguments.add("-m", fmt::format("{}M", machine.memory_bytes / kMebibyte));
  for (const char* option : {"-nodefaults", "-no-user-config", "-no-reboot"}) arguments.add(option);
  arguments.add("-display", "none");
}

void add_devices(const Machine& machine, Arguments& arguments) {
  arguments.add("-chardev", "stdio,id=console,signal=off");
  arguments.add("-serial", "chardev:console");
  arguments.add(
      "-blockdev",
      fmt::format("driver=nbd,node-name=disk,server.type=unix,server.path={},"
                  "discard=unmap{}",
                  escaped(machine.disk_socket), machine.disk_is_read_only ? ",read-only=on" : ""));
  std::string disk = "virtio-blk-pci,drive=disk";
  if (machine.disk_block_bytes != kUsualBlockBytes) {
    disk +=
        fmt::format(",logical_block_size={0},physical_block_size={0}", machine.disk_block_bytes);
  }
  // QEMU puts a kernel of its own into the order by itself.
  if (!machine.direct) disk += ",bootindex=0";
  arguments.add("-device", disk);
  std::string network = "user,id=network";
  if (machine.ssh_port != 0) {
    network += fmt::format(",hostfwd=tcp:127.0.0.1:{}-:22", machine.ssh_port);
  }
  arguments.add("-netdev", network);
  // Without a ROM: nobody boots from the network.
  arguments.add("-device", "virtio-net-pci,netdev=network,romfile=");
  arguments.add("-device", "virtio-rng-pci");
  if (!machine.share_socket.empty()) {
    arguments.add("-chardev",
                  fmt::format("socket,id=share,path={}", escaped(machine.share_socket)));
    arguments.add("-device", fmt::format("vhost-user-fs-pci,chardev=share,tag={}", kShareTag));
  }
  if (machine.status_socket.empty()) return;
  arguments.add("-chardev",
                fmt::format("socket,id=status,path={}", escaped(machine.status_socket)));
  arguments.add("-device", "virtio-serial-pci");
  arguments.add("-device", fmt::format("virtserialport,chardev=status,name={}", kStatusPort));
}

/// What starts first.
void add_start(const Machine& machine, Arguments& arguments) {
  if (machine.flash) {
    arguments.add("-drive", fmt::format("if=pflash,unit=0,format=raw,readonly=on,file={}",
                                        escaped(machine.flash->code)));
    arguments.add("-drive", fmt::format("if=pflash,unit=1,format=raw,file={}",
                                        escaped(machine.flash->variables)));
  }
  if (machine.direct) {
    arguments.add("-kernel", machine.direct->kernel);
    if (!machine.direct->initrd.empty()) arguments.add("-initrd", machine.direct->initrd);
    arguments.add("-append", machine.direct->command_line);
  } else if (!machine.flash) {
    // Loaders for a BIOS write to its screen, too, and SYSLINUX needs one.
    arguments.add("-device", "VGA");
  }
}

bool is_plain(char c) {
  const bool is_alphanumeric =
      (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return is_alphanumeric || std::string_view("-_./,:=+@%").find(c) != std::string_view::npos;
}

std::string shell_word(std::string_view word) {
  bool plain = !word.empty();
  for (const char c : word) plain = plain && is_plain(c);
  if (plain) return std::string(word);
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

}  // namespace

std::vector<std::string> qemu_arguments(const Machine& machine) {
  Arguments arguments;
  add_board(machine, arguments);
  add_devices(machine, arguments);
  add_start(machine, arguments);
  return std::move(arguments).take();
}

std::string shell_line(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) {
    if (!line.empty()) line += ' ';
    line += shell_word(word);
  }
  return line;
}

}  // namespace mkvirtfs::vm
