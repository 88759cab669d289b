// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "block/dump.h"
#include "support/error.h"
#include "support/open_file.h"
#include "support/unique_fd.h"

namespace mkvirtfs {

/// The place that a dump is written to: a new file that has no name yet, a block device, or a
/// stream. Destroyed before publish(), it leaves nothing behind.
///
/// write_at() may run on several threads at once; everything else belongs to one.
class DumpOutput {
 public:
  /// Opens `where` for an image of `size_bytes`.
  static Result<std::unique_ptr<DumpOutput>> open(const DumpOptions& options,
                                                  std::uint64_t size_bytes);
  DumpOutput(const DumpOutput&) = delete;
  DumpOutput& operator=(const DumpOutput&) = delete;
  ~DumpOutput();

  /// Must be written from front to end, by append().
  bool is_stream() const noexcept { return kind_ == Kind::stream; }
  /// What is not written reads as zeroes.
  bool is_sparse() const noexcept { return kind_ == Kind::new_file; }
  int fd() const noexcept { return fd_; }
  /// For messages, raw bytes.
  const std::string& name() const noexcept { return name_; }

  Result<void> write_at(std::uint64_t offset, std::span<const std::byte> bytes) const;
  Result<void> append(std::span<const std::byte> bytes) const;

  /// All is written: gives a new file its name, closes, and reports errors that the host kept for
  /// the end.
  Result<void> publish();

 private:
  enum class Kind : std::uint8_t { stream, block_device, new_file };

  DumpOutput() = default;
  Result<void> open_path(const DumpFile& where, std::uint64_t size_bytes);
  Result<void> open_stream(int fd);
  Result<void> open_block_device(std::uint64_t size_bytes);
  Result<void> open_new_file(std::uint64_t size_bytes);
  Result<void> give_name();
  std::unexpected<Error> write_error(int os_errno) const;

  Kind kind_ = Kind::stream;
  int fd_ = -1;
  UniqueFd owned_fd_;
  std::string name_;
  std::string path_;       // kind new_file: what it will be called
  std::string temporary_;  // kind new_file: its name until then; empty when it has none
  bool overwrite_ = false;
  const std::atomic<bool>* cancel_ = nullptr;
  PipeWait wait_;
};

}  // namespace mkvirtfs
