// SPDX-License-Identifier: BSD-3-Clause
// A helper that does what its job is called: much that no helper should do.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/helper/helper_service.h"
#include "fsgen/helper/message.h"
#include "fsgen/stream/packing.h"

using namespace mkvirtfs;
using namespace mkvirtfs::helper;

namespace {

using Bytes = std::vector<std::byte>;

Bytes bytes_of(std::string_view text) {
  const auto* const first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

Result<Bytes> copy(HelperService& service, std::span<const std::byte> job) {
  constexpr std::size_t kPiece = 10'000;
  const auto source = service.source();
  Bytes bytes;
  for (std::uint64_t at = 0; at < source->size_bytes(); at += bytes.size()) {
    bytes.resize(std::min<std::uint64_t>(kPiece, source->size_bytes() - at));
    if (Result<void> good = source->read(at, bytes); !good) return propagate(good);
    service.add_data(bytes);
  }
  service.add_records(bytes_of("one "));
  service.add_records(bytes_of("two"));
  service.write(LogLevel::warning, "a remark about " + source->name());
  return Bytes(job.begin(), job.end());
}

std::string text_of_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// What others may see of it, and its limits.
Bytes facts() {
  rlimit memory{};
  ::getrlimit(RLIMIT_AS, &memory);
  std::string open;
  for (int fd = 0; fd < 1000; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) open += " " + std::to_string(fd);
  }
  return bytes_of("memory " + std::to_string(memory.rlim_cur) + "\nopen" + open + "\n" +
                  text_of_file("/proc/self/cmdline") + text_of_file("/proc/self/environ"));
}

[[noreturn]] void read_for_ever(ByteSource& source) {
  std::array<std::byte, 1> byte{};
  while (true) {
    for (const std::uint64_t at : {std::uint64_t{0}, source.size_bytes() - 1}) {
      if (!source.read(at, byte)) std::abort();
    }
  }
}

[[noreturn]] void take_memory() {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  std::vector<std::vector<char>> taken;
  while (true) taken.emplace_back(kPiece, 'x');
}

void say(MessageType type, std::span<const std::byte> payload) {
  MessageSocket(UniqueFd(::dup(STDIN_FILENO))).send(type, payload);
}

[[noreturn]] void spin() {
  const volatile bool goes_on = true;
  while (goes_on) {
  }
  ::_exit(1);
}

Result<Bytes> run(std::string_view kind, std::span<const std::byte> job, HelperService& service) {
  if (kind == "copy") return copy(service, job);
  if (kind == "facts") return facts();
  if (kind == "fail") return fail(Errc::does_not_fit, "as it was told to");
  if (kind == "spin") {
    service.add_data(bytes_of(std::to_string(::getpid())));
    spin();
  }
  if (kind == "read for ever") read_for_ever(*service.source());
  if (kind == "take memory") take_memory();
  if (kind == "die") ::raise(SIGSEGV);
  if (kind == "exit") ::_exit(7);
  if (kind == "flood") {
    const Bytes much(std::size_t{1} << 16);
    while (true) service.add_data(much);
  }
  if (kind == "read outside") {
    Bytes question;
    Packer out(question);
    out.number(service.source()->size_bytes());
    out.number(1);
    say(MessageType::read, question);
    spin();
  }
  if (kind == "another type") {
    say(static_cast<MessageType>(99), {});
    spin();
  }
  if (kind == "too long") {
    const Bytes header(5, std::byte{0xff});
    (void)!::write(STDIN_FILENO, header.data(), header.size());
    spin();
  }
  return fail(Errc::usage, "no such job");
}

}  // namespace

int main() { return serve_job(run); }
