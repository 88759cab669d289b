// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/base_manifest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <concepts>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include "block/overlay/snapshot.h"
#include "block/page_cache.h"
#include "support/byte_order.h"
#include "support/path.h"
#include "support/sha256.h"
#include "support/unique_fd.h"

namespace mkvirtfs {
namespace {

constexpr std::string_view kMagic = "MKVBASE\n";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeadBytes = 64;
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kOptionCountAt = 12;
constexpr std::size_t kSourceCountAt = 16;
constexpr std::size_t kBaseAt = 24;
constexpr std::size_t kChecksumBytes = 32;

constexpr std::size_t kLongestText = std::size_t{1} << 20;
constexpr std::uint32_t kMostOptions = 1U << 16;
constexpr std::uint32_t kMostSources = 1U << 16;
/// The texts of the head are the only ones that are kept.
constexpr std::size_t kMostHeadBytes = std::size_t{16} << 20;

enum class Record : std::uint8_t { end = 0, directory = 1, node = 2, container = 3 };
constexpr std::uint8_t kHasHost = 1;
constexpr std::uint8_t kHasDigest = 2;
constexpr std::uint8_t kHasHostPath = 4;

constexpr std::size_t kPieceBytes = std::size_t{256} << 10;

std::size_t depth_of(std::string_view path) noexcept {
  return path.empty() ? 0 : 1 + static_cast<std::size_t>(std::ranges::count(path, '/'));
}

/// Whether it is a path as BaseEntry has it: "" is the root.
bool is_path_in_image(std::string_view path) noexcept {
  return !path.starts_with('/') && !path.ends_with('/') &&
         path.find("//") == std::string_view::npos;
}

/// A magic number says that it is ours, and nothing of what follows it.
bool is_manifest(int fd) {
  struct stat status{};
  std::array<std::byte, kMagic.size()> front;
  return ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
         read_fully(fd, 0, front).value_or(0) == front.size() &&
         std::memcmp(front.data(), kMagic.data(), front.size()) == 0;
}

UniqueFd open_to_read(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
}

/// Whether a file of ours stands at `path`; nothing when there is none at all.
std::optional<bool> is_manifest_at(const std::string& path) {
  const UniqueFd file = open_to_read(path);
  if (!file && errno == ENOENT) return std::nullopt;
  return file && is_manifest(file.get());
}

std::unexpected<Error> not_ours(const std::string& path) {
  return fail(Errc::usage,
              fmt::format("{} is no base manifest of mkvirtfs: move it, or choose another name "
                          "for the overlay",
                          path));
}

}  // namespace

std::string base_manifest_path(const std::string& path) {
  return std::string(path).append(".base");
}

std::string host_path_of(const BaseEntry& entry, const BaseSource& source) {
  if (!entry.host_path.empty()) return entry.host_path;
  if (entry.is_container || source.at.empty()) return entry.path;
  if (entry.path == source.at) return {};
  return entry.path.starts_with(source.at + '/') ? entry.path.substr(source.at.size() + 1)
                                                 : entry.path;
}

bool stands_before(const BaseEntry& one, const BaseEntry& other) noexcept {
  if (one.is_container != other.is_container) return one.is_container;
  if (one.is_container) return one.source < other.source;
  const std::size_t depth = depth_of(one.path);
  const std::size_t other_depth = depth_of(other.path);
  if (depth != other_depth) return depth < other_depth;
  // Component by component: a slash ends one, and comes before everything else.
  return std::ranges::lexicographical_compare(one.path, other.path, [](char a, char b) {
    const auto rank = [](char c) { return c == '/' ? 0 : static_cast<unsigned char>(c); };
    return rank(a) < rank(b);
  });
}

Result<void> for_each_pair(
    BaseEntries& then, BaseEntries& now,
    const std::function<Result<void>(const BaseEntry* then, const BaseEntry* now)>& visit) {
  BaseEntry old_entry;
  BaseEntry new_entry;
  Result<bool> has_old = then.next(old_entry);
  Result<bool> has_new = has_old ? now.next(new_entry) : has_old;
  while (has_old && has_new && (*has_old || *has_new)) {
    const bool old_first = !*has_new || (*has_old && stands_before(old_entry, new_entry));
    const bool new_first = !*has_old || (*has_new && stands_before(new_entry, old_entry));
    Result<void> done = visit(new_first ? nullptr : &old_entry, old_first ? nullptr : &new_entry);
    if (!done) return done;
    if (!new_first) has_old = then.next(old_entry);
    if (!old_first) has_new = now.next(new_entry);
  }
  if (!has_old) return propagate(has_old);
  if (!has_new) return propagate(has_new);
  return {};
}

struct BaseManifestWriter::State {
  State(std::string file_path, FileOperations& file_operations)
      : path(std::move(file_path)),
        unfinished(unfinished_overlay_path(path)),
        operations(file_operations) {}

  template <std::unsigned_integral Number>
  void put(Number number) {
    std::array<std::byte, sizeof(Number)> bytes;
    store_le(std::span(bytes), 0, number);
    buffer.insert(buffer.end(), bytes.begin(), bytes.end());
  }
  void put(const FileTime& time) {
    put(static_cast<std::uint64_t>(time.seconds));
    put(time.nanoseconds);
  }
  void put_text(std::string_view text) {
    put(static_cast<std::uint32_t>(text.size()));
    const auto bytes = std::as_bytes(std::span(text));
    buffer.insert(buffer.end(), bytes.begin(), bytes.end());
  }
  Result<void> write_out() {
    for (std::size_t done = 0; done < buffer.size();) {
      const ssize_t count = operations.pwrite(file.get(), std::span(buffer).subspan(done), at);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) {
        return fail_errno(count < 0 ? errno : ENOSPC, fmt::format("{}: write", unfinished));
      }
      done += static_cast<std::size_t>(count);
      at += static_cast<std::uint64_t>(count);
    }
    buffer.clear();
    return {};
  }
  Result<void> drain(std::size_t most_bytes) {
    if (buffer.size() < most_bytes || buffer.empty()) return {};
    sha.update(buffer);
    return write_out();
  }

  const std::string path;
  const std::string unfinished;
  FileOperations& operations;
  UniqueFd file;
  std::vector<std::byte> buffer;
  std::uint64_t at = 0;
  Sha256 sha;
  std::string directory;  // of the nodes that were added last
  std::uint64_t entries = 0;
  bool is_named = false;
};

BaseManifestWriter::BaseManifestWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}

BaseManifestWriter::~BaseManifestWriter() {
  if (!state_->is_named) state_->operations.unlink(state_->unfinished);
}

Result<std::unique_ptr<BaseManifestWriter>> BaseManifestWriter::create(const std::string& overlay,
                                                                       const BaseHead& head,
                                                                       FileOperations& operations) {
  auto state = std::make_unique<State>(base_manifest_path(overlay), operations);
  if (!is_manifest_at(state->path).value_or(true)) return not_ours(state->path);
  if (head.sources.size() > kMostSources || head.options.size() > kMostOptions) {
    return fail(Errc::does_not_fit,
                fmt::format("{}: more than {} sources or options", state->path, kMostSources));
  }
  state->file = UniqueFd(operations.create(state->unfinished, O_RDWR | O_TRUNC | O_NONBLOCK));
  if (!state->file) return fail_errno(errno, fmt::format("{}: make it", state->unfinished));
  auto writer = std::unique_ptr<BaseManifestWriter>(new BaseManifestWriter(std::move(state)));
  State& to = *writer->state_;
  to.buffer.resize(kHeadBytes);
  std::memcpy(to.buffer.data(), kMagic.data(), kMagic.size());
  store_le(std::span(to.buffer), kVersionAt, kVersion);
  store_le(std::span(to.buffer), kOptionCountAt, static_cast<std::uint32_t>(head.options.size()));
  store_le(std::span(to.buffer), kSourceCountAt, static_cast<std::uint32_t>(head.sources.size()));
  std::memcpy(to.buffer.data() + kBaseAt, head.base.data(), head.base.size());
  for (const std::string& option : head.options) to.put_text(option);
  for (const BaseSource& source : head.sources) {
    for (const std::string* text : {&source.word, &source.at, &source.root}) to.put_text(*text);
  }
  if (to.buffer.size() > kMostHeadBytes) {
    return fail(Errc::does_not_fit,
                fmt::format("{}: its options and sources have more than {} bytes", to.path,
                            kMostHeadBytes));
  }
  return writer;
}

Result<void> BaseManifestWriter::add(const BaseEntry& entry) {
  State& to = *state_;
  std::string_view name = entry.path;
  if (name.size() > kLongestText || entry.host_path.size() > kLongestText) {
    return fail(Errc::does_not_fit,
                fmt::format("{}: a path of more than {} bytes", to.path, kLongestText));
  }
  if (!entry.is_container) {
    const std::size_t slash = name.rfind('/');
    const std::string_view directory =
        slash == std::string_view::npos ? std::string_view() : name.substr(0, slash);
    name.remove_prefix(slash + 1);  // npos + 1 is 0
    if (directory != to.directory) {
      to.directory = directory;
      to.put(static_cast<std::uint8_t>(Record::directory));
      to.put_text(directory);
    }
  }
  to.put(static_cast<std::uint8_t>(entry.is_container ? Record::container : Record::node));
  to.put(static_cast<std::uint8_t>((entry.host ? kHasHost : 0) | (entry.digest ? kHasDigest : 0) |
                                   (entry.host_path.empty() ? 0 : kHasHostPath)));
  to.put(entry.source);
  to.put(entry.mode);
  to.put(entry.uid);
  to.put(entry.gid);
  to.put(entry.size_bytes);
  to.put(entry.mtime);
  to.put_text(name);
  if (entry.host) {
    to.put(entry.host->device);
    to.put(entry.host->inode);
    to.put(entry.host->size_bytes);
    to.put(entry.host->mtime);
    to.put(entry.host->ctime);
  }
  if (entry.digest) to.buffer.insert(to.buffer.end(), entry.digest->begin(), entry.digest->end());
  if (!entry.host_path.empty()) to.put_text(entry.host_path);
  ++to.entries;
  return to.drain(kPieceBytes);
}

Result<void> BaseManifestWriter::finish() {
  State& to = *state_;
  to.put(static_cast<std::uint8_t>(Record::end));
  to.put(to.entries);
  if (Result<void> done = to.drain(0); !done) return done;
  const std::array<std::byte, kChecksumBytes> checksum = to.sha.finish();
  to.buffer.assign(checksum.begin(), checksum.end());
  if (Result<void> done = to.write_out(); !done) return done;
  if (to.operations.fdatasync(to.file.get()) != 0) {
    return fail_errno(Errc::io, errno, fmt::format("{}: sync", to.unfinished));
  }
  if (to.operations.rename(to.unfinished, to.path) != 0) {
    return fail_errno(errno, fmt::format("rename {} to {}", to.unfinished, to.path));
  }
  to.is_named = true;
  const std::string directory = directory_of(to.path);
  if (to.operations.sync_directory(directory) != 0) {
    return fail_errno(Errc::io, errno, fmt::format("{}: sync", directory));
  }
  return {};
}

struct BaseManifestReader::State {
  State(std::string file_path, UniqueFd opened)
      : path(std::move(file_path)), file(std::move(opened)) {}

  std::unexpected<Error> damaged() const {
    return fail(Errc::io, fmt::format("{}: it is damaged", path));
  }

  /// The next `count` bytes, until the next call.
  Result<std::span<const std::byte>> take(std::size_t count) {
    if (buffer.size() - taken < count) {
      const std::uint64_t left = end - at;
      if (left < count - (buffer.size() - taken)) return damaged();
      buffer.erase(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(taken));
      taken = 0;
      const std::size_t kept = buffer.size();
      buffer.resize(kept + static_cast<std::size_t>(
                               std::min<std::uint64_t>(std::max(kPieceBytes, count - kept), left)));
      const auto fresh = std::span(buffer).subspan(kept);
      const Result<std::size_t> got = read_fully(file.get(), at, fresh);
      if (!got) return fail_errno(Errc::io, got.error().os_errno, fmt::format("{}: read", path));
      if (*got < fresh.size()) return damaged();
      sha.update(fresh);
      at += fresh.size();
    }
    const auto bytes = std::span<const std::byte>(buffer).subspan(taken, count);
    taken += count;
    return bytes;
  }

  template <class Number>
  Result<void> get(Number& number) {
    using Unsigned = std::make_unsigned_t<Number>;
    const auto bytes = take(sizeof(Unsigned));
    if (!bytes) return propagate(bytes);
    number = static_cast<Number>(load_le<Unsigned>(*bytes));
    return {};
  }
  Result<void> get(FileTime& time) {
    Result<void> done = get(time.seconds);
    if (done) done = get(time.nanoseconds);
    if (done && time.nanoseconds > 999'999'999) return damaged();
    return done;
  }
  Result<void> get(std::string& text) {
    std::uint32_t length = 0;
    if (Result<void> done = get(length); !done) return done;
    if (length > kLongestText) return damaged();
    const auto bytes = take(length);
    if (!bytes) return propagate(bytes);
    text.assign(reinterpret_cast<const char*>(bytes->data()), bytes->size());
    return {};
  }
  /// All of them, until one fails.
  template <class... Fields>
  Result<void> get_all(Fields&... fields) {
    Result<void> done;
    static_cast<void>(((done = get(fields)).has_value() && ...));
    return done;
  }

  Result<void> read_head();
  Result<void> read_entry(BaseEntry& entry, bool is_container);
  Result<void> check_end();

  const std::string path;
  const UniqueFd file;
  std::uint64_t end = 0;  // of what the checksum is of
  std::uint64_t at = 0;   // what was read
  std::vector<std::byte> buffer;
  std::size_t taken = 0;  // of the buffer
  Sha256 sha;
  BaseHead head;
  std::string directory;
  std::uint64_t entries = 0;
  bool is_at_end = false;
};

Result<void> BaseManifestReader::State::read_head() {
  const auto front = take(kHeadBytes);
  if (!front) return propagate(front);
  const auto version = load_le<std::uint32_t>(*front, kVersionAt);
  if (version > kVersion) {
    return fail(Errc::unsupported,
                fmt::format("{}: it is a base manifest of version {}, and this program knows "
                            "versions up to {}",
                            path, version, kVersion));
  }
  const auto options = load_le<std::uint32_t>(*front, kOptionCountAt);
  const auto sources = load_le<std::uint32_t>(*front, kSourceCountAt);
  if (version == 0 || options > kMostOptions || sources > kMostSources) return damaged();
  std::copy_n(front->begin() + kBaseAt, head.base.size(), head.base.begin());
  std::size_t kept = 0;
  Result<void> done;
  for (std::uint32_t i = 0; done && i < options && kept <= kMostHeadBytes; ++i) {
    done = get(head.options.emplace_back());
    kept += head.options.back().size();
  }
  for (std::uint32_t i = 0; done && i < sources && kept <= kMostHeadBytes; ++i) {
    BaseSource& source = head.sources.emplace_back();
    done = get_all(source.word, source.at, source.root);
    kept += source.word.size() + source.at.size() + source.root.size();
  }
  if (done && kept > kMostHeadBytes) return damaged();
  return done;
}

Result<void> BaseManifestReader::State::read_entry(BaseEntry& entry, bool is_container) {
  std::uint8_t flags = 0;
  std::string name;
  Result<void> done = get_all(flags, entry.source, entry.mode, entry.uid, entry.gid,
                              entry.size_bytes, entry.mtime, name);
  if (!done) return done;
  if ((flags & ~(kHasHost | kHasDigest | kHasHostPath)) != 0 ||
      entry.source >= head.sources.size()) {
    return damaged();
  }
  entry.is_container = is_container;
  entry.path =
      is_container || directory.empty() ? std::move(name) : fmt::format("{}/{}", directory, name);
  if (!is_container && !is_path_in_image(entry.path)) return damaged();
  entry.host.reset();
  entry.digest.reset();
  entry.host_path.clear();
  if ((flags & kHasHost) != 0) {
    FileFacts& host = entry.host.emplace();
    done = get_all(host.device, host.inode, host.size_bytes, host.mtime, host.ctime);
  }
  if (done && (flags & kHasDigest) != 0) {
    const auto bytes = take(sizeof(ContentDigest));
    if (!bytes) return propagate(bytes);
    std::ranges::copy(*bytes, entry.digest.emplace().begin());
  }
  if (done && (flags & kHasHostPath) != 0) done = get(entry.host_path);
  return done;
}

Result<void> BaseManifestReader::State::check_end() {
  std::uint64_t count = 0;
  if (Result<void> done = get(count); !done) return done;
  if (count != entries || at != end || taken != buffer.size()) return damaged();
  std::array<std::byte, kChecksumBytes> told;
  const Result<std::size_t> got = read_fully(file.get(), end, told);
  if (!got) return fail_errno(Errc::io, got.error().os_errno, fmt::format("{}: read", path));
  if (*got < told.size() || told != sha.finish()) return damaged();
  is_at_end = true;
  return {};
}

BaseManifestReader::BaseManifestReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
BaseManifestReader::~BaseManifestReader() = default;

const BaseHead& BaseManifestReader::head() const noexcept { return state_->head; }

Result<std::unique_ptr<BaseManifestReader>> BaseManifestReader::open(const std::string& overlay) {
  const std::string path = base_manifest_path(overlay);
  UniqueFd file = open_to_read(path);
  if (!file && errno == ENOENT) return nullptr;
  if (!file) return fail_errno(errno, fmt::format("{}: open it", path));
  if (!is_manifest(file.get())) return not_ours(path);
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, fmt::format("{}: examine", path));
  auto state = std::make_unique<State>(path, std::move(file));
  const auto size_bytes = static_cast<std::uint64_t>(status.st_size);
  if (size_bytes < kHeadBytes + kChecksumBytes) return state->damaged();
  state->end = size_bytes - kChecksumBytes;
  if (Result<void> done = state->read_head(); !done) return propagate(done);
  return std::unique_ptr<BaseManifestReader>(new BaseManifestReader(std::move(state)));
}

Result<bool> BaseManifestReader::next(BaseEntry& entry) {
  while (!state_->is_at_end) {
    std::uint8_t kind = 0;
    Result<void> done = state_->get(kind);
    if (!done) return propagate(done);
    switch (static_cast<Record>(kind)) {
      case Record::end:
        done = state_->check_end();
        break;
      case Record::directory:
        done = state_->get(state_->directory);
        break;
      case Record::node:
      case Record::container:
        done = state_->read_entry(entry, static_cast<Record>(kind) == Record::container);
        if (!done) break;
        ++state_->entries;
        return true;
      default:
        done = state_->damaged();
    }
    if (!done) return propagate(done);
  }
  return false;
}

int remove_base_manifest(const std::string& overlay, FileOperations& operations) {
  const std::string path = base_manifest_path(overlay);
  if (operations.unlink(unfinished_overlay_path(path)) != 0 && errno != ENOENT) return -1;
  if (!is_manifest_at(path).value_or(false)) return 0;
  return operations.unlink(path) == 0 || errno == ENOENT ? 0 : -1;
}

int link_base_manifest(const std::string& overlay, const std::string& child,
                       FileOperations& operations) {
  // What stands there is of an overlay that is gone.
  if (remove_base_manifest(child, operations) != 0) return -1;
  const std::string from = base_manifest_path(overlay);
  if (!is_manifest_at(from)) return 0;
  return operations.link(from, base_manifest_path(child));
}

}  // namespace mkvirtfs
