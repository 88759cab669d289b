// SPDX-License-Identifier: BSD-3-Clause
#include "compose/archive_settings.h"

#include <fmt/format.h>

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/open_file.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kMostPassphraseBytes = 4096;

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
    return std::unexpected(with_context("the passphrase file", file ? got.error() : file.error()));
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

}  // namespace

Result<ArchiveSettings> archive_settings(const SourceSpec& spec, Resources& resources) {
  const ArchiveSpec& wanted = spec.archive;
  const ResourceOptions& shared = resources.options();
  ArchiveSettings settings;
  settings.read.passphrases = wanted.passphrases;
  if (!wanted.passphrase_file.empty()) {
    Result<std::vector<std::string>> read =
        read_passphrases(wanted.passphrase_file, {shared.log, shared.cancel});
    if (!read) return propagate(read);
    for (std::string& each : *read) settings.read.passphrases.push_back(std::move(each));
  }
  settings.read.charset = wanted.charset;
  settings.read.limits = {wanted.most_members, wanted.most_bytes};
  settings.read.pax_globals = wanted.pax_globals;
  settings.read.ignores_zeros = wanted.ignores_zeros;
  settings.read.helper.path = shared.reader_path;
  settings.read.helper.memory_bytes = wanted.reader_memory_bytes;

  settings.stream.index_memory_bytes = wanted.index_memory_bytes;
  settings.stream.most_unpacked_bytes = wanted.most_bytes;
  settings.stream.most_ratio = wanted.most_ratio;
  settings.stream.threads = spec.threads != 0 ? spec.threads : shared.threads;
  settings.stream.change_check = spec.changes.check;
  settings.stream.cancel = shared.cancel;
  settings.stream.log = shared.log;
  settings.stream.cache =
      resources.cache(wanted.cache_memory_bytes.value_or(shared.cache_memory_bytes));
  const std::string& spool = wanted.spool_directory.value_or(shared.spool_directory);
  if (!spool.empty()) {
    settings.stream.spool =
        resources.spool_space(spool, wanted.spool_limit_bytes.value_or(shared.spool_limit_bytes));
  }
  const std::string& indexes = wanted.index_directory.value_or(shared.index_directory);
  if (!indexes.empty()) {
    settings.index_cache = std::make_shared<const archive::IndexCache>(indexes, *shared.log);
  }

  settings.layer.data_order = wanted.data_order;
  settings.layer.unsafe_names = wanted.unsafe_names;
  settings.layer.layer_symlinks = wanted.layer_symlinks;
  return settings;
}

}  // namespace mkvirtfs
