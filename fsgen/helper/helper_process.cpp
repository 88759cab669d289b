// SPDX-License-Identifier: BSD-3-Clause
// The parent starts the helper with one socket, sends the job, and then answers its reads and
// takes its findings until the last word. Progress is a new byte that was asked for, or a
// finding; without it until the deadline the helper is killed.
#include "fsgen/helper/helper_process.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <optional>
#include <utility>

#include "fsgen/helper/message.h"
#include "support/child_process.h"
#include "support/unique_fd.h"

namespace mkvirtfs::helper {
namespace {

using Outcome = MessageSocket::Outcome;

// What is slower than this over all its time is as good as a loop.
constexpr std::uint64_t kLeastBytesPerSecond = std::uint64_t{64} << 10;
constexpr std::uint64_t kMostReadBytes = kMostPayloadBytes;
// Which parts of the source were read is kept by the block, and there are no more of these.
constexpr std::uint64_t kLeastBlockBytes = std::uint64_t{64} << 10;
constexpr std::uint64_t kMostBlocks = std::uint64_t{1} << 20;
// From the end of its socket to its own.
constexpr std::chrono::milliseconds kGrace{1000};

/// Which bytes of the source were asked for.
class ReadBlocks {
 public:
  explicit ReadBlocks(std::uint64_t size_bytes)
      : block_bytes_(std::max(kLeastBlockBytes, size_bytes / kMostBlocks + 1)),
        seen_(static_cast<std::size_t>(size_bytes / block_bytes_ + 1)) {}

  /// True when some of it was not read before.
  bool add(std::uint64_t offset, std::uint64_t length) {
    bool is_new = false;
    if (length == 0) return is_new;
    for (auto i = offset / block_bytes_; i <= (offset + length - 1) / block_bytes_; ++i) {
      is_new = is_new || !seen_[static_cast<std::size_t>(i)];
      seen_[static_cast<std::size_t>(i)] = true;
    }
    return is_new;
  }

 private:
  const std::uint64_t block_bytes_;
  std::vector<bool> seen_;
};

/// One helper and its parent, from the job to the last word.
class Conversation {
 public:
  Conversation(const HelperSettings& settings, ByteSource& source, HelperSink& sink, LogSink& log)
      : settings_(settings),
        source_(source),
        sink_(sink),
        log_(log),
        blocks_(source.size_bytes()) {}

  Result<std::vector<std::byte>> run(std::string_view kind, std::span<const std::byte> job);

 private:
  Result<void> start();
  /// Of what goes wrong in the conversation itself.
  std::unexpected<Error> broken(Outcome outcome);
  std::unexpected<Error> nonsense();
  Result<void> send(MessageType type, std::span<const std::byte> payload);
  Result<void> send_job(std::string_view kind, std::span<const std::byte> job);
  /// The last word, when it was that.
  Result<std::optional<std::vector<std::byte>>> take(Message& message);
  Result<void> answer_read(std::span<const std::byte> payload);
  Result<void> take_remark(std::span<const std::byte> payload);
  void made_progress(std::uint64_t bytes);

  const HelperSettings& settings_;
  ByteSource& source_;
  HelperSink& sink_;
  LogSink& log_;
  ChildProcess process_;
  std::optional<MessageSocket> socket_;
  ReadBlocks blocks_;
  std::uint64_t progress_bytes_ = 0;
  std::vector<std::byte> buffer_;
};

Result<void> Conversation::start() {
  if (settings_.path.empty()) {
    return fail(
        Errc::unsupported,
        fmt::format("{} can only be read by mkvirtfs-reader, and there is none", source_.name()));
  }
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(errno, fmt::format("make a socket pair to read {}", source_.name()));
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  if (const int failure = process_.start({.words = {settings_.path}, .input = theirs.get()});
      failure != 0) {
    return fail_errno(
        Errc::unsupported, failure,
        fmt::format("start {}, which is needed to read {}", settings_.path, source_.name()));
  }
  socket_.emplace(std::move(ours));
  return {};
}

std::unexpected<Error> Conversation::broken(Outcome outcome) {
  if (outcome == Outcome::too_slow) {
    return fail(Errc::unreadable,
                fmt::format("{}: its reader made no progress for {} ms and was killed: the archive "
                            "is damaged, or made to be read for ever",
                            source_.name(), settings_.progress_deadline.count()));
  }
  if (outcome != Outcome::closed) return nonsense();
  const int status = process_.end(kGrace);
  const std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                              : fmt::format("exit status {}", WEXITSTATUS(status));
  return fail(Errc::unreadable,
              fmt::format("{}: its reader ended early ({}): the archive is damaged, or takes more "
                          "than {} MiB of memory to read",
                          source_.name(), how, settings_.memory_bytes >> 20),
              {{"reader-memory"}});
}

std::unexpected<Error> Conversation::nonsense() {
  return fail(Errc::unreadable,
              fmt::format("{}: its reader gave an invalid answer", source_.name()));
}

void Conversation::made_progress(std::uint64_t bytes) {
  progress_bytes_ += bytes;
  // Since the last progress, and over all.
  const std::chrono::nanoseconds deadline = settings_.progress_deadline;
  const std::chrono::seconds earned(progress_bytes_ / kLeastBytesPerSecond);
  socket_->set_patience(std::min(deadline, deadline + earned - socket_->waited()));
}

Result<void> Conversation::send(MessageType type, std::span<const std::byte> payload) {
  const Outcome sent = socket_->send(type, payload);
  if (sent != Outcome::done) return broken(sent);
  return {};
}

Result<void> Conversation::send_job(std::string_view kind, std::span<const std::byte> job) {
  std::vector<std::byte> payload;
  Packer out(payload);
  out.number(static_cast<std::uint64_t>(::getpid()));
  out.number(settings_.memory_bytes);
  out.number(source_.size_bytes());
  out.text(source_.name());
  out.text(kind);
  out.text({reinterpret_cast<const char*>(job.data()), job.size()});
  if (payload.size() > kMostPayloadBytes) {
    return fail(Errc::does_not_fit,
                fmt::format("{}: its name and passphrases have more than {} MiB", source_.name(),
                            kMostPayloadBytes >> 20));
  }
  return send(MessageType::job, payload);
}

Result<void> Conversation::answer_read(std::span<const std::byte> payload) {
  Unpacker in(payload);
  const std::uint64_t offset = in.number();
  const std::uint64_t length = in.number();
  const std::uint64_t size = source_.size_bytes();
  if (!in.good() || !in.at_end() || length == 0 || length > kMostReadBytes || offset > size ||
      length > size - offset) {
    return nonsense();
  }
  buffer_.resize(static_cast<std::size_t>(length));
  if (const Result<void> read = source_.read(offset, buffer_); !read) {
    std::vector<std::byte> refusal;
    Packer out(refusal);
    put(out, read.error());
    return send(MessageType::refusal, refusal);
  }
  if (blocks_.add(offset, length)) made_progress(length);
  return send(MessageType::bytes, buffer_);
}

Result<void> Conversation::take_remark(std::span<const std::byte> payload) {
  Unpacker in(payload);
  const auto level =
      static_cast<LogLevel>(in.number_up_to(static_cast<std::uint64_t>(LogLevel::debug)));
  const std::string_view text = in.text();
  if (!in.good() || !in.at_end()) return nonsense();
  log_.write(level, text);
  return {};
}

Result<std::optional<std::vector<std::byte>>> Conversation::take(Message& message) {
  const std::span<const std::byte> payload = message.payload;
  Result<void> taken;
  switch (message.type) {
    case MessageType::read:
      taken = answer_read(payload);
      break;
    case MessageType::records:
      made_progress(payload.size());
      taken = sink_.records(payload);
      break;
    case MessageType::data:
      made_progress(payload.size());
      taken = sink_.data(payload);
      break;
    case MessageType::restart:
      taken = sink_.restart();
      break;
    case MessageType::remark:
      taken = take_remark(payload);
      break;
    case MessageType::done:
      return std::move(message.payload);
    case MessageType::failed: {
      Unpacker in(payload);
      std::optional<Error> error = take_error(in);
      taken = error ? std::unexpected(std::move(*error)) : nonsense();
      break;
    }
    case MessageType::job:
    case MessageType::bytes:
    case MessageType::refusal:
    default:
      taken = nonsense();
  }
  if (!taken) return propagate(taken);
  return std::nullopt;
}

Result<std::vector<std::byte>> Conversation::run(std::string_view kind,
                                                 std::span<const std::byte> job) {
  if (Result<void> good = start(); !good) return propagate(good);
  made_progress(0);
  if (Result<void> good = send_job(kind, job); !good) return propagate(good);
  Message message;
  while (true) {
    if (const Outcome got = socket_->receive(message); got != Outcome::done) return broken(got);
    Result<std::optional<std::vector<std::byte>>> last = take(message);
    if (!last) return propagate(last);
    if (*last) return std::move(**last);
  }
}

}  // namespace

Result<std::vector<std::byte>> run_in_helper(const HelperSettings& settings, std::string_view kind,
                                             std::span<const std::byte> job, ByteSource& source,
                                             HelperSink& sink, LogSink& log) {
  return Conversation(settings, source, sink, log).run(kind, job);
}

}  // namespace mkvirtfs::helper
