// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/manifest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "block/host_files.h"
#include "fsgen/archive/host_ids.h"
#include "support/arithmetic.h"
#include "support/confined_open.h"
#include "support/unique_fd.h"

namespace mkvirtfs::archive {
namespace {

constexpr std::string_view kSignature = "#mtree";
constexpr std::size_t kMostLineBytes = std::size_t{1} << 20;
constexpr std::size_t kPieceBytes = std::size_t{64} << 10;
constexpr std::string_view kBlanks = " \t\r";

/// Where the contents of manifests are looked for.
class ContentsDirectory {
 public:
  static Result<ContentsDirectory> open(const std::string& path) {
    ContentsDirectory directory(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory.root_) return fail_errno(Errc::unreadable, errno, fmt::format("open {}", path));
    return directory;
  }

  /// A regular file, through no symlink and no way out.
  Result<UniqueFd> open_file(const std::string& path) const {
    if (path.starts_with('/')) {
      return fail(Errc::unreadable, fmt::format("{} is absolute, and contents are looked for "
                                                "beside the manifest alone",
                                                path));
    }
    auto file = opener_.open(root_.get(), path.c_str(), O_RDONLY | O_NONBLOCK);
    if (!file) return fail_errno(Errc::unreadable, file.error(), fmt::format("open {}", path));
    struct stat status{};
    if (::fstat(file->get(), &status) != 0) {
      return fail_errno(Errc::unreadable, errno, fmt::format("look at {}", path));
    }
    if (!S_ISREG(status.st_mode)) {
      return fail(Errc::unreadable, fmt::format("{} is no regular file", path));
    }
    return std::move(*file);
  }

 private:
  explicit ContentsDirectory(int root) : root_(root) {}

  UniqueFd root_;
  ConfinedOpener opener_{/*cross_mounts=*/true};
};

/// The files that a manifest's tree has its bytes from, found again by their paths.
class ManifestFiles final : public HostFileTable {
 public:
  explicit ManifestFiles(ContentsDirectory directory) : directory_(std::move(directory)) {}

  Result<void> add(NodeNo no, const std::string& path, std::uint64_t size_bytes) {
    const Result<UniqueFd> file = directory_.open_file(path);
    if (!file) return propagate(file);
    struct stat status{};
    if (::fstat(file->get(), &status) != 0) {
      return fail_errno(Errc::unreadable, errno, fmt::format("look at {}", path));
    }
    const FileIdentity identity = identity_of(status);
    if (identity.size_bytes != size_bytes) {
      return fail(Errc::source_changed,
                  fmt::format("{} had {} bytes and has {}", path, size_bytes, identity.size_bytes));
    }
    files_.emplace(no, File{path, identity, facts_of(status)});
    return {};
  }

  FileIdentity identity(ContentNo file) const override { return at(file).identity; }
  Result<UniqueFd> open(ContentNo file) const override {
    return directory_.open_file(at(file).path);
  }
  std::string path(ContentNo file) const override { return at(file).path; }
  std::optional<FileFacts> facts(ContentNo file) const override { return at(file).facts; }
  std::size_t size() const noexcept { return files_.size(); }

 private:
  struct File {
    std::string path;
    FileIdentity identity;
    FileFacts facts;
  };

  const File& at(ContentNo file) const { return files_.at(static_cast<NodeNo>(file)); }

  const ContentsDirectory directory_;
  std::unordered_map<NodeNo, File> files_;
};

/// Takes the first word off `text`, which begins with none when nothing is left.
std::string_view take_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(kBlanks));
  text.remove_prefix(word.size());
  return word;
}

/// Names are written as by vis(3): "\040" for a blank, and C's short forms. Any other backslash is
/// itself.
std::string unescaped(std::string_view text) {
  constexpr std::string_view kShort = R"(abfnrstv\#")";
  constexpr std::string_view kMeant = "\a\b\f\n\r \t\v\\#\"";
  static_assert(kShort.size() == kMeant.size());
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = text.substr(i);
    const bool escapes = rest[0] == '\\' && rest.size() > 1;
    const std::size_t meant = escapes ? kShort.find(rest[1]) : std::string_view::npos;
    if (escapes && rest.size() > 3 && octal(rest[1]) && octal(rest[2]) && octal(rest[3])) {
      plain += static_cast<char>((rest[1] - '0') * 64 + (rest[2] - '0') * 8 + (rest[3] - '0'));
      i += 3;
    } else if (meant != std::string_view::npos) {
      plain += kMeant[meant];
      ++i;
    } else {
      plain += rest[0];
    }
  }
  return plain;
}

template <class Number>
std::optional<Number> number_of(std::string_view text, int base = 10) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// "SECONDS" or "SECONDS.NANOSECONDS": what is behind the point is a number, not a fraction.
std::optional<Timestamp> time_of(std::string_view text) {
  const std::size_t point = text.find('.');
  const auto seconds = number_of<std::int64_t>(text.substr(0, point));
  if (!seconds) return std::nullopt;
  if (point == std::string_view::npos) return Timestamp{*seconds, 0};
  const auto nanoseconds = number_of<std::uint32_t>(text.substr(point + 1));
  if (!nanoseconds || *nanoseconds > 999'999'999) return std::nullopt;
  return Timestamp{*seconds, *nanoseconds};
}

/// "FORMAT,MAJOR,MINOR", or the number that stat(2) gives here. 0x begins a hexadecimal one.
std::optional<DeviceNumber> device_of(std::string_view text) {
  const auto number = [](std::string_view digits) {
    return digits.starts_with("0x") ? number_of<std::uint64_t>(digits.substr(2), 16)
                                    : number_of<std::uint64_t>(digits);
  };
  const std::size_t first = text.find(',');
  if (first == std::string_view::npos) {
    const auto all = number(text);
    if (!all) return std::nullopt;
    return DeviceNumber{gnu_dev_major(*all), gnu_dev_minor(*all)};
  }
  const std::size_t second = text.find(',', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  const auto major = number(text.substr(first + 1, second - first - 1));
  const auto minor = number(text.substr(second + 1));
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  if (!major || !minor || *major > kMost || *minor > kMost) return std::nullopt;
  return DeviceNumber{static_cast<std::uint32_t>(*major), static_cast<std::uint32_t>(*minor)};
}

/// 0 for what is no type.
std::uint16_t type_of(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, std::uint16_t>, 7> kTypes = {{
      {"block", S_IFBLK},
      {"char", S_IFCHR},
      {"dir", S_IFDIR},
      {"fifo", S_IFIFO},
      {"file", S_IFREG},
      {"link", S_IFLNK},
      {"socket", S_IFSOCK},
  }};
  const auto found =
      std::ranges::find(kTypes, text, &std::pair<std::string_view, std::uint16_t>::first);
  return found == kTypes.end() ? std::uint16_t{0} : found->second;
}

/// What is for a check of a tree, and says nothing of what the tree is.
constexpr std::array<std::string_view, 20> kPassedOver = {
    "cksum",        "flags",        "ignore",     "inode",           "md5",
    "md5digest",    "nlink",        "resdevice",  "ripemd160digest", "rmd160",
    "rmd160digest", "sha1",         "sha1digest", "sha256",          "sha256digest",
    "sha384",       "sha384digest", "sha512",     "sha512digest",    "tags"};

/// What a line says, on top of what "/set" said before.
struct Keywords {
  std::uint16_t type = 0;
  std::optional<std::uint16_t> permissions;
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  // By name, if the number is not told: this host's, or the name that it does not know.
  std::optional<std::uint32_t> named_uid;
  std::optional<std::uint32_t> named_gid;
  std::string unknown_user;
  std::string unknown_group;
  std::optional<Timestamp> mtime;
  std::optional<std::uint64_t> size_bytes;
  std::optional<std::string> link_target;
  std::optional<std::string> contents;
  std::optional<DeviceNumber> device;
  bool is_optional = false;
  bool no_change = false;

  /// What is wrong with the word, in words.
  std::optional<std::string> set(std::string_view word);
  void unset(std::string_view keyword);
};

std::optional<std::string> Keywords::set(std::string_view word) {
  const std::size_t equals = word.find('=');
  const std::string_view keyword = word.substr(0, equals);
  const std::string_view value =
      equals == std::string_view::npos ? std::string_view() : word.substr(equals + 1);
  bool good = true;
  const auto take = [&good](auto& into, auto parsed) {
    good = parsed.has_value();
    into = parsed;
  };
  if (keyword == "type") {
    type = type_of(value);
    good = type != 0;
  } else if (keyword == "mode") {
    take(permissions, number_of<std::uint16_t>(value, 8));
    good = good && *permissions <= 07777;
  } else if (keyword == "uid") {
    take(uid, number_of<std::uint32_t>(value));
  } else if (keyword == "gid") {
    take(gid, number_of<std::uint32_t>(value));
  } else if (keyword == "uname") {
    named_uid = id_of(unescaped(value), /*is_group=*/false);
    unknown_user = named_uid ? "" : value;
  } else if (keyword == "gname") {
    named_gid = id_of(unescaped(value), /*is_group=*/true);
    unknown_group = named_gid ? "" : value;
  } else if (keyword == "time") {
    take(mtime, time_of(value));
  } else if (keyword == "size") {
    take(size_bytes, number_of<std::uint64_t>(value));
  } else if (keyword == "link") {
    link_target = unescaped(value);
  } else if (keyword == "contents" || keyword == "content") {
    contents = unescaped(value);
  } else if (keyword == "device") {
    take(device, device_of(value));
  } else if (keyword == "optional") {
    is_optional = true;
  } else if (keyword == "nochange") {
    no_change = true;
  } else if (std::ranges::find(kPassedOver, keyword) == kPassedOver.end()) {
    return fmt::format("{} is no keyword of mtree(5)", word);
  }
  if (good) return std::nullopt;
  return fmt::format("{} cannot be understood", word);
}

void Keywords::unset(std::string_view keyword) {
  const bool all = keyword == "all";
  if (all || keyword == "type") type = 0;
  if (all || keyword == "mode") permissions.reset();
  if (all || keyword == "uid") uid.reset();
  if (all || keyword == "gid") gid.reset();
  if (all || keyword == "uname") {
    named_uid.reset();
    unknown_user.clear();
  }
  if (all || keyword == "gname") {
    named_gid.reset();
    unknown_group.clear();
  }
  if (all || keyword == "time") mtime.reset();
  if (all || keyword == "size") size_bytes.reset();
  if (all || keyword == "link") link_target.reset();
  if (all || keyword == "contents" || keyword == "content") contents.reset();
  if (all || keyword == "device") device.reset();
  if (all || keyword == "optional") is_optional = false;
  if (all || keyword == "nochange") no_change = false;
}

/// One manifest, line by line.
class ManifestReader {
 public:
  ManifestReader(ByteSource& manifest, const ContentsDirectory& directory, const ReadLimits& limits)
      : manifest_(manifest), directory_(directory), limits_(limits) {}

  Result<ReadMembers> run();

 private:
  /// The next line with those that continue it, without what surrounds it; false at the end.
  Result<bool> next_line();
  Result<bool> next_raw_line(std::string& line);
  Result<void> take_line();
  Result<void> take_entry(std::string_view name, std::string_view words);
  Result<void> append(const Keywords& keywords);
  Result<void> take_attributes(const Keywords& keywords);
  /// False: it only says attributes of what is there already.
  Result<bool> take_what_it_brings(const Keywords& keywords);
  /// False: it is optional, and not there.
  Result<bool> take_contents(const std::string& path, std::optional<std::uint64_t> size_bytes);

  std::unexpected<Error> wrong(std::string_view what, Errc code = Errc::unreadable) const {
    return fail(code, fmt::format("{}: line {}: {}", manifest_.name(), line_no_, what));
  }

  ByteSource& manifest_;
  const ContentsDirectory& directory_;
  const ReadLimits& limits_;

  std::vector<std::byte> piece_;
  std::size_t piece_at_ = 0;
  std::uint64_t read_bytes_ = 0;
  std::string line_;
  std::uint64_t lines_read_ = 0;
  std::uint64_t line_no_ = 0;  // where line_ begins

  Keywords defaults_;
  // Entries without a '/' in their name stand in the last directory of that kind; ".." leaves it.
  std::vector<std::string> directories_;
  // What texts of member_ are.
  std::string path_;
  std::string link_target_;
  std::string contents_;
  Member member_;
  std::uint64_t total_bytes_ = 0;
  ReadMembers made_;
};

Result<bool> ManifestReader::next_raw_line(std::string& line) {
  bool any = false;
  while (true) {
    if (piece_at_ == piece_.size()) {
      piece_.resize(static_cast<std::size_t>(
          std::min<std::uint64_t>(kPieceBytes, manifest_.size_bytes() - read_bytes_)));
      piece_at_ = 0;
      if (piece_.empty()) break;
      if (Result<void> good = manifest_.read(read_bytes_, piece_); !good) {
        return propagate(good);
      }
      read_bytes_ += piece_.size();
    }
    any = true;
    const std::string_view rest(reinterpret_cast<const char*>(piece_.data()) + piece_at_,
                                piece_.size() - piece_at_);
    const std::size_t end = rest.find('\n');
    const std::string_view part = rest.substr(0, end);
    line_no_ = std::max<std::uint64_t>(line_no_, 1);
    if (line.size() + part.size() > kMostLineBytes) {
      return wrong(fmt::format("is longer than {} bytes", kMostLineBytes));
    }
    line += part;
    piece_at_ += part.size();
    if (end != std::string_view::npos) {
      ++piece_at_;
      break;
    }
  }
  lines_read_ += any ? 1 : 0;
  return any;
}

Result<bool> ManifestReader::next_line() {
  line_.clear();
  line_no_ = lines_read_ + 1;
  while (true) {
    const Result<bool> any = next_raw_line(line_);
    if (!any) return any;
    while (!line_.empty() && kBlanks.contains(line_.back())) line_.pop_back();
    if (!*any) return !line_.empty();
    if (!line_.ends_with('\\')) return true;
    line_.back() = ' ';
  }
}

Result<void> ManifestReader::take_line() {
  std::string_view rest = line_;
  const std::string_view first = take_word(rest);
  if (first.empty() || first.starts_with('#')) return {};
  if (first == "/set") {
    for (std::string_view word = take_word(rest); !word.empty(); word = take_word(rest)) {
      if (const auto why = defaults_.set(word)) return wrong(*why);
    }
    return {};
  }
  if (first == "/unset") {
    for (std::string_view word = take_word(rest); !word.empty(); word = take_word(rest)) {
      defaults_.unset(word);
    }
    return {};
  }
  if (first == "..") {
    if (directories_.empty()) return wrong(".. leaves a directory, and none was entered");
    directories_.pop_back();
    return {};
  }
  return take_entry(first, rest);
}

Result<void> ManifestReader::take_entry(std::string_view name, std::string_view words) {
  Keywords keywords = defaults_;
  for (std::string_view word = take_word(words); !word.empty(); word = take_word(words)) {
    if (const auto why = keywords.set(word)) return wrong(*why);
  }
  const bool is_whole_path = name.contains('/');
  path_.clear();
  if (!is_whole_path) {
    for (const std::string& directory : directories_) path_ += directory + "/";
  }
  path_ += unescaped(name);
  if (!is_whole_path && keywords.type == S_IFDIR) directories_.push_back(unescaped(name));
  return append(keywords);
}

Result<void> ManifestReader::append(const Keywords& keywords) {
  if (made_.members.member_count() == limits_.most_members) {
    return wrong(
        fmt::format("there are more than {} members (see --max-entries)", limits_.most_members),
        Errc::does_not_fit);
  }
  member_ = Member();
  member_.path = path_;
  member_.is_optional = keywords.is_optional;
  member_.mode = keywords.type;
  if (member_.mode == 0 && keywords.contents) member_.mode = S_IFREG;
  if (Result<void> good = take_attributes(keywords); !good) return good;
  const Result<bool> brings = take_what_it_brings(keywords);
  if (!brings) return propagate(brings);
  member_.changes_only = !*brings;
  if (Result<void> good = made_.members.append(member_); !good) return wrong(good.error().what);
  return {};
}

Result<void> ManifestReader::take_attributes(const Keywords& keywords) {
  constexpr std::uint32_t kNoId = std::numeric_limits<std::uint32_t>::max();
  const auto uid = keywords.uid ? keywords.uid : keywords.named_uid;
  const auto gid = keywords.gid ? keywords.gid : keywords.named_gid;
  const bool tells = !keywords.no_change;
  if (tells && (uid == kNoId || gid == kNoId)) {
    return wrong("no file can belong to id 4294967295");
  }
  if (tells && !uid && !keywords.unknown_user.empty()) {
    return wrong(fmt::format("this host knows no user {} (uid=NUMBER is the way to name it)",
                             keywords.unknown_user));
  }
  if (tells && !gid && !keywords.unknown_group.empty()) {
    return wrong(fmt::format("this host knows no group {} (gid=NUMBER is the way to name it)",
                             keywords.unknown_group));
  }
  member_.has_permissions = tells && keywords.permissions.has_value();
  member_.has_uid = tells && uid.has_value();
  member_.has_gid = tells && gid.has_value();
  member_.has_mtime = tells && keywords.mtime.has_value();
  if (member_.has_permissions) {
    member_.mode = static_cast<std::uint16_t>(member_.mode | *keywords.permissions);
  }
  member_.uid = member_.has_uid ? *uid : 0;
  member_.gid = member_.has_gid ? *gid : 0;
  member_.mtime = member_.has_mtime ? *keywords.mtime : Timestamp{};
  return {};
}

Result<bool> ManifestReader::take_what_it_brings(const Keywords& keywords) {
  if (keywords.no_change) return false;
  switch (member_.mode & S_IFMT) {
    case S_IFREG:
      if (!keywords.contents) return false;
      return take_contents(*keywords.contents, keywords.size_bytes);
    case S_IFLNK:
      if (!keywords.link_target) return false;
      link_target_ = *keywords.link_target;
      member_.link_target = link_target_;
      return true;
    case S_IFCHR:
    case S_IFBLK:
      if (!keywords.device) return false;
      member_.device = *keywords.device;
      return true;
    case S_IFDIR:
      // One of which not all is told is made, and changes what the sources before have there.
      return member_.tells_all() || !keywords.is_optional;
    default:
      return (member_.mode & S_IFMT) != 0;
  }
}

Result<bool> ManifestReader::take_contents(const std::string& path,
                                           std::optional<std::uint64_t> size_bytes) {
  const Result<UniqueFd> file = directory_.open_file(path);
  if (!file && member_.is_optional && file.error().os_errno == ENOENT) return false;
  if (!file) return wrong(file.error().what);
  struct stat status{};
  if (::fstat(file->get(), &status) != 0) return wrong("its contents cannot be looked at");
  member_.size_bytes = static_cast<std::uint64_t>(status.st_size);
  if (size_bytes && *size_bytes != member_.size_bytes) {
    return wrong(fmt::format("{} has {} bytes, not {}", path, member_.size_bytes, *size_bytes));
  }
  const auto total = checked_add(total_bytes_, member_.size_bytes);
  if (!total || *total > limits_.most_bytes) {
    return wrong(fmt::format("all files together have more than {} bytes (see --max-size)",
                             limits_.most_bytes),
                 Errc::does_not_fit);
  }
  total_bytes_ = *total;
  member_.place = Place::host;
  contents_ = path;
  member_.contents = contents_;
  return true;
}

Result<ReadMembers> ManifestReader::run() {
  while (true) {
    const Result<bool> any = next_line();
    if (!any) return propagate(any);
    if (!*any) break;
    if (Result<void> good = take_line(); !good) return propagate(good);
  }
  made_.format = "mtree manifest";
  return std::move(made_);
}

}  // namespace

Result<bool> is_manifest(ByteSource& source) {
  std::array<std::byte, kSignature.size()> first{};
  if (source.size_bytes() < first.size()) return false;
  if (Result<void> good = source.read(0, first); !good) {
    return propagate(good);
  }
  return std::ranges::equal(first, std::as_bytes(std::span(kSignature)));
}

Result<ReadMembers> read_manifest(ByteSource& manifest, const std::string& directory,
                                  const ReadLimits& limits) {
  const Result<ContentsDirectory> contents = ContentsDirectory::open(directory);
  if (!contents) return propagate(contents);
  return ManifestReader(manifest, *contents, limits).run();
}

Result<std::shared_ptr<ContentStore>> open_manifest_files(
    const std::shared_ptr<const SourceTree>& tree, const FilePlaces& places,
    const std::string& directory, ChangeCheck check, LogSink& log) {
  Result<ContentsDirectory> contents = ContentsDirectory::open(directory);
  if (!contents) return propagate(contents);
  const auto files = std::make_shared<ManifestFiles>(std::move(*contents));
  for (NodeNo no = 0; no < places.size(); ++no) {
    if (places.place(no) != Place::host) continue;
    Result<void> good = files->add(no, places.contents(no), tree->node(no).size_bytes);
    if (!good) {
      return propagate(good);
    }
  }
  return make_host_files(files, {OnChange::error, check}, log, files->size());
}

}  // namespace mkvirtfs::archive
