// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "nbd/server/negotiation.h"

// The faces that a Negotiation shows to extensions and namespaces. For its own sources alone.

namespace mkvirtfs::nbd {

/// All replies to one option; whatever was there before it is small.
inline constexpr std::size_t kMostReplyBytes = 1U << 20;
inline constexpr std::size_t kMostContextsSent = 4096;

/// What the handler of an extension talks to.
class Negotiation::Call final : public OptionCall {
 public:
  Call(Negotiation& negotiation, Option option)
      : negotiation_(negotiation),
        option_(option),
        full_(negotiation.out_.size_bytes() + kMostReplyBytes) {}

  ExportTree& exports() noexcept override { return negotiation_.exports_; }
  bool reply(OptionReply type, std::span<const std::byte> data) override {
    // ACK and errors are the envelope's.
    assert(type != OptionReply::ack && std::to_underlying(type) < option_error(0));
    if (kOptionReplyHeaderBytes + data.size() > room_bytes()) {
      overflowed_ = true;
      return false;
    }
    negotiation_.reply(option_, type, data);
    return true;
  }
  std::size_t room_bytes() const noexcept override {
    const std::size_t used = negotiation_.out_.size_bytes();
    return full_ > used ? full_ - used : 0;
  }
  void count_names(std::size_t names) noexcept override {
    negotiation_.names_listed_ = std::max(negotiation_.names_listed_, names);
  }
  bool overflowed() const noexcept { return overflowed_; }

 private:
  Negotiation& negotiation_;
  const Option option_;
  const std::size_t full_;
  bool overflowed_ = false;
};

/// The answer to LIST_META_CONTEXT.
class Negotiation::Listing final : public ContextListing {
 public:
  Listing(Negotiation& negotiation, Option option)
      : negotiation_(negotiation),
        option_(option),
        full_(negotiation.out_.size_bytes() + kMostReplyBytes) {}

  void tell(std::string_view name) override {
    assert(name.size() <= kLongestString);
    if (room() == 0) return;
    // Counted also when it was sent before: looking for it costs as much.
    ++given_;
    if (sent_.emplace(name).second) negotiation_.reply_context(option_, 0, name);
  }
  std::size_t room() const noexcept override {
    const std::size_t used = negotiation_.out_.size_bytes();
    const std::size_t bytes = full_ > used ? full_ - used : 0;
    return std::min(bytes / (kOptionReplyHeaderBytes + 4 + kLongestString),
                    kMostContextsSent - given_);
  }
  void count_names(std::size_t names) noexcept override {
    negotiation_.names_listed_ = std::max(negotiation_.names_listed_, names);
  }

 private:
  Negotiation& negotiation_;
  const Option option_;
  const std::size_t full_;
  std::size_t given_ = 0;
  std::set<std::string, std::less<>> sent_;
};

/// The export that a query is about.
class Negotiation::Queried final : public QueriedExport {
 public:
  Queried(Negotiation& negotiation, std::string_view asked_name, const ExportEntry& entry)
      : negotiation_(negotiation), asked_name_(asked_name), entry_(entry) {}

  ExportTree& exports() noexcept override { return negotiation_.exports_; }
  const ExportEntry& entry() const noexcept override { return entry_; }
  Result<Export> open() override { return negotiation_.open(asked_name_); }

 private:
  Negotiation& negotiation_;
  const std::string_view asked_name_;
  const ExportEntry& entry_;
};

}  // namespace mkvirtfs::nbd
