// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "block/extent.h"
#include "block/file_facts.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs {

/// An open host file that the kernel can move bytes from (sendfile, copy_file_range). Keeps the
/// descriptor open while it lives; copying it is cheap.
class PinnedFile {
 public:
  /// No descriptor: the bytes can only be had by ContentStore::read().
  PinnedFile() = default;
  explicit PinnedFile(std::shared_ptr<const UniqueFd> fd) : fd_(std::move(fd)) {}

  /// -1 when there is none.
  int fd() const noexcept { return fd_ ? fd_->get() : -1; }
  explicit operator bool() const noexcept { return fd() >= 0; }

 private:
  std::shared_ptr<const UniqueFd> fd_;
};

/// The bytes of the files of one source: a host directory, an archive, a test's memory.
///
/// A file that is no longer what was planned is answered by the store's own policy (law 5); by
/// default with Errc::source_changed and the file's name. Every method may run on several threads
/// at once.
///
/// The defaults are those of a store of which nothing is known: any read may wait, and nothing is
/// kept. What lies in memory is a MemoryStore.
class ContentStore {
 public:
  virtual ~ContentStore() = default;

  /// Fills all of `out` with the bytes of `content` from `offset`, or fails. Never short. The
  /// caller stays inside the size that was planned.
  virtual Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) = 0;

  /// read(), when that takes no waiting for a disk or another machine, as far as the kernel can
  /// tell: false, and `out` unspecified, when it would.
  virtual Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                                    std::span<std::byte> out);

  /// Whether pin() and a move of these bytes by the kernel would go without such waiting. A good
  /// guess, and cheap.
  virtual bool is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length);

  /// Waits until the bytes are at hand. Reports no failure: the read that follows does.
  virtual void fetch(ContentNo content, std::uint64_t offset, std::uint64_t length);

  /// Whether what fetch() brought is at hand afterwards, as a rule. Where it is not, who must not
  /// wait has another thread read() the bytes, and takes them from there.
  virtual bool keeps_fetched(ContentNo content);

  /// A descriptor in which byte n of `content` stands at file offset n + `file_offset`, checked to
  /// be the planned file at this moment; or an empty PinnedFile when only read() will do. After
  /// bytes have been moved the caller must ask recheck() before it vouches for them.
  struct Pin {
    PinnedFile file;
    std::uint64_t file_offset = 0;
  };
  virtual Result<Pin> pin(ContentNo content) = 0;

  /// Fails when the file changed since pin(): what was moved meanwhile may be a mixture.
  virtual Result<void> recheck(ContentNo content, const PinnedFile& file) = 0;

  /// What `range` of `content`, which lies inside its planned size, is made of: in order, gapless,
  /// exactly covering it unless the sink stops; offsets count from the content's start. A content
  /// that is made of others (JoinedContents) is memory, holes, and contents of other stores. By
  /// default it is one extent of kind content: its own.
  virtual void map(ContentNo content, Range range, ExtentSink& sink);
  /// Whether map() may say anything else of some content. Constant.
  virtual bool has_joined() const { return false; }

  /// The file's path inside its source, as raw bytes, for messages.
  virtual std::string name(ContentNo content) const = 0;

  /// What the host said of it when it was scanned, for a node of any type; nothing where it is no
  /// file of its own there, where there is no such node, or where nobody asked the scan for it
  /// (ScanOptions::keep_facts).
  struct HostFile {
    FileFacts facts;
    /// Below the root of its source, where name() says something else.
    std::string path;
  };
  virtual std::optional<HostFile> host_file(ContentNo content) const;
  /// Which of the sources that were merged it comes from, the first one being 0.
  virtual std::uint32_t source_of(ContentNo content) const;
};

/// A store whose read() never waits.
class MemoryStore : public ContentStore {
 public:
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override;
  bool is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) override;
  bool keeps_fetched(ContentNo content) override;
};

}  // namespace mkvirtfs
