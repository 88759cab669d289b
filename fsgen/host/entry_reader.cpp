// SPDX-License-Identifier: BSD-3-Clause
// statx(2) first; everything else is asked only where its answer can matter: xattrs when there
// are some, data runs when there are fewer blocks than bytes or the file is large, the right to
// read when the mode does not decide it.
#include "fsgen/host/entry_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "block/host_files.h"

namespace mkvirtfs {
namespace {

constexpr unsigned kWanted = STATX_BASIC_STATS;
constexpr std::uint64_t kStatUnit = 512;  // of stx_blocks, always
/// From here on a file is asked for its data runs, whatever its blocks say: those of fallocate(2)
/// are counted, and hold nothing. For smaller ones opening them would cost more than it saves.
constexpr std::uint64_t kLeastPreallocatedBytes = std::uint64_t{1} << 20;

/// Attributes from here on may have a block of their own: an ext4 inode of 256 bytes has room for
/// fewer. That block is counted with the file's data, and may make up for a hole.
constexpr std::uint64_t kLeastXattrBytesInBlock = 92;
constexpr std::uint64_t kXattrEntryBytes = 16;  // of ext4, beside name and value

std::uint64_t device_of(const struct statx& status) {
  return makedev(status.stx_dev_major, status.stx_dev_minor);
}

/// The chattr flags that statx(2) reports, as bits of Node::unshown.
std::uint8_t unshown_flags(std::uint64_t attributes) {
  constexpr std::uint64_t kAsked =
      STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP | STATX_ATTR_COMPRESSED;
  if ((attributes & kAsked) == 0) return 0;
  std::uint8_t flags = 0;
  if ((attributes & STATX_ATTR_IMMUTABLE) != 0) flags |= unshown::kImmutable;
  if ((attributes & STATX_ATTR_APPEND) != 0) flags |= unshown::kAppendOnly;
  if ((attributes & STATX_ATTR_NODUMP) != 0) flags |= unshown::kNoDump;
  if ((attributes & STATX_ATTR_COMPRESSED) != 0) flags |= unshown::kCompressed;
  return flags;
}

bool may_have_holes(const struct statx& status, std::uint64_t xattr_bytes) {
  if (status.stx_size >= kLeastPreallocatedBytes) return true;
  const std::uint64_t beside = xattr_bytes >= kLeastXattrBytesInBlock ? status.stx_blksize : 0;
  return status.stx_blocks * kStatUnit < status.stx_size + beside;
}

/// Calls `get(buffer, size)` with a small part of `buffer` first, with all of it when that was too
/// little.
template <class Get>
ssize_t get_growing(std::vector<char>& buffer, std::size_t small_bytes, Get get) {
  const ssize_t got = get(buffer.data(), small_bytes);
  return got < 0 && errno == ERANGE ? get(buffer.data(), buffer.size()) : got;
}

}  // namespace

void EntryReader::enter(int directory) {
  directory_ = directory;
  // fchdir needs the right to search, without which nothing in there can be looked at anyway.
  if (own_directory_ && ::fchdir(directory) == 0) {
    base_ = AT_FDCWD;
    path_.clear();
  } else {
    base_ = directory;
    path_ = fmt::format("/proc/self/fd/{}/", directory);
  }
  path_bytes_ = path_.size();
}

std::uint32_t EntryReader::type_of(const char* name) const {
  struct statx status;
  if (::statx(base_, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &status) != 0)
    return 0;
  return status.stx_mode & S_IFMT;
}

std::expected<EntryReader::Entry, int> EntryReader::look(const char* name) {
  struct statx status;
  if (::statx(base_, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kWanted, &status) != 0) {
    return std::unexpected(errno);
  }
  Entry entry;
  entry.mount_point = !settings_.cross_mounts && is_mount_point(status);
  if (entry.mount_point && !S_ISDIR(status.stx_mode)) return entry;
  if (!settings_.outputs.empty() && is_run_output(name, status)) return entry;
  if (settings_.sync != nullptr && !entry.mount_point && synced_device_ != device_of(status)) {
    if (const auto synced = sync(name, status); !synced) return std::unexpected(synced.error());
  }

  take_identity(status, entry);
  acl_ = settings_.xattrs ? FileAcl::none : FileAcl::possible;
  xattr_bytes_ = 0;
  if (settings_.xattrs) {
    const auto set = read_xattrs(name, status);
    if (!set) return std::unexpected(set.error());
    entry.head.xattrs = *set;
  }
  if (const auto taken = take_type(name, status, entry); !taken) {
    return std::unexpected(taken.error());
  }
  take_attributes(status, entry.head);
  return entry;
}

/// The facts by which the file is known again, and by which a change is seen.
void EntryReader::take_identity(const struct statx& status, Entry& entry) const {
  ScanRecordHead& head = entry.head;
  const FileIdentity identity = identity_of(status);
  head.inode = identity.inode;
  head.file_mtime_ns = identity.mtime_ns;
  head.file_ctime_ns = identity.ctime_ns;
  head.unshown = unshown_flags(status.stx_attributes) & 0xFu;
  if (settings_.keep_facts) {
    head.has_facts = true;
    entry.tail.facts = {device_of(status),
                        status.stx_ino,
                        status.stx_size,
                        {status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec},
                        {status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec}};
  }
  if (status.stx_nlink > 1 && !S_ISDIR(status.stx_mode)) {
    head.linked = true;
    entry.tail.device = device_of(status);
  }
}

/// What entries of some types have: data runs, a target, a device number.
std::expected<void, int> EntryReader::take_type(const char* name, const struct statx& status,
                                                Entry& entry) {
  switch (status.stx_mode & S_IFMT) {
    case S_IFREG:
      entry.head.size_bytes = status.stx_size;
      if (!readable(name, status, acl_)) return std::unexpected(EACCES);
      return may_have_holes(status, xattr_bytes_) ? find_data_runs(name, status, entry)
                                                  : std::expected<void, int>{};
    case S_IFLNK: {
      const ssize_t length = ::readlinkat(base_, name, buffer_.data(), buffer_.size());
      if (length < 0) return std::unexpected(errno == EINVAL ? ENOENT : errno);
      entry.tail.target = {buffer_.data(), static_cast<std::size_t>(length)};
      return {};
    }
    case S_IFCHR:
    case S_IFBLK:
      entry.tail.device_number = {status.stx_rdev_major, status.stx_rdev_minor};
      return {};
    default:
      return {};
  }
}

/// Mode, owner and time as the image shall have them.
void EntryReader::take_attributes(const struct statx& status, ScanRecordHead& head) const {
  EntryAttributes attributes{status.stx_mode,
                             status.stx_uid,
                             status.stx_gid,
                             {status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec}};
  settings_.rules.apply(attributes);
  head.mode = attributes.mode;
  head.uid = attributes.uid;
  head.gid = attributes.gid;
  head.mtime_s = attributes.mtime.seconds;
  head.mtime_ns = attributes.mtime.nanoseconds;
}

bool EntryReader::is_mount_point(const struct statx& status) const {
  // An automount point that is not triggered yet becomes a mount as soon as it is entered.
  if ((status.stx_attributes & (STATX_ATTR_MOUNT_ROOT | STATX_ATTR_AUTOMOUNT)) != 0) return true;
  // Old kernels do not report it, and btrfs subvolumes are file systems without being mounts. Files
  // are not asked: overlayfs gives them the device of the layer that holds them.
  const bool is_known = (status.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0;
  return (S_ISDIR(status.stx_mode) || !is_known) && device_of(status) != settings_.root_device;
}

std::expected<XattrSetNo, int> EntryReader::read_xattrs(const char* name,
                                                        const struct statx& status) {
  if (std::ranges::find(no_xattrs_on_, device_of(status)) != no_xattrs_on_.end()) return 0;
  const char* path = name;
  if (path_bytes_ != 0) {
    path_.resize(path_bytes_);
    path_ += name;
    path = path_.c_str();
  }
  const ssize_t list_bytes = get_growing(buffer_, kSmallBytes, [&](char* to, std::size_t size) {
    return ::llistxattr(path, to, size);
  });
  if (list_bytes == 0) return 0;
  if (list_bytes < 0) {
    if (errno != ENOTSUP && errno != ENOSYS) return std::unexpected(errno);
    // Special files may lack attributes on file systems that have them.
    if (S_ISREG(status.stx_mode) || S_ISDIR(status.stx_mode)) {
      no_xattrs_on_.push_back(device_of(status));
    }
    return 0;
  }

  list_.assign(buffer_.data(), buffer_.data() + list_bytes);
  list_.push_back('\0');
  std::vector<Xattr> set;
  for (const char* at = list_.data(); at < list_.data() + list_bytes;) {
    const char* const name_at = at;
    const std::string_view attribute(name_at);
    at += attribute.size() + 1;
    xattr_bytes_ += kXattrEntryBytes + attribute.size();
    if (!XattrRules::keeps_name(attribute)) continue;
    const ssize_t size = get_growing(buffer_, kSmallBytes, [&](char* to, std::size_t room) {
      return ::lgetxattr(path, name_at, to, room);
    });
    if (size < 0) {
      // Removed meanwhile, or listed by a file system that has no values for it.
      if (errno == ENODATA || errno == ENOTSUP) continue;
      return std::unexpected(errno);
    }
    xattr_bytes_ += static_cast<std::size_t>(size);
    std::string value(buffer_.data(), static_cast<std::size_t>(size));
    if (!settings_.rules.xattrs().normalise(attribute, value)) continue;
    if (XattrRules::is_acl(attribute)) acl_ = FileAcl::possible;
    set.push_back({std::string(attribute), std::move(value)});
  }
  return pool_.intern(std::move(set));
}

bool EntryReader::is_run_output(const char* name, const struct statx& status) {
  const std::uint64_t device = device_of(status);
  for (std::size_t i = 0; i < settings_.outputs.size(); ++i) {
    const RunOutput& output = settings_.outputs[i];
    if (status.stx_ino == output.directory_inode && device == output.directory_device) {
      outputs_met_[i] = true;
    }
    if (status.stx_ino != output.inode || device != output.device) continue;
    if (output.name.empty()) return outputs_met_[i] = true;
    // Another name of what will be replaced, not written, is a file like any other.
    struct stat here;
    if (output.name == name && ::fstat(directory_, &here) == 0 &&
        here.st_ino == output.directory_inode && here.st_dev == output.directory_device) {
      return outputs_met_[i] = true;
    }
  }
  return false;
}

std::expected<void, int> EntryReader::sync(const char* name, struct statx& status) {
  if (!S_ISREG(status.stx_mode) && !S_ISDIR(status.stx_mode)) return {};
  const auto file = settings_.opener.open(directory_, name, O_RDONLY | O_NONBLOCK);
  if (!file) return std::unexpected(file.error() == ELOOP ? ENOENT : file.error());
  if (!settings_.sync->ensure(device_of(status), file->get())) {
    return std::unexpected(ECANCELED);
  }
  synced_device_ = device_of(status);
  // What was written before now must have the times that the tree has.
  if (::statx(base_, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kWanted, &status) != 0) {
    return std::unexpected(errno);
  }
  return {};
}

bool EntryReader::readable(const char* name, const struct statx& status, FileAcl acl) const {
  if (settings_.access.surely(status.stx_mode, status.stx_uid, status.stx_gid, acl)) return true;
  if (::faccessat(base_, name, R_OK, AT_EACCESS | AT_SYMLINK_NOFOLLOW) == 0) return true;
  // Container runtimes with an old filter refuse faccessat2 itself, so a no is made sure of.
  return settings_.opener.open(directory_, name, O_RDONLY | O_NONBLOCK).has_value();
}

std::expected<void, int> EntryReader::find_data_runs(const char* name, const struct statx& status,
                                                     Entry& entry) {
  const auto file = settings_.opener.open(directory_, name, O_RDONLY | O_NONBLOCK);
  // A symlink that stands there now is a file that vanished.
  if (!file) return std::unexpected(file.error() == ELOOP ? ENOENT : file.error());
  struct stat now;
  if (::fstat(file->get(), &now) != 0) return std::unexpected(errno);
  if (now.st_ino != status.stx_ino || !S_ISREG(now.st_mode)) return std::unexpected(ENOENT);

  runs_.clear();
  const auto size = static_cast<off_t>(status.stx_size);
  off_t at = 0;
  while (at < size) {
    const off_t data = ::lseek(file->get(), at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // nothing but a hole up to the end
    // The file system does not know: all is data.
    if (data < 0 && (errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)) return {};
    if (data < 0) return std::unexpected(errno);
    if (data >= size) break;
    off_t hole = ::lseek(file->get(), data, SEEK_HOLE);
    if (hole < 0 && errno == ENXIO) hole = data;  // shortened meanwhile
    if (hole < 0) return std::unexpected(errno);
    hole = std::min(hole, size);
    if (hole <= data) break;
    runs_.push_back({static_cast<std::uint64_t>(data), static_cast<std::uint64_t>(hole - data)});
    at = hole;
  }
  const Range all{0, status.stx_size};
  if (runs_.size() == 1 && runs_.front() == all) return {};
  entry.head.sparse = true;
  entry.tail.data_runs = runs_;
  return {};
}

}  // namespace mkvirtfs
