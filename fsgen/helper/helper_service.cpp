// SPDX-License-Identifier: BSD-3-Clause
// The helper limits itself first: memory, descriptors, no core. Then it runs the job with a
// source whose reads are messages to the parent, and sends records and data in batches.
#include "fsgen/helper/helper_service.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <new>
#include <optional>
#include <utility>

#include "fsgen/stream/packing.h"

namespace mkvirtfs::helper {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kRecordsBytes = std::size_t{32} << 10;
constexpr std::chrono::milliseconds kMostSilence{500};
constexpr std::size_t kMostDataBytes = std::size_t{256} << 10;
// A read that goes on where the last one ended is answered with more than was asked for.
constexpr std::uint64_t kAheadBytes = std::uint64_t{256} << 10;
constexpr rlim_t kMostDescriptors = 32;

// Sanitizers map terabytes for themselves.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kHasShadowMemory = true;
#elif defined(__has_feature)
constexpr bool kHasShadowMemory =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kHasShadowMemory = false;
#endif

struct PackedJob {
  std::uint64_t parent = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t size_bytes = 0;
  std::string_view name;
  std::string_view kind;
  std::string_view bytes;
};

std::optional<PackedJob> parse_job(std::span<const std::byte> payload) {
  Unpacker in(payload);
  PackedJob job;
  job.parent = in.number();
  job.memory_bytes = in.number();
  job.size_bytes = in.number();
  job.name = in.text();
  job.kind = in.text();
  job.bytes = in.text();
  if (!in.good() || !in.at_end()) return std::nullopt;
  return job;
}

void limit(int resource, rlim_t most) {
  const rlimit both{most, most};
  if (::setrlimit(static_cast<__rlimit_resource>(resource), &both) != 0) std::_Exit(EXIT_FAILURE);
}

/// What the program itself takes of its address space, libraries and all.
rlim_t own_bytes() {
  std::ifstream file("/proc/self/statm");
  rlim_t pages = 0;
  file >> pages;
  return pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE));
}

/// False when the parent is gone already.
bool enter_limits(const PackedJob& job) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (static_cast<std::uint64_t>(::getppid()) != job.parent) return false;
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_NOFILE, kMostDescriptors);
  if (!kHasShadowMemory) limit(RLIMIT_AS, own_bytes() + job.memory_bytes);
  return true;
}

}  // namespace

/// Asks the parent for bytes.
class HelperService::RemoteSource final : public ByteSource {
 public:
  RemoteSource(HelperService& service, std::uint64_t size_bytes, std::string name)
      : service_(service), size_bytes_(size_bytes), name_(std::move(name)) {}

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  std::string name() const override { return name_; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    while (!out.empty()) {
      if (offset < start_ || offset - start_ >= bytes_.size()) {
        if (Result<void> good = ask(offset, out.size()); !good) return good;
      }
      const auto in = static_cast<std::size_t>(offset - start_);
      const std::size_t count = std::min(out.size(), bytes_.size() - in);
      std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(in), count, out.begin());
      out = out.subspan(count);
      offset += count;
    }
    return {};
  }

 private:
  /// Some bytes from `offset` on; the caller stays inside the size.
  Result<void> ask(std::uint64_t offset, std::uint64_t wanted) {
    const bool goes_on = offset == start_ + bytes_.size();
    const std::uint64_t length = std::min(
        {goes_on ? std::max(wanted, kAheadBytes) : wanted, kAheadBytes, size_bytes_ - offset});
    std::vector<std::byte> question;
    Packer out(question);
    out.number(offset);
    out.number(length);
    service_.send(MessageType::read, question);
    Message answer = service_.receive();
    if (answer.type == MessageType::bytes && answer.payload.size() == length) {
      start_ = offset;
      bytes_ = std::move(answer.payload);
      return {};
    }
    Unpacker in(answer.payload);
    std::optional<Error> error = take_error(in);
    if (answer.type != MessageType::refusal || !error) std::_Exit(EXIT_FAILURE);
    return std::unexpected(std::move(*error));
  }

  HelperService& service_;
  const std::uint64_t size_bytes_;
  const std::string name_;
  std::uint64_t start_ = 0;
  std::vector<std::byte> bytes_;
};

void HelperService::send(MessageType type, std::span<const std::byte> payload) {
  if (socket_.send(type, payload) != MessageSocket::Outcome::done) std::_Exit(EXIT_FAILURE);
  heard_ = Clock::now();
}

Message HelperService::receive() {
  Message message;
  if (socket_.receive(message) != MessageSocket::Outcome::done) std::_Exit(EXIT_FAILURE);
  return message;
}

void HelperService::send_records() {
  for (std::span<const std::byte> rest = records_; !rest.empty();) {
    const std::span<const std::byte> piece = rest.first(std::min(rest.size(), kMostPayloadBytes));
    send(MessageType::records, piece);
    rest = rest.subspan(piece.size());
  }
  records_.clear();
}

void HelperService::add_records(std::span<const std::byte> bytes) {
  records_.insert(records_.end(), bytes.begin(), bytes.end());
  if (records_.size() >= kRecordsBytes || Clock::now() - heard_ >= kMostSilence) send_records();
}

void HelperService::add_data(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::span<const std::byte> piece = bytes.first(std::min(bytes.size(), kMostDataBytes));
    send(MessageType::data, piece);
    bytes = bytes.subspan(piece.size());
  }
}

void HelperService::restart() {
  records_.clear();
  send(MessageType::restart, {});
}

void HelperService::write(LogLevel level, std::string_view message) noexcept {
  constexpr std::size_t kMostRemarkBytes = std::size_t{16} << 10;
  std::vector<std::byte> payload;
  Packer out(payload);
  out.number(static_cast<std::uint64_t>(level));
  out.text(message.substr(0, kMostRemarkBytes));
  send(MessageType::remark, payload);
}

int serve_job(const JobRunner& run) {
  HelperService service{MessageSocket(UniqueFd(STDIN_FILENO))};
  const Message message = service.receive();
  const std::optional<PackedJob> job = parse_job(message.payload);
  if (message.type != MessageType::job || !job || !enter_limits(*job)) return EXIT_FAILURE;
  service.source_ = std::make_shared<HelperService::RemoteSource>(service, job->size_bytes,
                                                                  std::string(job->name));
  Result<std::vector<std::byte>> last;
  try {
    last = run(job->kind, std::as_bytes(std::span(job->bytes)), service);
  } catch (const std::bad_alloc&) {
    last = fail(Errc::unreadable,
                fmt::format("{}: it takes more than {} MiB of memory to read", job->name,
                            job->memory_bytes >> 20),
                {{"reader-memory"}});
  }
  if (last && last->size() <= kMostPayloadBytes) {
    service.send_records();
    service.send(MessageType::done, *last);
    return EXIT_SUCCESS;
  }
  std::vector<std::byte> payload;
  Packer out(payload);
  put(out, last ? Error{Errc::does_not_fit, 0, "the answer is too long"} : last.error());
  service.send(MessageType::failed, payload);
  return EXIT_SUCCESS;
}

}  // namespace mkvirtfs::helper
