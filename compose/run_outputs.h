// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "fsgen/host/scan.h"

namespace mkvirtfs {

/// What the run itself writes: an image, sockets, a process id, what it prints. None of it is part
/// of an image that the run makes of a directory in which it lies. Filled before the first scan, or
/// by the thread that has not yet started a server; after that any thread may read.
class RunOutputs {
 public:
  /// What is made, or replaced, under this name: a symbolic link is followed. An empty path is
  /// none.
  void add_path(const std::string& path);
  /// What is written through an open descriptor, which stays open; counts if it is a regular file.
  /// `what` is its name in messages.
  void add_descriptor(int fd, std::string what);

  /// All of them as the host has them now, in the order in which they were added.
  std::vector<RunOutput> find() const;
  /// The names of those that lie in a source, as a scan with find() of this same object found.
  std::vector<std::string> met(const ScanReport& report) const;

 private:
  struct Output {
    std::string name;  ///< a path, or what a descriptor is called
    int fd = -1;
  };
  std::vector<Output> outputs_;
};

}  // namespace mkvirtfs
