// SPDX-License-Identifier: BSD-3-Clause
// bare_loop FILE REPLY-BYTES DEPTH CONNECTIONS SECONDS: the limit that bench/ measures servers
// against. Two processes on a Unix socket do what a client and a server must do and nothing else:
// 28 bytes ask for a random piece of the file (from front to end where SECONDS is 0), 16 bytes and
// the piece come back. No protocol, no checks, one thread for each end of a connection. Prints the
// replies a second.
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kRequestBytes = 28;
constexpr std::size_t kHeaderBytes = 16;
constexpr std::size_t kSendfileBytes = 32U << 10;

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::_Exit(1);
}

void send_all(int socket, const std::byte* bytes, std::size_t count, int flags) {
  while (count > 0) {
    const ssize_t sent = ::send(socket, bytes, count, flags | MSG_NOSIGNAL);
    if (sent < 0) die("send");
    bytes += sent;
    count -= static_cast<std::size_t>(sent);
  }
}

/// Answers all requests that one receive brought with one send, or large ones by sendfile.
void serve(int socket, int file, std::size_t reply_bytes) {
  std::vector<std::byte> requests(64U << 10);
  std::vector<std::byte> replies;
  std::size_t held = 0;
  while (true) {
    const ssize_t count = ::recv(socket, requests.data() + held, requests.size() - held, 0);
    if (count <= 0) return;
    held += static_cast<std::size_t>(count);
    std::size_t used = 0;
    replies.clear();
    for (; held - used >= kRequestBytes; used += kRequestBytes) {
      off_t offset = 0;
      std::memcpy(&offset, requests.data() + used, sizeof offset);
      const std::size_t at = replies.size();
      if (reply_bytes < kSendfileBytes) {
        replies.resize(at + kHeaderBytes + reply_bytes);
        if (::pread(file, replies.data() + at + kHeaderBytes, reply_bytes, offset) < 0)
          die("pread");
        continue;
      }
      const std::array<std::byte, kHeaderBytes> header{};
      send_all(socket, header.data(), header.size(), MSG_MORE);
      for (std::size_t left = reply_bytes; left > 0;) {
        const ssize_t sent = ::sendfile(socket, file, &offset, left);
        if (sent <= 0) die("sendfile");
        left -= static_cast<std::size_t>(sent);
      }
    }
    std::memmove(requests.data(), requests.data() + used, held - used);
    held -= used;
    send_all(socket, replies.data(), replies.size(), 0);
  }
}

struct Work {
  std::uint64_t file_bytes;
  std::size_t reply_bytes;
  std::size_t depth;
  int seconds;
};

/// The replies that one connection got.
std::uint64_t ask(int socket, const Work& work, std::atomic<std::uint64_t>& front) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::byte> reply(kHeaderBytes + work.reply_bytes);
  std::mt19937_64 random(static_cast<std::uint64_t>(socket));
  const std::uint64_t pieces = work.file_bytes / work.reply_bytes;
  const auto until = Clock::now() + std::chrono::seconds(work.seconds);
  std::uint64_t done = 0;
  std::size_t waiting = 0;
  bool more = true;
  while (true) {
    while (more && waiting < work.depth) {
      const std::uint64_t piece =
          work.seconds > 0 ? random() % pieces : front.fetch_add(1, std::memory_order_relaxed);
      more = work.seconds > 0 ? Clock::now() < until : piece < pieces;
      if (!more) break;
      std::array<std::byte, kRequestBytes> request{};
      const std::uint64_t offset = piece * work.reply_bytes;
      std::memcpy(request.data(), &offset, sizeof offset);
      send_all(socket, request.data(), request.size(), 0);
      ++waiting;
    }
    if (waiting == 0) return done;
    if (::recv(socket, reply.data(), reply.size(), MSG_WAITALL) !=
        static_cast<ssize_t>(reply.size())) {
      die("recv");
    }
    --waiting;
    ++done;
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 6) {
    std::fputs("usage: bare_loop FILE REPLY-BYTES DEPTH CONNECTIONS SECONDS\n", stderr);
    return 2;
  }
  const int file = ::open(arguments[1], O_RDONLY | O_CLOEXEC);
  struct stat status{};
  if (file < 0 || ::fstat(file, &status) != 0) die(arguments[1]);
  const Work work{static_cast<std::uint64_t>(status.st_size),
                  std::strtoull(arguments[2], nullptr, 10),
                  std::strtoull(arguments[3], nullptr, 10), std::atoi(arguments[5])};
  std::vector<std::array<int, 2>> sockets(std::strtoull(arguments[4], nullptr, 10));
  for (auto& pair : sockets) {
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) die("socketpair");
    const int bytes = 4 << 20;
    ::setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  }
  const pid_t server = ::fork();
  if (server < 0) die("fork");
  std::vector<std::jthread> threads;
  if (server == 0) {
    for (const auto& pair : sockets) ::close(pair[1]);
    for (const auto& pair : sockets) {
      threads.emplace_back([&, socket = pair[0]] { serve(socket, file, work.reply_bytes); });
    }
    threads.clear();
    std::_Exit(0);
  }
  for (const auto& pair : sockets) ::close(pair[0]);
  std::atomic<std::uint64_t> front = 0;
  std::atomic<std::uint64_t> done = 0;
  const auto started = std::chrono::steady_clock::now();
  for (const auto& pair : sockets) {
    threads.emplace_back([&, socket = pair[1]] { done += ask(socket, work, front); });
  }
  threads.clear();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  for (const auto& pair : sockets) ::close(pair[1]);
  ::waitpid(server, nullptr, 0);
  std::printf("%.0f\n", static_cast<double>(done.load()) / took.count());
}
