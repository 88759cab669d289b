// SPDX-License-Identifier: BSD-3-Clause
// The first block of a source decides whether it is read in this process. The helper sends
// members as the bytes of a member log, and unpacked bytes as data; both are checked as if an
// archive said them.
#include "fsgen/archive/archive_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "fsgen/archive/iso_directory.h"
#include "fsgen/archive/members_sink.h"
#include "fsgen/stream/packing.h"

namespace mkvirtfs::archive {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::size_t kTarHeaderBytes = 512;
constexpr std::size_t kTarChecksumAt = 148;
constexpr std::size_t kTarChecksumBytes = 8;
constexpr std::size_t kMostFormatBytes = 256;

std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// POSIX.1-1988: the sum of all bytes, the checksum's own as blanks; some take them as signed.
bool is_tar_header(Bytes block) {
  if (block.size() < kTarHeaderBytes) return false;
  std::int64_t expected = 0;
  for (const char c : text_of(block.subspan(kTarChecksumAt, kTarChecksumBytes))) {
    if (c >= '0' && c <= '7') expected = expected * 8 + (c - '0');
  }
  std::int64_t sum = 0;
  std::int64_t signed_sum = 0;
  for (std::size_t at = 0; at < kTarHeaderBytes; ++at) {
    const bool is_checksum = at >= kTarChecksumAt && at < kTarChecksumAt + kTarChecksumBytes;
    const auto byte = is_checksum ? std::uint8_t{' '} : std::to_integer<std::uint8_t>(block[at]);
    sum += byte;
    signed_sum += static_cast<std::int8_t>(byte);
  }
  return expected != 0 && (expected == sum || expected == signed_sum);
}

/// newc, crc, odc, of some old HP-UX, and the binary one in both byte orders.
bool is_cpio_header(std::string_view start) {
  return start.starts_with("070701") || start.starts_with("070702") ||
         start.starts_with("070707") || start.starts_with("\xc7\x71") ||
         start.starts_with("\x71\xc7");
}

}  // namespace

Result<bool> is_read_in_process(ByteSource& archive) {
  std::array<std::byte, kTarHeaderBytes> block{};
  const auto count =
      static_cast<std::size_t>(std::min<std::uint64_t>(archive.size_bytes(), block.size()));
  const Bytes start = Bytes(block).first(count);
  if (Result<void> good = archive.read(0, std::span(block).first(count)); !good) {
    return propagate(good);
  }
  const std::string_view text = text_of(start);
  if (is_tar_header(start) || is_cpio_header(text) || text.starts_with("!<arch>\n")) return true;
  // The end marks of an empty tar, and the system area of an ISO 9660 image.
  const bool is_nothing = std::ranges::all_of(start, [](std::byte b) { return b == std::byte{0}; });
  const bool is_zip = text.starts_with("PK\3\4") || text.starts_with("PK\5\6");
  if (!is_nothing && !is_zip) return false;
  const Result<bool> is_iso = is_iso9660(archive);
  if (!is_iso) return propagate(is_iso);
  return !*is_iso;
}

namespace {

struct ReadJob {
  ReadOptions options;
  bool has_spool = false;
};

std::vector<std::byte> pack_job(const ReadOptions& options) {
  std::vector<std::byte> job;
  Packer out(job);
  out.number(options.limits.most_members);
  out.number(options.limits.most_bytes);
  out.number(options.lacks_end ? 1 : 0);
  out.number(options.ignores_zeros ? 1 : 0);
  out.number(static_cast<std::uint64_t>(options.pax_globals));
  out.number(options.spool ? 1 : 0);
  out.number(options.passphrases.size());
  for (const std::string& passphrase : options.passphrases) out.text(passphrase);
  out.text(options.charset);
  return job;
}

std::optional<ReadJob> parse_job(Bytes bytes) {
  Unpacker in(bytes);
  ReadJob job;
  job.options.limits.most_members = in.number();
  job.options.limits.most_bytes = in.number();
  job.options.lacks_end = in.number() != 0;
  job.options.ignores_zeros = in.number() != 0;
  job.options.pax_globals = static_cast<PaxGlobals>(in.number());
  job.has_spool = in.number() != 0;
  const std::uint64_t count = in.number();
  for (std::uint64_t i = 0; i < count && in.good(); ++i) {
    job.options.passphrases.emplace_back(in.text());
  }
  job.options.charset = in.text();
  if (!in.good() || !in.at_end()) return std::nullopt;
  return job;
}

/// What the helper finds, on its way to the parent.
class RemoteSink final : public MembersSink {
 public:
  explicit RemoteSink(helper::HelperService& service) : service_(service) {}

  void found(const MemberLog& members) override {
    service_.add_records(members.bytes().subspan(sent_));
    sent_ = members.bytes().size();
  }
  Result<void> append(Bytes bytes) override {
    service_.add_data(bytes);
    return {};
  }
  void restart() override {
    service_.restart();
    sent_ = 0;
  }

 private:
  helper::HelperService& service_;
  std::size_t sent_ = 0;
};

/// What comes from the helper.
class FoundMembers final : public helper::HelperSink {
 public:
  FoundMembers(const ReadOptions& options, const std::string& name)
      : options_(options), name_(name), spool_(options.spool, name) {}

  Result<void> records(Bytes bytes) override {
    // It had them in its own memory.
    if (bytes.size() > options_.helper.memory_bytes - records_.size()) return nonsense();
    records_.insert(records_.end(), bytes.begin(), bytes.end());
    return {};
  }
  Result<void> data(Bytes bytes) override {
    if (!options_.spool) return nonsense();
    return spool_.append(bytes);
  }
  Result<void> restart() override {
    records_.clear();
    spool_.restart();
    return {};
  }

  /// All of it, and what the last word says.
  Result<std::optional<ReadMembers>> finish(Bytes last_word);

 private:
  std::unexpected<Error> nonsense() const {
    return fail(Errc::unreadable, fmt::format("{}: its reader gave an invalid answer", name_));
  }
  Result<void> check(const MemberLog& members) const;

  const ReadOptions& options_;
  const std::string name_;
  std::vector<std::byte> records_;
  SpoolSink spool_;
};

Result<void> FoundMembers::check(const MemberLog& members) const {
  // Names are checked when a tree is made of them, and places where the stream is known.
  if (members.member_count() > options_.limits.most_members) return nonsense();
  Member member;
  for (MemberLog::Position at = 0; at < members.end();) {
    at = members.read(at, member);
    if (member.place == MemberPlace::host || member.changes_only || member.is_optional ||
        !member.has_all_attributes()) {
      return nonsense();
    }
  }
  return {};
}

Result<std::optional<ReadMembers>> FoundMembers::finish(Bytes last_word) {
  Unpacker in(last_word);
  const bool is_archive = in.number_up_to(1) != 0;
  const std::string_view format = in.text();
  const auto kind =
      static_cast<ArchiveKind>(in.number_up_to(static_cast<std::uint64_t>(ArchiveKind::zip)));
  const std::uint64_t rest_offset = in.number();  // 0: none, for nothing ends there
  if (!in.good() || !in.at_end() || format.size() > kMostFormatBytes) return nonsense();
  if (!is_archive) return std::nullopt;
  Result<MemberLog> members = MemberLog::open(std::move(records_));
  if (!members) return nonsense();
  if (Result<void> good = check(*members); !good) return propagate(good);
  ReadMembers made;
  made.members = std::move(*members);
  made.format = format;
  made.kind = kind;
  if (rest_offset != 0) made.rest_offset = rest_offset;
  Result<std::shared_ptr<ByteSource>> spooled = spool_.finish();
  if (!spooled) return propagate(spooled);
  made.spool = std::move(*spooled);
  return made;
}

}  // namespace

Result<std::optional<ReadMembers>> read_members_in_helper(
    const std::shared_ptr<ByteSource>& archive, const ReadOptions& options, LogSink& log) {
  FoundMembers found(options, archive->name());
  const Result<std::vector<std::byte>> last_word =
      helper::run_in_helper(options.helper, kArchiveJob, pack_job(options), *archive, found, log);
  if (!last_word) return propagate(last_word);
  return found.finish(*last_word);
}

Result<std::vector<std::byte>> serve_archive_job(Bytes bytes, helper::HelperService& service) {
  const std::optional<ReadJob> job = parse_job(bytes);
  if (!job) return fail(Errc::usage, "the job of a reader is invalid");
  RemoteSink sink(service);
  Result<std::optional<ReadMembers>> read = read_members_here(
      service.source(), Formats::all, job->options, job->has_spool ? &sink : nullptr, service);
  if (!read) return propagate(read);
  std::vector<std::byte> last_word;
  Packer out(last_word);
  out.number(*read ? 1 : 0);
  out.text(*read ? (*read)->format : "");
  out.number(*read ? static_cast<std::uint64_t>((*read)->kind) : 0);
  out.number(*read ? (*read)->rest_offset.value_or(0) : 0);
  if (*read) sink.found((*read)->members);
  return last_word;
}

}  // namespace mkvirtfs::archive
