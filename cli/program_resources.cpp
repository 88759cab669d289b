// SPDX-License-Identifier: BSD-3-Clause
#include "cli/program_resources.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "cli/error_text.h"
#include "cli/reader_path.h"
#include "cli/remote_source.h"
#include "cli/streams.h"
#include "support/mutex.h"

namespace mkvirtfs::cli {
namespace {

/// XDG Base Directory Specification: relative paths there are to be ignored. "": there is none.
std::string default_cache_directory() {
  const std::string cache_home = environment("XDG_CACHE_HOME").value_or("");
  if (cache_home.starts_with('/')) return cache_home + "/mkvirtfs";
  const std::string home = environment("HOME").value_or("");
  return home.starts_with('/') ? home + "/.cache/mkvirtfs" : "";
}

/// Not /tmp, which may be memory.
std::string default_spool_directory() {
  const std::string temporary = environment("TMPDIR").value_or("");
  return temporary.empty() ? "/var/tmp" : temporary;
}

/// What a user of the command line can do about it.
std::string_view advice_on(Remark::About about) {
  switch (about) {
    case Remark::About::mounts_not_entered:
      return " (--no-one-file-system does)";
    case Remark::About::archive_changes:
      return ", whatever --on-change says";
    case Remark::About::differences:
      return " (mkvirtfs inspect --differences lists them)";
    default:
      return "";
  }
}

/// What is said once, however often it comes up. Any thread.
class SaidOnce {
 public:
  bool is_new(const std::string& what) {
    const MutexLock lock(mutex_);
    return said_.insert(what).second;
  }

 private:
  Mutex mutex_;
  std::set<std::string> said_ GUARDED_BY(mutex_);
};

}  // namespace

ResourceOptions program_resources(LogSink& log, const FormatRegistry& formats,
                                  const std::atomic<bool>* cancel) {
  ResourceOptions options;
  options.log = &log;
  options.on_remark = [&log, said = std::make_shared<SaidOnce>()](const Remark& remark) {
    // Of what serve's exports share, the first one that is opened speaks for all.
    if (remark.about == Remark::About::unmatched_rule &&
        !said->is_new(option_text(remark.at_fault))) {
      return;
    }
    const std::string about =
        remark.at_fault.option.empty() ? "" : option_text(remark.at_fault) + ": ";
    log.write(remark.level, about + remark.what + hints_text(remark.hints) +
                                std::string(advice_on(remark.about)));
  };
  options.on_export_failure = [&log](std::string_view name, Error& error) {
    error = worded(std::move(error));
    log.write(LogLevel::error, fmt::format("export {}: {}", name, error.what));
  };
  options.cancel = cancel;
  options.index_directory = default_cache_directory();
  options.spool_directory = default_spool_directory();
  options.reader_path = reader_path();
  options.formats = &formats;
  options.open_address = open_remote_source;
  return options;
}

void raise_open_file_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // if not, there are fewer open files, and that is all
}

}  // namespace mkvirtfs::cli
