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
#include <span>
#include <string>
#include <vector>

#include "fsgen/archive/members_sink.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/forward_reader.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// libarchive, reading bytes of ours: formats alone, never a filter, never a file. One thread.
class ArchiveHandle {
 public:
  /// Those of `formats`, in `source`, at any offset. The archive begins at its byte `base`; offsets
  /// stay those in the source, here and below. `charset` is that of names in zip archives which do
  /// not say that they are UTF-8; "": they stay as they are.
  static std::unique_ptr<ArchiveHandle> open(const std::shared_ptr<ByteSource>& source,
                                             Formats formats,
                                             const std::vector<std::string>& passphrases,
                                             const std::string& charset, std::uint64_t base);
  /// The formats that can be read forwards, of `stream`, which outlives the handle.
  static std::unique_ptr<ArchiveHandle> open(ForwardReader& stream);
  /// A cpio archive, and nothing else, from byte `base` on; the stream stands there.
  static std::unique_ptr<ArchiveHandle> open_cpio(const std::shared_ptr<ByteSource>& source,
                                                  std::uint64_t base);
  static std::unique_ptr<ArchiveHandle> open_cpio(ForwardReader& stream, std::uint64_t base);

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
  /// ARCHIVE_FORMAT_TAR and the like, without a variant; 0 before it is known.
  int base_format() const noexcept { return archive_format(archive_) & ARCHIVE_FORMAT_BASE_MASK; }

  /// For tar: empty blocks end nothing, and the next archive is read on with.
  void pass_over_ends();

  /// Where the bytes of the entry begin, for formats that store them; and where its first header
  /// did, or, after the last entry, where that ended.
  std::uint64_t data_offset() const;
  std::uint64_t header_offset() const noexcept { return header_offset_; }

  /// Bytes of the headers of the tar entry that was read last, between header_offset() and
  /// data_offset(). Before the next call of next_header() only.
  Result<void> read_header(std::uint64_t offset, std::span<std::byte> out);
  /// Such bytes where they lie in memory at once; empty when they do not.
  std::span<const std::byte> header_in_memory(std::uint64_t offset, std::size_t size) const {
    const std::uint64_t from = position_ - piece_.size();
    if (offset < from || offset > position_ || position_ - offset < size) return {};
    return piece_.subspan(static_cast<std::size_t>(offset - from), size);
  }

  /// Where an archive ended, and the bytes behind it that cannot be given back to its stream.
  struct End {
    std::uint64_t offset = 0;
    std::span<const std::byte> unread;  ///< as long as the handle lives
  };
  /// After the last entry: gives back to the stream what was read ahead. The last call.
  End end();

  /// What went wrong: the source's own error, if it was that.
  Error error() const;
  const std::optional<Error>& source_error() const noexcept { return source_error_; }

 private:
  ArchiveHandle(std::shared_ptr<ByteSource> source, ForwardReader* stream, std::uint64_t base);
  la_ssize_t read(const void** bytes);
  std::int64_t skip(std::int64_t count);
  std::int64_t seek(std::int64_t offset, int whence);
  void failed(const Error& error);
  la_ssize_t padding(const void** bytes);
  /// Counts what one header takes; false when that is more than any needs.
  bool count_header(std::size_t bytes);
  /// Keeps what is still needed of the piece that is to be given up.
  void keep_piece();

  ::archive* archive_ = nullptr;
  ::archive_entry* entry_ = nullptr;
  const std::shared_ptr<ByteSource> source_;
  ForwardReader* const stream_;
  const std::uint64_t base_;
  std::uint64_t position_;            // in either
  std::vector<std::byte> buffer_;     // of the source
  std::uint64_t read_until_ = 0;      // of the source, by the read before
  std::size_t piece_bytes_ = 0;       // that this read asked for
  std::span<const std::byte> piece_;  // what was read last, up to position_
  std::vector<std::byte> kept_;       // of the header, from kept_offset_ on, before piece_
  std::uint64_t kept_offset_ = 0;
  std::vector<std::byte> tail_;  // of the last piece before piece_: what was not taken then
  bool in_next_header_ = false;
  bool has_header_ = false;
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
