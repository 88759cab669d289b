// SPDX-License-Identifier: BSD-3-Clause
#include "compose/run_outputs.h"

#include <sys/stat.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "support/path.h"

namespace mkvirtfs {
namespace {

/// What the last component leads to when it is a symbolic link; else the path itself.
std::string followed(const std::string& path) {
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0 || !S_ISLNK(status.st_mode)) return path;
  const std::unique_ptr<char, decltype(&std::free)> target(::realpath(path.c_str(), nullptr),
                                                           &std::free);
  return target ? target.get() : path;
}

RunOutput of_path(const std::string& given) {
  const std::string path = followed(given);
  RunOutput output;
  struct stat status;
  if (::stat(directory_of(path).c_str(), &status) != 0) return output;
  output.directory_device = status.st_dev;
  output.directory_inode = status.st_ino;
  output.name = path.substr(path.rfind('/') + 1);
  if (!output.name.empty() && ::lstat(path.c_str(), &status) == 0) {
    output.device = status.st_dev;
    output.inode = status.st_ino;
  }
  return output;
}

RunOutput of_descriptor(int fd) {
  RunOutput output;
  struct stat status;
  if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
    output.device = status.st_dev;
    output.inode = status.st_ino;
  }
  return output;
}

}  // namespace

void RunOutputs::add_path(const std::string& path) {
  if (!path.empty()) outputs_.push_back({path, -1});
}

void RunOutputs::add_descriptor(int fd, std::string what) {
  outputs_.push_back({std::move(what), fd});
}

std::vector<RunOutput> RunOutputs::find() const {
  std::vector<RunOutput> found;
  for (const Output& output : outputs_) {
    found.push_back(output.fd < 0 ? of_path(output.name) : of_descriptor(output.fd));
  }
  return found;
}

std::vector<std::string> RunOutputs::met(const ScanReport& report) const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < outputs_.size() && i < report.outputs_met.size(); ++i) {
    if (report.outputs_met[i]) names.push_back(outputs_[i].name);
  }
  return names;
}

}  // namespace mkvirtfs
