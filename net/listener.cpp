// SPDX-License-Identifier: BSD-3-Clause
#include "net/listener.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

// Behind sys/socket.h, which it needs.
#include <linux/vm_sockets.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

namespace mkvirtfs::net {
namespace {

// --- Unix sockets ------------------------------------------------------------------------------

constexpr std::size_t kLongestSocketPath = sizeof(sockaddr_un::sun_path) - 1;
static_assert(kLongestSocketPath == 107);

sockaddr_un unix_address(const std::string& path) noexcept {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

int bind_unix(int fd, const sockaddr_un& address) noexcept {
  return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
}

/// Locks the directory in which a socket is made, while it lives: of two servers that find the same
/// dead socket, the second must not remove what the first put in its place. Advisory and between
/// servers of this kind only; where the directory cannot be locked it does nothing.
class DirectoryLock {
 public:
  explicit DirectoryLock(const std::string& directory)
      : directory_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (!directory_) return;
    // Any user may lock a directory that they can read, for any time: do not wait forever.
    constexpr int kTries = 100;
    for (int i = 0; i < kTries && ::flock(directory_.get(), LOCK_EX | LOCK_NB) != 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

 private:
  UniqueFd directory_;  // closing it unlocks it
};

/// Removes what stands at `path` if it is the socket of a dead server.
Result<void> remove_stale_socket(const std::string& path, const sockaddr_un& address) {
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return fail_errno(errno, fmt::format("look at {}", path));
  }
  if (!S_ISSOCK(status.st_mode)) {
    return fail(Errc::io, fmt::format("{} exists and is not a socket", path),
                {{{}, "another path"}});
  }
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return fail_errno(errno, "make a socket");
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
      errno != ECONNREFUSED) {
    return fail(Errc::io, fmt::format("{} is in use by another server", path),
                {{{}, "another path"}});
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, fmt::format("remove the dead socket {}", path));
  }
  return {};
}

// --- TCP ---------------------------------------------------------------------------------------

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }

  void set_port(std::uint16_t port) noexcept {
    if (storage.ss_family == AF_INET) {
      reinterpret_cast<sockaddr_in*>(&storage)->sin_port = htons(port);
    } else {
      reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port = htons(port);
    }
  }
  std::uint16_t port() const noexcept {
    return ntohs(storage.ss_family == AF_INET
                     ? reinterpret_cast<const sockaddr_in*>(&storage)->sin_port
                     : reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  }
  /// "Every interface" is no address that a client can use; from this machine loopback is.
  Address reachable() const noexcept {
    Address copy = *this;
    if (storage.ss_family == AF_INET) {
      auto* v4 = reinterpret_cast<sockaddr_in*>(&copy.storage);
      if (v4->sin_addr.s_addr == htonl(INADDR_ANY)) v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else {
      auto* v6 = reinterpret_cast<sockaddr_in6*>(&copy.storage);
      if (IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr)) v6->sin6_addr = in6addr_loopback;
    }
    return copy;
  }
  friend bool operator==(const Address& a, const Address& b) noexcept {
    return a.length == b.length && std::memcmp(&a.storage, &b.storage, a.length) == 0;
  }
};

Result<std::vector<Address>> resolve(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error != 0) {
    const std::string what = fmt::format("find the address of \"{}\"", host);
    if (error == EAI_SYSTEM) return fail_errno(errno, what);
    return fail(Errc::io, fmt::format("{}: {}", what, ::gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  std::vector<Address> addresses;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    if (at->ai_family != AF_INET && at->ai_family != AF_INET6) continue;
    Address address;
    address.length = at->ai_addrlen;
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    if (std::ranges::find(addresses, address) == addresses.end()) addresses.push_back(address);
  }
  return addresses;
}

/// Binds and listens; 0 or an errno.
int listen_on(int fd, const Address& address) noexcept {
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.storage.ss_family == AF_INET6) {
    // One socket a family, so that each has a URI of its own.
    ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  }
  if (::bind(fd, address.get(), address.length) != 0) return errno;
  return ::listen(fd, SOMAXCONN) == 0 ? 0 : errno;
}

/// "127.0.0.1:10809", "[::1]:10809", as it stands in a URI.
std::string authority(const Address& address) {
  std::array<char, NI_MAXHOST> text{};
  const int error = ::getnameinfo(address.get(), address.length, text.data(), text.size(), nullptr,
                                  0, NI_NUMERICHOST);
  std::string host = error == 0 ? text.data() : "localhost";
  if (address.storage.ss_family == AF_INET6 && error == 0) {
    // RFC 6874: the % before a zone is itself encoded.
    const std::size_t zone = host.find('%');
    if (zone != std::string::npos) host.replace(zone, 1, "%25");
    host = "[" + host + "]";
  }
  return fmt::format("{}:{}", host, address.port());
}

ListenAddress tcp_address(const Address& address) {
  return {ListenAddress::Kind::tcp, authority(address.reachable()), {}};
}

// --- vsock -------------------------------------------------------------------------------------

/// "1:10809": the context of this machine for itself stands for "any".
ListenAddress vsock_address(const sockaddr_vm& address) {
  const unsigned cid =
      address.svm_cid == VMADDR_CID_ANY ? unsigned{VMADDR_CID_LOCAL} : address.svm_cid;
  return {ListenAddress::Kind::vsock, fmt::format("{}:{}", cid, address.svm_port), {}};
}

/// Whether this machine merely lacks the family or the address, while others may do.
bool is_missing_address(int error) noexcept {
  return error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

}  // namespace

Result<Listener> Listener::on_unix(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return fail(Errc::usage, fmt::format("\"{}\" cannot be the path of a socket", path));
  }
  if (path.size() > kLongestSocketPath) {
    return fail(Errc::usage,
                fmt::format("the socket path {} is {} bytes; they end at {}", path, path.size(),
                            kLongestSocketPath),
                {{{}, "a shorter directory"}});
  }
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return fail_errno(error.value(), "find the working directory");

  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "make a socket");
  const sockaddr_un address = unix_address(path);
  const DirectoryLock lock(absolute.parent_path());
  int failed = bind_unix(socket.get(), address);
  if (failed == EADDRINUSE) {
    if (const Result<void> removed = remove_stale_socket(path, address); !removed) {
      return propagate(removed);
    }
    failed = bind_unix(socket.get(), address);
  }
  if (failed != 0) {
    return fail_errno(failed, fmt::format("make the socket {}", path));
  }
  // A path that only its relative form brings below the limit is given in that form.
  const std::string& told =
      absolute.native().size() <= kLongestSocketPath ? absolute.native() : path;
  Listener listener(std::move(socket));
  listener.address_ = {ListenAddress::Kind::unix_socket, {}, told};
  struct stat status;
  if (::lstat(path.c_str(), &status) == 0) {
    listener.file_ = {absolute.native(), status.st_dev, status.st_ino};
  }
  if (::listen(listener.fd(), SOMAXCONN) != 0) {
    return fail_errno(errno, fmt::format("listen on {}", path));
  }
  return listener;
}

Result<std::vector<Listener>> Listener::on_tcp(const std::string& host, std::uint16_t port) {
  if (host.empty() || host.find('\0') != std::string::npos) {
    return fail(Errc::usage, fmt::format("\"{}\" is not an address to listen on", host));
  }
  Result<std::vector<Address>> addresses = resolve(host);
  if (!addresses) return propagate(addresses);

  // With port 0 the kernel chooses for the first address, and that port may be taken on another.
  constexpr int kTries = 16;
  int failed = EADDRNOTAVAIL;
  for (int tries = 0; tries < (port == 0 ? kTries : 1); ++tries) {
    std::vector<Listener> listeners;
    std::uint16_t chosen = port;
    bool all = true;
    for (Address address : *addresses) {
      address.set_port(chosen);
      UniqueFd socket(
          ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      const int error = socket ? listen_on(socket.get(), address) : errno;
      if (error != 0) {
        failed = error;
        if (is_missing_address(error)) continue;
        all = false;
        break;
      }
      if (::getsockname(socket.get(), address.get(), &address.length) != 0) {
        return fail_errno(errno, "ask for the port of a socket");
      }
      chosen = address.port();
      listeners.push_back(Listener(std::move(socket)));
      listeners.back().address_ = tcp_address(address);
    }
    if (all && !listeners.empty()) return listeners;
    if (failed != EADDRINUSE) break;
  }
  return fail_errno(failed, fmt::format("listen on {} port {}", host, port));
}

Result<Listener> Listener::on_vsock(std::uint32_t cid, std::uint32_t port) {
  const auto failed = [&](int error) {
    const std::string where = cid == VMADDR_CID_ANY ? fmt::format("vsock port {}", port)
                                                    : fmt::format("vsock {}:{}", cid, port);
    return fail_errno(error, "listen on " + where);
  };
  UniqueFd socket(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return failed(errno);
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = cid;
  address.svm_port = port == 0 ? VMADDR_PORT_ANY : port;
  socklen_t length = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(socket.get(), generic, length) != 0 || ::listen(socket.get(), SOMAXCONN) != 0 ||
      ::getsockname(socket.get(), generic, &length) != 0) {
    return failed(errno);
  }
  Listener listener(std::move(socket));
  listener.address_ = vsock_address(address);
  return listener;
}

Result<Listener> Listener::on_socket(UniqueFd socket) {
  int type = 0;
  int listening = 0;
  socklen_t type_bytes = sizeof type;
  socklen_t listening_bytes = sizeof listening;
  Address address;
  address.length = sizeof address.storage;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &type_bytes) != 0 ||
      ::getsockopt(socket.get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &listening_bytes) != 0 ||
      ::getsockname(socket.get(), address.get(), &address.length) != 0) {
    return fail_errno(errno, fmt::format("look at descriptor {}", socket.get()));
  }
  if (type != SOCK_STREAM || listening == 0) {
    return fail(Errc::usage,
                fmt::format("descriptor {} is no socket that listens for streams", socket.get()));
  }
  ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC);
  ::fcntl(socket.get(), F_SETFL, ::fcntl(socket.get(), F_GETFL) | O_NONBLOCK);
  Listener listener(std::move(socket));
  switch (address.storage.ss_family) {
    case AF_INET:
    case AF_INET6:
      listener.address_ = tcp_address(address);
      break;
    case AF_UNIX: {
      // The kernel ends the path with NUL where there is room; abstract names begin with one, and
      // URIs have no form for them.
      const auto* const local = reinterpret_cast<const sockaddr_un*>(&address.storage);
      const std::size_t room = address.length - offsetof(sockaddr_un, sun_path);
      listener.address_ = {ListenAddress::Kind::unix_socket,
                           {},
                           {local->sun_path, ::strnlen(local->sun_path, room)}};
      break;
    }
    case AF_VSOCK:
      listener.address_ = vsock_address(*reinterpret_cast<const sockaddr_vm*>(&address.storage));
      break;
    default:
      break;  // clients have to know the way
  }
  return listener;
}

Listener::~Listener() {
  if (!socket_ || file_.path.empty()) return;
  struct stat status;
  if (::lstat(file_.path.c_str(), &status) == 0 && status.st_dev == file_.device &&
      status.st_ino == file_.inode) {
    ::unlink(file_.path.c_str());
  }
}

}  // namespace mkvirtfs::net
