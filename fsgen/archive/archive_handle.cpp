// SPDX-License-Identifier: BSD-3-Clause
// libarchive calls back for bytes, skips and seeks. Pieces grow from 16 to 64 KiB while it reads
// without skipping. The bytes of the current header are kept, because tar's are looked at again.
#include "fsgen/archive/archive_handle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

namespace mkvirtfs::archive {
namespace {

// One header and the small file behind it: longer ones are skipped, not read. Where nothing is
// skipped, twice as much is read each time.
constexpr std::size_t kFirstPieceBytes = std::size_t{16} << 10;
constexpr std::size_t kMostPieceBytes = std::size_t{64} << 10;
constexpr std::size_t kTarBlockBytes = 512;

// A tar's special headers: libarchive takes 32 of them, of 1 MiB each.
constexpr std::size_t kMostKeptHeaderBytes = std::size_t{34} << 20;

// Of cpio and ar, whose tables of long names are the longest.
constexpr std::uint64_t kMostHeaderBytes = std::uint64_t{64} << 20;

std::uint64_t unsigned_of(la_int64_t offset) {
  return static_cast<std::uint64_t>(std::max<la_int64_t>(offset, 0));
}

}  // namespace

Utf8Locale::Utf8Locale() {
  // One for all threads, for ever: it changes no other thread's texts.
  static const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (utf8 != nullptr) before_ = ::uselocale(utf8);
}

Utf8Locale::~Utf8Locale() {
  if (before_ != nullptr) ::uselocale(before_);
}

std::unique_ptr<ArchiveHandle> ArchiveHandle::open(const std::shared_ptr<ByteSource>& source,
                                                   Formats formats,
                                                   const std::vector<std::string>& passphrases,
                                                   const std::string& charset, std::uint64_t base) {
  std::unique_ptr<ArchiveHandle> handle(new ArchiveHandle(source, nullptr, base));
  ::archive* const archive = handle->archive_;
  // The first of those that bid as much gets it.
  archive_read_support_format_tar(archive);
  archive_read_support_format_cpio(archive);
  archive_read_support_format_ar(archive);
  if (formats == Formats::all) archive_read_support_format_iso9660(archive);
  archive_read_support_format_zip_seekable(archive);
  if (formats == Formats::all) {
    for (const auto support : {archive_read_support_format_7zip, archive_read_support_format_rar,
                               archive_read_support_format_rar5, archive_read_support_format_cab,
                               archive_read_support_format_lha, archive_read_support_format_xar}) {
      support(archive);
    }
  }
  if (!charset.empty()) {
    archive_read_set_format_option(archive, "zip", "hdrcharset", charset.c_str());
  }
  for (const std::string& passphrase : passphrases) {
    archive_read_add_passphrase(archive, passphrase.c_str());
  }
  archive_read_set_seek_callback(archive, [](auto*, void* self, la_int64_t offset, int whence) {
    return static_cast<la_int64_t>(static_cast<ArchiveHandle*>(self)->seek(offset, whence));
  });
  return handle;
}

std::unique_ptr<ArchiveHandle> ArchiveHandle::open(ForwardReader& stream) {
  std::unique_ptr<ArchiveHandle> handle(new ArchiveHandle(nullptr, &stream, 0));
  archive_read_support_format_tar(handle->archive_);
  archive_read_support_format_cpio(handle->archive_);
  archive_read_support_format_ar(handle->archive_);
  return handle;
}

std::unique_ptr<ArchiveHandle> ArchiveHandle::open_cpio(const std::shared_ptr<ByteSource>& source,
                                                        std::uint64_t base) {
  std::unique_ptr<ArchiveHandle> handle(new ArchiveHandle(source, nullptr, base));
  archive_read_support_format_cpio(handle->archive_);
  return handle;
}

std::unique_ptr<ArchiveHandle> ArchiveHandle::open_cpio(ForwardReader& stream, std::uint64_t base) {
  std::unique_ptr<ArchiveHandle> handle(new ArchiveHandle(nullptr, &stream, base));
  archive_read_support_format_cpio(handle->archive_);
  return handle;
}

ArchiveHandle::ArchiveHandle(std::shared_ptr<ByteSource> source, ForwardReader* stream,
                             std::uint64_t base)
    : archive_(archive_read_new()),
      source_(std::move(source)),
      stream_(stream),
      base_(source_ ? std::min(base, source_->size_bytes()) : base),
      position_(base_) {
  if (archive_ == nullptr) throw std::bad_alloc();
  archive_read_set_callback_data(archive_, this);
  archive_read_set_read_callback(archive_, [](auto*, void* self, const void** bytes) {
    return static_cast<ArchiveHandle*>(self)->read(bytes);
  });
  archive_read_set_skip_callback(archive_, [](auto*, void* self, la_int64_t count) {
    return static_cast<la_int64_t>(static_cast<ArchiveHandle*>(self)->skip(count));
  });
}

ArchiveHandle::~ArchiveHandle() {
  if (archive_ != nullptr) archive_read_free(archive_);
}

int ArchiveHandle::next_header() {
  if (!opened_) {
    opened_ = true;
    const int status = archive_read_open1(archive_);
    if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return status;
  }
  header_bytes_ = 0;
  kept_.clear();
  in_next_header_ = true;
  const int status = archive_read_next_header(archive_, &entry_);
  in_next_header_ = false;
  has_header_ = true;
  header_offset_ = base_ + unsigned_of(archive_read_header_position(archive_));
  // Where it gave up, when it says nothing of a header.
  if (status == ARCHIVE_FATAL) header_offset_ = std::max(header_offset_, data_offset());
  return status;
}

void ArchiveHandle::pass_over_ends() {
  archive_read_set_format_option(archive_, "tar", "read_concatenated_archives", "1");
}

std::uint64_t ArchiveHandle::data_offset() const {
  return base_ + unsigned_of(archive_filter_bytes(archive_, 0));
}

void ArchiveHandle::keep_piece() {
  if (stream_ != nullptr) {
    // At its end the stream cannot give it again.
    const std::uint64_t taken = std::min(data_offset(), position_);
    const auto unread = piece_.last(
        static_cast<std::size_t>(std::min<std::uint64_t>(position_ - taken, piece_.size())));
    tail_.assign(unread.begin(), unread.end());
  }
  // Of what is being read, only this says where its header began.
  const int format = base_format();
  if (!in_next_header_ || (format != 0 && format != ARCHIVE_FORMAT_TAR)) return;
  const std::uint64_t header = base_ + unsigned_of(archive_read_header_position(archive_));
  if (has_header_ && header <= header_offset_) return;  // what is left of the entry before
  const std::uint64_t from = std::max(header, position_ - piece_.size());
  if (from >= position_) return;
  const auto part = piece_.last(static_cast<std::size_t>(position_ - from));
  if (kept_.empty()) kept_offset_ = from;
  // Behind the headers that are read again there may be long lists of holes.
  if (kept_offset_ + kept_.size() != from || kept_.size() > kMostKeptHeaderBytes) return;
  kept_.insert(kept_.end(), part.begin(), part.end());
}

Result<void> ArchiveHandle::read_header(std::uint64_t offset, std::span<std::byte> out) {
  const auto copy_from = [&](std::uint64_t from, std::span<const std::byte> bytes) {
    if (offset < from || offset - from >= bytes.size()) return;
    const auto part = bytes.subspan(static_cast<std::size_t>(offset - from));
    const std::size_t count = std::min(part.size(), out.size());
    std::memcpy(out.data(), part.data(), count);
    offset += count;
    out = out.subspan(count);
  };
  copy_from(kept_offset_, kept_);
  copy_from(position_ - piece_.size(), piece_);
  if (out.empty()) return {};
  if (source_ && offset <= source_->size_bytes() && out.size() <= source_->size_bytes() - offset) {
    return source_->read(offset, out);
  }
  return fail(Errc::unreadable, "its headers are damaged");
}

ArchiveHandle::End ArchiveHandle::end() {
  const std::uint64_t end = std::min(data_offset(), position_);
  if (stream_ == nullptr) return {end, {}};
  const std::uint64_t ahead = position_ - end;
  if (!piece_.empty() && ahead <= piece_.size()) {
    stream_->give_back(static_cast<std::size_t>(ahead));
    return {end, {}};
  }
  const auto unread = std::span<const std::byte>(tail_).last(
      static_cast<std::size_t>(std::min<std::uint64_t>(ahead, tail_.size())));
  return {end, unread};
}

Error ArchiveHandle::error() const {
  if (source_error_) return {Errc::unreadable, 0, source_error_->what, {}, source_error_->hints};
  const char* const text = archive_error_string(archive_);
  if (text == nullptr) return {Errc::unreadable, 0, "the archive is damaged"};
  if (archive_errno(archive_) != ENOMEM) return {Errc::unreadable, 0, text};
  return {Errc::unreadable,
          0,
          fmt::format("{}: it takes more memory than it may have", text),
          {},
          {{"reader-memory"}}};
}

void ArchiveHandle::failed(const Error& error) {
  source_error_ = error;
  archive_set_error(archive_, error.os_errno == 0 ? EIO : error.os_errno, "%s", error.what.c_str());
}

la_ssize_t ArchiveHandle::read(const void** bytes) {
  if (source_error_) {
    failed(Error(*source_error_));
    return ARCHIVE_FATAL;
  }
  keep_piece();
  piece_ = {};
  if (stream_ != nullptr) {
    const Result<std::span<const std::byte>> got = stream_->next();
    if (!got) {
      failed(got.error());
      return ARCHIVE_FATAL;
    }
    if (got->empty()) return padding(bytes);
    if (!count_header(got->size())) return ARCHIVE_FATAL;
    position_ += got->size();
    piece_ = *got;
    *bytes = got->data();
    return static_cast<la_ssize_t>(got->size());
  }
  const bool follows = piece_bytes_ != 0 && position_ == read_until_;
  piece_bytes_ = follows ? std::min(piece_bytes_ * 2, kMostPieceBytes) : kFirstPieceBytes;
  buffer_.resize(std::max(buffer_.size(), piece_bytes_));
  const auto count = static_cast<std::size_t>(
      std::min<std::uint64_t>(piece_bytes_, source_->size_bytes() - position_));
  const std::span<std::byte> out = std::span(buffer_).first(count);
  if (count != 0) {
    if (const Result<void> got = source_->read(position_, out); !got) {
      failed(got.error());
      return ARCHIVE_FATAL;
    }
  }
  if (count == 0) return padding(bytes);
  if (!count_header(count)) return ARCHIVE_FATAL;
  position_ += count;
  read_until_ = position_;
  piece_ = out;
  *bytes = buffer_.data();
  return static_cast<la_ssize_t>(count);
}

bool ArchiveHandle::count_header(std::size_t bytes) {
  // cpio and ar say how long names are in numbers of 32 bits and more, and libarchive gathers all
  // of them in memory. Their headers are read forwards, and data is skipped.
  const int format = base_format();
  if (format != ARCHIVE_FORMAT_CPIO && format != ARCHIVE_FORMAT_AR) return true;
  header_bytes_ += bytes;
  if (header_bytes_ <= kMostHeaderBytes) return true;
  archive_set_error(archive_, EINVAL, "a header is longer than %d MiB",
                    static_cast<int>(kMostHeaderBytes >> 20));
  return false;
}

la_ssize_t ArchiveHandle::padding(const void** bytes) {
  static constexpr std::array<std::byte, kTarBlockBytes> kZeroes{};
  const std::size_t odd = position_ % kTarBlockBytes;
  if (!pads_end_ || odd == 0) return 0;
  pads_end_ = false;
  *bytes = kZeroes.data();
  return static_cast<la_ssize_t>(kTarBlockBytes - odd);
}

std::int64_t ArchiveHandle::skip(std::int64_t count) {
  header_bytes_ = 0;
  piece_ = {};
  const auto wanted = static_cast<std::uint64_t>(std::max<std::int64_t>(count, 0));
  if (stream_ != nullptr) {
    const Result<std::uint64_t> skipped = stream_->skip(wanted);
    if (skipped) {
      position_ += *skipped;
      return static_cast<std::int64_t>(*skipped);
    }
    // A failure cannot be returned here: libarchive would ask for ever. The next read returns it.
    source_error_ = skipped.error();
    return 0;
  }
  const std::uint64_t skipped = std::min(wanted, source_->size_bytes() - position_);
  position_ += skipped;
  return static_cast<std::int64_t>(skipped);
}

std::int64_t ArchiveHandle::seek(std::int64_t offset, int whence) {
  const auto size = static_cast<std::int64_t>(source_->size_bytes());
  const auto base = static_cast<std::int64_t>(base_);
  const std::int64_t from = whence == SEEK_END   ? size
                            : whence == SEEK_CUR ? static_cast<std::int64_t>(position_)
                                                 : base;
  std::int64_t to = 0;
  // As lseek() would, but never behind the end: a read there finds nothing either way.
  if (__builtin_add_overflow(from, offset, &to) || to < base) return ARCHIVE_FATAL;
  piece_ = {};
  position_ = static_cast<std::uint64_t>(std::min(to, size));
  return static_cast<std::int64_t>(position_ - base_);
}

}  // namespace mkvirtfs::archive
