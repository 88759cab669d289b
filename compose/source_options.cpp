// SPDX-License-Identifier: BSD-3-Clause
#include "compose/source_options.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fsgen/image/option_reader.h"
#include "fsgen/tree/merge.h"
#include "support/parse_number.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

constexpr std::array<std::string_view, 3> kOnChangeWords{"error", "zero", "stale"};
constexpr std::array<std::string_view, 2> kChangeCheckWords{"mtime", "ctime"};
constexpr std::array<std::string_view, 2> kLayoutWords{"archive", "name"};
constexpr std::array<std::string_view, 2> kUnsafeNamesWords{"error", "strip"};
constexpr std::array<std::string_view, 3> kLayerSymlinksWords{"follow", "replace", "error"};
constexpr std::array<std::string_view, 5> kSourceFormatWords{"archive", "ext", "fat", "erofs",
                                                             "iso"};
constexpr std::array<std::string_view, 2> kPaxGlobalsWords{"apply", "ignore"};

constexpr std::array kOptions = std::to_array<SourceOption>({
    {.row = {.name = "at",
             .kind = OptionKind::repeated,
             .value_name = "PATH",
             .help = "Put the next SOURCE at PATH in the image",
             .manual =
                 "The root of the next _SOURCE_ stands there in the image. Directories on the way "
                 "that are missing are made; a symlink or a file on the way is an error.\n"
                 "`mkvirtfs dump base overrides --at=/etc etc-extra -o image`",
             .may_be_empty = true},
     .makes_image = false},
    {.row = {.name = "file",
             .kind = OptionKind::repeated,
             .value_name = "PATH=HOSTFILE",
             .help = "Put a file at PATH in the image; - is\nstandard input; no SOURCE is needed",
             .manual =
                 "The host's file _HOSTFILE_ stands at _PATH_ in the image, over all sources, with "
                 "its owner, mode and times; `-` is standard input, which is read to its end into "
                 "a spool, as any pipe is, and is 0644, of 0:0, of 1970 or `SOURCE_DATE_EPOCH`. "
                 "Directories on the way that are missing are made. May be repeated; no _SOURCE_ "
                 "is needed then. `--exclude` does not concern it. In a word _NAME_=_DIR_ of "
                 "`serve` it is `,file=`_PATH_=_HOSTFILE_, and lies over that _DIR_; `--file` "
                 "itself goes with the sources without a name. A source that is a file, and no "
                 "archive, stands at the path that `--at` names, too.\n"
                 "`echo '#cloud-config' | mkvirtfs dump --preset=cidata --file user-data=- --file "
                 "meta-data=/dev/null -o seed.iso`"}},
    {.row = {.name = "exclude",
             .kind = OptionKind::repeated,
             .value_name = "GLOB",
             .help = "Leave out files that match",
             .manual =
                 "Leave out files that match. With a slash in it, _GLOB_ is compared with the path "
                 "below the source (`/tmp` is the one at the top), otherwise with the name alone. "
                 "`*` and `?` stay inside one name, `**` crosses slashes, `[a-z]` is a set, a "
                 "backslash makes the next character an ordinary one, and a _GLOB_ with a slash at "
                 "the end matches only directories. An excluded directory is not entered. A _GLOB_ "
                 "that matches no entry of any source is named once on standard error."},
     .comes_before_shared = true},
    {.row = {.name = "include",
             .kind = OptionKind::repeated,
             .value_name = "GLOB",
             .help = "Include files that match; the first pattern wins",
             .manual = "Take what matches. Of all `--exclude` and `--include` options the first "
                       "that matches decides; what none matches is taken. A pattern that no entry "
                       "matches is named here, too."},
     .comes_before_shared = true},
    {.row = {.name = "owner",
             .value_name = "UID:GID",
             .help = "Owner of everything (numbers or names)",
             .manual = "Everything belongs to this user and group, given as numbers or by name. "
                       "_UID_ or :_GID_ alone sets only the one."}},
    {.row = {.name = "map-uid",
             .kind = OptionKind::repeated,
             .value_name = "FROM:TO[:COUNT]",
             .help = "Show user FROM as TO",
             .manual = "Show the user _FROM_ as _TO_, and with _COUNT_ also the users that follow. "
                       "Ids in no mapping stay as they are; the first mapping that holds an id "
                       "decides. Ids inside ACLs are mapped too. May be repeated.",
             .excludes = "owner"}},
    {.row = {.name = "map-gid",
             .kind = OptionKind::repeated,
             .value_name = "FROM:TO[:COUNT]",
             .help = "Show group FROM as TO",
             .manual = "The same for groups.",
             .excludes = "owner"}},
    {.row = {.name = "mode-mask",
             .value_name = "OCTAL",
             .help = "Permission bits to keep (default 7777)",
             .manual = "Permission bits that are kept, in modes and in ACLs; the default is 7777, "
                       "all of them."}},
    {.row = {.name = "one-file-system",
             .kind = OptionKind::flag,
             .help = "Do not enter mounted file systems (default)",
             .manual =
                 "Do not enter what is mounted below the source, other file systems and bind "
                 "mounts alike; mount points are empty directories, and files that something is "
                 "mounted on are left out. This is the default."}},
    {.row = {.name = "no-one-file-system",
             .kind = OptionKind::flag,
             .help = "Enter them",
             .manual = "Enter them.",
             .excludes = "one-file-system"}},
    {.row = {.name = "no-xattrs",
             .kind = OptionKind::flag,
             .help = "Leave out extended attributes and ACLs",
             .manual =
                 "Leave out extended attributes, and with them ACLs and capabilities. Otherwise "
                 "those in the name spaces user, trusted and security and the POSIX ACLs are kept, "
                 "but for what only means something to the host: handles of overlayfs, copies that "
                 "XFS shows of its ACLs, and security.evm unless it is a portable signature."}},
    {.row = {.name = "skip-unreadable",
             .kind = OptionKind::flag,
             .help = "Leave out what cannot be read",
             .manual =
                 "Leave out what cannot be read, and report how much it was; a directory that "
                 "cannot be listed is empty. Without this option it is an error."}},
    {.row = {.name = "sync-source",
             .kind = OptionKind::flag,
             .help = "Write the source's file systems back first, so\nthat later writes through "
                     "mappings are seen",
             .manual =
                 "Have the source's file systems write back what they hold in memory "
                 "(`syncfs`(2)), each once, before the first of its files is looked at. A process "
                 "that has mapped a file (`mmap`(2)) can write to a page that was dirty before the "
                 "scan without the file's times changing: such a change is not seen, neither by "
                 "`--on-change` nor by anybody else. With this option every write through a "
                 "mapping that follows the scan is seen. File systems in memory, such as tmpfs, "
                 "write nothing back and set no times for such writes; those that are met are "
                 "named on standard error."},
     .makes_image = false},
    {.row = {.name = "sync-timeout",
             .value_name = "SECONDS",
             .help = "Limit for --sync-source (default 60)",
             .manual = "How long `--sync-source` may take for a file system; more is an error. The "
                       "default is 60."},
     .makes_image = false},
    {.row = {.name = "on-change",
             .kind = OptionKind::choice,
             .value_name = "WHAT",
             .help = "What a file that changed reads as:\nerror (default), zero, stale",
             .choices = kOnChangeWords,
             .manual =
                 "What the reader gets of a file that is not what it was when it was scanned "
                 "(another size, other time stamps, another inode): `error` (the default: the read "
                 "fails), `zero` (zeroes) or `stale` (whatever stands there now, and zeroes past "
                 "its end). The first time, the file is named on standard error, with the field "
                 "that differs. Archives and container images that change are always errors: every "
                 "member may lie elsewhere in them. A line on standard error says so."},
     .makes_image = false},
    {.row = {.name = "change-check",
             .kind = OptionKind::choice,
             .value_name = "mtime|ctime",
             .help = "A file changed when its mtime, size or inode\ndid, or its ctime, too (the "
                     "default)",
             .choices = kChangeCheckWords,
             .manual =
                 "How a change is seen, in files and in archives. `ctime` (the default) compares "
                 "device, inode, size, mtime and ctime. The kernel sets the ctime at every change, "
                 "so that none is missed; but `ln`(1), `cp -al`, `chmod`(1) and `setfattr`(1) on a "
                 "file that is served set it as well, and end its being served. `mtime` leaves the "
                 "ctime out: such commands change nothing for clients. Then a program that "
                 "rewrites a file in place and puts its mtime back is not seen."},
     .makes_image = false},
    {.row = {.name = "threads",
             .value_name = "N",
             .help = "Use N threads",
             .manual = "Read the source, plan the image and dump it with at most this many threads "
                       "instead of one for each processor. The image does not depend on it. The "
                       "threads of a server, which wait for clients and disks, are not counted."},
     .makes_image = false},

    {.row = {.name = "platform",
             .value_name = "OS/ARCH[/VARIANT]",
             .help = "Which image of an index (default: this host's)",
             .manual = "Of a container image for several platforms, take the one for this "
                       "(`linux/amd64`, `linux/arm64/v8`); the default is Linux on this host's "
                       "processor. An image for another platform is an error."},
     .group = SourceOptionGroup::container_image},
    {.row = {.name = "no-verify",
             .kind = OptionKind::flag,
             .help = "Trust layers that are not compressed, and\ndo not read them for their "
                     "digests",
             .manual = "Do not read the layers of a container image that are not compressed for "
                       "their digests alone. Whatever else of an image is read is verified in any "
                       "case."},
     .group = SourceOptionGroup::container_image,
     .makes_image = false},

    {.row =
         {.name = "source-format",
          .kind = OptionKind::choice,
          .value_name = "FORMAT",
          .help = "Take a file for: archive, ext, fat,\nerofs, iso (default: by its magic)",
          .choices = kSourceFormatWords,
          .manual =
              "What a source that is a file is: `archive`, or an image of `ext` (ext2, ext3, "
              "ext4), of `fat` (FAT12, FAT16, FAT32), of `erofs` or of `iso` (ISO 9660). What is "
              "compressed inside an image of the last two cannot be read; `archive` unpacks "
              "zisofs. Without this option magic numbers "
              "decide, and what has none of an image is an archive. An image is read by a "
              "process without rights, and never written; what an ext journal still holds "
              "counts. Something wrong with the file system is an error that names the place; "
              "with `--skip-unreadable` what it concerns is left out. Bytes of files are read "
              "from the image when they are needed, so it must not change.\n"
              "`mkvirtfs serve old.img --fs=fat32`"},
     .group = SourceOptionGroup::archive},
    {.row = {.name = "layout",
             .kind = OptionKind::choice,
             .value_name = "ORDER",
             .help = "Order of the files' data:\narchive (default), name",
             .choices = kLayoutWords,
             .manual = "The order in which the image has the files' data: `archive` (the default), "
                       "in which it is read fastest from front to back, or `name`, which makes the "
                       "same image as of a directory with the same tree."},
     .group = SourceOptionGroup::archive},
    {.row = {.name = "unsafe-names",
             .kind = OptionKind::choice,
             .value_name = "WHAT",
             .help = "Names with \"..\": error (default), strip",
             .choices = kUnsafeNamesWords,
             .manual = "What becomes of a member with \"..\" in its name: `error` (the default) "
                       "refuses the archive, `strip` takes off everything up to it."},
     .group = SourceOptionGroup::archive},
    {.row = {.name = "layer-symlinks",
             .kind = OptionKind::choice,
             .value_name = "WHAT",
             .help = "Where a layer's unnamed directory meets a\nsymlink: follow (default), "
                     "replace, error",
             .choices = kLayerSymlinksWords,
             .manual =
                 "What becomes of a member whose directory the archive or layer does not name, "
                 "where the sources or layers before have a symlink, such as _lib/foo_ over a "
                 "_lib_ that leads to _usr/lib_: `follow` (the default) puts it where the symlink "
                 "leads, as in a chroot of the image, `replace` makes a directory in the symlink's "
                 "place, `error` refuses the archive. A directory that is named always takes the "
                 "symlink's place."},
     .group = SourceOptionGroup::archive},
    {.row = {.name = "pax-globals",
             .kind = OptionKind::choice,
             .value_name = "WHAT",
             .help = "pax global headers: apply (default), ignore",
             .choices = kPaxGlobalsWords,
             .manual =
                 "What becomes of the global headers of a pax archive: `apply` (the default) gives "
                 "the members behind them the owner and the modification time that they name, as "
                 "GNU tar does, and refuses an archive with a record that it cannot apply, by its "
                 "name; `ignore` reads the archive as if there were none."},
     .group = SourceOptionGroup::archive},
    {.row = {.name = "ignore-zeros",
             .kind = OptionKind::flag,
             .help = "Read all of several tars in one file",
             .manual =
                 "Blocks of zeroes do not end a tar: read all of several tars in one file, as GNU "
                 "tar does with the option of that name. Without it a warning names the byte at "
                 "which something is left behind the end."},
     .group = SourceOptionGroup::archive},
    {.row = {.name = "charset",
             .value_name = "NAME",
             .help = "Character set of names in zip archives: CP437...",
             .manual =
                 "The character set of names in zip archives that do not say that they are UTF-8: "
                 "`CP437` of old PKZIP, `CP866`, `SHIFT_JIS`, or any other that iconv(1) knows. A "
                 "name that is not of that set is an error. Without this option such names stay as "
                 "they are, byte for byte."},
     .group = SourceOptionGroup::archive},
    {.row = {.name = "passphrase-file",
             .value_name = "FILE",
             .help = "Passphrases of encrypted members",
             .manual = "The passphrases of encrypted members of zip archives, one a line, tried in "
                       "their order. It may be a pipe."},
     .group = SourceOptionGroup::archive,
     .makes_image = false},
    {.row = {.name = "max-entries",
             .value_name = "N",
             .help = "Limit of members (default 10000000)",
             .manual = "Refuse an archive of more members; the default is 10000000."},
     .group = SourceOptionGroup::archive,
     .makes_image = false},
    {.row = {.name = "max-size",
             .value_name = "SIZE",
             .help = "Limit of bytes, unpacked (default 2T)",
             .manual = "Refuse an archive whose members have, or which unpacks to, more bytes than "
                       "that, holes included; the default is 2T."},
     .group = SourceOptionGroup::archive,
     .makes_image = false},
    {.row = {.name = "max-ratio",
             .value_name = "N",
             .help = "Limit of unpacked to packed bytes (default 1000)",
             .manual = "Refuse a compressed archive that unpacks to more than _N_ times its size; "
                       "the default is 1000, and the first 64 MiB are free."},
     .group = SourceOptionGroup::archive,
     .makes_image = false},
    {.row = {.name = "reader-memory",
             .value_name = "SIZE",
             .help = "Memory for reading 7z and others (default 1G)",
             .manual =
                 "Memory for the process that reads ISO 9660, 7z, rar, cab, lha and xar; the "
                 "default is 1G. What takes more, as a 7z with a very large dictionary does, is "
                 "refused."},
     .group = SourceOptionGroup::archive},
    {.row = {.name = "index-memory",
             .value_name = "SIZE",
             .help = "Memory for the index of a stream (default 32M)",
             .manual = "Memory for the index of one compressed stream; the default is 32M. A "
                       "smaller one makes random reads slower."},
     .group = SourceOptionGroup::archive,
     .makes_image = false},
    {.row = {.name = "cache-memory",
             .value_name = "SIZE",
             .help = "Memory for unpacked data (default 48M)",
             .manual = "Memory for what was unpacked lately, for all archives together; the "
                       "default is 48M."},
     .group = SourceOptionGroup::archive,
     .makes_image = false},
    {.row = {.name = "cache-dir",
             .value_name = "DIR|none",
             .help = "Directory for indexes",
             .manual =
                 "Where the indexes of compressed archives are kept for the next time; the default "
                 "is `$XDG_CACHE_HOME/mkvirtfs` or `~/.cache/mkvirtfs`. The parts of an index that "
                 "cannot be kept are made again in the background, and reads wait for them."},
     .group = SourceOptionGroup::archive,
     .makes_image = false},
    {.row = {.name = "spool-dir",
             .value_name = "DIR|none",
             .help = "Directory for spools (default /var/tmp)",
             .manual =
                 "Where what can only be unpacked from its beginning is put, into files without a "
                 "name; the default is `$TMPDIR` or `/var/tmp`. With `none` such archives are "
                 "refused."},
     .group = SourceOptionGroup::archive,
     .makes_image = false},
    {.row = {.name = "spool-limit",
             .value_name = "SIZE",
             .help = "Limit of all spools together (default 8G)",
             .manual = "What all spools together may take; the default is 8G."},
     .group = SourceOptionGroup::archive,
     .makes_image = false},
});

/// Nothing: it was not given, or is refused.
std::optional<std::uint64_t> read_bytes(OptionReader& reader, std::string_view name) {
  const std::string* text = reader.find(name);
  if (text == nullptr) return std::nullopt;
  const std::optional<std::uint64_t> size = parse_size(*text);
  if (size && *size != 0) return size;
  reader.refuse(name, *text, "not a size (512M, 8G)");
  return std::nullopt;
}

/// Nothing given: `place` stays.
void read_count(OptionReader& reader, std::string_view name, std::uint64_t& place) {
  const std::string* text = reader.find(name);
  if (text == nullptr) return;
  const auto number = parse_number<std::uint64_t>(*text);
  if (!number || *number == 0) return reader.refuse(name, *text, "not a number above 0");
  place = *number;
}

/// A directory; "none" is no directory.
void read_directory(const OptionReader& reader, std::string_view name,
                    std::optional<std::string>& place) {
  if (const std::string* text = reader.find(name)) place = *text == "none" ? "" : *text;
}

void read_archive_options(OptionReader& reader, ArchiveSpec& archive) {
  archive.most_bytes = read_bytes(reader, "max-size").value_or(archive.most_bytes);
  archive.index_memory_bytes =
      read_bytes(reader, "index-memory").value_or(archive.index_memory_bytes);
  archive.cache_memory_bytes = read_bytes(reader, "cache-memory");
  archive.reader_memory_bytes =
      read_bytes(reader, "reader-memory").value_or(archive.reader_memory_bytes);
  archive.spool_limit_bytes = read_bytes(reader, "spool-limit");
  read_count(reader, "max-entries", archive.most_members);
  read_count(reader, "max-ratio", archive.most_ratio);
  read_directory(reader, "cache-dir", archive.index_directory);
  read_directory(reader, "spool-dir", archive.spool_directory);
  reader.text("passphrase-file", archive.passphrase_file);
  reader.text("charset", archive.charset);
  if (!archive.charset.empty() && !archive::is_known_charset(archive.charset)) {
    reader.refuse("charset", archive.charset, "no character set that this host knows");
  }
  archive.ignores_zeros = reader.flag("ignore-zeros");
  reader.choice<archive::DataOrder>(
      "layout", {{"archive", archive::DataOrder::archive}, {"name", archive::DataOrder::name}},
      archive.data_order);
  reader.choice<archive::UnsafeNames>(
      "unsafe-names",
      {{"error", archive::UnsafeNames::error}, {"strip", archive::UnsafeNames::strip}},
      archive.unsafe_names);
  reader.choice<LayerSymlinks>("layer-symlinks",
                               {{"follow", LayerSymlinks::follow},
                                {"replace", LayerSymlinks::replace},
                                {"error", LayerSymlinks::error}},
                               archive.layer_symlinks);
  reader.choice<archive::PaxGlobals>(
      "pax-globals",
      {{"apply", archive::PaxGlobals::apply}, {"ignore", archive::PaxGlobals::ignore}},
      archive.pax_globals);
}

/// --exclude and --include in the order in which they were given.
std::vector<PathRule> read_rules(const OptionValues& values) {
  const std::span<const std::string> excludes = values.all("exclude");
  const std::span<const std::string> includes = values.all("include");
  std::size_t exclude_count = 0;
  std::size_t include_count = 0;
  std::vector<PathRule> rules;
  for (const std::string& name : values.order()) {
    if (name == "exclude") rules.push_back({false, excludes[exclude_count++]});
    if (name == "include") rules.push_back({true, includes[include_count++]});
  }
  return rules;
}

/// An id as a number or as a name that this host knows. 2^32 - 1 means "nobody asked" to the
/// kernel, so it is no id.
std::optional<std::uint32_t> parse_id(const std::string& text, bool group) {
  if (const auto number = parse_number<std::uint32_t>(text)) {
    if (*number == std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
    return number;
  }
  std::vector<char> room(1 << 16);
  if (group) {
    ::group entry{};
    ::group* found = nullptr;
    ::getgrnam_r(text.c_str(), &entry, room.data(), room.size(), &found);
    if (found != nullptr) return found->gr_gid;
  } else {
    passwd entry{};
    passwd* found = nullptr;
    ::getpwnam_r(text.c_str(), &entry, room.data(), room.size(), &found);
    if (found != nullptr) return found->pw_uid;
  }
  return std::nullopt;
}

struct Owner {
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
};

/// "UID:GID", "UID" or ":GID".
Result<Owner> read_owner(std::string_view option, const std::string& text) {
  Owner owner;
  const std::size_t colon = text.find(':');
  const std::string user = text.substr(0, colon);
  const std::string group = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (user.empty() && group.empty()) {
    return fail_option({std::string(option), text}, "names neither a user nor a group");
  }
  if (!user.empty()) {
    owner.uid = parse_id(user, false);
    if (!owner.uid) {
      return fail_option({std::string(option), text},
                         fmt::format("there is no user {} here", user));
    }
  }
  if (!group.empty()) {
    owner.gid = parse_id(group, true);
    if (!owner.gid) {
      return fail_option({std::string(option), text},
                         fmt::format("there is no group {} here", group));
    }
  }
  return owner;
}

/// nullopt: not given, or no permission bits, which `reader` then knows.
std::optional<std::uint16_t> read_permissions(std::string_view option, OptionReader& reader) {
  const std::string* text = reader.find(option);
  if (text == nullptr) return {};
  const auto bits = parse_number<std::uint16_t>(*text, 8);
  if (bits && *bits <= 07777) return bits;
  reader.refuse(option, *text, "not an octal number up to 7777");
  return {};
}

/// "FROM:TO" or "FROM:TO:COUNT".
std::optional<IdMapping> parse_mapping(std::string_view text) {
  std::array<std::uint64_t, 3> numbers = {0, 0, 1};
  std::size_t count = 0;
  while (true) {
    const std::size_t colon = text.find(':');
    const auto number = parse_number<std::uint32_t>(text.substr(0, colon));
    if (!number || count == numbers.size()) return std::nullopt;
    numbers[count++] = *number;
    if (colon == std::string_view::npos) break;
    text.remove_prefix(colon + 1);
  }
  constexpr std::uint64_t kIds = std::numeric_limits<std::uint32_t>::max();
  const auto [from, to, length] = numbers;
  // The last number is no id to map to, but what a foreign archive may have.
  if (count < 2 || length == 0 || from + length > kIds + 1 || to + length > kIds) {
    return std::nullopt;
  }
  return IdMapping{static_cast<std::uint32_t>(from), static_cast<std::uint32_t>(to),
                   static_cast<std::uint32_t>(length)};
}

bool overlap(const IdMapping& a, const IdMapping& b) {
  return a.from < std::uint64_t{b.from} + b.count && b.from < std::uint64_t{a.from} + a.count;
}

Result<void> read_mappings(const std::string& name, std::span<const std::string> texts,
                           std::vector<IdMapping>& mappings) {
  for (const std::string& text : texts) {
    const std::optional<IdMapping> mapping = parse_mapping(text);
    if (!mapping) return fail_option({name, text}, "not FROM:TO or FROM:TO:COUNT");
    for (std::size_t i = 0; i < mappings.size(); ++i) {
      if (!overlap(*mapping, mappings[i])) continue;
      return fail_option({name, text}, fmt::format("it maps an id that {} maps, too", texts[i]));
    }
    mappings.push_back(*mapping);
  }
  return {};
}

/// --sync-source and how long it may take.
Result<void> read_sync(OptionReader& reader, SourceSpec& spec) {
  constexpr std::chrono::seconds kUsual{60};
  constexpr unsigned kMostSeconds = 1'000'000;
  if (reader.flag("sync-source")) spec.sync_within = kUsual;
  const std::string* text = reader.find("sync-timeout");
  if (text == nullptr) return {};
  const auto seconds = parse_number<unsigned>(*text);
  if (!seconds || *seconds == 0 || *seconds > kMostSeconds) {
    reader.refuse("sync-timeout", *text,
                  fmt::format("not a number of seconds from 1 to {}", kMostSeconds));
    return {};
  }
  if (!spec.sync_within) {
    return fail_option({"sync-timeout", *text}, "nothing is written back", {{"sync-source"}});
  }
  spec.sync_within = std::chrono::seconds(*seconds);
  return {};
}

}  // namespace

std::span<const SourceOption> source_options() { return kOptions; }

const SourceOption* find_source_option(std::string_view name) {
  const auto* const found =
      std::ranges::find(kOptions, name, [](const SourceOption& option) { return option.row.name; });
  return found == kOptions.end() ? nullptr : found;
}

Result<void> check_place(const std::string& place) {
  if (is_valid_place(place)) return {};
  return fail_option({"at", place},
                     "no path in the image: it must have no . and no .., and names of up to "
                     "255 bytes");
}

Result<std::vector<SourceSpec>> read_files(const OptionValues& values, const SourceSpec& common) {
  std::vector<SourceSpec> files;
  for (const std::string& text : values.all("file")) {
    const std::size_t equals = text.find('=');
    SourceSpec file = common;
    file.is_file = true;
    file.at = text.substr(0, equals);
    if (equals == std::string::npos || file.at.empty() || equals + 1 == text.size()) {
      return fail_option({"file", text}, "not PATH=HOSTFILE");
    }
    file.path = text.substr(equals + 1);
    if (!is_valid_place(file.at) || file.at.find_first_not_of('/') == std::string::npos ||
        file.at.ends_with('/')) {
      return fail_option({"file", text}, fmt::format("{} is no path of a file", file.at));
    }
    files.push_back(std::move(file));
  }
  return files;
}

Result<SourceSpec> read_source_options(const OptionValues& values) {
  SourceSpec spec;
  OptionReader reader(values);
  if (const std::string* place = reader.find("at")) {
    spec.at = *place;
    if (Result<void> good = check_place(*place); !good) return propagate(good);
  }
  read_archive_options(reader, spec.archive);
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  if (const std::string* owner = reader.find("owner")) {
    const Result<Owner> read = read_owner("owner", *owner);
    if (!read) return propagate(read);
    spec.owner_uid = read->uid;
    spec.owner_gid = read->gid;
  }
  for (const auto& [name, mappings] :
       {std::pair("map-uid", &spec.uid_map), std::pair("map-gid", &spec.gid_map)}) {
    if (Result<void> good = read_mappings(name, values.all(name), *mappings); !good) {
      return propagate(good);
    }
  }
  reader.choice<SourceFormat>("source-format",
                              {{"archive", SourceFormat::archive},
                               {"ext", SourceFormat::ext},
                               {"fat", SourceFormat::fat},
                               {"erofs", SourceFormat::erofs},
                               {"iso", SourceFormat::iso}},
                              spec.format);
  spec.rules = read_rules(values);
  spec.one_file_system = !reader.flag("no-one-file-system");
  spec.xattrs = !reader.flag("no-xattrs");
  spec.skip_unreadable = reader.flag("skip-unreadable");
  reader.number("threads", {.least = 1, .most = 256}, spec.threads);
  spec.mode_mask = read_permissions("mode-mask", reader).value_or(spec.mode_mask);
  reader.choice<OnChange>(
      "on-change",
      {{"error", OnChange::error}, {"zero", OnChange::zero}, {"stale", OnChange::stale}},
      spec.changes.on_change);
  reader.choice<ChangeCheck>("change-check",
                             {{"mtime", ChangeCheck::mtime}, {"ctime", ChangeCheck::ctime}},
                             spec.changes.check);
  if (const std::string* text = reader.find("platform")) {
    Result<oci::Platform> platform = oci::parse_platform(*text);
    if (!platform) {
      reader.refuse("platform", *text, platform.error().what);
    } else {
      spec.platform = std::move(*platform);
    }
  }
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  spec.verify_layers = !reader.flag("no-verify");
  if (Result<void> good = read_sync(reader, spec); !good) {
    return propagate(good);
  }
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  return spec;
}

Result<std::optional<AttributeOverride>> read_root(const OptionValues& format_options) {
  AttributeOverride root{};
  OptionReader reader(format_options);
  root.permissions = read_permissions("root-mode", reader);
  if (Result<void> good = reader.finish(); !good) return propagate(good);
  if (const std::string* text = reader.find("root-owner")) {
    const Result<Owner> owner = read_owner("root-owner", *text);
    if (!owner) return propagate(owner);
    root.uid = owner->uid;
    root.gid = owner->gid;
  }
  if (!root.permissions && !root.uid && !root.gid) return std::nullopt;
  return root;
}

}  // namespace mkvirtfs
