// SPDX-License-Identifier: BSD-3-Clause
// Private to this room: it shows types of libarchive.
#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/forward_reader.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// libarchive, reading bytes of ours: formats alone, never a filter, never a file. One thread.
class ArchiveHandle {
 public:
  /// Any format of `source`, at any offset.
  static std::unique_ptr<ArchiveHandle> open(const std::shared_ptr<ByteSource>& source,
                                             const std::vector<std::string>& passphrases);
  /// The formats that can be read forwards, of `stream`, which outlives the handle.
  static std::unique_ptr<ArchiveHandle> open(ForwardReader& stream);

  ArchiveHandle(const ArchiveHandle&) = delete;
  ArchiveHandle& operator=(const ArchiveHandle&) = delete;
  ~ArchiveHandle();

  /// An archive that ends with its last member's bytes is padded to the end of tar's block. Members
  /// whose bytes would then be padding are for the caller to find: see data_offset().
  void pad_end() noexcept { pads_end_ = true; }

  /// libarchive's own status: ARCHIVE_OK, ARCHIVE_WARN, ARCHIVE_EOF, ...
  int next_header();
  ::archive_entry* entry() const noexcept { return entry_; }
  ::archive* get() const noexcept { return archive_; }

  /// Where the bytes of the entry begin, for formats that store them; and where its first header
  /// did, or, after the last entry, where that ended.
  std::uint64_t data_offset() const;
  std::uint64_t header_offset() const noexcept { return header_offset_; }

  /// What went wrong, for people; the source's own error when that was it.
  std::string error_text() const;
  const std::optional<Error>& source_error() const noexcept { return source_error_; }

 private:
  ArchiveHandle() = default;
  bool begin();
  la_ssize_t read(const void** bytes);
  std::int64_t skip(std::int64_t count);
  std::int64_t seek(std::int64_t offset, int whence);
  void failed(const Error& error);
  la_ssize_t padding(const void** bytes);
  /// Counts what one header takes; false when that is more than any needs.
  bool count_header(std::size_t bytes);

  ::archive* archive_ = nullptr;
  ::archive_entry* entry_ = nullptr;
  std::shared_ptr<ByteSource> source_;
  ForwardReader* stream_ = nullptr;
  std::uint64_t position_ = 0;  // in either
  std::vector<std::byte> buffer_;
  std::optional<Error> source_error_;
  std::uint64_t header_offset_ = 0;
  std::uint64_t header_bytes_ = 0;  // read since the last header, without what was skipped
  bool opened_ = false;
  bool pads_end_ = false;
};

/// While it lives, texts of libarchive on this thread are UTF-8, whatever the process's locale is:
/// in the "C" locale names that are not ASCII would be lost. Only this thread's locale is touched.
class Utf8Locale {
 public:
  Utf8Locale();
  ~Utf8Locale();
  Utf8Locale(const Utf8Locale&) = delete;
  Utf8Locale& operator=(const Utf8Locale&) = delete;

 private:
  locale_t before_ = nullptr;
};

}  // namespace mkvirtfs::archive
