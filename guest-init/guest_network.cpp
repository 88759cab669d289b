// SPDX-License-Identifier: BSD-3-Clause
// The addresses are those of QEMU's user network, which are always the same: the guest 10.0.2.15,
// the host and router 10.0.2.2, the name server 10.0.2.3.
#include "guest-init/guest_network.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

namespace mkvirtfs::guest {
namespace {

constexpr const char* kAddress = "10.0.2.15";
constexpr const char* kMask = "255.255.255.0";
constexpr const char* kRouter = "10.0.2.2";
constexpr std::string_view kNameServer = "nameserver 10.0.2.3\n";
constexpr std::string_view kHosts = "127.0.0.1 localhost\n::1 localhost\n";

sockaddr address_of(const char* text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ::inet_pton(AF_INET, text, &address.sin_addr);
  sockaddr plain{};
  std::memcpy(&plain, &address, sizeof plain);
  return plain;
}

ifreq request_for(const std::string& device) {
  ifreq request{};
  std::memcpy(static_cast<char*>(request.ifr_name), device.data(),
              std::min(device.size(), static_cast<std::size_t>(IFNAMSIZ - 1)));
  return request;
}

void switch_on(int socket, const std::string& device) {
  ifreq request = request_for(device);
  if (::ioctl(socket, SIOCGIFFLAGS, &request) != 0) return;
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_RUNNING);
  ::ioctl(socket, SIOCSIFFLAGS, &request);
}

/// The first by name that is not the loopback; "" without any.
std::string first_device() {
  DIR* const directory = ::opendir("/sys/class/net");
  if (directory == nullptr) return {};
  std::string first;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string name = static_cast<const char*>(entry->d_name);
    if (name.starts_with('.') || name == "lo") continue;
    if (first.empty() || name < first) first = name;
  }
  ::closedir(directory);
  return first;
}

/// Whatever stood there, a link that leads nowhere included.
void replace_file(const char* path, std::string_view text) {
  ::unlink(path);
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  [[maybe_unused]] const ssize_t written = ::write(fd, text.data(), text.size());
  ::close(fd);
}

}  // namespace

void set_up_network() {
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return;
  switch_on(socket, "lo");
  const std::string device = first_device();
  if (!device.empty()) {
    ifreq request = request_for(device);
    request.ifr_addr = address_of(kAddress);
    ::ioctl(socket, SIOCSIFADDR, &request);
    request.ifr_netmask = address_of(kMask);
    ::ioctl(socket, SIOCSIFNETMASK, &request);
    switch_on(socket, device);
    rtentry route{};
    route.rt_dst = address_of("0.0.0.0");
    route.rt_genmask = address_of("0.0.0.0");
    route.rt_gateway = address_of(kRouter);
    route.rt_flags = RTF_UP | RTF_GATEWAY;
    ::ioctl(socket, SIOCADDRT, &route);
  }
  ::close(socket);
  ::mkdir("/etc", 0755);
  replace_file("/etc/resolv.conf", kNameServer);
  if (::access("/etc/hosts", F_OK) != 0) replace_file("/etc/hosts", kHosts);
}

}  // namespace mkvirtfs::guest
