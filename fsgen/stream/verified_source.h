// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>

#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/digest.h"
#include "support/error.h"

namespace mkvirtfs {

/// The bytes of another source, hashed as they are read from the beginning to the end; what is read
/// again or out of order passes through. Any thread, like all sources.
class VerifiedSource : public ByteSource {
 public:
  /// Hashes what was not read yet, and compares. Errc::unreadable names both digests. What was
  /// found stays.
  virtual Result<void> verify() = 0;
};

std::shared_ptr<VerifiedSource> make_verified(std::shared_ptr<ByteSource> source,
                                              const Digest& wanted);

}  // namespace mkvirtfs
