// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "block/host_files.h"
#include "fsgen/stream/byte_source.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::oci {

/// The files of an image by their paths: a layout directory, a tar, a test's memory. Any thread.
class ImageFiles {
 public:
  virtual ~ImageFiles() = default;

  /// nullptr when there is no such file. Nothing outside is ever opened, whatever the path is and
  /// whatever symlinks there are.
  virtual Result<std::shared_ptr<ByteSource>> open(std::string_view path) const = 0;
  /// For messages: "app.tar".
  virtual std::string name() const = 0;
};

/// The files of a host directory; symlinks are not followed. `log` must outlive what was opened.
Result<std::unique_ptr<ImageFiles>> open_directory(const std::string& path, ChangeCheck check,
                                                   LogSink& log);

/// Where the files of a tar lie in it: the reader of its members fills it. Links are followed
/// inside the tar alone.
class TarIndex {
 public:
  void add_file(std::string_view path, Range bytes);
  void add_hard_link(std::string_view path, std::string_view target);
  void add_symlink(std::string_view path, std::string_view target);

  /// nullopt when there is no such file, or links lead nowhere or in a circle.
  std::optional<Range> find(std::string_view path) const;

 private:
  struct Entry {
    std::optional<Range> bytes;
    std::string target;  ///< of a link, from the root
  };
  std::map<std::string, Entry, std::less<>> entries_;
};
std::unique_ptr<ImageFiles> make_tar_files(std::shared_ptr<ByteSource> tar, TarIndex index);

}  // namespace mkvirtfs::oci
