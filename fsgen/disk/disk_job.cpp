// SPDX-License-Identifier: BSD-3-Clause
// The job is the format and the limits. The members come back as the bytes of a member log, and the
// rest as the last word.
#include "fsgen/disk/disk_job.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

#include "fsgen/stream/packing.h"

namespace mkvirtfs::disk {
namespace {

using Bytes = std::span<const std::byte>;
using archive::Member;
using archive::MemberLog;
using archive::MemberPlace;

constexpr std::size_t kMostFormatBytes = 64;
constexpr std::size_t kMostProblemBytes = 16 << 10;

/// What comes from the helper.
class FoundMembers final : public helper::HelperSink {
 public:
  FoundMembers(std::uint64_t memory_bytes, std::uint64_t most_members, std::string name)
      : memory_bytes_(memory_bytes), most_members_(most_members), name_(std::move(name)) {}

  Result<void> records(Bytes bytes) override {
    // It had them in its own memory.
    if (bytes.size() > memory_bytes_ - records_.size()) return nonsense();
    records_.insert(records_.end(), bytes.begin(), bytes.end());
    return {};
  }
  Result<void> data(Bytes) override { return nonsense(); }
  Result<void> restart() override { return nonsense(); }

  Result<ReadDisk> finish(Bytes last_word);

 private:
  std::unexpected<Error> nonsense() const {
    return fail(Errc::unreadable, fmt::format("{}: its reader gave an invalid answer", name_));
  }
  bool is_sound(const MemberLog& members) const;

  const std::uint64_t memory_bytes_;
  const std::uint64_t most_members_;
  const std::string name_;
  std::vector<std::byte> records_;
};

/// Names and attributes are checked when a tree is made of them.
bool FoundMembers::is_sound(const MemberLog& members) const {
  if (members.member_count() > most_members_) return false;
  Member member;
  for (MemberLog::Position at = 0; at < members.end();) {
    at = members.read(at, member);
    const bool is_of_a_disk =
        member.place == MemberPlace::nowhere || member.place == MemberPlace::stored ||
        member.place == MemberPlace::in_pieces || member.place == MemberPlace::unreadable;
    if (!is_of_a_disk || member.changes_only || member.is_optional || member.stores_holes ||
        !member.has_all_attributes()) {
      return false;
    }
  }
  return true;
}

Result<ReadDisk> FoundMembers::finish(Bytes last_word) {
  Unpacker in(last_word);
  ReadDisk made;
  made.format = in.text();
  made.problem_count = in.number();
  made.first_problem = in.text();
  if (!in.good() || !in.at_end() || made.format.size() > kMostFormatBytes ||
      made.first_problem.empty() != (made.problem_count == 0)) {
    return nonsense();
  }
  Result<MemberLog> members = MemberLog::open(std::move(records_));
  if (!members || !is_sound(*members)) return nonsense();
  made.members = std::move(*members);
  return made;
}

}  // namespace

Result<ReadDisk> read_disk(const std::shared_ptr<ByteSource>& disk, DiskFormat format,
                           const archive::ReadLimits& limits,
                           const helper::HelperSettings& settings, LogSink& log) {
  std::vector<std::byte> job;
  Packer out(job);
  out.number(static_cast<std::uint64_t>(format));
  out.number(limits.most_members);
  out.number(limits.most_bytes);
  FoundMembers found(settings.memory_bytes, limits.most_members, disk->name());
  const Result<std::vector<std::byte>> last_word =
      helper::run_in_helper(settings, kDiskJob, job, *disk, found, log);
  if (!last_word) return propagate(last_word);
  return found.finish(*last_word);
}

Result<std::vector<std::byte>> serve_disk_job(Bytes job, helper::HelperService& service) {
  Unpacker in(job);
  const auto format = static_cast<DiskFormat>(in.number_up_to(kLastDiskFormat));
  archive::ReadLimits limits;
  limits.most_members = in.number();
  limits.most_bytes = in.number();
  if (!in.good() || !in.at_end()) return fail(Errc::usage, "the job of a reader is invalid");
  const Result<ReadDisk> read = read_disk_here(service.source(), format, limits, service);
  if (!read) return propagate(read);
  service.add_records(read->members.bytes());
  std::vector<std::byte> last_word;
  Packer out(last_word);
  out.text(read->format);
  out.number(read->problem_count);
  out.text(std::string_view(read->first_problem).substr(0, kMostProblemBytes));
  return last_word;
}

}  // namespace mkvirtfs::disk
