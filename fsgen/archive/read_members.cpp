// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/read_members.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <limits>
#include <utility>

#include "fsgen/archive/acl.h"
#include "fsgen/archive/archive_end.h"
#include "fsgen/archive/archive_handle.h"
#include "fsgen/archive/archive_job.h"
#include "fsgen/archive/iso_directory.h"
#include "fsgen/archive/members_sink.h"
#include "fsgen/archive/rar_checksums.h"
#include "fsgen/archive/tar_headers.h"
#include "fsgen/archive/zip_directory.h"
#include "support/arithmetic.h"

namespace mkvirtfs::archive {
namespace {

constexpr std::uint64_t kMost32 = std::numeric_limits<std::uint32_t>::max();
// tar's blocks: what is stored is padded to the next one. Other formats pad less.
constexpr std::uint64_t kMostPaddingBytes = 511;
constexpr std::uint64_t kMostRemarks = 3;
// The kernel takes no other place for the beginning of an archive in an initramfs.
constexpr std::uint64_t kCpioAlignment = 4;

enum class Tier : std::uint8_t { stored, zip, spooled };

Tier tier_of(int format) {
  switch (format & ARCHIVE_FORMAT_BASE_MASK) {
    case ARCHIVE_FORMAT_TAR:
    case ARCHIVE_FORMAT_CPIO:
    case ARCHIVE_FORMAT_AR:
    case ARCHIVE_FORMAT_ISO9660:
      return Tier::stored;
    case ARCHIVE_FORMAT_ZIP:
      return Tier::zip;
    default:
      return Tier::spooled;
  }
}

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

/// ARCHIVE_RETRY is damage that libarchive would step over; nobody asked it to.
bool is_damage(int status) { return status != ARCHIVE_OK && status != ARCHIVE_WARN; }

/// RFC 3986, section 2.1; what is no such triplet stays.
std::string percent_decoded(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    const char* const digits = text.data() + i + 1;
    if (text[i] == '%' && text.size() - i > 2 &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      decoded += static_cast<char>(byte);
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

/// Goes through the headers of one archive.
class MemberReader {
 public:
  /// Members that must be unpacked go to `sink`; nullptr: they are refused.
  MemberReader(std::unique_ptr<ArchiveHandle> handle, std::shared_ptr<ByteSource> source,
               Formats formats, ForwardReader* stream, std::string name, const ReadOptions& options,
               MembersSink* sink, LogSink& log)
      : handle_(std::move(handle)),
        source_(std::move(source)),
        formats_(formats),
        stream_(stream),
        name_(std::move(name)),
        options_(options),
        sink_(sink),
        log_(log),
        tar_headers_(options.pax_globals) {
    if (options_.lacks_end) handle_->pad_end();
    if (options_.ignores_zeros) handle_->pass_over_ends();
  }

  /// nullopt: it is no archive.
  Result<std::optional<ReadMembers>> run();

 private:
  /// Of one archive; false: it is none.
  Result<bool> read_entries();
  int base_format() const { return archive_format(handle_->get()) & ARCHIVE_FORMAT_BASE_MASK; }
  /// What is behind the archive's end; cpio: reads on as long as other ones follow.
  Result<void> read_on();
  Result<void> take();
  Result<void> take_name();
  Result<void> take_tar_headers();
  bool is_of_the_format() const;
  Result<void> take_link();
  Result<void> take_attributes();
  Result<void> take_holes();
  void take_xattrs();
  Result<void> take_place();
  Result<void> pass_over_stored_holes();
  /// False: it must be spooled.
  Result<bool> take_zip_place();
  Result<bool> is_plain_in_iso() const;
  /// Of a rar archive: what the bytes of this member must have as checksum.
  Result<void> take_checksum();
  Result<void> check_checksum(std::uint32_t found) const;
  Result<void> spool();
  /// Of formats that are known without a member.
  bool may_be_empty() const;
  /// libarchive takes anything that begins with a block of zeroes for an empty tar, disk images
  /// too.
  Result<bool> is_an_empty_tar() const;
  /// That the last member's bytes end where the next header begins.
  Result<void> check_end() const;
  Result<void> count();

  /// "rootfs.tar: member etc/passwd, byte 1536: WHAT"
  std::unexpected<Error> wrong(std::string_view what, Errc code = Errc::unreadable) const;
  void remark(std::string_view what);

  std::unique_ptr<ArchiveHandle> handle_;
  const std::shared_ptr<ByteSource> source_;  // none: it comes forwards,
  const Formats formats_;
  ForwardReader* const stream_;  // from here
  const std::string name_;
  const ReadOptions& options_;
  MembersSink* const sink_;
  LogSink& log_;

  ReadMembers made_;
  Member member_;
  std::string path_;    // of member_, when it had to be copied
  std::string target_;  // and that of its link
  AclValues acls_;
  TarHeaders tar_headers_;
  std::uint64_t unpacked_bytes_ = 0;  // in the sink
  std::unique_ptr<const ZipDirectory> zip_;
  std::optional<IsoDirectory> iso_;
  // Of a rar archive, by entry: read with the first one.
  std::optional<std::vector<std::optional<std::uint32_t>>> checksums_;
  std::size_t entries_ = 0;
  std::optional<std::uint32_t> checksum_;
  std::uint64_t total_bytes_ = 0;
  std::uint64_t remarks_ = 0;
  /// Of the last member, when its bytes lie stored one after the other.
  std::optional<Range> stored_;
};

std::unexpected<Error> MemberReader::wrong(std::string_view what, Errc code) const {
  const std::string where = member_.path.empty() ? fmt::format("byte {}", handle_->header_offset())
                                                 : fmt::format("member {}, byte {}", member_.path,
                                                               handle_->header_offset());
  return fail(code, fmt::format("{}: {}: {}", name_, where, what));
}

void MemberReader::remark(std::string_view what) {
  if (++remarks_ > kMostRemarks) return;
  log_.write(LogLevel::warning, fmt::format("{}: member {}: {}{}", name_, member_.path, what,
                                            remarks_ == kMostRemarks ? " (and so on)" : ""));
}

Result<std::optional<ReadMembers>> MemberReader::run() {
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
  made_.kind = kind_of(base_format());
  if (Result<void> good = read_on(); !good) return propagate(good);
  return std::move(made_);
}

Result<bool> MemberReader::read_entries() {
  if (source_ && formats_ == Formats::all) {
    const Result<bool> is_iso = is_iso9660(*source_);
    if (!is_iso) return propagate(is_iso);
    if (*is_iso) {
      // Before libarchive, which follows continuation areas that form a loop for ever.
      Result<IsoDirectory> read = IsoDirectory::read(*source_, options_.limits.most_members);
      if (!read) return propagate(read);
      iso_ = std::move(*read);
    }
  }
  while (true) {
    const int status = handle_->next_header();
    if (status == ARCHIVE_EOF) break;
    if (is_damage(status)) {
      if (handle_->source_error()) return std::unexpected(*handle_->source_error());
      // It may not have been able to look.
      if (archive_errno(handle_->get()) == ENOMEM) return wrong(handle_->error_text());
      if (archive_format(handle_->get()) == 0) return false;
      // What is told of stands behind the last member that was good.
      const std::string_view where = member_.path.empty() ? "" : "behind it: ";
      return wrong(fmt::format("{}{}", where, handle_->error_text()));
    }
    if (Result<void> good = check_end(); !good) return propagate(good);
    if (Result<void> good = take(); !good) return propagate(good);
    // Names that are no UTF-8 stay as they are, which is no news here.
    const std::string text = status == ARCHIVE_WARN ? handle_->error_text() : "";
    if (!text.empty() && !text.contains("can't be converted")) remark(text);
  }
  if (Result<void> good = check_end(); !good) return propagate(good);
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
    stored_.reset();
    handle_ = source_ ? ArchiveHandle::open_cpio(source_, **rest)
                      : ArchiveHandle::open_cpio(*stream_, **rest);
    const Result<bool> known = read_entries();
    if (!known) return propagate(known);
    if (!*known) return {};
  }
}

bool MemberReader::may_be_empty() const {
  const int base = base_format();
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

Result<void> MemberReader::check_end() const {
  if (!stored_) return {};
  const std::uint64_t end = handle_->header_offset();
  if (end >= stored_->end() && end - stored_->end() <= kMostPaddingBytes) return {};
  return wrong("its bytes do not end where the next member begins");
}

Result<void> MemberReader::take() {
  stored_.reset();
  member_.path = {};
  if (Result<void> good = take_name(); !good) return good;
  if (is_of_the_format()) return {};
  if (Result<void> good = count(); !good) return good;
  if (Result<void> good = take_checksum(); !good) return good;
  if (Result<void> good = take_link(); !good) return good;
  if (member_.mode == 0 && !member_.is_hard_link) {
    remark("is of a type that is not known; left out");
    return {};
  }
  if (Result<void> good = take_tar_headers(); !good) return good;
  if (Result<void> good = take_attributes(); !good) return good;
  take_xattrs();
  if (Result<void> good = take_holes(); !good) return good;
  if (Result<void> good = take_place(); !good) return good;
  if (Result<void> good = pass_over_stored_holes(); !good) return good;
  if (Result<void> good = made_.members.append(member_); !good) return wrong(good.error().what);
  if (sink_ != nullptr) sink_->found(made_.members);
  return {};
}

Result<void> MemberReader::take_name() {
  const char* name = archive_entry_pathname(handle_->entry());
  if (name == nullptr) name = archive_entry_pathname_utf8(handle_->entry());
  if (name == nullptr) return wrong("its name cannot be told");
  path_ = name;
  member_.path = path_;
  return {};
}

Result<void> MemberReader::take_tar_headers() {
  member_.stores_holes = false;
  if (base_format() != ARCHIVE_FORMAT_TAR) return {};
  if (Result<void> good = tar_headers_.read(*handle_); !good) {
    return wrong(good.error().what, good.error().code);
  }
  member_.stores_holes = S_ISREG(member_.mode) && tar_headers_.stored_holes().has_value();
  const std::string ignored = tar_headers_.take_ignored_keywords();
  if (!ignored.empty()) {
    log_.write(LogLevel::warning,
               fmt::format("{}: its pax global headers are ignored: {}", name_, ignored));
  }
  return {};
}

/// What ar keeps for itself: indexes of symbols, and names that are too long for its headers.
bool MemberReader::is_of_the_format() const {
  if ((archive_format(handle_->get()) & ARCHIVE_FORMAT_BASE_MASK) != ARCHIVE_FORMAT_AR)
    return false;
  return path_ == "/" || path_ == "//" || path_ == "/SYM64/" || path_ == "__.SYMDEF";
}

Result<void> MemberReader::count() {
  if (made_.members.member_count() == options_.limits.most_members) {
    return fail(Errc::does_not_fit, fmt::format("{} has more than {} members (see --max-entries)",
                                                name_, options_.limits.most_members));
  }
  return {};
}

Result<void> MemberReader::take_link() {
  ::archive_entry* const entry = handle_->entry();
  member_.mode = static_cast<std::uint16_t>(archive_entry_mode(entry));
  // ar has nothing but files, and since it packs reproducibly it writes their modes without a type.
  const int base = archive_format(handle_->get()) & ARCHIVE_FORMAT_BASE_MASK;
  if (base == ARCHIVE_FORMAT_AR && (member_.mode & S_IFMT) == 0) member_.mode |= S_IFREG;
  // A hard link may come without a type, or with that of what it names.
  const char* target = archive_entry_hardlink(entry);
  member_.is_hard_link = target != nullptr;
  if (target == nullptr && S_ISLNK(member_.mode)) {
    target = archive_entry_symlink(entry);
    if (target == nullptr) target = archive_entry_symlink_utf8(entry);
  }
  // libarchive takes what is encrypted for the target.
  if (S_ISLNK(member_.mode) && archive_entry_is_data_encrypted(entry) == 1) {
    return wrong("is an encrypted symlink, which cannot be read here", Errc::unsupported);
  }
  target_ = target == nullptr ? "" : target;
  member_.link_target = target_;
  if (S_ISLNK(member_.mode) && !member_.is_hard_link && base == ARCHIVE_FORMAT_RAR) {
    // It is the member's data there.
    const uLong crc = ::crc32_z(0, reinterpret_cast<const Bytef*>(target_.data()), target_.size());
    if (Result<void> good = check_checksum(static_cast<std::uint32_t>(crc)); !good) return good;
  }
  if ((member_.mode & S_IFMT) == 0) member_.mode = 0;
  return {};
}

Result<void> MemberReader::take_attributes() {
  ::archive_entry* const entry = handle_->entry();
  const la_int64_t uid = archive_entry_uid(entry);
  const la_int64_t gid = archive_entry_gid(entry);
  // 2^32 - 1 is no id either, but whoever makes the tree may leave it out or map it.
  if (uid < 0 || gid < 0 || static_cast<std::uint64_t>(uid) > kMost32 ||
      static_cast<std::uint64_t>(gid) > kMost32) {
    return wrong(fmt::format("belongs to {}:{}, which no file can", uid, gid));
  }
  member_.uid = static_cast<std::uint32_t>(uid);
  member_.gid = static_cast<std::uint32_t>(gid);
  member_.mtime = {};
  if (archive_entry_mtime_is_set(entry) != 0) {
    const long nanoseconds = archive_entry_mtime_nsec(entry);
    member_.mtime.seconds = archive_entry_mtime(entry);
    member_.mtime.nanoseconds =
        static_cast<std::uint32_t>(std::clamp(nanoseconds, 0L, 999'999'999L));
  }
  member_.device = {};
  if (S_ISCHR(member_.mode) || S_ISBLK(member_.mode)) {
    member_.device = {static_cast<std::uint32_t>(archive_entry_rdevmajor(entry)),
                      static_cast<std::uint32_t>(archive_entry_rdevminor(entry))};
  }
  member_.size_bytes = 0;
  if (S_ISREG(member_.mode) && archive_entry_size_is_set(entry) != 0) {
    const la_int64_t size = archive_entry_size(entry);
    if (size < 0) return wrong("has a negative size");
    member_.size_bytes = static_cast<std::uint64_t>(size);
    const auto total = checked_add(total_bytes_, member_.size_bytes);
    if (!total || *total > options_.limits.most_bytes) {
      return wrong(fmt::format("has {} bytes, with which all members have more than {} "
                               "(see --max-size)",
                               member_.size_bytes, options_.limits.most_bytes),
                   Errc::does_not_fit);
    }
    total_bytes_ = *total;
  }
  return {};
}

Result<void> MemberReader::take_holes() {
  ::archive_entry* const entry = handle_->entry();
  member_.is_sparse = false;
  member_.stored_runs.clear();
  if (member_.stores_holes) {
    // libarchive drops runs that it does not like.
    auto runs = solaris_data_runs(*tar_headers_.stored_holes(), member_.size_bytes);
    if (!runs) return wrong("its list of holes is damaged");
    member_.is_sparse = true;
    member_.stored_runs = std::move(*runs);
    return {};
  }
  if (!S_ISREG(member_.mode) || archive_entry_sparse_count(entry) == 0) return {};
  member_.is_sparse = true;
  archive_entry_sparse_reset(entry);
  la_int64_t offset = 0;
  la_int64_t length = 0;
  while (archive_entry_sparse_next(entry, &offset, &length) == ARCHIVE_OK) {
    if (length == 0) continue;  // says where the file ends
    const Range run{static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length)};
    const std::uint64_t from = member_.stored_runs.empty() ? 0 : member_.stored_runs.back().end();
    if (offset < 0 || length < 0 || run.offset < from || run.offset > member_.size_bytes ||
        run.length > member_.size_bytes - run.offset) {
      return wrong("its list of holes is damaged");
    }
    if (!member_.stored_runs.empty() && run.offset == from) {
      member_.stored_runs.back().length += run.length;
    } else {
      member_.stored_runs.push_back(run);
    }
  }
  return {};
}

void MemberReader::take_xattrs() {
  ::archive_entry* const entry = handle_->entry();
  member_.xattrs.clear();
  const auto add = [&](std::string_view name, std::string_view value) {
    const auto known = std::ranges::find(member_.xattrs, name,
                                         &std::pair<std::string_view, std::string_view>::first);
    if (known == member_.xattrs.end()) member_.xattrs.emplace_back(name, value);
  };
  acls_ = acls_of(entry);
  if (!acls_.access.empty()) {
    add("system.posix_acl_access", acls_.access);
    member_.mode = static_cast<std::uint16_t>((member_.mode & ~070u) | acls_.group_bits);
  }
  if (!acls_.defaults.empty()) add("system.posix_acl_default", acls_.defaults);
  if (!acls_.unknown_names.empty()) {
    remark(fmt::format("its ACL has names that this host does not know, left out: {}",
                       acls_.unknown_names));
  }
  // pax archives may tell each twice, in two dialects. The last is the first here, and wins.
  archive_entry_xattr_reset(entry);
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
    if (name != nullptr) add(name, {static_cast<const char*>(value), size});
  }
  // In the other dialect bytes that are no UTF-8 are %91; libarchive leaves them so.
  std::erase_if(member_.xattrs, [&](const auto& encoded) {
    const std::string decoded = percent_decoded(encoded.first);
    return decoded != encoded.first &&
           std::ranges::find(member_.xattrs, std::pair(std::string_view(decoded),
                                                       encoded.second)) != member_.xattrs.end();
  });
}

Result<void> MemberReader::take_place() {
  member_.place = Place::nowhere;
  member_.data_offset = 0;
  if (!S_ISREG(member_.mode)) return {};
  ::archive* const archive = handle_->get();
  const Tier tier = tier_of(archive_format(archive));
  const bool is_iso =
      (archive_format(archive) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_ISO9660;
  if (tier == Tier::zip) {
    const Result<bool> placed = take_zip_place();
    if (!placed) return propagate(placed);
    return *placed ? Result<void>() : spool();
  }
  if (tier == Tier::spooled) return spool();
  if (is_iso) {
    const Result<bool> is_plain = is_plain_in_iso();
    if (!is_plain) return propagate(is_plain);
    if (!*is_plain) return spool();
  }

  const std::uint64_t stored_bytes = member_.stored_bytes();
  const Range stored{handle_->data_offset(), stored_bytes};
  if (source_ && stored_bytes != 0 &&
      (stored.offset > source_->size_bytes() ||
       stored.length > source_->size_bytes() - stored.offset)) {
    return wrong(fmt::format("has {} bytes from {} on, but the archive ends at {}", stored.length,
                             stored.offset, source_->size_bytes()));
  }
  if (stored_bytes != 0) {
    member_.place = Place::stored;
    member_.data_offset = stored.offset;
  }
  if (!is_iso) stored_ = stored;
  return {};
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
    if (status != ARCHIVE_OK) return wrong(handle_->error_text());
  }
}

Result<bool> MemberReader::is_plain_in_iso() const {
  if (member_.size_bytes == 0) return true;
  if (!iso_) return false;
  switch (iso_->storage(handle_->data_offset(), member_.size_bytes)) {
    case IsoDirectory::Storage::plain:
      return true;
    case IsoDirectory::Storage::in_sections:
    case IsoDirectory::Storage::zisofs:
      return false;
    case IsoDirectory::Storage::unknown:
      break;
  }
  return wrong("is stored in a way that cannot be read here (zisofs 2, sparse or interleaved)",
               Errc::unsupported);
}

Result<bool> MemberReader::take_zip_place() {
  assert(source_);
  if (!zip_) {
    auto read = ZipDirectory::read(*source_, options_.limits.most_members);
    if (!read) return propagate(read);
    zip_ = std::move(*read);
  }
  const ZipDirectory::Member* const where = zip_->find(handle_->data_offset());
  if (where == nullptr || where->is_encrypted) return false;
  if (where->size_bytes != member_.size_bytes) {
    return wrong(fmt::format("has {} bytes, and {} in the archive's directory", member_.size_bytes,
                             where->size_bytes));
  }
  if (where->method != ZipDirectory::kStored && where->method != ZipDirectory::kDeflated) {
    return false;
  }
  if (where->method == ZipDirectory::kStored && where->packed_bytes != where->size_bytes) {
    return wrong("is stored, but in another size than it has");
  }
  if (member_.size_bytes == 0) return true;
  member_.place = where->method == ZipDirectory::kStored ? Place::stored : Place::deflated;
  member_.data_offset = handle_->data_offset();
  member_.packed_bytes = where->packed_bytes;
  member_.crc32 = where->crc32;
  return true;
}

Result<void> MemberReader::take_checksum() {
  const int format = archive_format(handle_->get()) & ARCHIVE_FORMAT_BASE_MASK;
  if (!source_ || (format != ARCHIVE_FORMAT_RAR && format != ARCHIVE_FORMAT_RAR_V5)) return {};
  if (!checksums_) {
    auto read = read_rar_checksums(*source_, options_.limits.most_members);
    if (!read) return propagate(read);
    checksums_ = std::move(*read);
  }
  if (entries_ >= checksums_->size()) return wrong("stands behind the archive's end");
  checksum_ = (*checksums_)[entries_++];
  return {};
}

Result<void> MemberReader::check_checksum(std::uint32_t found) const {
  if (!checksum_ || *checksum_ == found) return {};
  return wrong("cannot be unpacked: its checksum is wrong");
}

Result<void> MemberReader::spool() {
  ::archive_entry* const entry = handle_->entry();
  if (member_.is_hard_link && member_.size_bytes == 0) return {};
  if (archive_entry_size_is_set(entry) != 0 && member_.size_bytes == 0) return {};
  if (archive_entry_is_data_encrypted(entry) == 1 && options_.passphrases.empty()) {
    return wrong("is encrypted (see --passphrase-file)", Errc::unsupported);
  }
  if (sink_ == nullptr) {
    return wrong("can only be unpacked into a spool, and there is none", Errc::unsupported);
  }
  const std::uint64_t start = unpacked_bytes_;
  const std::uint64_t announced = member_.size_bytes;
  const bool is_announced = archive_entry_size_is_set(entry) != 0;
  member_.is_sparse = false;
  member_.stored_runs.clear();
  std::uint64_t size = 0;
  uLong crc = 0;
  static constexpr std::array<std::byte, 4096> kZeroes{};
  while (true) {
    const void* bytes = nullptr;
    std::size_t count = 0;
    la_int64_t offset = 0;
    const int status = archive_read_data_block(handle_->get(), &bytes, &count, &offset);
    if (status == ARCHIVE_EOF) break;
    // A checksum that is wrong is a mere warning to libarchive, with some formats.
    if (status != ARCHIVE_OK) {
      return wrong(fmt::format("cannot be unpacked: {}", handle_->error_text()));
    }
    // rar 5 hands out blocks of nothing while it unpacks: no address, no offset.
    if (count == 0) continue;
    const auto from = static_cast<std::uint64_t>(offset);
    if (offset < 0 || from < size || from > options_.limits.most_bytes ||
        (is_announced && (from > announced || count > announced - from))) {
      return wrong("unpacks to more than it says");
    }
    while (size < from) {
      const std::size_t zeroes = std::min<std::uint64_t>(kZeroes.size(), from - size);
      if (Result<void> good = sink_->append(std::span(kZeroes).first(zeroes)); !good) return good;
      size += zeroes;
    }
    if (!is_announced && total_bytes_ + size + count > options_.limits.most_bytes) {
      return wrong(
          fmt::format("unpacks to more than {} bytes (see --max-size)", options_.limits.most_bytes),
          Errc::does_not_fit);
    }
    const std::span<const std::byte> block(static_cast<const std::byte*>(bytes), count);
    if (Result<void> good = sink_->append(block); !good) return good;
    if (checksum_) crc = ::crc32_z(crc, static_cast<const Bytef*>(bytes), count);
    size += count;
  }
  if (Result<void> good = check_checksum(static_cast<std::uint32_t>(crc)); !good) return good;
  if (is_announced && size != announced) {
    return wrong(fmt::format("has {} bytes, but only {} are there", announced, size));
  }
  if (!is_announced) total_bytes_ += size;
  member_.size_bytes = size;
  unpacked_bytes_ += size;
  if (size == 0) return {};
  member_.place = Place::spooled;
  member_.data_offset = start;
  return {};
}

}  // namespace

Result<std::optional<ReadMembers>> read_members_here(const std::shared_ptr<ByteSource>& archive,
                                                     Formats formats, const ReadOptions& options,
                                                     MembersSink* sink, LogSink& log) {
  const Utf8Locale utf8;
  std::uint64_t base = 0;
  const auto attempt = [&](const std::vector<std::string>& passphrases) {
    return MemberReader(ArchiveHandle::open(archive, formats, passphrases, base), archive, formats,
                        nullptr, archive->name(), options, sink, log)
        .run();
  };
  Result<std::optional<ReadMembers>> made = attempt(options.passphrases);
  // Zip's own encryption tells a wrong passphrase by one byte: one in 256 passes, and then the
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
  return fail(
      Errc::unreadable,
      fmt::format("{} is neither a directory nor an archive that is known here", archive->name()));
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
