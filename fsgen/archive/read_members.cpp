// SPDX-License-Identifier: BSD-3-Clause
// One pass over the headers, by libarchive: each entry becomes a Member. What libarchive reports of
// it is taken over (EntryMetadata), and then it is found where its bytes lie in the archive
// (StoredBytes); those that do not lie there as they are, or deflated, are unpacked into a sink
// (MemberUnpacker). Formats in which libarchive may loop for ever are read by a helper.
#include "fsgen/archive/read_members.h"

#include <fmt/format.h>
#include <iconv.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include "fsgen/archive/archive_end.h"
#include "fsgen/archive/archive_handle.h"
#include "fsgen/archive/archive_job.h"
#include "fsgen/archive/entry_metadata.h"
#include "fsgen/archive/member_messages.h"
#include "fsgen/archive/member_unpacker.h"
#include "fsgen/archive/members_sink.h"
#include "fsgen/archive/stored_bytes.h"
#include "fsgen/archive/zip_directory.h"

namespace mkvirtfs::archive {
namespace {

/// The option that takes what is no archive. The hint of it is on no other error of this room.
constexpr std::string_view kFileOption = "file";

// The kernel takes no other place for the beginning of an archive in an initramfs.
constexpr std::uint64_t kCpioAlignment = 4;

ArchiveKind kind_of(int base_format) {
  switch (base_format) {
    case ARCHIVE_FORMAT_TAR:
      return ArchiveKind::tar;
    case ARCHIVE_FORMAT_CPIO:
      return ArchiveKind::cpio;
    case ARCHIVE_FORMAT_ZIP:
      return ArchiveKind::zip;
    default:
      return ArchiveKind::other;
  }
}

/// ARCHIVE_RETRY is damage that libarchive would step over. Here it is an error.
bool is_damage(int status) { return status != ARCHIVE_OK && status != ARCHIVE_WARN; }

/// Goes through the headers of one archive.
class MemberReader {
 public:
  /// Members that must be unpacked go to `sink`; nullptr: they are refused. Of `source` and
  /// `stream` one is there.
  MemberReader(std::unique_ptr<ArchiveHandle> handle, std::shared_ptr<ByteSource> source,
               Formats formats, ForwardReader* stream, std::string name, const ReadOptions& options,
               MembersSink* sink, LogSink& log);

  /// nullopt: it is no archive.
  Result<std::optional<ReadMembers>> run();

 private:
  /// Of one archive; false: it is none.
  Result<bool> read_entries();
  /// What is behind the archive's end; cpio: reads on as long as other ones follow.
  Result<void> read_on();
  Result<void> take();
  Result<void> take_place();
  Result<void> pass_over_stored_holes();
  /// Why no header was read, or false: the source is no archive.
  Result<bool> damage() const;
  /// Of formats that are known without a member.
  bool may_be_empty() const;
  /// libarchive takes anything that begins with a block of zeroes for an empty tar, disk images
  /// too.
  Result<bool> is_an_empty_tar() const;

  std::unique_ptr<ArchiveHandle> handle_;
  const std::shared_ptr<ByteSource> source_;
  const Formats formats_;
  ForwardReader* const stream_;
  const ReadOptions& options_;
  MembersSink* const sink_;

  ReadMembers made_;
  Member member_;
  MemberMessages messages_;
  MemberBudget budget_;
  EntryMetadata metadata_;
  StoredBytes stored_;
  MemberUnpacker unpacker_;
};

MemberReader::MemberReader(std::unique_ptr<ArchiveHandle> handle,
                           std::shared_ptr<ByteSource> source, Formats formats,
                           ForwardReader* stream, std::string name, const ReadOptions& options,
                           MembersSink* sink, LogSink& log)
    : handle_(std::move(handle)),
      source_(std::move(source)),
      formats_(formats),
      stream_(stream),
      options_(options),
      sink_(sink),
      messages_(std::move(name), member_, log),
      budget_(options.limits),
      metadata_(member_, messages_, options.pax_globals),
      stored_(member_, messages_, source_, options.limits),
      unpacker_(member_, messages_, source_, options, sink) {
  messages_.set_handle(*handle_);
  if (options_.lacks_end) handle_->pad_end();
  if (options_.ignores_zeros) handle_->pass_over_ends();
}

Result<std::optional<ReadMembers>> MemberReader::run() {
  if (Result<void> good = stored_.begin(formats_); !good) return propagate(good);
  const Result<bool> known = read_entries();
  if (!known) return propagate(known);
  if (!*known) return std::nullopt;
  if (member_.path.empty() && !may_be_empty()) {
    const Result<bool> empty = is_an_empty_tar();
    if (!empty) return propagate(empty);
    if (!*empty) return std::nullopt;
  }
  const char* const format = archive_format_name(handle_->get());
  made_.format = format == nullptr ? "tar" : format;
  made_.kind = kind_of(handle_->base_format());
  if (Result<void> good = read_on(); !good) return propagate(good);
  return std::move(made_);
}

Result<bool> MemberReader::damage() const {
  if (handle_->source_error()) return std::unexpected(*handle_->source_error());
  // It may not have been able to look.
  if (archive_errno(handle_->get()) == ENOMEM) return messages_.wrong(handle_->error());
  if (archive_format(handle_->get()) == 0) return false;
  // What the text is about stands behind the last member that was good.
  Error error = handle_->error();
  return messages_.wrong(member_.path.empty() ? std::move(error)
                                              : with_context("behind it", std::move(error)));
}

Result<bool> MemberReader::read_entries() {
  while (true) {
    const int status = handle_->next_header();
    if (status == ARCHIVE_EOF) break;
    if (is_damage(status)) return damage();
    if (Result<void> good = stored_.check_end(*handle_); !good) return propagate(good);
    if (Result<void> good = take(); !good) return propagate(good);
    // Names that are no UTF-8 stay as they are, which is no news here.
    const std::string text = status == ARCHIVE_WARN ? handle_->error().what : "";
    if (!options_.charset.empty() && text.contains("cannot be converted")) {
      return messages_.wrong(fmt::format("its name is not {}", options_.charset));
    }
    if (!text.empty() && !text.contains("can't be converted")) messages_.remark(text);
  }
  if (Result<void> good = stored_.check_end(*handle_); !good) return propagate(good);
  // Zeroes to the end, where they end nothing, are of no format to libarchive.
  if (archive_format(handle_->get()) == 0) return is_an_empty_tar();
  return true;
}

Result<void> MemberReader::read_on() {
  const bool is_cpio = made_.kind == ArchiveKind::cpio;
  if (made_.kind != ArchiveKind::tar && !is_cpio) return {};
  while (true) {
    const ArchiveHandle::End end = handle_->end();
    const Result<std::optional<std::uint64_t>> rest =
        source_ ? find_rest(*source_, end.offset) : find_rest(*stream_, end.offset, end.unread);
    if (!rest) return propagate(rest);
    made_.rest_offset = *rest;
    if (!*rest || !is_cpio || (source_ && **rest % kCpioAlignment != 0)) return {};
    stored_.forget_last();
    handle_ = source_ ? ArchiveHandle::open_cpio(source_, **rest)
                      : ArchiveHandle::open_cpio(*stream_, **rest);
    messages_.set_handle(*handle_);
    const Result<bool> known = read_entries();
    if (!known) return propagate(known);
    if (!*known) return {};
  }
}

bool MemberReader::may_be_empty() const {
  const int base = handle_->base_format();
  // A tar that has a header has another format than this one.
  return base == ARCHIVE_FORMAT_CPIO || base == ARCHIVE_FORMAT_AR ||
         (base == ARCHIVE_FORMAT_TAR && archive_format(handle_->get()) != ARCHIVE_FORMAT_TAR);
}

Result<bool> MemberReader::is_an_empty_tar() const {
  if (!source_) return false;  // it will be looked at again when it can be
  constexpr std::uint64_t kLookedAtBytes = std::uint64_t{1} << 20;
  std::vector<std::byte> bytes(
      static_cast<std::size_t>(std::min(source_->size_bytes(), kLookedAtBytes)));
  if (Result<void> good = source_->read(0, bytes); !good) return propagate(good);
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

Result<void> MemberReader::take() {
  stored_.forget_last();
  member_.path = {};
  if (Result<void> good = metadata_.take_name(*handle_); !good) {
    if (options_.charset.empty()) return good;
    return messages_.wrong(fmt::format("its name is not {}", options_.charset));
  }
  if (metadata_.is_of_the_format(*handle_)) return {};
  if (made_.members.member_count() == options_.limits.most_members) {
    return fail(Errc::does_not_fit,
                fmt::format("{} has more than {} members", messages_.archive(),
                            options_.limits.most_members),
                {{"max-entries"}});
  }
  if (Result<void> good = unpacker_.next_entry(*handle_); !good) return good;
  if (Result<void> good = metadata_.take_type(*handle_); !good) return good;
  const bool is_symlink = S_ISLNK(member_.mode) && !member_.is_hard_link;
  if (is_symlink && handle_->base_format() == ARCHIVE_FORMAT_RAR) {
    if (Result<void> good = unpacker_.check_symlink(); !good) return good;
  }
  if ((member_.mode & S_IFMT) == 0) member_.mode = 0;
  if (member_.mode == 0 && !member_.is_hard_link) {
    messages_.remark("is of a type that is not known; left out");
    return {};
  }
  if (Result<void> good = metadata_.take_attributes(*handle_, budget_); !good) return good;
  if (Result<void> good = take_place(); !good) return good;
  if (Result<void> good = pass_over_stored_holes(); !good) return good;
  if (Result<void> good = made_.members.append(member_); !good) {
    return messages_.wrong(std::move(good).error());
  }
  if (sink_ != nullptr) sink_->found(made_.members);
  return {};
}

Result<void> MemberReader::take_place() {
  member_.place = MemberPlace::nowhere;
  member_.data_offset = 0;
  if (!S_ISREG(member_.mode)) return {};
  const Result<bool> is_placed = stored_.find(*handle_);
  if (!is_placed) return propagate(is_placed);
  return *is_placed ? Result<void>() : unpacker_.unpack(*handle_, budget_);
}

Result<void> MemberReader::pass_over_stored_holes() {
  if (!member_.stores_holes) return {};
  // libarchive skips such members without their holes, and is right when it reads them.
  while (true) {
    const void* bytes = nullptr;
    std::size_t count = 0;
    la_int64_t offset = 0;
    const int status = archive_read_data_block(handle_->get(), &bytes, &count, &offset);
    if (status == ARCHIVE_EOF) return {};
    if (status != ARCHIVE_OK) return messages_.wrong(handle_->error());
  }
}

}  // namespace

std::uint64_t ReadOptions::reading() const noexcept {
  std::uint64_t number = (lacks_end ? 1u : 0u) | (pax_globals == PaxGlobals::ignore ? 2u : 0u) |
                         (ignores_zeros ? 4u : 0u);
  // FNV-1a above these bits; a name that was not given leaves them alone.
  for (const char c : charset) number = (number ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return number;
}

bool is_known_charset(const std::string& name) {
  iconv_t conversion = ::iconv_open("UTF-8", name.c_str());
  // -1 is what iconv(3) returns for "none".
  if (reinterpret_cast<std::intptr_t>(conversion) == -1) return false;
  ::iconv_close(conversion);
  return true;
}

Result<std::optional<ReadMembers>> read_members_here(const std::shared_ptr<ByteSource>& archive,
                                                     Formats formats, const ReadOptions& options,
                                                     MembersSink* sink, LogSink& log) {
  const Utf8Locale utf8;
  std::uint64_t base = 0;
  const auto attempt = [&](const std::vector<std::string>& passphrases) {
    return MemberReader(ArchiveHandle::open(archive, formats, passphrases, options.charset, base),
                        archive, formats, nullptr, archive->name(), options, sink, log)
        .run();
  };
  Result<std::optional<ReadMembers>> made = attempt(options.passphrases);
  // Zip's own encryption checks a passphrase by one byte: one in 256 passes, and then the
  // member looks damaged. libarchive goes on with the one that passed, so each gets to be the
  // first.
  std::vector<std::string> passphrases = options.passphrases;
  for (std::size_t turn = 1; turn < passphrases.size(); ++turn) {
    if (made || made.error().code != Errc::unreadable) break;
    std::ranges::rotate(passphrases, passphrases.begin() + 1);
    if (sink != nullptr) sink->restart();
    if (auto again = attempt(passphrases); again) made = std::move(again);
  }
  if (!made || *made) return made;
  // One with 64-bit offsets that count from behind what unpacks it is not found by libarchive.
  base = ZipDirectory::offset_of_archive(*archive);
  return base == 0 ? std::move(made) : attempt(options.passphrases);
}

Result<ReadMembers> read_members(const std::shared_ptr<ByteSource>& archive,
                                 const ReadOptions& options, LogSink& log) {
  const Result<bool> here = options.in_process ? Result<bool>(true) : is_read_in_process(*archive);
  if (!here) return propagate(here);
  Result<std::optional<ReadMembers>> made;
  if (*here) {
    SpoolSink spool(options.spool, archive->name());
    made = read_members_here(archive, options.in_process ? Formats::all : Formats::bounded, options,
                             options.spool ? &spool : nullptr, log);
    if (made && *made) {
      Result<std::shared_ptr<ByteSource>> spooled = spool.finish();
      if (!spooled) return propagate(spooled);
      (*made)->spool = std::move(*spooled);
    }
  } else {
    made = read_members_in_helper(archive, options, log);
  }
  if (!made) return propagate(made);
  if (*made) return std::move(**made);
  // libarchive knows a zip archive by its end alone.
  std::array<std::byte, 4> first{};
  constexpr std::array<std::byte, 4> kZipMember = {std::byte{'P'}, std::byte{'K'}, std::byte{3},
                                                   std::byte{4}};
  if (archive->size_bytes() > first.size() && archive->read(0, first) && first == kZipMember) {
    return fail(Errc::unreadable,
                fmt::format("{} is a zip archive without its end: it is cut off or damaged",
                            archive->name()));
  }
  return fail(Errc::unreadable,
              fmt::format("{} is not a directory or a supported archive", archive->name()),
              {{std::string(kFileOption)}});
}

bool is_no_archive(const Error& error) {
  return std::ranges::find(error.hints, kFileOption, &Setting::option) != error.hints.end();
}

Result<std::optional<ReadMembers>> read_members(ForwardReader& stream, const std::string& name,
                                                const ReadOptions& options, LogSink& log) {
  const Utf8Locale utf8;
  MemberReader reader(ArchiveHandle::open(stream), nullptr, Formats::bounded, &stream, name,
                      options, nullptr, log);
  return reader.run();
}

Result<std::optional<ReadMembers>> read_cpio_members(const std::shared_ptr<ByteSource>& archive,
                                                     std::uint64_t base, const ReadOptions& options,
                                                     LogSink& log) {
  const Utf8Locale utf8;
  MemberReader reader(ArchiveHandle::open_cpio(archive, base), archive, Formats::bounded, nullptr,
                      archive->name(), options, nullptr, log);
  return reader.run();
}

}  // namespace mkvirtfs::archive
