// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "exports/export_tree.h"
#include "nbd/server/extension.h"
#include "nbd/server/feature_set.h"
#include "nbd/server/reply.h"

namespace mkvirtfs::nbd {

/// A metadata context and the number that stands for it in block status replies.
struct SelectedContext {
  std::uint32_t id = 0;
  std::shared_ptr<const MetaContext> context;
};

/// A client may select so many contexts of one export.
inline constexpr std::size_t kMostContexts = 16;

/// What a client and the server settled in the handshake; it holds for the rest of the connection.
struct Agreement {
  Export exported;
  std::uint16_t transmission_flags = 0;  ///< as advertised; requests are judged by them
  Features features;                     ///< requests are judged by these, too
  bool structured_replies = false;
  bool extended_headers = false;
  /// Selected for this export, none twice. At most kMostContexts.
  std::vector<SelectedContext> contexts;

  ReplyStyle reply_style() const noexcept {
    return extended_headers     ? ReplyStyle::extended
           : structured_replies ? ReplyStyle::structured
                                : ReplyStyle::simple;
  }
};

}  // namespace mkvirtfs::nbd
