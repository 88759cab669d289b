// SPDX-License-Identifier: BSD-3-Clause
// A line is a name and keywords; "/set" gives keywords to all lines that follow, a backslash at its
// end continues it, and a name without '/' stands in the directory that was entered last. What a
// line says becomes a Member at once.
#include "fsgen/archive/mtree.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/archive/mtree_contents.h"
#include "fsgen/archive/mtree_keywords.h"
#include "support/arithmetic.h"
#include "support/unique_fd.h"

namespace mkvirtfs::archive {
namespace {

constexpr std::string_view kSignature = "#mtree";
constexpr std::size_t kMostLineBytes = std::size_t{1} << 20;
constexpr std::size_t kPieceBytes = std::size_t{64} << 10;
constexpr std::string_view kBlanks = " \t\r";

/// Takes the first word off `text`, which begins with none when nothing is left.
std::string_view take_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(kBlanks));
  text.remove_prefix(word.size());
  return word;
}

/// One manifest, line by line.
class MtreeReader {
 public:
  MtreeReader(ByteSource& manifest, const ContentsDirectory& directory, const ReadLimits& limits)
      : manifest_(manifest), directory_(directory), limits_(limits) {}

  Result<ReadMembers> run();

 private:
  /// The next line with those that continue it, without what surrounds it; false at the end.
  Result<bool> next_line();
  Result<bool> next_raw_line(std::string& line);
  Result<void> take_line();
  Result<void> take_entry(std::string_view name, std::string_view words);
  Result<void> append(const MtreeKeywords& keywords);
  Result<void> take_attributes(const MtreeKeywords& keywords);
  /// False: it only says attributes of what is there already.
  Result<bool> take_what_it_brings(const MtreeKeywords& keywords);
  /// False: it is optional, and not there.
  Result<bool> take_contents(const std::string& path, std::optional<std::uint64_t> size_bytes);

  std::unexpected<Error> wrong(std::string_view what, Errc code = Errc::unreadable,
                               std::vector<Setting> hints = {}) const {
    return wrong(Error{code, 0, std::string(what), {}, std::move(hints)});
  }
  std::unexpected<Error> wrong(Error error) const {
    return std::unexpected(
        with_context(fmt::format("{}: line {}", manifest_.name(), line_no_), std::move(error)));
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

  MtreeKeywords defaults_;
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

Result<bool> MtreeReader::next_raw_line(std::string& line) {
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

Result<bool> MtreeReader::next_line() {
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

Result<void> MtreeReader::take_line() {
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

Result<void> MtreeReader::take_entry(std::string_view name, std::string_view words) {
  MtreeKeywords keywords = defaults_;
  for (std::string_view word = take_word(words); !word.empty(); word = take_word(words)) {
    if (const auto why = keywords.set(word)) return wrong(*why);
  }
  const bool is_whole_path = name.contains('/');
  path_.clear();
  if (!is_whole_path) {
    for (const std::string& directory : directories_) path_ += directory + "/";
  }
  path_ += unescaped_name(name);
  if (!is_whole_path && keywords.type == S_IFDIR) directories_.push_back(unescaped_name(name));
  return append(keywords);
}

Result<void> MtreeReader::append(const MtreeKeywords& keywords) {
  if (made_.members.member_count() == limits_.most_members) {
    return wrong(fmt::format("there are more than {} members", limits_.most_members),
                 Errc::does_not_fit, {{"max-entries"}});
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
  if (Result<void> good = made_.members.append(member_); !good)
    return wrong(std::move(good).error());
  return {};
}

Result<void> MtreeReader::take_attributes(const MtreeKeywords& keywords) {
  constexpr std::uint32_t kNoId = std::numeric_limits<std::uint32_t>::max();
  const auto uid = keywords.uid ? keywords.uid : keywords.named_uid;
  const auto gid = keywords.gid ? keywords.gid : keywords.named_gid;
  const bool changes = !keywords.no_change;
  if (changes && (uid == kNoId || gid == kNoId)) {
    return wrong("no file can belong to id 4294967295");
  }
  if (changes && !uid && !keywords.unknown_user.empty()) {
    return wrong(fmt::format("this host knows no user {} (uid=NUMBER is the way to name it)",
                             keywords.unknown_user));
  }
  if (changes && !gid && !keywords.unknown_group.empty()) {
    return wrong(fmt::format("this host knows no group {} (gid=NUMBER is the way to name it)",
                             keywords.unknown_group));
  }
  member_.has_permissions = changes && keywords.permissions.has_value();
  member_.has_uid = changes && uid.has_value();
  member_.has_gid = changes && gid.has_value();
  member_.has_mtime = changes && keywords.mtime.has_value();
  if (member_.has_permissions) {
    member_.mode = static_cast<std::uint16_t>(member_.mode | *keywords.permissions);
  }
  member_.uid = member_.has_uid ? *uid : 0;
  member_.gid = member_.has_gid ? *gid : 0;
  member_.mtime = member_.has_mtime ? *keywords.mtime : Timestamp{};
  return {};
}

Result<bool> MtreeReader::take_what_it_brings(const MtreeKeywords& keywords) {
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
      // One that is not described in full is made, and changes what the sources before have there.
      return member_.has_all_attributes() || !keywords.is_optional;
    default:
      return (member_.mode & S_IFMT) != 0;
  }
}

Result<bool> MtreeReader::take_contents(const std::string& path,
                                        std::optional<std::uint64_t> size_bytes) {
  Result<UniqueFd> file = directory_.open_file(path);
  if (!file && member_.is_optional && file.error().os_errno == ENOENT) return false;
  if (!file) return wrong(std::move(file).error());
  struct stat status{};
  if (::fstat(file->get(), &status) != 0) return wrong("its contents cannot be looked at");
  member_.size_bytes = static_cast<std::uint64_t>(status.st_size);
  if (size_bytes && *size_bytes != member_.size_bytes) {
    return wrong(fmt::format("{} has {} bytes, not {}", path, member_.size_bytes, *size_bytes));
  }
  const auto total = checked_add(total_bytes_, member_.size_bytes);
  if (!total || *total > limits_.most_bytes) {
    return wrong(fmt::format("all files together have more than {} bytes", limits_.most_bytes),
                 Errc::does_not_fit, {{"max-size"}});
  }
  total_bytes_ = *total;
  member_.place = MemberPlace::host;
  contents_ = path;
  member_.contents = contents_;
  return true;
}

Result<ReadMembers> MtreeReader::run() {
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

Result<bool> is_mtree(ByteSource& source) {
  std::array<std::byte, kSignature.size()> first{};
  if (source.size_bytes() < first.size()) return false;
  if (Result<void> good = source.read(0, first); !good) {
    return propagate(good);
  }
  return std::ranges::equal(first, std::as_bytes(std::span(kSignature)));
}

Result<ReadMembers> read_mtree(ByteSource& manifest, const std::string& directory,
                               const ReadLimits& limits) {
  const Result<ContentsDirectory> contents = ContentsDirectory::open(directory);
  if (!contents) return propagate(contents);
  return MtreeReader(manifest, *contents, limits).run();
}

}  // namespace mkvirtfs::archive
