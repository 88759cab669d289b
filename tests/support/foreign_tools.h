// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "block/device.h"
#include "support/unique_fd.h"

// The judges we did not write: programs that say whether an image is right (law 6).

namespace mkvirtfs {

/// What a program did. A program that is missing is an exception: a judge that cannot come is no
/// acquittal.
struct Ran {
  int status = 0;      // exit status; 128 + signal if it died of one
  std::string output;  // standard output and error, in the order they came
};

inline Ran run_tool(const std::vector<std::string>& words) {
  std::array<int, 2> ends;
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(writer.get(), STDOUT_FILENO);
    ::dup2(writer.get(), STDERR_FILENO);
    ::setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    ::setenv("LC_ALL", "C", 1);
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  writer.reset();
  Ran ran;
  std::array<char, 1 << 16> buffer;
  ssize_t got;
  while ((got = ::read(reader.get(), buffer.data(), buffer.size())) > 0) {
    ran.output.append(buffer.data(), static_cast<std::size_t>(got));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (ran.status == 127) throw std::runtime_error(words[0] + " is not installed");
  return ran;
}

/// Writes a device into an empty file, holes as holes, by nothing but map() and read().
inline void write_image(BlockDevice& device, const UniqueFd& file) {
  const std::uint64_t size = device.geometry().size_bytes;
  if (!file || ::ftruncate(file.get(), static_cast<off_t>(size)) != 0)
    throw std::runtime_error("create image");
  std::vector<std::byte> buffer;
  for_each_extent(device, {0, size}, [&](const Extent& extent) {
    if (extent.kind == ExtentKind::hole) return true;
    for (std::uint64_t done = 0; done < extent.length; done += buffer.size()) {
      buffer.resize(std::min<std::uint64_t>(extent.length - done, 1 << 20));
      const auto read = device.read(extent.offset + done, buffer);
      if (!read) throw std::runtime_error(read.error().what);
      if (::pwrite(file.get(), buffer.data(), buffer.size(),
                   static_cast<off_t>(extent.offset + done)) !=
          static_cast<ssize_t>(buffer.size())) {
        throw std::runtime_error("write image");
      }
    }
    return true;
  });
}

inline void write_image(BlockDevice& device, const std::filesystem::path& path) {
  write_image(device, UniqueFd(::open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600)));
}

}  // namespace mkvirtfs
