// SPDX-License-Identifier: BSD-3-Clause
// Private to this room: it shows types of libarchive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/extent.h"
#include "fsgen/archive/archive_handle.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// A pax record's time, "SECONDS" or "SECONDS.FRACTION" with a sign: the fraction of a negative one
/// counts away from zero (IEEE Std 1003.1, pax, "pax Extended Header"). nullopt for anything else,
/// and beyond 63 bits of seconds.
std::optional<Timestamp> pax_time(std::string_view text);

/// The data runs that Solaris' SUN.holesdata lists for a file: where data begin, where a hole does,
/// and so on, up to the file's end. nullopt for anything else.
std::optional<std::vector<Range>> solaris_data_runs(std::string_view text,
                                                    std::uint64_t size_bytes);

/// The parts of a tar's headers that libarchive drops: the records of pax global headers, the sign
/// of a fraction of a second, and whether the holes of a sparse file are stored. It is read from
/// the blocks themselves.
///
/// Global records are those of the last global header: one replaces the other, as with GNU tar.
/// They count for each member behind it whose own extended header has no such record.
class TarHeaders {
 public:
  explicit TarHeaders(PaxGlobals globals) : globals_policy_(globals) {}

  /// Reads the headers of the entry that `handle` has just read, and sets the entry's fields by
  /// them. Without headers of the kinds above it looks at one block.
  ///
  /// Errors: Errc::unsupported for a global record that would have to be known, unless global
  /// headers are ignored; Errc::unreadable for damage. Texts say what is wrong, not where.
  Result<void> read(ArchiveHandle& handle);

  /// The member's bytes are all there, those of its holes, too: its SUN.holesdata, for
  /// solaris_data_runs().
  const std::optional<std::string>& stored_holes() const noexcept { return member_.stored_holes; }
  /// Keywords of global headers that were ignored, the first time they are asked for: "uid, path".
  std::string take_ignored_keywords();

 private:
  /// What a member has by its own header or by a global one.
  struct Records {
    std::optional<std::int64_t> uid;
    std::optional<std::int64_t> gid;
    std::optional<Timestamp> mtime;
    bool has_uid = false;
    bool has_gid = false;
    bool has_mtime = false;
    std::optional<std::string> stored_holes;
  };
  enum class Scope : std::uint8_t { one_member, global };
  Result<void> walk(ArchiveHandle& handle);
  /// Until the next call.
  Result<std::string_view> body_of(ArchiveHandle& handle, std::uint64_t offset, std::uint64_t size);
  Result<void> take_records(std::string_view body, Scope scope);
  Result<void> take_global(std::string_view keyword, std::string_view value);
  void take_own(std::string_view keyword, std::string_view value);
  void apply(::archive_entry* entry) const;

  const PaxGlobals globals_policy_;
  Records globals_;
  Records member_;
  std::vector<std::byte> body_;
  std::vector<std::string> ignored_keywords_;
  bool told_ignored_ = false;
};

}  // namespace mkvirtfs::archive
