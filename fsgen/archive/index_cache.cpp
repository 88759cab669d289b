// SPDX-License-Identifier: BSD-3-Clause
// A kept index is one file: the archive's identity, the stream's index, the member log, and a
// SHA-256 of it all. Its name is a digest of the identity. It is written under another name and
// renamed.
#include "fsgen/archive/index_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

#include "fsgen/stream/packing.h"
#include "support/file_bytes.h"
#include "support/sha256.h"
#include "support/text.h"
#include "support/unique_fd.h"

namespace mkvirtfs::archive {
namespace {

// To be counted up whenever the meaning of what is kept changes, in this room or in fsgen/stream/.
constexpr std::uint64_t kVersion = 4;
constexpr std::string_view kMagic = "mkvirtfs archive index";
constexpr std::string_view kSuffix = ".index";
constexpr std::string_view kUnfinished = ".unfinished-";
constexpr std::size_t kDigestBytes = 32;
constexpr std::int64_t kUnfinishedLifeSeconds = 3600;

/// An archive's identity as the bytes that name it; empty when it is no file of the host.
std::vector<std::byte> identity_of_source(ByteSource& packed, std::uint64_t reading) {
  std::vector<std::byte> identity;
  const Result<ContentStore::Pin> pin = packed.pin();
  struct stat status{};
  if (!pin || !pin->file || ::fstat(pin->file.fd(), &status) != 0) return identity;
  Packer out(identity);
  out.text(kMagic);
  out.number(kVersion);
  out.number(status.st_dev);
  out.number(status.st_ino);
  out.number(static_cast<std::uint64_t>(status.st_size));
  out.signed_number(status.st_mtim.tv_sec);
  out.signed_number(status.st_mtim.tv_nsec);
  out.signed_number(status.st_ctim.tv_sec);
  out.signed_number(status.st_ctim.tv_nsec);
  // A window of the file is another archive.
  out.number(pin->file_offset);
  out.number(packed.size_bytes());
  out.number(reading);
  return identity;
}

std::array<std::byte, kDigestBytes> digest_of(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.update(bytes);
  return digest.finish();
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string file_name(std::span<const std::byte> identity) {
  const auto digest = digest_of(identity);
  return hex(as_text(digest)) + std::string(kSuffix);
}

/// Only what is ours alone is looked at.
UniqueFd open_directory(const std::string& path) {
  UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat status{};
  if (!directory || ::fstat(directory.get(), &status) != 0 || status.st_uid != ::geteuid() ||
      (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return {};
  }
  return directory;
}

/// As `mkdir -p`, for this user alone.
void make_directories(const std::string& path) {
  for (std::size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    ::mkdir(path.substr(0, slash).c_str(), 0700);
  }
  ::mkdir(path.c_str(), 0700);  // if none of it can be made, opening it fails
}

std::vector<std::byte> as_bytes(std::string_view text) {
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

void put(Packer& out, const KeptRemark& remark) {
  out.text(remark.text);
  out.number(remark.hints.size());
  for (const Setting& hint : remark.hints) {
    out.text(hint.option);
    out.text(hint.value);
  }
}

KeptRemark take_remark(Unpacker& in) {
  KeptRemark remark{std::string(in.text()), {}};
  const std::uint64_t hints = in.number();
  for (std::uint64_t i = 0; i < hints && in.good(); ++i) {
    const std::string_view option = in.text();
    remark.hints.push_back({std::string(option), std::string(in.text())});
  }
  return remark;
}

std::optional<KeptIndex> parse(std::span<const std::byte> bytes,
                               std::span<const std::byte> identity) {
  if (bytes.size() < kDigestBytes) return std::nullopt;
  const auto body = bytes.first(bytes.size() - kDigestBytes);
  const auto digest = digest_of(body);
  if (!std::ranges::equal(digest, bytes.last(kDigestBytes))) return std::nullopt;
  Unpacker in(body);
  if (in.text() != as_text(identity)) return std::nullopt;
  KeptIndex kept;
  kept.compression = static_cast<Compression>(in.number_up_to(UINT8_MAX));
  kept.format = in.text();
  kept.stream_index = as_bytes(in.text());
  const std::string_view members = in.text();
  kept.unpacked_digest = in.text();
  const std::uint64_t remarks = in.number();
  for (std::uint64_t i = 0; i < remarks && in.good(); ++i) kept.remarks.push_back(take_remark(in));
  if (!in.good() || !in.at_end()) return std::nullopt;
  Result<MemberLog> log = MemberLog::open(as_bytes(members));
  if (!log) return std::nullopt;
  kept.members = std::move(*log);
  return kept;
}

}  // namespace

IndexCache::IndexCache(std::string directory, LogSink& log)
    : directory_(std::move(directory)), log_(log) {}

std::optional<KeptIndex> IndexCache::find(ByteSource& packed, std::uint64_t reading) const {
  const std::vector<std::byte> identity = identity_of_source(packed, reading);
  const UniqueFd directory = open_directory(directory_);
  if (identity.empty() || !directory) return std::nullopt;
  const std::string name = file_name(identity);
  const UniqueFd file(
      ::openat(directory.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) return std::nullopt;
  const std::optional<std::vector<std::byte>> bytes = read_all(file.get(), kMostBytes);
  std::optional<KeptIndex> kept = bytes ? parse(*bytes, identity) : std::nullopt;
  if (kept) {
    ::futimens(file.get(), nullptr);  // when it was last of use
  } else {
    log_.write(LogLevel::info, fmt::format("{}: the kept index {}/{} is damaged, and made anew",
                                           packed.name(), directory_, name));
    ::unlinkat(directory.get(), name.c_str(), 0);
  }
  return kept;
}

void IndexCache::keep(ByteSource& packed, std::uint64_t reading, const IndexToKeep& index) const {
  const std::vector<std::byte> identity = identity_of_source(packed, reading);
  if (identity.empty()) return;
  std::vector<std::byte> bytes;
  Packer out(bytes);
  out.text(as_text(identity));
  out.number(static_cast<std::uint64_t>(index.compression));
  out.text(index.format);
  out.text(as_text(index.stream_index));
  out.text(as_text(index.members.bytes()));
  out.text(index.unpacked_digest);
  out.number(index.remarks.size());
  for (const KeptRemark& remark : index.remarks) put(out, remark);
  const auto digest = digest_of(bytes);
  bytes.insert(bytes.end(), digest.begin(), digest.end());
  if (bytes.size() > kMostBytes) return;

  make_directories(directory_);
  if (!open_directory(directory_)) {
    log_.write(LogLevel::debug,
               fmt::format("indexes are not kept: {} does not exist, or others may write to it",
                           directory_));
    return;
  }
  std::string unfinished = fmt::format("{}/{}XXXXXX", directory_, kUnfinished);
  const UniqueFd file(::mkostemp(unfinished.data(), O_CLOEXEC));
  const std::string name = fmt::format("{}/{}", directory_, file_name(identity));
  if (!file || !write_all(file.get(), bytes) || ::rename(unfinished.c_str(), name.c_str()) != 0) {
    log_.write(LogLevel::info, fmt::format("the index of {} is not kept in {}: {}", packed.name(),
                                           directory_, std::generic_category().message(errno)));
    if (file) ::unlink(unfinished.c_str());
    return;
  }
  give_up_the_oldest();
}

void IndexCache::give_up_the_oldest() const {
  struct File {
    std::string name;
    std::int64_t used_s;
    std::uint64_t size_bytes;
  };
  const UniqueFd directory = open_directory(directory_);
  if (!directory) return;
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(directory_.c_str()), &::closedir);
  if (!listing) return;
  std::vector<File> files;
  std::uint64_t total_bytes = 0;
  const std::int64_t now = ::time(nullptr);
  while (const dirent* const entry = ::readdir(listing.get())) {
    const std::string_view name = entry->d_name;
    struct stat status{};
    if (::fstatat(directory.get(), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (name.starts_with(kUnfinished) && now - status.st_mtim.tv_sec > kUnfinishedLifeSeconds) {
      ::unlinkat(directory.get(), entry->d_name, 0);
    }
    if (!name.ends_with(kSuffix)) continue;
    files.push_back(
        {entry->d_name, status.st_mtim.tv_sec, static_cast<std::uint64_t>(status.st_size)});
    total_bytes += files.back().size_bytes;
  }
  std::ranges::sort(files, {}, &File::used_s);
  std::size_t count = files.size();
  for (const File& file : files) {
    if (count <= kMostFiles && total_bytes <= kMostBytes) break;
    ::unlinkat(directory.get(), file.name.c_str(), 0);
    --count;
    total_bytes -= file.size_bytes;
  }
}

}  // namespace mkvirtfs::archive
