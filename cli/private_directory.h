// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "support/error.h"

namespace mkvirtfs::cli {

/// A fresh directory that only this user may enter. It and what is in it are removed with the
/// object.
class PrivateDirectory {
 public:
  /// Below $TMPDIR or /tmp.
  static Result<PrivateDirectory> create();
  static Result<PrivateDirectory> create_in(const std::string& parent);
  PrivateDirectory(PrivateDirectory&& other) noexcept;
  PrivateDirectory& operator=(PrivateDirectory&&) = delete;
  ~PrivateDirectory();

  const std::string& path() const noexcept { return path_; }
  std::string path_of(const std::string& name) const;

 private:
  explicit PrivateDirectory(std::string path) : path_(std::move(path)) {}

  std::string path_;  // empty when moved from
};

}  // namespace mkvirtfs::cli
