// SPDX-License-Identifier: BSD-3-Clause
#include "cli/archive_options.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>

#include "cli/parse_number.h"
#include "cli/reader_path.h"
#include "support/mutex.h"
#include "support/open_file.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Archives";
constexpr std::uint64_t kDefaultSpoolBytes = std::uint64_t{8} << 30;
constexpr std::size_t kMostPassphraseBytes = 4096;

/// What archives share, as long as any of them is there: one cache of each size, one set of spools
/// in each directory.
class SharedStores {
 public:
  std::shared_ptr<ChunkCache> cache(std::uint64_t capacity_bytes) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    std::weak_ptr<ChunkCache>& known = caches_[capacity_bytes];
    std::shared_ptr<ChunkCache> cache = known.lock();
    if (!cache) known = cache = std::make_shared<ChunkCache>(capacity_bytes);
    return cache;
  }
  std::shared_ptr<SpoolSpace> spool(const std::string& directory, std::uint64_t limit_bytes)
      EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    std::weak_ptr<SpoolSpace>& known = spools_[{directory, limit_bytes}];
    std::shared_ptr<SpoolSpace> space = known.lock();
    if (!space) known = space = std::make_shared<SpoolSpace>(directory, limit_bytes);
    return space;
  }

 private:
  Mutex mutex_;
  std::map<std::uint64_t, std::weak_ptr<ChunkCache>> caches_ GUARDED_BY(mutex_);
  std::map<std::pair<std::string, std::uint64_t>, std::weak_ptr<SpoolSpace>> spools_
      GUARDED_BY(mutex_);
};

SharedStores& shared_stores() {
  static SharedStores stores;
  return stores;
}

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// XDG Base Directory Specification: relative paths there are to be ignored. "": there is none.
std::string default_cache_directory() {
  const std::string cache_home = environment("XDG_CACHE_HOME");
  if (cache_home.starts_with('/')) return cache_home + "/mkvirtfs";
  const std::string home = environment("HOME");
  return home.starts_with('/') ? home + "/.cache/mkvirtfs" : "";
}

/// Not /tmp, which may be memory.
std::string default_spool_directory() {
  const std::string temporary = environment("TMPDIR");
  return temporary.empty() ? "/var/tmp" : temporary;
}

/// One a line; the last line may lack its end.
Result<std::vector<std::string>> read_passphrases(const std::string& path, const PipeWait& wait) {
  Result<PipeReader> file = PipeReader::open(path, wait);
  std::array<char, kMostPassphraseBytes + 1> buffer;
  std::size_t size = 0;
  Result<std::size_t> got = 0;
  while (file && size < buffer.size()) {
    got = file->read(std::as_writable_bytes(std::span(buffer)).subspan(size));
    if (!got || *got == 0) break;
    size += *got;
  }
  if (!file || !got) {
    Error error = file ? got.error() : file.error();
    error.what.insert(0, "the passphrase file: ");
    return std::unexpected(std::move(error));
  }
  if (size > kMostPassphraseBytes) {
    return fail(Errc::unreadable, fmt::format("the passphrase file {} has more than {} bytes", path,
                                              kMostPassphraseBytes));
  }
  std::vector<std::string> passphrases;
  std::string_view rest(buffer.data(), size);
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    if (end != 0) passphrases.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  if (passphrases.empty()) {
    return fail(Errc::unreadable, fmt::format("the passphrase file {} is empty", path));
  }
  return passphrases;
}

/// Nothing given: `value` stays.
Result<void> take_size(const char* option, const std::string& text, std::uint64_t& value) {
  if (text.empty()) return {};
  const std::optional<std::uint64_t> size = parse_size(text);
  if (!size || *size == 0) {
    return fail(Errc::usage, fmt::format("{}={} is not a size (512M, 8G)", option, text));
  }
  value = *size;
  return {};
}

Result<void> take_count(const char* option, const std::string& text, std::uint64_t& value) {
  if (text.empty()) return {};
  const auto number = parse_number<std::uint64_t>(text);
  if (!number || *number == 0) {
    return fail(Errc::usage, fmt::format("{}={} is not a number above 0", option, text));
  }
  value = *number;
  return {};
}

}  // namespace

void ArchiveOptions::add_to(OptionSet& options) {
  const auto add_word = [&](const char* name, std::string& value, const char* meta,
                            const char* help, std::vector<std::string> words) {
    options.add_value(name, value, meta, help).one_of(std::move(words)).group(kGroup);
  };
  const auto add = [&](const char* name, std::string& value, const char* meta, const char* help) {
    options.add_value(name, value, meta, help).group(kGroup);
  };
  add_word("--layout", layout_, "ORDER", "Order of the files' data:\narchive (default), name",
           {"archive", "name"});
  add_word("--unsafe-names", unsafe_names_, "WHAT", "Names with \"..\": error (default), strip",
           {"error", "strip"});
  add_word("--layer-symlinks", layer_symlinks_, "WHAT",
           "Where a layer's unnamed directory meets a\nsymlink: follow (default), replace, error",
           {"follow", "replace", "error"});
  add_word("--pax-globals", pax_globals_, "WHAT", "pax global headers: apply (default), ignore",
           {"apply", "ignore"});
  options.add_flag("--ignore-zeros", ignores_zeros_, "Read all of several tars in one file")
      .group(kGroup);
  add("--passphrase-file", passphrase_file_, "FILE", "Passphrases of encrypted members");
  add("--max-entries", most_entries_, "N", "Members at most (default 10000000)");
  add("--max-size", most_size_, "SIZE", "Bytes at most, unpacked (default 2T)");
  add("--max-ratio", most_ratio_, "N", "Unpacked to packed at most (default 1000)");
  add("--reader-memory", reader_memory_, "SIZE", "For 7z, ISO and the like (default 1G)");
  add("--index-memory", index_memory_, "SIZE", "For the index of a stream (default 32M)");
  add("--cache-memory", cache_memory_, "SIZE", "For what was unpacked (default 48M)");
  add("--cache-dir", cache_directory_, "DIR|none", "Where indexes are kept");
  add("--spool-dir", spool_directory_, "DIR|none", "Where spools are (default /var/tmp)");
  add("--spool-limit", spool_limit_, "SIZE", "All spools together at most (default 8G)");
}

Result<ArchiveSettings> ArchiveOptions::parse(LogSink& log) const {
  ArchiveSettings settings;
  std::uint64_t cache_bytes = ChunkCache::kDefaultBytes;
  std::uint64_t spool_bytes = kDefaultSpoolBytes;
  for (const auto& [option, text, value] :
       {std::tuple("--max-size", &most_size_, &settings.read.limits.most_bytes),
        std::tuple("--index-memory", &index_memory_, &settings.stream.index_memory_bytes),
        std::tuple("--cache-memory", &cache_memory_, &cache_bytes),
        std::tuple("--reader-memory", &reader_memory_, &settings.read.helper.memory_bytes),
        std::tuple("--spool-limit", &spool_limit_, &spool_bytes)}) {
    if (Result<void> good = take_size(option, *text, *value); !good) {
      return propagate(good);
    }
  }
  for (const auto& [option, text, value] :
       {std::tuple("--max-entries", &most_entries_, &settings.read.limits.most_members),
        std::tuple("--max-ratio", &most_ratio_, &settings.stream.most_ratio)}) {
    if (Result<void> good = take_count(option, *text, *value); !good) {
      return propagate(good);
    }
  }
  settings.read.helper.path = reader_path();
  settings.stream.most_unpacked_bytes = settings.read.limits.most_bytes;
  settings.stream.log = &log;
  settings.stream.cache = shared_stores().cache(cache_bytes);
  if (spool_directory_ != "none") {
    settings.stream.spool = shared_stores().spool(
        spool_directory_.empty() ? default_spool_directory() : spool_directory_, spool_bytes);
  }
  if (cache_directory_ != "none") {
    const std::string directory =
        cache_directory_.empty() ? default_cache_directory() : cache_directory_;
    if (!directory.empty()) {
      settings.index_cache = std::make_shared<const archive::IndexCache>(directory, log);
    }
  }
  settings.layer.unsafe_names =
      unsafe_names_ == "strip" ? archive::UnsafeNames::strip : archive::UnsafeNames::error;
  settings.layer.layer_symlinks = layer_symlinks_ == "replace" ? LayerSymlinks::replace
                                  : layer_symlinks_ == "error" ? LayerSymlinks::error
                                                               : LayerSymlinks::follow;
  settings.read.pax_globals =
      pax_globals_ == "ignore" ? archive::PaxGlobals::ignore : archive::PaxGlobals::apply;
  settings.read.ignores_zeros = ignores_zeros_;
  settings.layer.data_order =
      layout_ == "name" ? archive::DataOrder::name : archive::DataOrder::archive;
  return settings;
}

Result<void> ArchiveOptions::check() const {
  const Result<ArchiveSettings> parsed = parse(null_log());
  if (!parsed) return propagate(parsed);
  return {};
}

Result<ArchiveSettings> ArchiveOptions::settings(LogSink& log,
                                                 const std::atomic<bool>* cancel) const {
  std::vector<std::string> passphrases;
  if (!passphrase_file_.empty()) {
    Result<std::vector<std::string>> read = read_passphrases(passphrase_file_, {&log, cancel});
    if (!read) return propagate(read);
    passphrases = std::move(*read);
  }
  Result<ArchiveSettings> settings = parse(log);
  if (!settings) return settings;
  settings->stream.cancel = cancel;
  settings->read.passphrases = std::move(passphrases);
  return settings;
}

}  // namespace mkvirtfs::cli
