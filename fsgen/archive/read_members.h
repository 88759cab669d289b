// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsgen/archive/member_log.h"
#include "fsgen/helper/helper_process.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/forward_reader.h"
#include "fsgen/stream/spool.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::archive {

/// How the records of pax global headers in a tar are used.
enum class PaxGlobals : std::uint8_t {
  apply,   ///< uid, gid and mtime as GNU tar does; other records that change a member are refused
  ignore,  ///< none of them counts
};

/// What an archive may cost, whatever its headers say.
struct ReadLimits {
  std::uint64_t most_members = 10'000'000;
  /// Of all members together, unpacked, holes and all.
  std::uint64_t most_bytes = std::uint64_t{2} << 40;
};

struct ReadOptions {
  ReadLimits limits;
  /// For encrypted zip archives; tried in this order.
  std::vector<std::string> passphrases;
  /// Of names in zip archives that do not say that they are UTF-8, as is_known_charset() takes it.
  /// "": their bytes stay as they are.
  std::string charset;
  /// A tar may end with the bytes of its last member, without their padding and without end marks:
  /// so Go's archive/tar reads it, and umoci writes layers like that. For archives that are known
  /// to be whole.
  bool lacks_end = false;
  PaxGlobals pax_globals = PaxGlobals::apply;
  /// tar: blocks of zeroes end nothing; members behind them are read, too.
  bool ignores_zeros = false;
  /// Where the contents of an mtree manifest are looked for; none: manifests are no archives.
  std::optional<std::string> manifest_directory;
  /// Where members go that can only be unpacked from the beginning; none: they are refused.
  std::shared_ptr<SpoolSpace> spool;
  /// The helper that reads all formats but tar, cpio, ar and zip: libarchive parses these in loops
  /// that are not proved to end.
  helper::HelperSettings helper;
  /// All formats are read in this process: for the helper itself, and for fuzzers.
  bool in_process = false;

  /// The options that change the members of the same bytes. Kept indexes depend on it.
  std::uint64_t reading() const noexcept;
};

/// Whether this host's iconv knows a character set of that name: "CP437", "SHIFT_JIS".
bool is_known_charset(const std::string& name);

/// The kind of format, as far as it decides what may follow the end.
enum class ArchiveKind : std::uint8_t { other, tar, cpio, zip };

/// An archive whose headers were read.
struct ReadMembers {
  MemberLog members;
  std::string format;  ///< for people: "POSIX pax interchange format"
  ArchiveKind kind = ArchiveKind::other;
  /// tar and cpio: the first byte behind the archive's end that is not zero, when there is one.
  std::optional<std::uint64_t> rest_offset;
  /// What MemberPlace::spooled members lie in; none when there are no such.
  std::shared_ptr<ByteSource> spool;
};

/// Reads all headers of an archive, and of the members' bytes only those that must be spooled.
///
/// tar (v7, ustar, pax, GNU, with holes), cpio (newc, odc, binary), ar and ISO 9660: members lie
/// stored in the archive. zip: stored or deflated there; what is encrypted or packed otherwise is
/// spooled. 7z, rar, cab, lha, xar, and what is compressed or in several sections in ISO 9660:
/// spooled.
///
/// Of cpio archives one behind the other all are read, as the kernel does with an initramfs: the
/// next one begins at a multiple of 4, behind zeroes or at once.
///
/// Errors: Errc::unreadable for what is no archive, or is damaged: the text names the member and
/// the offset. Errc::does_not_fit beyond the limits. Errc::unsupported for what would need a spool,
/// a passphrase or a helper that is not there.
Result<ReadMembers> read_members(const std::shared_ptr<ByteSource>& archive,
                                 const ReadOptions& options, LogSink& log);
/// Whether read_members() failed because the bytes are no archive of a known format, not because
/// they are a damaged one.
bool is_no_archive(const Error& error);

/// The same of cpio archives alone, from byte `base` on. nullopt when there is none.
Result<std::optional<ReadMembers>> read_cpio_members(const std::shared_ptr<ByteSource>& archive,
                                                     std::uint64_t base, const ReadOptions& options,
                                                     LogSink& log);

/// The same of bytes that come once, one after the other, up to the archive's end or a little
/// further: tar, cpio and ar alone, whose members lie where `stream` had them. nullopt when it is
/// none of these. `name` is for messages.
Result<std::optional<ReadMembers>> read_members(ForwardReader& stream, const std::string& name,
                                                const ReadOptions& options, LogSink& log);

}  // namespace mkvirtfs::archive
