// SPDX-License-Identifier: BSD-3-Clause
#include "cli/control_server.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <list>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "cli/error_text.h"
#include "cli/json_text.h"
#include "net/listener.h"
#include "support/message.h"
#include "support/text.h"
#include "support/thread.h"
#include "support/unique_fd.h"
#include "support/worker_pool.h"

namespace mkvirtfs::cli {
namespace {

using Clock = std::chrono::steady_clock;

/// A request must be there within this time, and each line of its answer be taken.
constexpr std::chrono::seconds kPatience{10};
/// How long somebody who was refused may take to read why.
constexpr std::chrono::seconds kLinger{2};
/// Clients whose request is not complete, or that were refused. Beyond it the oldest is closed.
constexpr std::size_t kMostAsking = 64;
/// Requests that are answered at the same time; one more is refused.
constexpr std::size_t kMostAnswered = 16;

int milliseconds_until(Clock::time_point when) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(when - Clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
}

/// Everyone who may enter the directory of a socket can connect, but only we and root are served.
bool is_ours(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
         (peer.uid == ::geteuid() || peer.uid == 0);
}

std::string error_line(std::string_view what) {
  return Json::object().set("error", printable_message(what)).one_line() + '\n';
}

/// The bytes of which printable() made `text`: "a\\x0ab" has a line feed in it.
std::string raw_of(std::string_view text) {
  std::string raw;
  while (!text.empty()) {
    constexpr std::size_t kEscapeBytes = 4;
    unsigned char byte = 0;
    const bool is_escape =
        text.starts_with("\\x") && text.size() >= kEscapeBytes &&
        std::from_chars(text.data() + 2, text.data() + kEscapeBytes, byte, 16).ptr ==
            text.data() + kEscapeBytes;
    raw += is_escape ? static_cast<char>(byte) : text.front();
    text.remove_prefix(is_escape ? kEscapeBytes : 1);
  }
  return raw;
}

/// Sends to a client that may be slow: until `patience` is over, or `end` is readable.
bool send_patiently(int fd, std::string_view text, int end, std::chrono::seconds patience) {
  const Clock::time_point until = Clock::now() + patience;
  while (!text.empty()) {
    const ssize_t count = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) {
      text.remove_prefix(static_cast<std::size_t>(count));
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count == 0 || errno != EAGAIN) return false;
    std::array<pollfd, 2> waited{pollfd{fd, POLLOUT, 0}, pollfd{end, POLLIN, 0}};
    const int ready = ::poll(waited.data(), waited.size(), milliseconds_until(until));
    if (waited[1].revents != 0 || (ready == 0 && Clock::now() >= until)) return false;
  }
  return true;
}

/// A client that is asking, or that was refused and has not hung up yet.
struct Asking {
  UniqueFd fd;
  Clock::time_point until;
  std::string text;
  bool is_refused = false;

  /// Says why, and lets the client read it: what it still sends is thrown away until it hangs up.
  /// Closing at once would give a client that is still sending a broken pipe for an answer.
  void refuse(std::string_view why) {
    const std::string line = error_line(why);
    [[maybe_unused]] const ssize_t sent =
        ::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    ::shutdown(fd.get(), SHUT_WR);
    is_refused = true;
    text.clear();
    until = Clock::now() + kLinger;
  }

  enum class State : std::uint8_t { asking, asked, gone };
  /// Takes what has come, without waiting.
  State take() {
    std::array<char, 4096> some;
    while (true) {
      const ssize_t count = ::recv(fd.get(), some.data(), some.size(), MSG_DONTWAIT);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno == EAGAIN ? State::asking : State::gone;
      if (count == 0) return State::gone;
      if (is_refused) return State::asking;  // the others have their turn, too
      text.append(some.data(), static_cast<std::size_t>(count));
      const std::size_t line = text.find('\n');
      if (line <= ControlServer::kLongestRequest) {  // npos is more
        text.resize(line);
        return State::asked;
      }
      if (text.size() > ControlServer::kLongestRequest) {
        refuse(fmt::format("a request has at most {} bytes", ControlServer::kLongestRequest));
        return State::asking;
      }
    }
  }
};

/// One request, answered on a thread of its own.
class Answer final : public Task {
 public:
  Answer(UniqueFd fd, std::string request, const ControlServer::Handler& handler, int end,
         const std::atomic<bool>& ending, std::atomic<std::size_t>& answered)
      : fd_(std::move(fd)),
        request_(std::move(request)),
        handler_(handler),
        end_(end),
        ending_(ending),
        answered_(answered) {}

  void run() noexcept override {
    try {
      const Result<void> done = answer();
      send(done ? Json::object().set("done", true).one_line() + '\n'
                : error_line(error_text(done.error())));
    } catch (...) {
      // There is no memory for an answer: the client sees that it has no end.
    }
    --answered_;
  }

 private:
  bool send(std::string_view text) const {
    return send_patiently(fd_.get(), text, end_, kPatience);
  }
  Result<void> answer() const {
    try {
      return handler_(
          request_, [&](const std::string& line) { return send(line + '\n'); }, ending_);
    } catch (...) {
      return std::unexpected(error_of_exception("answer a request"));
    }
  }

  const UniqueFd fd_;
  const std::string request_;
  const ControlServer::Handler& handler_;
  const int end_;
  const std::atomic<bool>& ending_;
  std::atomic<std::size_t>& answered_;
};

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

}  // namespace

struct ControlServer::State {
  State(net::Listener its_listener, UniqueFd its_end, Handler its_handler)
      : listener(std::move(its_listener)),
        end(std::move(its_end)),
        handler(std::move(its_handler)) {}

  void run() noexcept {
    while (true) {
      try {
        serve();
        return;
      } catch (...) {
        // Out of memory: those who are asking must go, and then it may go on.
        asking.clear();
      }
    }
  }

  /// Until `end` is readable.
  void serve() {
    std::vector<pollfd> waited;
    while (true) {
      waited.assign({pollfd{end.get(), POLLIN, 0}, pollfd{listener.fd(), POLLIN, 0}});
      auto until = Clock::now() + std::chrono::minutes(1);
      for (const Asking& client : asking) {
        waited.push_back({client.fd.get(), POLLIN, 0});
        until = std::min(until, client.until);
      }
      if (::poll(waited.data(), waited.size(), milliseconds_until(until)) < 0 && errno != EINTR) {
        return;
      }
      if (waited[0].revents != 0) return;
      auto client = asking.begin();
      for (std::size_t i = 2; i < waited.size(); ++i) {
        const bool stays = go_on(*client, waited[i].revents != 0);
        client = stays ? std::next(client) : asking.erase(client);
      }
      if (waited[1].revents != 0) accept();
    }
  }

  void accept() {
    Asking client{UniqueFd(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC)),
                  Clock::now() + kPatience,
                  {},
                  false};
    if (!client.fd) {
      // Out of descriptors: a listener that stays readable must not make this a busy loop.
      pollfd ended{end.get(), POLLIN, 0};
      ::poll(&ended, 1, 100);
      return;
    }
    if (asking.size() >= kMostAsking) {
      const auto refused = std::ranges::find_if(asking, &Asking::is_refused);
      asking.erase(refused != asking.end() ? refused : asking.begin());
    }
    if (!is_ours(client.fd.get())) client.refuse("only the server's own user may ask");
    asking.push_back(std::move(client));
  }

  /// False when the client is done with, here.
  bool go_on(Asking& client, bool is_ready) {
    const Asking::State state = is_ready ? client.take() : Asking::State::asking;
    if (state == Asking::State::gone) return false;
    if (state == Asking::State::asking) {
      if (Clock::now() < client.until) return true;
      if (client.is_refused) return false;
      client.refuse(fmt::format("no request came within {} seconds", kPatience.count()));
      return true;
    }
    if (answered >= kMostAnswered) {
      client.refuse(
          fmt::format("{} requests are being answered, which is the limit", kMostAnswered));
      return true;
    }
    ++answered;
    auto answer = std::make_shared<Answer>(std::move(client.fd), std::move(client.text), handler,
                                           end.get(), ending, answered);
    if (!threads.submit(std::move(answer))) --answered;
    return false;
  }

  net::Listener listener;
  UniqueFd end;  // an eventfd; readable: all threads are to end
  const Handler handler;
  std::atomic<bool> ending = false;
  std::atomic<std::size_t> answered = 0;
  std::list<Asking> asking;  // the polling thread's, in the order in which they came
  WorkerPool threads{kMostAnswered};
  std::thread thread;
};

Result<ControlServer> ControlServer::start(const std::string& path, Handler handler) {
  Result<net::Listener> listener = net::Listener::on_unix(path);
  if (!listener) return propagate(listener);
  UniqueFd end(::eventfd(0, EFD_CLOEXEC));
  if (!end) return fail_errno(errno, "make an eventfd");
  auto state = std::make_unique<State>(std::move(*listener), std::move(end), std::move(handler));
  Result<std::thread> thread =
      start_thread("answer mkvirtfs ctl", [shared = state.get()] { shared->run(); });
  if (!thread) return propagate(thread);
  state->thread = std::move(*thread);
  return ControlServer(std::move(state));
}

ControlServer::ControlServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
ControlServer::ControlServer(ControlServer&&) noexcept = default;

ControlServer::~ControlServer() {
  if (!state_) return;
  state_->ending = true;
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
  // A server that refuses may have said why before it was asked.
  const int send_error = send_all(fd.get(), request + '\n') ? 0 : errno;
  constexpr std::size_t kLongestLine = 1U << 20;
  LineReader lines(fd.get(), kLongestLine);
  for (std::string text; lines.next(text);) {
    const std::optional<Json> object = Json::parse_object(text);
    if (object && object->has("done")) return {};
    if (std::optional<std::string> error = object ? object->text("error") : std::nullopt) {
      // JSON has no raw bytes, so the server escaped it; an Error has them, and is escaped once
      // more.
      return fail(Errc::io, raw_of(*error));
    }
    if (Result<void> taken = line(text); !taken) return taken;
  }
  if (send_error != 0) return fail_errno(send_error, "ask the server");
  return fail(Errc::bad_peer, "the server's answer has no end (did the server stop?)");
}

}  // namespace mkvirtfs::cli
