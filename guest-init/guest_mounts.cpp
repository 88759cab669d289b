// SPDX-License-Identifier: BSD-3-Clause
#include "guest-init/guest_mounts.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace mkvirtfs::guest {
namespace {

constexpr const char* kRoot = "/root";
constexpr const char* kLower = "/lower";
constexpr const char* kLayers = "/layers";
constexpr int kCompressedModule = 4;  // MODULE_INIT_COMPRESSED_FILE
constexpr int kDeviceTries = 200;
constexpr useconds_t kDeviceInterval = 50'000;

std::string failure(const std::string& doing) { return doing + ": " + ::strerrordesc_np(errno); }

/// Nothing to report where it fails: what needs it does.
void mount_at(const char* what, const char* where, const char* type, unsigned long flags,
              const char* options = nullptr) {
  ::mkdir(where, 0755);
  static_cast<void>(::mount(what, where, type, flags, options));
}

bool wait_for_device(const std::string& path) {
  for (int tries = 0; tries < kDeviceTries; ++tries) {
    if (::access(path.c_str(), F_OK) == 0) return true;
    ::usleep(kDeviceInterval);
  }
  return false;
}

/// The disk below a tmpfs, which has what is written.
std::string mount_overlay() {
  mount_at("layers", kLayers, "tmpfs", 0, "mode=0755");
  ::mkdir("/layers/upper", 0755);
  ::mkdir("/layers/work", 0755);
  if (::mount("root", kRoot, "overlay", 0,
              "lowerdir=/lower,upperdir=/layers/upper,workdir=/layers/work") != 0) {
    return failure("mount a tmpfs over the root (overlayfs)");
  }
  return {};
}

}  // namespace

void mount_kernel_trees() {
  mount_at("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
  mount_at("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC);
  mount_at("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC);
}

void load_modules(const Settings& settings) {
  for (const std::string& module : settings.modules) {
    const int fd = ::open(module.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    const int flags = module.ends_with(".ko") ? 0 : kCompressedModule;
    ::syscall(SYS_finit_module, fd, "", flags);
    ::close(fd);
    ::unlink(module.c_str());  // its memory
  }
}

std::string enter_root(const Settings& settings) {
  const std::string& device = settings.root_device;
  if (!wait_for_device(device)) return device + " does not appear: has the kernel virtio_blk?";
  const char* const place = settings.has_overlay ? kLower : kRoot;
  ::mkdir(kRoot, 0755);
  ::mkdir(place, 0755);
  const unsigned long flags = settings.is_read_only ? MS_RDONLY : 0;
  if (::mount(device.c_str(), place, settings.root_type.c_str(), flags, nullptr) != 0) {
    return failure("mount " + device + " as " + settings.root_type);
  }
  if (settings.has_overlay) {
    if (std::string wrong = mount_overlay(); !wrong.empty()) return wrong;
  }
  for (const char* tree : {"/dev", "/proc", "/sys"}) {
    const std::string below = std::string(kRoot) + tree;
    ::mkdir(below.c_str(), 0755);
    if (::mount(tree, below.c_str(), nullptr, MS_MOVE, nullptr) != 0) {
      return failure("move " + std::string(tree) + " into the root");
    }
  }
  if (::chdir(kRoot) != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 ||
      ::chroot(".") != 0 || ::chdir("/") != 0) {
    return failure("enter the root");
  }
  return {};
}

void mount_for_command() {
  mount_at("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
  mount_at("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  mount_at("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
  mount_at("cgroup", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC);
  ::symlink("/proc/self/fd", "/dev/fd");
  ::symlink("/proc/self/fd/0", "/dev/stdin");
  ::symlink("/proc/self/fd/1", "/dev/stdout");
  ::symlink("/proc/self/fd/2", "/dev/stderr");
}

std::string mount_share(const Settings& settings) {
  if (settings.share.empty()) return {};
  for (std::size_t at = 1; at != std::string::npos;) {
    at = settings.share.find('/', at + 1);
    ::mkdir(settings.share.substr(0, at).c_str(), 0755);
  }
  if (::mount("share", settings.share.c_str(), "virtiofs", 0, nullptr) != 0) {
    return failure("mount the host's directory at " + settings.share + " (virtiofs)");
  }
  return {};
}

void power_off() {
  // The kernel's last word would stand behind what the command printed.
  if (const int level = ::open("/proc/sys/kernel/printk", O_WRONLY | O_CLOEXEC); level >= 0) {
    [[maybe_unused]] const ssize_t written = ::write(level, "0", 1);
    ::close(level);
  }
  ::kill(-1, SIGKILL);
  ::sync();
  static_cast<void>(::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY, nullptr));
  ::sync();
  ::reboot(RB_POWER_OFF);
  // A kernel without ACPI: the host finds a machine that was restarted, and ends it.
  ::reboot(RB_AUTOBOOT);
  ::_exit(1);
}

}  // namespace mkvirtfs::guest
