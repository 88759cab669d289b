// SPDX-License-Identifier: BSD-3-Clause
#include "cli/overlay_base.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "block/overlay/snapshot.h"
#include "block/page_cache.h"
#include "support/confined_open.h"
#include "support/sha256.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {
namespace {

/// A message names so many of what differs, and counts the others.
constexpr std::size_t kMostNamed = 3;
constexpr std::size_t kMostOptionsNamed = 5;

class NoEntries final : public BaseEntries {
 public:
  Result<bool> next(BaseEntry&) override { return false; }
};

/// What names an entry among all of a manifest.
std::string key_of(const BaseEntry& entry) {
  return fmt::format("{}{} {}", entry.is_container ? '+' : '-',
                     entry.is_container ? entry.source : 0, entry.path);
}

std::string name_of(const BaseEntry& entry) {
  return entry.path.empty() ? std::string("its root") : entry.path;
}

/// Whether bytes of the image come from it.
bool has_bytes(const BaseEntry& entry) {
  return entry.size_bytes > 0 && (entry.is_container || S_ISREG(entry.mode));
}

/// As a shell takes it for one word.
std::string quoted(const std::string& text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%,=";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string word = "'";
  for (const char c : text) {
    if (c == '\'') {
      word += "'\\''";
    } else {
      word += c;
    }
  }
  return word + "'";
}

/// The first few findings, and how many there are.
class Findings {
 public:
  void add(std::string text) {
    if (++count_ <= kMostNamed) texts_.push_back(std::move(text));
  }
  std::uint64_t count() const noexcept { return count_; }
  bool empty() const noexcept { return count_ == 0; }
  std::string text() const {
    std::string all = fmt::format("{}", fmt::join(texts_, ", "));
    if (count_ > texts_.size()) all += fmt::format(" and {} more", count_ - texts_.size());
    return all;
  }

 private:
  std::vector<std::string> texts_;
  std::uint64_t count_ = 0;
};

/// What distinguishes two versions of a file, in words.
std::string difference(const FileFacts& then, const FileFacts& now) {
  if (then.size_bytes != now.size_bytes) {
    return fmt::format("{} bytes then, {} now", then.size_bytes, now.size_bytes);
  }
  if (then.mtime != now.mtime) {
    return fmt::format("mtime {} then, {} now", to_string(then.mtime), to_string(now.mtime));
  }
  if (then.inode != now.inode) {
    return fmt::format("inode {} then, {} now", then.inode, now.inode);
  }
  return fmt::format("ctime {} then, {} now", to_string(then.ctime), to_string(now.ctime));
}

/// How an image shows two versions of a node otherwise; "" when it does not, as far as a manifest
/// knows.
std::string image_difference(const BaseEntry& then, const BaseEntry& now) {
  if ((then.mode & S_IFMT) != (now.mode & S_IFMT)) return "of another type";
  if (then.size_bytes != now.size_bytes) {
    return fmt::format("{} bytes then, {} now", then.size_bytes, now.size_bytes);
  }
  if (then.mode != now.mode) {
    return fmt::format("mode {:04o} then, {:04o} now", then.mode & 07777, now.mode & 07777);
  }
  if (then.uid != now.uid || then.gid != now.gid) {
    return fmt::format("owner {}:{} then, {}:{} now", then.uid, then.gid, now.uid, now.gid);
  }
  if (then.mtime != now.mtime) {
    return fmt::format("mtime {} then, {} now", to_string(then.mtime), to_string(now.mtime));
  }
  return {};
}

/// Whether touch makes of `now` what it was.
bool is_time_alone(const BaseEntry& then, const BaseEntry& now) {
  return then.host && now.host && then.mtime != now.mtime && then.host->mtime != now.host->mtime &&
         then.mode == now.mode && then.uid == now.uid && then.gid == now.gid &&
         then.size_bytes == now.size_bytes;
}

/// What differs in the options of two command lines.
std::string option_difference(const std::vector<std::string>& then,
                              const std::vector<std::string>& now) {
  std::vector<std::string> texts;
  const auto add_missing = [&](const auto& from, const auto& in, std::string_view when) {
    for (const std::string& option : from) {
      if (texts.size() == kMostOptionsNamed) return;
      if (std::ranges::find(in, option) == in.end()) {
        texts.push_back(fmt::format("{} {}", option, when));
      }
    }
  };
  add_missing(then, now, "then and not now");
  add_missing(now, then, "now and not then");
  return fmt::format("{}", fmt::join(texts, ", "));
}

/// Whether a command line names the version whose defaults it wants.
bool says_defaults(const std::vector<std::string>& options) {
  return std::ranges::any_of(
      options, [](const std::string& option) { return option.starts_with("--defaults="); });
}

/// Stands between what was told and what comes next.
void append(std::string& text, std::string_view more) {
  if (more.empty()) return;
  if (!text.empty()) text += "; ";
  text += more;
}

/// What becomes of the files of the same image.
class Comparison {
 public:
  Comparison(BaseCheckRule rule, const SourceBaseEntries& entries)
      : rule_(rule), entries_(entries) {}

  Result<void> visit(const BaseEntry* then, const BaseEntry* now) {
    if (then == nullptr || now == nullptr) {
      // A node that only one of them has is not in the image, which is the same.
      const BaseEntry& one = then == nullptr ? *now : *then;
      if (one.is_container) {
        unsure.add(
            fmt::format("{} ({})", name_of(one), then == nullptr ? "it is new" : "it is gone"));
      }
      return {};
    }
    if (!has_bytes(*then) && !has_bytes(*now)) return {};
    // What lies in a container is as good as that.
    if (!now->is_container && !then->host && !now->host) return {};
    const bool is_same = then->host && now->host && is_same_version(*then->host, *now->host);
    if (is_same && (rule_ == BaseCheckRule::stat || !then->digest)) {
      lacks_digest |= rule_ == BaseCheckRule::content && !then->digest;
      return {};
    }
    if (then->size_bytes == now->size_bytes && then->digest)
      return compare_content(*then, *now, is_same);
    unsure.add(fmt::format("{} ({})", name_of(*now),
                           then->host && now->host ? difference(*then->host, *now->host)
                           : now->is_container     ? "it came through a pipe, then or now"
                                                   : "it lay in an archive, then or now"));
    return {};
  }

  Findings unsure;
  Findings changed;
  std::set<std::string> stale;  ///< keys of those whose digest is not the right one any more
  bool lacks_digest = false;
  bool is_moved = false;  ///< the host says something else of a file whose content is the same

 private:
  Result<void> compare_content(const BaseEntry& then, const BaseEntry& now, bool is_same) {
    const Result<ContentDigest> digest = entries_.digest();
    if (!digest) return propagate(digest);
    if (*digest == *then.digest) {
      is_moved |= !is_same && now.host.has_value();
      return {};
    }
    changed.add(fmt::format("{} (its SHA-256 is another)", name_of(now)));
    stale.insert(key_of(now));
    return {};
  }

  const BaseCheckRule rule_;
  const SourceBaseEntries& entries_;
};

/// Stores what the files are now. Digests of `before` stay, but for those in `stale`.
Result<void> store_manifest(const std::string& overlay, const BaseHead& head, const SourceBase& now,
                            BaseCheckRule rule, BaseEntries& before,
                            const std::set<std::string>& stale) {
  auto writer = BaseManifestWriter::create(overlay, head);
  if (!writer) return propagate(writer);
  SourceBaseEntries entries(now);
  Result<void> done = for_each_pair(
      before, entries, [&](const BaseEntry* then, const BaseEntry* entry) -> Result<void> {
        if (entry == nullptr) return {};
        BaseEntry kept = *entry;
        const bool is_file = has_bytes(kept) && (kept.is_container || kept.host);
        if (is_file && then != nullptr && then->digest && then->size_bytes == kept.size_bytes &&
            !stale.contains(key_of(kept))) {
          kept.digest = then->digest;
        } else if (is_file && (rule == BaseCheckRule::content || !entries.is_lasting())) {
          const Result<ContentDigest> digest = entries.digest();
          if (!digest) return propagate(digest);
          kept.digest = *digest;
        }
        return (*writer)->add(kept);
      });
  if (!done) return done;
  return (*writer)->finish();
}

}  // namespace

std::string to_string(const FileTime& time) {
  const auto seconds = static_cast<std::time_t>(time.seconds);
  std::tm parts{};
  if (::gmtime_r(&seconds, &parts) == nullptr || parts.tm_year < -1900 || parts.tm_year > 8099) {
    return fmt::format("@{}.{:09}", time.seconds, time.nanoseconds);
  }
  std::string text =
      fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1,
                  parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
  if (time.nanoseconds != 0) {
    text += fmt::format(".{:09}", time.nanoseconds);
    while (text.ends_with('0')) text.pop_back();
  }
  return text + 'Z';
}

BaseGuard::BaseGuard(std::string overlay, const ImageId& id, std::uint64_t size_bytes,
                     const SourceBase& now, const Rules& rules, LogSink& log)
    : overlay_(std::move(overlay)),
      id_(id),
      size_bytes_(size_bytes),
      now_(now),
      rules_(rules),
      log_(log) {}

Result<void> BaseGuard::check(const OverlayHeader* found) const {
  if (found == nullptr) return check_without_manifest();
  if (found->base != id_ || found->size_bytes != size_bytes_) return another_image();
  const auto manifest = BaseManifestReader::open(overlay_);
  if (manifest && *manifest == nullptr) {
    log_.write(
        LogLevel::info,
        fmt::format("{} has no base manifest: names, sizes and times of its base are as they "
                    "were, content was not compared; from now on {} has more",
                    overlay_, base_manifest_path(overlay_)));
    return check_without_manifest();
  }
  if (rules_.check == BaseCheckRule::mtime && rules_.other != OtherBase::accept) return {};
  if (!manifest) return refuse_damaged(manifest.error());
  return check_same_image();
}

/// Stores the first one.
Result<void> BaseGuard::check_without_manifest() const {
  NoEntries none;
  Result<void> stored = store_manifest(overlay_, now_.head(id_), now_, rules_.check, none, {});
  if (stored) return stored;
  if (rules_.check == BaseCheckRule::mtime) {
    log_.write(LogLevel::warning, stored.error().what);
    return {};
  }
  stored.error().hints.push_back({"base-check", "mtime"});
  return stored;
}

Result<void> BaseGuard::refuse_damaged(const Error& error) const {
  if (error.code == Errc::usage) return std::unexpected(error);
  if (rules_.other == OtherBase::accept) {
    NoEntries none;
    return store_manifest(overlay_, now_.head(id_), now_, rules_.check, none, {});
  }
  return fail(error.code, error.what +
                              "; nothing says whether the files of the base have changed: "
                              "--overlay-base=accept writes it anew, --base-check=mtime compares "
                              "no more than names, sizes and times");
}

Result<void> BaseGuard::check_same_image() const {
  auto before = BaseManifestReader::open(overlay_);
  if (!before) return refuse_damaged(before.error());
  const BaseHead head = now_.head(id_);
  const BaseHead old_head = (*before)->head();
  if (old_head.base != id_) {
    return refuse_damaged(
        {Errc::io, 0, base_manifest_path(overlay_) + ": it is of another overlay"});
  }
  SourceBaseEntries entries(now_);
  Comparison comparison(rules_.check, entries);
  const Result<void> compared = for_each_pair(
      **before, entries,
      [&](const BaseEntry* then, const BaseEntry* now) { return comparison.visit(then, now); });
  if (!compared) {
    if (compared.error().what.starts_with(base_manifest_path(overlay_))) {
      return refuse_damaged(compared.error());
    }
    return compared;
  }
  const bool is_good = comparison.unsure.empty() && comparison.changed.empty();
  if (!is_good && rules_.other != OtherBase::accept) {
    std::string text;
    if (!comparison.changed.empty()) {
      append(text, fmt::format("{} of its base {} other bytes than when it was made: {}",
                               comparison.changed.count() == 1
                                   ? std::string("1 file")
                                   : fmt::format("{} files", comparison.changed.count()),
                               comparison.changed.count() == 1 ? "has" : "have",
                               comparison.changed.text()));
    }
    if (!comparison.unsure.empty()) {
      append(text, fmt::format("{} of its base may have other bytes than when it was made: {}",
                               comparison.unsure.count() == 1
                                   ? std::string("1 file")
                                   : fmt::format("{} files", comparison.unsure.count()),
                               comparison.unsure.text()));
    }
    return fail(Errc::usage,
                fmt::format("{}: {}; if the content is what it was, --overlay-base=accept says so "
                            "once, and 'mkvirtfs overlay seal' has it compared from then on; "
                            "--base-check=mtime compares names, sizes and times alone; "
                            "--overlay-base=any opens it read-only",
                            overlay_, text));
  }
  if (is_good && !comparison.is_moved && !comparison.lacks_digest &&
      head.sources == old_head.sources && head.options == old_head.options) {
    return {};
  }
  before = BaseManifestReader::open(overlay_);
  if (!before) return propagate(before);
  Result<void> stored =
      store_manifest(overlay_, head, now_, rules_.check, **before, comparison.stale);
  if (stored || !is_good || comparison.lacks_digest) return stored;
  log_.write(LogLevel::warning, stored.error().what);
  return {};
}

/// Says what makes the image another one, and how to get at what the overlay holds.
std::unexpected<Error> BaseGuard::another_image() const {
  Findings of_image;
  Findings of_host;
  bool needs_accept = false;
  std::string options;
  auto before = BaseManifestReader::open(overlay_);
  if (before && *before) {
    const BaseHead& head = (*before)->head();
    options = option_difference(head.options, now_.options);
    SourceBaseEntries entries(now_);
    const Result<void> compared = for_each_pair(
        **before, entries, [&](const BaseEntry* then, const BaseEntry* now) -> Result<void> {
          if (then == nullptr || now == nullptr) {
            of_image.add(fmt::format("{} ({})", name_of(then == nullptr ? *now : *then),
                                     then == nullptr ? "it is new" : "it is gone"));
            return {};
          }
          std::string text = then->is_container ? std::string() : image_difference(*then, *now);
          if (!text.empty()) {
            if (is_time_alone(*then, *now)) {
              const BaseSource& source = now_.sources[now->source].place;
              std::string path = host_path_of(*now, source);
              path = path.empty() ? source.root : fmt::format("{}/{}", source.root, path);
              text += fmt::format(": touch {}-d {} {}", S_ISLNK(now->mode) ? "-h " : "",
                                  to_string(then->host->mtime), quoted(path));
              needs_accept |= has_bytes(*now) && !then->digest;
            }
            of_image.add(fmt::format("{} ({})", name_of(*now), text));
          } else if (then->host && now->host && !is_same_version(*then->host, *now->host)) {
            of_host.add(fmt::format("{} ({})", name_of(*now), difference(*then->host, *now->host)));
          }
          return {};
        });
    if (!compared) of_image = of_host = Findings();
  }
  // What no option says may be another thing than in the version that made the overlay.
  std::vector<Setting> hints;
  if (of_image.empty() && options.empty() && !says_defaults(now_.options)) {
    hints.push_back({"defaults", "0.1"});
  }
  std::string what = of_image.empty() ? of_host.text() : of_image.text();
  append(what, options);
  if (what.empty()) what = "the tree or an option changed since it was made";
  return fail(
      Errc::usage,
      fmt::format("{}: it lies over another image: {}; {}--overlay-base=any opens it read-only",
                  overlay_, what,
                  needs_accept
                      ? "with the times as they were, --overlay-base=accept says once that "
                        "the content is, too; "
                      : ""),
      std::move(hints));
}

namespace {

/// Locks an overlay that nobody uses.
Result<UniqueFd> lock_overlay(const std::string& overlay) {
  const Result<std::optional<OverlayHeader>> header = overlay_header_at(overlay);
  if (!header) return propagate(header);
  if (!*header) return fail(Errc::usage, fmt::format("{}: there is no such overlay", overlay));
  if ((*header)->is_frozen()) {
    return fail(Errc::usage,
                fmt::format("{}: it is frozen: the overlay above has the manifest", overlay));
  }
  UniqueFd file(::open(overlay.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) return fail_errno(errno, fmt::format("{}: open the overlay", overlay));
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(Errc::io, fmt::format("{}: the overlay is in use by another process", overlay));
  }
  return file;
}

/// Finds the files of a manifest on the host, confined to the roots of their sources.
class ManifestFiles {
 public:
  explicit ManifestFiles(const BaseHead& head) : head_(head) {}

  /// Fails when it is not what the manifest says, before or after it was read.
  Result<ContentDigest> digest(const BaseEntry& entry) {
    const BaseSource& source = head_.sources[entry.source];
    const std::string path = host_path_of(entry, source);
    const std::string shown = fmt::format("{}/{}", source.root, path);
    const Result<int> root = root_of(source.root);
    if (!root) return propagate(root);
    const auto file = opener_.open(*root, path.c_str(), O_RDONLY | O_NONBLOCK);
    if (!file) return fail_errno(Errc::unreadable, file.error(), fmt::format("open {}", shown));
    if (Result<void> same = check_same(file->get(), entry, shown); !same) {
      return propagate(same);
    }
    Sha256 sha;
    std::vector<std::byte> buffer(std::size_t{1} << 20);
    for (std::uint64_t at = 0; at < entry.host->size_bytes;) {
      const Result<std::size_t> got = read_fully(file->get(), at, buffer);
      if (!got) {
        return fail_errno(Errc::unreadable, got.error().os_errno, fmt::format("read {}", shown));
      }
      if (*got == 0) break;
      sha.update(std::span(buffer).first(*got));
      at += *got;
    }
    if (Result<void> same = check_same(file->get(), entry, shown); !same) {
      return propagate(same);
    }
    return sha.finish();
  }

 private:
  Result<int> root_of(const std::string& path) {
    const auto [place, is_new] = roots_.try_emplace(path);
    if (is_new) place->second = UniqueFd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (place->second) return place->second.get();
    const int error = errno;
    roots_.erase(place);
    return fail_errno(Errc::unreadable, error,
                      fmt::format("open {}, where the files of the base were", path));
  }

  static Result<void> check_same(int file, const BaseEntry& entry, const std::string& shown) {
    struct stat status{};
    if (::fstat(file, &status) != 0) return fail_errno(errno, fmt::format("examine {}", shown));
    const FileFacts now = facts_of(status);
    if (S_ISREG(status.st_mode) && is_same_version(*entry.host, now)) return {};
    return fail(Errc::source_changed,
                fmt::format("{} is not what it was when the overlay was served last ({})", shown,
                            difference(*entry.host, now)));
  }

  const BaseHead head_;
  const ConfinedOpener opener_{/*cross_mounts=*/true};
  std::map<std::string, UniqueFd> roots_;
};

}  // namespace

Result<Sealed> seal_overlay(const std::string& overlay) {
  const Result<UniqueFd> lock = lock_overlay(overlay);
  if (!lock) return propagate(lock);
  auto before = BaseManifestReader::open(overlay);
  if (!before) return propagate(before);
  if (*before == nullptr) {
    return fail(Errc::usage, fmt::format("{} has no base manifest yet: serve it once", overlay));
  }
  const BaseHead head = (*before)->head();
  auto writer = BaseManifestWriter::create(overlay, head);
  if (!writer) return propagate(writer);
  ManifestFiles files(head);
  Sealed sealed;
  BaseEntry entry;
  while (true) {
    const Result<bool> got = (*before)->next(entry);
    if (!got) return propagate(got);
    if (!*got) break;
    if (has_bytes(entry) && entry.host) {
      if (!entry.digest) {
        const Result<ContentDigest> digest = files.digest(entry);
        if (!digest) return propagate(digest);
        entry.digest = *digest;
        sealed.read_bytes += entry.host->size_bytes;
      }
      ++sealed.files;
    }
    if (Result<void> added = (*writer)->add(entry); !added) return propagate(added);
  }
  if (Result<void> done = (*writer)->finish(); !done) return propagate(done);
  return sealed;
}

}  // namespace mkvirtfs::cli
