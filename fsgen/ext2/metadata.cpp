// SPDX-License-Identifier: BSD-3-Clause
//
// Fixed metadata are made when they are read. Used blocks of a group are its metadata and its space
// below the cursor's end, but for the gaps; used inodes are the first ones. So bitmaps are runs of
// bits, a descriptor counts by arithmetic, and an inode is made of its node: its number says which.
#include "fsgen/ext2/metadata.h"

#include <ext2fs/ext2_ext_attr.h>
#include <ext2fs/ext2fs.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "fsgen/ext2/inode_time.h"
#include "fsgen/image/crc32c.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint32_t kInodeGeneration = 0;
constexpr std::uint32_t kJournalMagic = 0xC03B3998;  // JBD2_MAGIC_NUMBER
constexpr std::uint32_t kJournalSuperblockV2 = 4;    // JBD2_SUPERBLOCK_V2
constexpr std::uint32_t kMostLinksShown =
    65000;  // EXT4_LINK_MAX: above it a directory says 1 (dir_nlink)
constexpr std::uint32_t kOrphanBlockMagic = 0x0B10CA04;  // EXT4_ORPHAN_BLOCK_MAGIC
constexpr std::uint32_t kFlexGroupsLog = 4;  // as mke2fs; only a hint for the kernel's allocator
constexpr std::uint8_t kJournalBackupIsInodeBlocks = 1;  // s_jnl_backup_type

template <class T>
  requires(!std::is_same_v<T, std::byte>)
std::span<std::byte> bytes_of(T& structure) noexcept {
  return std::as_writable_bytes(std::span(&structure, 1));
}

void set_bits(std::span<std::byte> bitmap, std::uint64_t from, std::uint64_t to) noexcept {
  for (; from < to && from % 8 != 0; ++from) bitmap[from / 8] |= std::byte{1} << (from % 8);
  const std::uint64_t whole = from < to ? (to - from) / 8 : 0;
  std::ranges::fill(bitmap.subspan(from / 8, whole), std::byte{0xFF});
  for (from += whole * 8; from < to; ++from) bitmap[from / 8] |= std::byte{1} << (from % 8);
}

void clear_bits(std::span<std::byte> bitmap, std::uint64_t from, std::uint64_t to) noexcept {
  for (; from < to; ++from) bitmap[from / 8] &= ~(std::byte{1} << (from % 8));
}

std::uint32_t block_bitmap_checksum(const Volume& volume,
                                    std::span<const std::byte> bitmap) noexcept {
  return crc32c(volume.parameters().checksum_seed,
                bitmap.first(volume.parameters().blocks_per_group() / 8));
}

std::uint32_t inode_bitmap_checksum(const Volume& volume,
                                    std::span<const std::byte> bitmap) noexcept {
  return crc32c(volume.parameters().checksum_seed,
                bitmap.first(volume.layout().inodes_per_group() / 8));
}

ext4_group_desc make_descriptor(const Volume& volume, GroupNo group, std::span<std::byte> scratch) {
  const GroupLayout& layout = volume.layout();
  const Parameters& parameters = volume.parameters();
  const auto low = [](BlockNo block) { return to_le(static_cast<std::uint32_t>(block.value())); };
  const auto high = [](BlockNo block) {
    return to_le(static_cast<std::uint32_t>(block.value() >> 32));
  };
  const auto low16 = [](std::uint32_t value) { return to_le(static_cast<std::uint16_t>(value)); };
  const auto high16 = [](std::uint32_t value) {
    return to_le(static_cast<std::uint16_t>(value >> 16));
  };

  const std::uint32_t used_inodes = volume.used_inodes(group);
  const std::uint32_t free_inodes = layout.inodes_per_group() - used_inodes;
  const std::uint32_t free_blocks = volume.free_blocks(group);
  const std::uint32_t directories = volume.used_directories(group);
  ext4_group_desc made{};
  made.bg_block_bitmap = low(layout.block_bitmap(group));
  made.bg_block_bitmap_hi = high(layout.block_bitmap(group));
  made.bg_inode_bitmap = low(layout.inode_bitmap(group));
  made.bg_inode_bitmap_hi = high(layout.inode_bitmap(group));
  made.bg_inode_table = low(layout.inode_table(group));
  made.bg_inode_table_hi = high(layout.inode_table(group));
  made.bg_free_blocks_count = low16(free_blocks);
  made.bg_free_blocks_count_hi = high16(free_blocks);
  made.bg_free_inodes_count = low16(free_inodes);
  made.bg_free_inodes_count_hi = high16(free_inodes);
  made.bg_used_dirs_count = low16(directories);
  made.bg_used_dirs_count_hi = high16(directories);
  if (!parameters.metadata_csum) return made;

  // INODE_ZEROED keeps the kernel's lazy initialisation from writing every table into an overlay.
  std::uint32_t flags = EXT2_BG_INODE_ZEROED;
  std::uint32_t blocks_checksum = 0;  // of a bitmap that the flags declare absent: none
  std::uint32_t inodes_checksum = 0;
  if (volume.is_blank(group)) {
    flags |= EXT2_BG_BLOCK_UNINIT;
  } else {
    write_block_bitmap(volume, group, scratch);
    blocks_checksum = block_bitmap_checksum(volume, scratch);
  }
  if (used_inodes == 0) {
    flags |= EXT2_BG_INODE_UNINIT;
  } else {
    write_inode_bitmap(volume, group, scratch);
    inodes_checksum = inode_bitmap_checksum(volume, scratch);
  }
  made.bg_flags = low16(flags);
  made.bg_itable_unused = low16(free_inodes);
  made.bg_itable_unused_hi = high16(free_inodes);
  made.bg_block_bitmap_csum_lo = low16(blocks_checksum);
  made.bg_inode_bitmap_csum_lo = low16(inodes_checksum);
  if (parameters.sixty_four_bit) {
    made.bg_block_bitmap_csum_hi = high16(blocks_checksum);
    made.bg_inode_bitmap_csum_hi = high16(inodes_checksum);
  }
  const std::uint32_t checksum =
      crc32c(crc32c_of(parameters.checksum_seed, group.value()),
             std::span(bytes_of(made)).first(parameters.descriptor_bytes()));
  made.bg_checksum = low16(checksum);
  return made;
}

/// An inode under construction, in host terms.
struct InodeDraft {
  std::uint16_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size_bytes = 0;
  std::uint32_t links = 1;
  std::uint64_t blocks = 0;  // of the file system, mapping and attribute blocks included
  std::uint32_t flags = 0;
  BlockNo attribute_block;
  Timestamp time;
  std::span<const std::byte> xattrs;
  const Xattrs::Value* value = nullptr;  // of the attribute whose file it is
};

void add_blocks(const Volume& volume, const InodeBlocks& blocks, InodeDraft& draft,
                std::span<std::byte, 60> i_block) {
  draft.blocks += blocks.mapping_blocks + blocks.data_blocks();
  if (volume.parameters().extents) draft.flags |= EXT4_EXTENTS_FL;
  volume.mapper().write_root(blocks, i_block);
}

void add_directory(const Volume& volume, DirectoryNo directory, InodeDraft& draft,
                   std::span<std::byte, 60> i_block) {
  const Directories& directories = volume.contents().directories;
  const std::uint32_t links = directories.subdirectory_count(directory) + 2;
  draft.links = links > kMostLinksShown ? 1 : links;
  draft.size_bytes = static_cast<std::uint64_t>(directories.block_count(directory)) *
                     volume.parameters().block_bytes;
  if (directories.is_indexed(directory)) draft.flags |= EXT2_INDEX_FL;
  add_blocks(volume, volume.blocks_of_directory(directory), draft, i_block);
}

/// i_block[0] for numbers below 256 each, as every Unix has it; i_block[1] for Linux's larger ones.
void put_device(DeviceNumber number, std::span<std::byte, 60> i_block) noexcept {
  if (number.major < 256 && number.minor < 256) {
    store_le(i_block, 0, (number.major << 8) | number.minor);
  } else {
    store_le(i_block, 4,
             (number.minor & 0xFF) | (number.major << 8) | ((number.minor & ~0xFFu) << 12));
  }
}

void draft_node(const Volume& volume, NodeNo no, InodeDraft& draft,
                std::span<std::byte, 60> i_block) {
  const Contents& contents = volume.contents();
  const SourceTree& tree = *contents.tree;
  const Node& node = tree.node(no);
  draft.mode = node.mode;
  draft.uid = node.uid;
  draft.gid = node.gid;
  draft.size_bytes = node.size_bytes;
  draft.links = node.link_count;
  draft.time = node.mtime();
  draft.xattrs = contents.xattrs.in_inode(node.xattrs);
  if (contents.xattrs.has_block(node.xattrs)) {
    draft.attribute_block =
        volume.layout().block_at(volume.xattrs_start() + contents.xattrs.block_of(no, node.xattrs));
  }
  if (node.is_directory()) {
    add_directory(volume, tree.directory_no(no), draft, i_block);
  } else if (node.is_regular() || contents.is_slow_symlink(node)) {
    add_blocks(volume, volume.blocks_of_node(no), draft, i_block);
  } else if (node.is_symlink()) {
    const std::string_view target = tree.symlink_target(no);
    std::memcpy(i_block.data(), target.data(), target.size());
  } else if (node.is_device()) {
    put_device(tree.device_number(no), i_block);
  }
  draft.blocks = volume.blocks_held_by(no);
}

void draft_lost_found(const Volume& volume, InodeDraft& draft, std::span<std::byte, 60> i_block) {
  draft.mode = S_IFDIR | 0700;
  draft.time = volume.contents().tree->node(kRootNode).mtime();
  add_directory(volume, volume.contents().directories.lost_found(), draft, i_block);
}

void draft_journal(const Volume& volume, InodeDraft& draft, std::span<std::byte, 60> i_block) {
  draft.mode = S_IFREG | 0600;
  draft.time = {static_cast<std::int64_t>(volume.parameters().made_at_s), 0};
  const InodeBlocks blocks = volume.blocks_of_journal();
  draft.size_bytes = blocks.data_blocks() * volume.parameters().block_bytes;
  add_blocks(volume, blocks, draft, i_block);
}

void draft_own(const Volume& volume, std::uint32_t own, InodeDraft& draft,
               std::span<std::byte, 60> i_block) {
  const OwnFile& file = volume.contents().own_files[own];
  draft.mode = S_IFREG | 0600;
  draft.time = {static_cast<std::int64_t>(volume.parameters().made_at_s), 0};
  draft.size_bytes = volume.size_of_own(own);
  switch (file.what) {
    case OwnFile::What::user_quota:
    case OwnFile::What::group_quota:
    case OwnFile::What::project_quota:
      draft.flags |= EXT2_IMMUTABLE_FL;
      break;
    case OwnFile::What::xattr_value:
      draft.flags |= EXT4_EA_INODE_FL;
      draft.value = &volume.contents().xattrs.values()[file.number];
      break;
    case OwnFile::What::orphans:
      break;
  }
  add_blocks(volume, volume.blocks_of_own(own), draft, i_block);
}

/// The first block of group 0 that is kept for descriptors of later groups.
BlockNo first_reserved_descriptors(const Volume& volume) noexcept {
  return volume.layout().group_start(GroupNo{0}) + (1 + volume.layout().descriptor_blocks());
}

/// A file of indirect blocks, in ext4, too: the double indirect block points to the reserved blocks
/// of group 0, and each of these to its copies in other groups. Its size is the most that a double
/// indirect block can map.
void draft_resize(const Volume& volume, InodeDraft& draft, std::span<std::byte, 60> i_block) {
  const GroupLayout& layout = volume.layout();
  const std::uint64_t numbers = volume.parameters().block_bytes / sizeof(std::uint32_t);
  draft.mode = S_IFREG | 0600;
  draft.time = {static_cast<std::int64_t>(volume.parameters().made_at_s), 0};
  draft.size_bytes =
      (EXT2_NDIR_BLOCKS + numbers + numbers * numbers) * volume.parameters().block_bytes;
  draft.blocks =
      1 + std::uint64_t{layout.reserved_descriptor_blocks()} * layout.superblock_groups().size();
  store_le(i_block, sizeof(std::uint32_t) * EXT2_DIND_BLOCK,
           narrow<std::uint32_t>(layout.block_at(volume.resize_map()).value()));
}

/// Whether the inode holds anything; `draft` and `i_block` are then filled.
bool draft_inode(const Volume& volume, InodeNo inode, InodeDraft& draft,
                 std::span<std::byte, 60> i_block) {
  if (const auto node = volume.contents().numbers.node_of(inode)) {
    draft_node(volume, *node, draft, i_block);
  } else if (inode == kFirstInode && volume.contents().numbers.adds_lost_found()) {
    draft_lost_found(volume, draft, i_block);
  } else if (inode == kJournalInode && volume.has_journal()) {
    draft_journal(volume, draft, i_block);
  } else if (inode == kResizeInode && volume.has_resize_inode()) {
    draft_resize(volume, draft, i_block);
  } else {
    const std::vector<OwnFile>& own = volume.contents().own_files;
    const auto found = std::ranges::lower_bound(own, inode, {}, &OwnFile::inode);
    if (found == own.end() || found->inode != inode) return false;
    draft_own(volume, static_cast<std::uint32_t>(found - own.begin()), draft, i_block);
  }
  return true;
}

void write_inode(const Volume& volume, InodeNo number, std::span<std::byte> out) {
  InodeDraft draft;
  ext2_inode_large inode{};
  const std::span<std::byte, 60> i_block(reinterpret_cast<std::byte*>(inode.i_block),
                                         sizeof inode.i_block);
  if (!draft_inode(volume, number, draft, i_block)) return;

  const Parameters& parameters = volume.parameters();
  const auto low16 = [](std::uint32_t value) { return to_le(static_cast<std::uint16_t>(value)); };
  const auto high16 = [](std::uint32_t value) {
    return to_le(static_cast<std::uint16_t>(value >> 16));
  };
  const std::uint64_t sectors = draft.blocks * parameters.sectors_per_block();
  inode.i_mode = to_le(draft.mode);
  inode.i_uid = low16(draft.uid);
  inode.i_uid_high = high16(draft.uid);
  inode.i_gid = low16(draft.gid);
  inode.i_gid_high = high16(draft.gid);
  inode.i_size = to_le(static_cast<std::uint32_t>(draft.size_bytes));
  inode.i_size_high = to_le(static_cast<std::uint32_t>(draft.size_bytes >> 32));
  inode.i_links_count = to_le(narrow<std::uint16_t>(draft.links));
  inode.i_blocks = to_le(static_cast<std::uint32_t>(sectors));
  inode.osd2.linux2.l_i_blocks_hi = to_le(narrow<std::uint16_t>(sectors >> 32));
  inode.i_flags = to_le(draft.flags);
  inode.i_generation = to_le(kInodeGeneration);
  inode.i_file_acl = to_le(static_cast<std::uint32_t>(draft.attribute_block.value()));
  inode.osd2.linux2.l_i_file_acl_high =
      to_le(narrow<std::uint16_t>(draft.attribute_block.value() >> 32));

  // Access and change times would differ from scan to scan: all times are the modification time.
  const bool large = parameters.inode_bytes > EXT2_GOOD_OLD_INODE_SIZE;
  const InodeTime time = large ? to_inode_time(draft.time) : to_small_inode_time(draft.time);
  inode.i_atime = inode.i_ctime = inode.i_mtime = to_le(time.seconds);
  if (large) {
    inode.i_extra_isize = to_le(narrow<std::uint16_t>(kExtraInodeBytes));
    inode.i_crtime = to_le(time.seconds);
    inode.i_atime_extra = inode.i_ctime_extra = inode.i_mtime_extra = inode.i_crtime_extra =
        to_le(time.extra);
  }
  if (draft.value != nullptr) {  // these fields have another meaning there
    inode.i_atime = to_le(draft.value->hash);
    inode.i_ctime = to_le(static_cast<std::uint32_t>(draft.value->references >> 32));
    inode.osd1.linux1.l_i_version = to_le(static_cast<std::uint32_t>(draft.value->references));
    inode.i_atime_extra = inode.i_ctime_extra = 0;
  }
  std::memcpy(out.data(), &inode, std::min<std::size_t>(sizeof inode, out.size()));
  std::ranges::copy(draft.xattrs, out.begin() + EXT2_GOOD_OLD_INODE_SIZE + kExtraInodeBytes);
  if (parameters.metadata_csum) {
    const std::uint32_t checksum = crc32c(inode_seed(volume, number), out);
    store_le(out, offsetof(ext2_inode_large, i_checksum_lo), static_cast<std::uint16_t>(checksum));
    if (large) {
      store_le(out, offsetof(ext2_inode_large, i_checksum_hi),
               static_cast<std::uint16_t>(checksum >> 16));
    }
  }
}

/// s_jnl_blocks: a copy of what the journal's inode says, for the case that it is lost.
void put_journal_backup(const Volume& volume, ext2_super_block& superblock) {
  InodeDraft draft;
  std::array<std::byte, 60> i_block{};
  draft_journal(volume, draft, i_block);
  superblock.s_jnl_backup_type = kJournalBackupIsInodeBlocks;
  std::memcpy(superblock.s_jnl_blocks, i_block.data(), i_block.size());
  superblock.s_jnl_blocks[15] = to_le(static_cast<std::uint32_t>(draft.size_bytes >> 32));
  superblock.s_jnl_blocks[16] = to_le(static_cast<std::uint32_t>(draft.size_bytes));
}

/// Where features keep something in files.
void put_files_of_features(const Volume& volume, ext2_super_block& superblock) {
  const Parameters& parameters = volume.parameters();
  const InodeNumbers& numbers = volume.contents().numbers;
  if (parameters.quota) {
    superblock.s_usr_quota_inum = to_le(kUserQuotaInode.value());
    superblock.s_grp_quota_inum = to_le(kGroupQuotaInode.value());
    if (parameters.project) {
      superblock.s_prj_quota_inum = to_le(numbers.project_quota().value());
    }
  }
  if (parameters.orphan_file) {
    superblock.s_orphan_file_inum = to_le(numbers.orphan_file().value());
  }
  if (volume.has_journal()) {
    superblock.s_journal_inum = to_le(kJournalInode.value());
    put_journal_backup(volume, superblock);
  }
}

}  // namespace

std::uint32_t inode_seed(const Volume& volume, InodeNo inode) noexcept {
  return crc32c_of(crc32c_of(volume.parameters().checksum_seed, inode.value()), kInodeGeneration);
}

void write_superblock(const Volume& volume, GroupNo group, std::span<std::byte, 1024> out) {
  const Parameters& parameters = volume.parameters();
  const GroupLayout& layout = volume.layout();
  const std::uint64_t reserved_blocks = layout.block_count() / 100 * parameters.reserved_percent;
  std::uint32_t block_size_log = 0;
  while ((1024u << block_size_log) < parameters.block_bytes) ++block_size_log;

  ext2_super_block made{};
  made.s_inodes_count = to_le(volume.inode_count());
  made.s_blocks_count = to_le(static_cast<std::uint32_t>(layout.block_count()));
  made.s_r_blocks_count = to_le(static_cast<std::uint32_t>(reserved_blocks));
  made.s_free_blocks_count = to_le(static_cast<std::uint32_t>(volume.free_blocks()));
  if (parameters.sixty_four_bit) {
    made.s_blocks_count_hi = to_le(static_cast<std::uint32_t>(layout.block_count() >> 32));
    made.s_r_blocks_count_hi = to_le(static_cast<std::uint32_t>(reserved_blocks >> 32));
    made.s_free_blocks_hi = to_le(static_cast<std::uint32_t>(volume.free_blocks() >> 32));
    made.s_desc_size = to_le(narrow<std::uint16_t>(parameters.descriptor_bytes()));
  }
  made.s_free_inodes_count = to_le(volume.inode_count() - volume.contents().numbers.last().value());
  made.s_first_data_block = to_le(parameters.first_data_block());
  made.s_log_block_size = to_le(block_size_log);
  made.s_log_cluster_size = to_le(block_size_log);
  made.s_blocks_per_group = to_le(parameters.blocks_per_group());
  made.s_clusters_per_group = to_le(parameters.blocks_per_group());
  made.s_inodes_per_group = to_le(layout.inodes_per_group());
  made.s_max_mnt_count = -1;  // no check by counting mounts
  made.s_magic = to_le<std::uint16_t>(EXT2_SUPER_MAGIC);
  made.s_state = to_le<std::uint16_t>(EXT2_VALID_FS);
  made.s_errors = to_le(std::to_underlying(parameters.on_errors));
  made.s_creator_os = to_le<std::uint32_t>(EXT2_OS_LINUX);
  made.s_rev_level = to_le<std::uint32_t>(EXT2_DYNAMIC_REV);
  made.s_first_ino = to_le(kFirstInode.value());
  made.s_reserved_gdt_blocks = to_le(narrow<std::uint16_t>(layout.reserved_descriptor_blocks()));
  made.s_inode_size = to_le(narrow<std::uint16_t>(parameters.inode_bytes));
  made.s_block_group_nr = to_le(static_cast<std::uint16_t>(group.value()));
  made.s_feature_compat = to_le(parameters.feature_compat());
  made.s_feature_incompat = to_le(parameters.feature_incompat());
  made.s_feature_ro_compat = to_le(parameters.feature_ro_compat());
  std::ranges::copy(parameters.uuid, bytes_of(made.s_uuid).begin());
  std::ranges::copy(std::as_bytes(std::span(parameters.label)),
                    bytes_of(made.s_volume_name).begin());
  for (std::size_t i = 0; i < 4; ++i) made.s_hash_seed[i] = to_le(parameters.hash_seed[i]);
  made.s_def_hash_version = EXT2_HASH_HALF_MD4;
  // Explicit, else the kernel writes what its own architecture's char is.
  made.s_flags = to_le<std::uint32_t>(EXT2_FLAGS_UNSIGNED_HASH);
  made.s_default_mount_opts = to_le<std::uint32_t>(EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL);
  made.s_mkfs_time = to_le(static_cast<std::uint32_t>(parameters.made_at_s));
  made.s_mkfs_time_hi = static_cast<std::uint8_t>(parameters.made_at_s >> 32);
  if (parameters.made_at_given) {
    // e2fsck takes a write time in the future amiss, and a tree's newest mtime may lie there: only
    // a time that the user gave is written here.
    made.s_wtime = made.s_lastcheck = made.s_mkfs_time;
    made.s_wtime_hi = made.s_lastcheck_hi = made.s_mkfs_time_hi;
  }
  if (parameters.inode_bytes > EXT2_GOOD_OLD_INODE_SIZE) {
    made.s_min_extra_isize = made.s_want_extra_isize =
        to_le(narrow<std::uint16_t>(kExtraInodeBytes));
  }
  made.s_raid_stride = to_le(parameters.stride_blocks);
  made.s_raid_stripe_width = to_le(parameters.stripe_width_blocks);
  if (parameters.flex_bg) made.s_log_groups_per_flex = kFlexGroupsLog;
  put_files_of_features(volume, made);
  if (parameters.metadata_csum_seed) made.s_checksum_seed = to_le(parameters.checksum_seed);
  if (parameters.metadata_csum) {
    made.s_checksum_type = EXT2_CRC32C_CHKSUM;
    made.s_checksum =
        to_le(crc32c(~0u, std::span(bytes_of(made)).first(offsetof(ext2_super_block, s_checksum))));
  }
  static_assert(sizeof made == 1024);
  std::memcpy(out.data(), &made, sizeof made);
}

void write_descriptors(const Volume& volume, std::uint32_t index, std::span<std::byte> out) {
  std::ranges::fill(out, std::byte{0});
  const std::uint32_t descriptor_bytes = volume.parameters().descriptor_bytes();
  const std::uint32_t per_block = volume.parameters().block_bytes / descriptor_bytes;
  std::array<std::byte, EXT2_MAX_BLOCK_SIZE> scratch;
  for (std::uint32_t i = 0; i < per_block; ++i) {
    const std::uint64_t group = static_cast<std::uint64_t>(index) * per_block + i;
    if (group >= volume.layout().group_count()) break;
    const ext4_group_desc made =
        make_descriptor(volume, GroupNo{static_cast<std::uint32_t>(group)},
                        std::span(scratch).first(volume.parameters().block_bytes));
    std::memcpy(out.data() + static_cast<std::size_t>(i) * descriptor_bytes, &made,
                descriptor_bytes);
  }
}

void write_reserved_descriptors(const Volume& volume, std::uint32_t index,
                                std::span<std::byte> out) {
  const GroupLayout& layout = volume.layout();
  std::ranges::fill(out, std::byte{0});
  const BlockNo first = first_reserved_descriptors(volume) + index;
  std::size_t slot = 0;
  for (const GroupNo group : layout.superblock_groups()) {
    if (group == GroupNo{0}) continue;
    const BlockNo copy = first + (layout.group_start(group) - layout.group_start(GroupNo{0}));
    store_le(out, 4 * slot++, narrow<std::uint32_t>(copy.value()));
  }
}

void write_resize_map(const Volume& volume, std::span<std::byte> out) {
  const GroupLayout& layout = volume.layout();
  std::ranges::fill(out, std::byte{0});
  // A block's slot is its number among all blocks of descriptors.
  const std::size_t slots = out.size() / sizeof(std::uint32_t);
  const BlockNo first = first_reserved_descriptors(volume);
  for (std::uint32_t i = 0; i < layout.reserved_descriptor_blocks(); ++i) {
    const std::size_t slot = (layout.descriptor_blocks() + i) % slots;
    store_le(out, 4 * slot, narrow<std::uint32_t>((first + i).value()));
  }
}

void write_block_bitmap(const Volume& volume, GroupNo group, std::span<std::byte> out) {
  const GroupLayout& layout = volume.layout();
  std::ranges::fill(out, std::byte{0});
  const std::uint32_t overhead = layout.overhead(group);
  const std::uint32_t blocks = layout.group_blocks(group);
  const BlockNo start = layout.group_start(group);
  const SpaceNo first = layout.space_below(start);
  const SpaceNo last = layout.space_below(start + blocks);
  const auto bit_of = [&](SpaceNo space) { return overhead + (space - first); };
  set_bits(out, 0, bit_of(std::clamp(volume.used_end(), first, last)));
  for (const GroupLayout::Gap& gap : layout.gaps()) {
    const SpaceNo from = std::max(first, gap.start);
    const SpaceNo to = std::min(last, gap.start + gap.count);
    if (from < to) clear_bits(out, bit_of(from), bit_of(to));
  }
  set_bits(out, blocks, out.size() * 8);  // blocks past the end do not exist
}

void write_inode_bitmap(const Volume& volume, GroupNo group, std::span<std::byte> out) {
  std::ranges::fill(out, std::byte{0});
  set_bits(out, 0, volume.used_inodes(group));
  set_bits(out, volume.layout().inodes_per_group(), out.size() * 8);
}

void write_inode_table(const Volume& volume, GroupNo group, std::uint32_t index,
                       std::span<std::byte> out) {
  std::ranges::fill(out, std::byte{0});
  const Parameters& parameters = volume.parameters();
  const std::uint32_t first = index * parameters.inodes_per_block();
  const std::uint32_t last =
      std::min(first + parameters.inodes_per_block(), volume.used_inodes(group));
  for (std::uint32_t i = first; i < last; ++i) {
    const InodeNo number{group.value() * volume.layout().inodes_per_group() + i + 1};
    write_inode(volume, number,
                out.subspan(static_cast<std::size_t>(i - first) * parameters.inode_bytes,
                            parameters.inode_bytes));
  }
}

void write_own(const Volume& volume, std::uint32_t own, std::uint64_t index, BlockNo block,
               std::span<std::byte> out) {
  const OwnFile& file = volume.contents().own_files[own];
  std::ranges::fill(out, std::byte{0});
  if (file.what == OwnFile::What::orphans) {
    // Slots for inode numbers, all free, and struct ext4_orphan_block_tail.
    const std::size_t tail = out.size() - 2 * sizeof(std::uint32_t);
    store_le(out, tail, kOrphanBlockMagic);
    if (!volume.parameters().metadata_csum) return;
    const std::uint32_t seed = crc32c_of(inode_seed(volume, file.inode), block.value());
    store_le(out, tail + sizeof(std::uint32_t), crc32c(seed, out.first(tail)));
    return;
  }
  const std::span<const std::byte> bytes =
      file.what == OwnFile::What::xattr_value
          ? std::as_bytes(std::span(volume.contents().xattrs.values()[file.number].bytes))
          : volume.quota_file(file.what);
  const std::span<const std::byte> rest = bytes.subspan(index * out.size());
  std::ranges::copy(rest.first(std::min(rest.size(), out.size())), out.begin());
}

void write_journal_superblock(const Volume& volume, std::span<std::byte> out) {
  // journal_superblock_s of the kernel's jbd2.h: big-endian, an empty log that starts at block 1.
  std::ranges::fill(out, std::byte{0});
  store_be(out, 0x00, kJournalMagic);
  store_be(out, 0x04, kJournalSuperblockV2);
  store_be(out, 0x0C, volume.parameters().block_bytes);
  store_be(out, 0x10, narrow<std::uint32_t>(volume.blocks_of_journal().data_blocks()));
  store_be(out, 0x14, std::uint32_t{1});  // s_first: first block of the log
  store_be(out, 0x18, std::uint32_t{1});  // s_sequence: first commit expected
  std::ranges::copy(volume.parameters().uuid, out.begin() + 0x30);
  store_be(out, 0x40, std::uint32_t{1});  // s_nr_users
}

}  // namespace mkvirtfs::ext2
