// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/entry_metadata.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

namespace mkvirtfs::archive {
namespace {

constexpr std::uint64_t kMost32 = std::numeric_limits<std::uint32_t>::max();

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

}  // namespace

Result<void> EntryMetadata::take_name(const ArchiveHandle& handle) {
  const char* name = archive_entry_pathname(handle.entry());
  if (name == nullptr) name = archive_entry_pathname_utf8(handle.entry());
  if (name == nullptr) return messages_.wrong("its name cannot be read");
  path_ = name;
  member_.path = path_;
  return {};
}

bool EntryMetadata::is_of_the_format(const ArchiveHandle& handle) const {
  if (handle.base_format() != ARCHIVE_FORMAT_AR) return false;
  return path_ == "/" || path_ == "//" || path_ == "/SYM64/" || path_ == "__.SYMDEF";
}

Result<void> EntryMetadata::take_type(const ArchiveHandle& handle) {
  ::archive_entry* const entry = handle.entry();
  member_.mode = static_cast<std::uint16_t>(archive_entry_mode(entry));
  // ar has nothing but files, and since it packs reproducibly it writes their modes without a type.
  const bool is_ar = handle.base_format() == ARCHIVE_FORMAT_AR;
  if (is_ar && (member_.mode & S_IFMT) == 0) member_.mode |= S_IFREG;
  // A hard link may come without a type, or with that of what it names.
  const char* target = archive_entry_hardlink(entry);
  member_.is_hard_link = target != nullptr;
  if (target == nullptr && S_ISLNK(member_.mode)) {
    target = archive_entry_symlink(entry);
    if (target == nullptr) target = archive_entry_symlink_utf8(entry);
  }
  // libarchive takes what is encrypted for the target.
  if (S_ISLNK(member_.mode) && archive_entry_is_data_encrypted(entry) == 1) {
    return messages_.wrong("is an encrypted symlink, which cannot be read here", Errc::unsupported);
  }
  target_ = target == nullptr ? "" : target;
  member_.link_target = target_;
  return {};
}

Result<void> EntryMetadata::take_attributes(ArchiveHandle& handle, MemberBudget& budget) {
  ::archive_entry* const entry = handle.entry();
  if (Result<void> good = take_tar_headers(handle); !good) return good;
  if (Result<void> good = take_owner(entry); !good) return good;
  take_mtime(entry);
  member_.device = {};
  if (S_ISCHR(member_.mode) || S_ISBLK(member_.mode)) {
    member_.device = {static_cast<std::uint32_t>(archive_entry_rdevmajor(entry)),
                      static_cast<std::uint32_t>(archive_entry_rdevminor(entry))};
  }
  if (Result<void> good = take_size(entry, budget); !good) return good;
  take_xattrs(entry);
  return take_holes(entry);
}

Result<void> EntryMetadata::take_tar_headers(ArchiveHandle& handle) {
  member_.stores_holes = false;
  if (handle.base_format() != ARCHIVE_FORMAT_TAR) return {};
  if (Result<void> good = tar_headers_.read(handle); !good) {
    return messages_.wrong(std::move(good).error());
  }
  member_.stores_holes = S_ISREG(member_.mode) && tar_headers_.stored_holes().has_value();
  const std::string ignored = tar_headers_.take_ignored_keywords();
  if (!ignored.empty()) {
    messages_.warn(fmt::format("its pax global headers are ignored: {}", ignored));
  }
  return {};
}

Result<void> EntryMetadata::take_owner(::archive_entry* entry) {
  const la_int64_t uid = archive_entry_uid(entry);
  const la_int64_t gid = archive_entry_gid(entry);
  // 2^32 - 1 is no id either, but the options of the tree may leave the member out or map the id.
  if (uid < 0 || gid < 0 || static_cast<std::uint64_t>(uid) > kMost32 ||
      static_cast<std::uint64_t>(gid) > kMost32) {
    return messages_.wrong(fmt::format("has the owner {}:{}, which no file can have", uid, gid));
  }
  member_.uid = static_cast<std::uint32_t>(uid);
  member_.gid = static_cast<std::uint32_t>(gid);
  return {};
}

void EntryMetadata::take_mtime(::archive_entry* entry) {
  member_.mtime = {};
  if (archive_entry_mtime_is_set(entry) == 0) return;
  const long nanoseconds = archive_entry_mtime_nsec(entry);
  member_.mtime.seconds = archive_entry_mtime(entry);
  member_.mtime.nanoseconds = static_cast<std::uint32_t>(std::clamp(nanoseconds, 0L, 999'999'999L));
}

Result<void> EntryMetadata::take_size(::archive_entry* entry, MemberBudget& budget) {
  member_.size_bytes = 0;
  if (!S_ISREG(member_.mode) || archive_entry_size_is_set(entry) == 0) return {};
  const la_int64_t size = archive_entry_size(entry);
  if (size < 0) return messages_.wrong("has a negative size");
  member_.size_bytes = static_cast<std::uint64_t>(size);
  if (!budget.take(member_.size_bytes)) {
    return messages_.wrong(fmt::format("has {} bytes, with which all members have more than {}",
                                       member_.size_bytes, budget.limits().most_bytes),
                           Errc::does_not_fit, {{"max-size"}});
  }
  return {};
}

void EntryMetadata::take_xattrs(::archive_entry* entry) {
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
    messages_.remark(fmt::format("its ACL has names that this host does not know, left out: {}",
                                 acls_.unknown_names));
  }
  // pax archives may have each twice, in two dialects. The last is the first here, and wins.
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

Result<void> EntryMetadata::take_holes(::archive_entry* entry) {
  std::vector<Range>& runs = member_.stored_runs;
  member_.is_sparse = false;
  runs.clear();
  if (member_.stores_holes) {
    // libarchive drops runs that it does not like.
    auto stored = solaris_data_runs(*tar_headers_.stored_holes(), member_.size_bytes);
    if (!stored) return messages_.wrong("its list of holes is damaged");
    member_.is_sparse = true;
    runs = std::move(*stored);
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
    const std::uint64_t from = runs.empty() ? 0 : runs.back().end();
    if (offset < 0 || length < 0 || run.offset < from || run.offset > member_.size_bytes ||
        run.length > member_.size_bytes - run.offset) {
      return messages_.wrong("its list of holes is damaged");
    }
    if (!runs.empty() && run.offset == from) {
      runs.back().length += run.length;
    } else {
      runs.push_back(run);
    }
  }
  return {};
}

}  // namespace mkvirtfs::archive
