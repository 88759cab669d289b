// SPDX-License-Identifier: BSD-3-Clause
#include "cli/control_server.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "nbd/listener.h"
#include "support/text.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {
namespace {

/// How long a client may keep the server waiting at any one time.
constexpr timeval kPatience{10, 0};

/// Lines from a socket, of bounded length.
class LineReader {
 public:
  LineReader(int fd, std::size_t longest) : fd_(fd), longest_(longest) {}

  /// False at the end of the stream, after a failure, or when a line is too long.
  bool next(std::string& line) {
    while (true) {
      const std::size_t end = text_.find('\n');
      if (end != std::string::npos) {
        line = text_.substr(0, end);
        text_.erase(0, end + 1);
        return true;
      }
      if (text_.size() > longest_) return false;
      std::array<char, 4096> some;
      const ssize_t count = ::recv(fd_, some.data(), some.size(), 0);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      text_.append(some.data(), static_cast<std::size_t>(count));
    }
  }

 private:
  const int fd_;
  const std::size_t longest_;
  std::string text_;
};

bool send_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

/// Whoever may enter the directory of a socket can connect; what they ask for is ours alone.
bool is_ours(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
         (peer.uid == ::geteuid() || peer.uid == 0);
}

std::string json_line(const nlohmann::json& object) {
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

void answer(int fd, const ControlServer::Handler& handler) {
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof kPatience);
  std::string request;
  if (!is_ours(fd)) {
    send_all(fd, json_line({{"error", "only the server's own user may ask"}}));
    return;
  }
  if (!LineReader(fd, ControlServer::kLongestRequest).next(request)) return;
  const Result<void> done =
      handler(request, [&](const std::string& line) { return send_all(fd, line + '\n'); });
  send_all(fd, done ? json_line({{"done", true}}) : json_line({{"error", done.error().what}}));
}

}  // namespace

struct ControlServer::State {
  State(nbd::Listener its_listener, UniqueFd its_end, Handler its_handler)
      : listener(std::move(its_listener)),
        end(std::move(its_end)),
        handler(std::move(its_handler)) {}

  void run() const {
    while (true) {
      std::array<pollfd, 2> waited{pollfd{listener.fd(), POLLIN, 0}, pollfd{end.get(), POLLIN, 0}};
      if (::poll(waited.data(), waited.size(), -1) < 0 && errno != EINTR) return;
      if ((waited[1].revents & POLLIN) != 0) return;
      if ((waited[0].revents & POLLIN) == 0) continue;
      const UniqueFd client(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
      if (client) answer(client.get(), handler);
    }
  }

  nbd::Listener listener;
  UniqueFd end;  // an eventfd; readable: the thread is to end
  Handler handler;
  std::thread thread;
};

Result<ControlServer> ControlServer::start(const std::string& path, Handler handler) {
  Result<nbd::Listener> listener = nbd::Listener::on_unix(path);
  if (!listener) return std::unexpected(std::move(listener.error()));
  UniqueFd end(::eventfd(0, EFD_CLOEXEC));
  if (!end) return fail_errno(errno, "make an eventfd");
  auto state = std::make_unique<State>(std::move(*listener), std::move(end), std::move(handler));
  state->thread = std::thread([shared = state.get()] { shared->run(); });
  return ControlServer(std::move(state));
}

ControlServer::ControlServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
ControlServer::ControlServer(ControlServer&&) noexcept = default;

ControlServer::~ControlServer() {
  if (!state_) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(state_->end.get(), &one, sizeof one);
  state_->thread.join();
}

Result<void> ask_control_server(const std::string& path, const std::string& request,
                                const std::function<Result<void>(const std::string& line)>& line) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(Errc::usage, fmt::format("{}: the path is too long for a socket", path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd ||
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, fmt::format("connect to {} (serve --ctl makes it)", path));
  }
  if (!send_all(fd.get(), request + '\n')) return fail_errno(errno, "ask the server");
  constexpr std::size_t kLongestLine = 1U << 20;
  LineReader lines(fd.get(), kLongestLine);
  for (std::string text; lines.next(text);) {
    const nlohmann::json object = nlohmann::json::parse(text, nullptr, false);
    if (object.is_object() && object.contains("done")) return {};
    if (object.is_object() && object.contains("error") && object["error"].is_string()) {
      return fail(Errc::io, object["error"].get<std::string>());
    }
    if (Result<void> taken = line(text); !taken) return taken;
  }
  return fail(Errc::bad_peer, "the server did not answer to its end");
}

}  // namespace mkvirtfs::cli
