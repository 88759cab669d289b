// SPDX-License-Identifier: BSD-3-Clause
// One pass over the log, as jbd2's recovery does in three. A transaction is descriptor blocks, each
// followed by the copies that its tags name, and revoke blocks, then a commit block; all have the
// transaction's number. Tags and revokes of a transaction count when its commit block is right; the
// first block that does not continue the log ends it. Afterwards a copy is dropped when a
// transaction of the same or a later number revokes its block, and of several copies the last
// stays. The layout is that of include/linux/jbd2.h.
#include "fsgen/disk/journal_map.h"

#include <ext2fs/ext2fs.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::uint32_t kDescriptor = 1;
constexpr std::uint32_t kCommit = 2;
constexpr std::uint32_t kSuperblockV1 = 3;
constexpr std::uint32_t kSuperblockV2 = 4;
constexpr std::uint32_t kRevoke = 5;

constexpr std::uint32_t kCompatChecksum = 1;
constexpr std::uint32_t kIncompat64Bit = 2;
constexpr std::uint32_t kIncompatChecksumV2 = 8;
constexpr std::uint32_t kIncompatChecksumV3 = 16;
constexpr std::uint32_t kIncompatFastCommit = 32;
constexpr std::uint32_t kKnownIncompat = 63;

constexpr std::uint32_t kTagEscaped = 1;
constexpr std::uint32_t kTagSameUuid = 2;
constexpr std::uint32_t kTagLast = 8;

constexpr std::size_t kHeaderBytes = 12;
constexpr std::size_t kRevokeHeaderBytes = 16;
constexpr std::size_t kTailBytes = 4;
constexpr std::size_t kUuidBytes = 16;
constexpr std::size_t kCommitChecksumAt = 16;
constexpr std::size_t kSuperblockBytes = 1024;
constexpr std::size_t kSuperblockChecksumAt = 0xfc;
constexpr std::uint32_t kChecksumCrc32 = 1;
constexpr std::uint32_t kDefaultFastCommitBlocks = 256;
constexpr std::uint16_t kFastCommitHead = 9;

std::uint32_t crc32c(std::uint32_t seed, Bytes bytes) {
  return ext2fs_crc32c_le(seed, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

/// Numbers of transactions go round.
bool is_later(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b) > 0; }

}  // namespace

class JournalReader {
 public:
  JournalReader(CachedSource& disk, std::uint32_t block_bytes, std::uint64_t block_count,
                const std::vector<BlockRun>& runs, Problems& problems)
      : disk_(disk),
        block_bytes_(block_bytes),
        block_count_(block_count),
        runs_(runs),
        problems_(problems),
        block_(block_bytes) {}

  Result<JournalMap> run();

 private:
  struct Tag {
    std::uint64_t block = 0;
    std::uint32_t flags = 0;
    std::uint32_t checksum = 0;
    std::size_t bytes = 0;  // with a UUID behind it
  };
  struct Copied {
    std::uint64_t block = 0;
    std::uint64_t place = 0;
    std::uint32_t transaction = 0;
    std::uint32_t order = 0;  // in the journal
  };
  struct Revoked {
    std::uint64_t block = 0;
    std::uint32_t transaction = 0;
  };

  std::unexpected<Error> wrong(std::string_view what, Errc code = Errc::unreadable) const {
    return fail(code, fmt::format("{}: its journal {}", disk_.name(), what));
  }
  /// The block of the file system at a block of the journal; 0: there is none.
  std::uint64_t physical(std::uint64_t logical) const;
  Result<void> load(std::uint64_t logical);
  Result<void> take_superblock();
  Result<void> read_log();
  /// False: the log ends here.
  Result<bool> take_block();
  Result<bool> take_descriptor();
  Result<bool> take_copy(const Tag& tag);
  bool take_revokes();
  bool take_commit();
  Tag tag_at(std::size_t at) const;
  std::size_t tag_bytes() const;
  bool has_tail_checksum() const { return checksum_version_ != 0; }
  bool is_tail_right() const;
  std::uint64_t next(std::uint64_t logical) const {
    return logical + 1 == last_ ? first_ : logical + 1;
  }
  void step() {
    at_ = next(at_);
    ++steps_;
  }
  void note_tags();
  Result<void> check_fast_commits();
  JournalMap made();

  CachedSource& disk_;
  const std::uint32_t block_bytes_;
  const std::uint64_t block_count_;
  const std::vector<BlockRun>& runs_;
  Problems& problems_;

  std::vector<std::byte> block_;  // that is looked at
  std::uint32_t compat_ = 0;
  std::uint32_t incompat_ = 0;
  int checksum_version_ = 0;  // 0, 2, 3
  std::uint32_t seed_ = 0;
  std::uint64_t first_ = 0;  // of the log
  std::uint64_t last_ = 0;   // behind it
  std::uint64_t fast_commit_blocks_ = 0;
  std::uint64_t at_ = 0;
  std::uint64_t steps_ = 0;
  std::uint32_t transaction_ = 0;
  std::uint32_t old_checksum_ = ~0u;  // kCompatChecksum: of the transaction so far

  std::vector<Copied> copied_;  // of whole transactions
  std::vector<Copied> new_copied_;
  std::unordered_map<std::uint64_t, std::uint32_t> revoked_;
  std::vector<Revoked> new_revoked_;
  std::vector<std::uint64_t> bad_copies_;
};

std::uint64_t JournalReader::physical(std::uint64_t logical) const {
  auto run = std::ranges::upper_bound(runs_, logical, {}, &BlockRun::logical);
  if (run == runs_.begin()) return 0;
  --run;
  return logical - run->logical < run->count ? run->physical + (logical - run->logical) : 0;
}

Result<void> JournalReader::load(std::uint64_t logical) {
  const std::uint64_t block = physical(logical);
  if (block == 0) return wrong(fmt::format("has no block {}", logical));
  return disk_.read(block * block_bytes_, block_);
}

Result<void> JournalReader::take_superblock() {
  if (Result<void> good = load(0); !good) return good;
  const Bytes super = Bytes(block_).first(kSuperblockBytes);
  const auto type = load_be<std::uint32_t>(super, 4);
  if (load_be<std::uint32_t>(super, 0) != kJournalMagic ||
      (type != kSuperblockV1 && type != kSuperblockV2)) {
    return wrong("has no superblock");
  }
  if (type == kSuperblockV2) {
    compat_ = load_be<std::uint32_t>(super, 36);
    incompat_ = load_be<std::uint32_t>(super, 40);
  }
  if ((incompat_ & ~kKnownIncompat) != 0) {
    return wrong(fmt::format("has features that are not known: {:#x}", incompat_),
                 Errc::unsupported);
  }
  if ((incompat_ & kIncompatChecksumV2) != 0) checksum_version_ = 2;
  if ((incompat_ & kIncompatChecksumV3) != 0) checksum_version_ = 3;
  if (checksum_version_ != 0) {
    std::array<std::byte, kSuperblockBytes> copy{};
    std::ranges::copy(super, copy.begin());
    store_be<std::uint32_t>(copy, kSuperblockChecksumAt, 0);
    if (crc32c(~0u, copy) != load_be<std::uint32_t>(super, kSuperblockChecksumAt)) {
      return wrong("has a wrong checksum in its superblock");
    }
    seed_ = crc32c(~0u, super.subspan(48, kUuidBytes));
  }
  const std::uint64_t length = load_be<std::uint32_t>(super, 16);
  first_ = load_be<std::uint32_t>(super, 20);
  last_ = length;
  if ((incompat_ & kIncompatFastCommit) != 0) {
    fast_commit_blocks_ = load_be<std::uint32_t>(super, 84);
    if (fast_commit_blocks_ == 0) fast_commit_blocks_ = kDefaultFastCommitBlocks;
    last_ = length > fast_commit_blocks_ ? length - fast_commit_blocks_ : 0;
  }
  transaction_ = load_be<std::uint32_t>(super, 24);
  at_ = load_be<std::uint32_t>(super, 28);
  if (load_be<std::uint32_t>(super, 12) != block_bytes_ || first_ == 0 || first_ >= last_ ||
      (at_ != 0 && (at_ < first_ || at_ >= last_))) {
    return wrong("has numbers in its superblock that cannot be");
  }
  if (physical(length - 1) == 0) return wrong("is shorter than its superblock says");
  return {};
}

std::size_t JournalReader::tag_bytes() const {
  if (checksum_version_ == 3) return 16;
  return std::size_t{8} + (checksum_version_ == 2 ? 2 : 0) +
         ((incompat_ & kIncompat64Bit) != 0 ? 4 : 0);
}

JournalReader::Tag JournalReader::tag_at(std::size_t at) const {
  const Bytes bytes = block_;
  Tag tag;
  tag.block = load_be<std::uint32_t>(bytes, at);
  if (checksum_version_ == 3) {
    tag.flags = load_be<std::uint32_t>(bytes, at + 4);
    tag.checksum = load_be<std::uint32_t>(bytes, at + 12);
  } else {
    tag.checksum = load_be<std::uint16_t>(bytes, at + 4);
    tag.flags = load_be<std::uint16_t>(bytes, at + 6);
  }
  if ((incompat_ & kIncompat64Bit) != 0) {
    tag.block |= std::uint64_t{load_be<std::uint32_t>(bytes, at + 8)} << 32;
  }
  tag.bytes = tag_bytes() + ((tag.flags & kTagSameUuid) == 0 ? kUuidBytes : 0);
  return tag;
}

/// Descriptor and revoke blocks end with a checksum of the block.
bool JournalReader::is_tail_right() const {
  if (!has_tail_checksum()) return true;
  const Bytes bytes = block_;
  constexpr std::array<std::byte, kTailBytes> kNothing{};
  const std::uint32_t sum = crc32c(crc32c(seed_, bytes.first(bytes.size() - kTailBytes)), kNothing);
  return sum == load_be<std::uint32_t>(bytes, bytes.size() - kTailBytes);
}

Result<bool> JournalReader::take_copy(const Tag& tag) {
  step();
  if (steps_ > last_) return false;
  std::vector<std::byte> copy(block_bytes_);
  const std::uint64_t place = physical(at_);
  if (place == 0) return wrong(fmt::format("has no block {}", at_));
  if (has_tail_checksum() || (compat_ & kCompatChecksum) != 0) {
    if (Result<void> good = disk_.read(place * block_bytes_, copy); !good) return propagate(good);
  }
  if (has_tail_checksum()) {
    std::array<std::byte, 4> number;
    store_be<std::uint32_t>(number, 0, transaction_);
    std::uint32_t sum = crc32c(crc32c(seed_, number), copy);
    if (checksum_version_ == 2) sum &= 0xffff;
    if (sum != tag.checksum) {
      bad_copies_.push_back(place);
      return true;
    }
  } else if ((compat_ & kCompatChecksum) != 0) {
    old_checksum_ = ext2fs_crc32_be(
        old_checksum_, reinterpret_cast<const unsigned char*>(copy.data()), copy.size());
  }
  if (tag.block >= block_count_) {
    bad_copies_.push_back(place);
    return true;
  }
  const auto order = static_cast<std::uint32_t>(copied_.size() + new_copied_.size());
  new_copied_.push_back(
      {tag.block, place * 2 + ((tag.flags & kTagEscaped) != 0 ? 1 : 0), transaction_, order});
  return true;
}

Result<bool> JournalReader::take_descriptor() {
  if (!is_tail_right()) return false;
  if ((compat_ & kCompatChecksum) != 0 && !has_tail_checksum()) {
    old_checksum_ = ext2fs_crc32_be(
        old_checksum_, reinterpret_cast<const unsigned char*>(block_.data()), block_.size());
  }
  const std::size_t end = block_.size() - (has_tail_checksum() ? kTailBytes : 0);
  for (std::size_t at = kHeaderBytes; at + tag_bytes() <= end;) {
    const Tag tag = tag_at(at);
    const Result<bool> goes_on = take_copy(tag);
    if (!goes_on || !*goes_on) return goes_on;
    if ((tag.flags & kTagLast) != 0) break;
    at += tag.bytes;
  }
  return true;
}

bool JournalReader::take_revokes() {
  if (!is_tail_right()) return false;
  const Bytes bytes = block_;
  const std::size_t record_bytes = (incompat_ & kIncompat64Bit) != 0 ? 8 : 4;
  const std::size_t end = load_be<std::uint32_t>(bytes, 12);
  if (end > bytes.size() - (has_tail_checksum() ? kTailBytes : 0)) return false;
  for (std::size_t at = kRevokeHeaderBytes; at + record_bytes <= end; at += record_bytes) {
    const std::uint64_t block =
        record_bytes == 8 ? load_be<std::uint64_t>(bytes, at) : load_be<std::uint32_t>(bytes, at);
    new_revoked_.push_back({block, transaction_});
  }
  return true;
}

bool JournalReader::take_commit() {
  const Bytes bytes = block_;
  const auto found = load_be<std::uint32_t>(bytes, kCommitChecksumAt);
  if (has_tail_checksum()) {
    std::vector<std::byte> copy(block_);
    store_be<std::uint32_t>(copy, kCommitChecksumAt, 0);
    if (crc32c(seed_, copy) != found) return false;
  } else if ((compat_ & kCompatChecksum) != 0) {
    const auto type = std::to_integer<unsigned>(bytes[12]);
    const auto size = std::to_integer<unsigned>(bytes[13]);
    const bool has_none = type == 0 && size == 0 && found == 0;
    const bool is_right = type == kChecksumCrc32 && size == 4 && found == old_checksum_;
    if (!has_none && !is_right) return false;
    old_checksum_ = ~0u;
  }
  note_tags();
  ++transaction_;
  return true;
}

/// The transaction is whole.
void JournalReader::note_tags() {
  copied_.insert(copied_.end(), new_copied_.begin(), new_copied_.end());
  new_copied_.clear();
  for (const Revoked& revoked : new_revoked_) {
    const auto [known, is_new] = revoked_.try_emplace(revoked.block, revoked.transaction);
    if (!is_new && is_later(revoked.transaction, known->second)) {
      known->second = revoked.transaction;
    }
  }
  new_revoked_.clear();
  for (const std::uint64_t block : bad_copies_) {
    problems_.add(block * block_bytes_,
                  "journal: the copy of a block is damaged, so the older one counts");
  }
  bad_copies_.clear();
}

Result<bool> JournalReader::take_block() {
  if (Result<void> good = load(at_); !good) return propagate(good);
  const Bytes bytes = block_;
  if (load_be<std::uint32_t>(bytes, 0) != kJournalMagic ||
      load_be<std::uint32_t>(bytes, 8) != transaction_) {
    return false;
  }
  Result<bool> goes_on = false;
  switch (load_be<std::uint32_t>(bytes, 4)) {
    case kDescriptor:
      goes_on = take_descriptor();
      break;
    case kCommit:
      goes_on = take_commit();
      break;
    case kRevoke:
      goes_on = take_revokes();
      break;
    default:
      break;
  }
  step();
  return goes_on;
}

Result<void> JournalReader::read_log() {
  // The log is a ring: no more than once around.
  while (steps_ <= last_) {
    const Result<bool> goes_on = take_block();
    if (!goes_on) return propagate(goes_on);
    if (!*goes_on) break;
  }
  return {};
}

/// Fast commits stand behind the log: the first block begins with a head (tag, length, features,
/// number) of the transaction that they continue.
Result<void> JournalReader::check_fast_commits() {
  if (fast_commit_blocks_ == 0) return {};
  if (Result<void> good = load(last_); !good) return good;
  const Bytes bytes = block_;
  if (load_le<std::uint16_t>(bytes, 0) == kFastCommitHead &&
      load_le<std::uint32_t>(bytes, 8) == transaction_) {
    return wrong("has fast commits to replay, which is not done here: mount it once, or run e2fsck",
                 Errc::unsupported);
  }
  return {};
}

JournalMap JournalReader::made() {
  JournalMap map;
  map.magic_block_ = physical(0);
  std::erase_if(copied_, [&](const Copied& copied) {
    const auto revoked = revoked_.find(copied.block);
    return revoked != revoked_.end() && !is_later(copied.transaction, revoked->second);
  });
  std::ranges::sort(copied_, {},
                    [](const Copied& each) { return std::pair(each.block, each.order); });
  for (const Copied& copied : copied_) {
    if (!map.entries_.empty() && map.entries_.back().block == copied.block) {
      map.entries_.back().place = copied.place;
    } else {
      map.entries_.push_back({copied.block, copied.place});
    }
  }
  return map;
}

Result<JournalMap> JournalReader::run() {
  if (block_bytes_ < kSuperblockBytes) return wrong("has blocks that are too short");
  if (Result<void> good = take_superblock(); !good) return propagate(good);
  // It was left clean.
  if (at_ == 0) return JournalMap();
  if (Result<void> good = read_log(); !good) return propagate(good);
  if (Result<void> good = check_fast_commits(); !good) return propagate(good);
  return made();
}

std::optional<JournalMap::Copy> JournalMap::find(std::uint64_t block) const noexcept {
  const auto entry = std::ranges::lower_bound(entries_, block, {}, &Entry::block);
  if (entry == entries_.end() || entry->block != block) return std::nullopt;
  return Copy{entry->place / 2, entry->place % 2 != 0};
}

std::uint64_t JournalMap::next_from(std::uint64_t block) const noexcept {
  const auto entry = std::ranges::lower_bound(entries_, block, {}, &Entry::block);
  return entry == entries_.end() ? std::numeric_limits<std::uint64_t>::max() : entry->block;
}

Result<JournalMap> JournalMap::read(CachedSource& disk, std::uint32_t block_bytes,
                                    std::uint64_t block_count, const std::vector<BlockRun>& runs,
                                    Problems& problems) {
  return JournalReader(disk, block_bytes, block_count, runs, problems).run();
}

}  // namespace mkvirtfs::disk
