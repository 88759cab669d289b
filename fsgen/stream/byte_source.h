// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "block/content.h"
#include "support/error.h"

namespace mkvirtfs {

/// Bytes that can be read at any offset, whatever it takes to make them: a host file, a window of
/// another source, what a compressed stream unpacks to, a spool.
///
/// What is behind it does not change, or reads fail (law 5). Sources stand upon each other and own
/// what they stand upon. Every method may run on several threads at once.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  virtual std::uint64_t size_bytes() const noexcept = 0;

  /// Fills all of `out` from `offset`, or fails. Never short; the caller stays inside size_bytes().
  virtual Result<void> read(std::uint64_t offset, std::span<std::byte> out) = 0;

  /// As in ContentStore, with the same promises: what can be had without waiting for a disk or for
  /// a decoder, and the wait itself.
  virtual Result<bool> read_at_once(std::uint64_t offset, std::span<std::byte> out);
  virtual bool is_at_hand(Range range);
  virtual void fetch(Range range);
  virtual bool keeps_fetched();

  /// A descriptor in which byte n of the source stands at n + file_offset, or an empty one when
  /// only read() will do; and the question whether it is still what it was, to be asked after the
  /// move.
  virtual Result<ContentStore::Pin> pin() { return ContentStore::Pin{}; }
  virtual Result<void> recheck(const PinnedFile& file);

  /// For messages, raw bytes: "rootfs.tar.gz".
  virtual std::string name() const = 0;
};

}  // namespace mkvirtfs
