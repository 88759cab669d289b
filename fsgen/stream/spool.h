// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "fsgen/stream/byte_source.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs {

/// Where spools lie, and how much all of them together may take. A spool is a file without a name
/// that holds bytes which cannot be made from their source again at once. It is gone with the
/// process, however that ends. Any thread, any time.
class SpoolSpace {
 public:
  /// Makes nothing yet.
  SpoolSpace(std::string directory, std::uint64_t limit_bytes)
      : directory_(std::move(directory)), limit_bytes_(limit_bytes) {}

  const std::string& directory() const noexcept { return directory_; }
  std::uint64_t limit_bytes() const noexcept { return limit_bytes_; }
  std::uint64_t used_bytes() const noexcept { return used_bytes_.load(std::memory_order_relaxed); }

  /// A new empty file without a name.
  Result<UniqueFd> make_file() const;
  /// False, and nothing was taken, when all spools together would become too large.
  bool reserve(std::uint64_t bytes) noexcept;
  void release(std::uint64_t bytes) noexcept {
    used_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  }

 private:
  const std::string directory_;
  const std::uint64_t limit_bytes_;
  std::atomic<std::uint64_t> used_bytes_ = 0;
};

/// Writes one spool, from its beginning to its end, and then makes a source of it. What is dropped
/// unfinished gives its room back. One thread at a time.
class SpoolWriter {
 public:
  /// `name` is that of the source, for messages: "backup.7z".
  SpoolWriter(std::shared_ptr<SpoolSpace> space, std::string name);
  ~SpoolWriter();
  SpoolWriter(SpoolWriter&& other) noexcept;
  SpoolWriter& operator=(SpoolWriter&&) = delete;

  std::uint64_t size_bytes() const noexcept;
  /// Errors: Errc::no_space when the limit or the disk is reached; the text says which option
  /// helps.
  Result<void> append(std::span<const std::byte> bytes);
  /// What was written so far, at any offset, on any thread: it gets longer while more is written.
  /// Makes the file, if nothing was written yet.
  Result<std::shared_ptr<ByteSource>> source();
  /// What was written, at any offset; pin() works. The writer is used up.
  Result<std::shared_ptr<ByteSource>> finish();

 private:
  struct File;
  Result<void> open_file();

  std::shared_ptr<File> file_;
  friend class SpoolSource;
};

}  // namespace mkvirtfs
