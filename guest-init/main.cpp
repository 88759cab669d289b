// SPDX-License-Identifier: BSD-3-Clause
//
// mkvirtfs-init: the first process of a machine that mkvirtfs boots. It mounts the disk, and
// becomes the init that it finds there; or, in a container image, it stays, sets up what a command
// expects of a system, runs it, and reports its status to the host through a port (virtio-serial).
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "guest-init/guest_command.h"
#include "guest-init/guest_mounts.h"
#include "guest-init/guest_network.h"
#include "guest-init/guest_settings.h"

namespace mkvirtfs::guest {
namespace {

constexpr const char* kSettings = "/mkvirtfs.settings";
constexpr const char* kPorts = "/sys/class/virtio-ports";
constexpr const char* kPortName = "mkvirtfs.status\n";

void say(const std::string& text) {
  const std::string line = "mkvirtfs: " + text + "\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

/// The port of virtio-serial that the host calls kPortName; -1 when it is not there yet.
int find_port() {
  DIR* const directory = ::opendir(kPorts);
  if (directory == nullptr) return -1;
  int port = -1;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string name = static_cast<const char*>(entry->d_name);
    if (read_file((std::string(kPorts) + "/" + name + "/name").c_str()) != kPortName) continue;
    port = ::open(("/dev/" + name).c_str(), O_RDWR | O_CLOEXEC);
  }
  ::closedir(directory);
  return port;
}

/// The name of a port comes with a message of the device, some time after its driver is there.
int open_port(const Settings& settings) {
  constexpr int kTries = 100;
  constexpr useconds_t kInterval = 50'000;
  for (int tries = 0; settings.has_port && tries < kTries; ++tries) {
    if (const int port = find_port(); port >= 0) return port;
    ::usleep(kInterval);
  }
  return -1;
}

void report(int port, const std::string& line) {
  if (port < 0) return;
  const std::string text = line + "\n";
  [[maybe_unused]] const ssize_t written = ::write(port, text.data(), text.size());
}

/// Becomes the init of the root, as the kernel looks for it.
[[noreturn]] void become_init(int port) {
  for (const char* path : {"/sbin/init", "/etc/init", "/bin/init", "/usr/lib/systemd/systemd"}) {
    if (::access(path, X_OK) == 0) ::execl(path, path, nullptr);
  }
  report(port, "failed the source has no init (/sbin/init), and no command was given");
  power_off();
}

[[noreturn]] void run(const Settings& settings) {
  load_modules(settings);
  // Opened before the root is another: its kernel's trees move with it.
  const int port = open_port(settings);
  std::string wrong = enter_root(settings);
  if (wrong.empty()) wrong = mount_share(settings);
  if (wrong.empty() && settings.arguments.empty()) become_init(port);
  if (!wrong.empty()) {
    say(wrong);
    report(port, "failed " + wrong);
    power_off();
  }
  mount_for_command();
  if (settings.has_network) set_up_network();
  report(port, "status " + std::to_string(run_command(settings, port)));
  power_off();
}

}  // namespace
}  // namespace mkvirtfs::guest

int main() {
  mkvirtfs::guest::mount_kernel_trees();
  const int console = ::open("/dev/console", O_RDWR);
  for (int fd = 0; console >= 0 && fd <= 2; ++fd) ::dup2(console, fd);
  const std::string text = mkvirtfs::guest::read_file(mkvirtfs::guest::kSettings);
  ::unlink(mkvirtfs::guest::kSettings);
  mkvirtfs::guest::run(mkvirtfs::guest::parse_settings(text));
}
