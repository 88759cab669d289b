// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/command_rules.h"

#include <algorithm>
#include <array>
#include <optional>

#include "nbd/server/allocation.h"
#include "support/arithmetic.h"

namespace mkvirtfs::nbd {
namespace {

/// One line of the command table.
struct CommandRule {
  Command command;
  /// The flags that the protocol documents for it; FUA goes with every command.
  std::uint16_t flags;
  /// The transmission flag without which it must not be sent; 0 when it is always allowed.
  std::uint16_t advertised;
  /// Nor must it be sent without this.
  std::optional<Feature> feature;
  bool writes;
  bool has_range;
  bool has_payload;
  /// What a range outside the export is answered with.
  WireError range_error;
};

// "Request types". FLUSH is taken although read-only exports do not advertise it, and CACHE must
// be served even when it is not advertised: both have nothing to do here, and clients that send
// them out of habit are not worth an error.
constexpr std::array kCommandRules = {
    CommandRule{Command::read, kDf, 0, {}, false, true, false, WireError::inval},
    CommandRule{Command::write, 0, 0, {}, true, true, true, WireError::nospc},
    CommandRule{Command::disc, 0, 0, {}, false, false, false, WireError::inval},
    CommandRule{Command::flush, 0, 0, Feature::flush, false, false, false, WireError::inval},
    CommandRule{Command::trim, 0, kSendTrim, {}, true, true, false, WireError::inval},
    CommandRule{Command::cache, 0, 0, Feature::cache, false, true, false, WireError::inval},
    CommandRule{Command::write_zeroes,
                kNoHole | kFastZero,
                kSendWriteZeroes,
                {},
                true,
                true,
                false,
                WireError::nospc},
    CommandRule{Command::block_status, kReqOne, 0, {}, false, true, false, WireError::inval},
};
static_assert(std::ranges::is_sorted(kCommandRules, {}, &CommandRule::command));

/// Flags that may only be sent when a transmission flag advertised them.
struct FlagRule {
  std::uint16_t flag;
  std::uint16_t advertised;
};
constexpr std::array kFlagRules = {FlagRule{kFua, kSendFua}, FlagRule{kDf, kSendDf},
                                   FlagRule{kFastZero, kSendFastZero}};

const CommandRule* find_rule(Command command) noexcept {
  const auto found = std::ranges::lower_bound(kCommandRules, command, {}, &CommandRule::command);
  return found != kCommandRules.end() && found->command == command ? &*found : nullptr;
}

std::uint16_t acceptable_flags(const CommandRule& rule, const Agreement& agreed) noexcept {
  unsigned flags = rule.flags | kFua;
  const bool may_have_payload = rule.command == Command::block_status &&
                                (agreed.transmission_flags & kBlockStatusPayload) != 0;
  if (agreed.extended_headers && (rule.has_payload || may_have_payload)) flags |= kPayloadLen;
  for (const FlagRule& limited : kFlagRules) {
    if ((agreed.transmission_flags & limited.advertised) == 0) {
      flags &= ~static_cast<unsigned>(limited.flag);
    }
  }
  return static_cast<std::uint16_t>(flags);
}

}  // namespace

bool has_range(Command command) noexcept {
  const CommandRule* const rule = find_rule(command);
  return rule != nullptr && rule->has_range;
}

Verdict judge(const Request& request, const Agreement& agreed) noexcept {
  using Action = Verdict::Action;
  Verdict verdict;
  const auto refuse = [&](WireError error, std::string_view reason) {
    verdict.action = Action::refuse;
    verdict.error = error;
    verdict.reason = reason;
    return verdict;
  };
  if (request.command == Command::disc) {
    verdict.action = Action::finish;
    return verdict;
  }
  // Without extended headers the flag is an unknown one, and the length that of the effect.
  const bool flagged_payload = agreed.extended_headers && (request.flags & kPayloadLen) != 0;
  const CommandRule* rule = find_rule(request.command);
  if ((rule != nullptr && rule->has_payload) || flagged_payload) {
    if (request.length > kLargestPayload) {
      verdict.action = Action::disconnect;
      verdict.reason = "the client sent a larger payload than it may";
      return verdict;
    }
    verdict.payload_bytes = narrow<std::uint32_t>(request.length);
  }
  if (rule == nullptr) return refuse(WireError::inval, "this command is not known here");
  if (rule->writes && (agreed.transmission_flags & kReadOnly) != 0) {
    return refuse(WireError::perm, "the export is read-only");
  }
  if ((request.flags & ~acceptable_flags(*rule, agreed)) != 0) {
    return refuse(WireError::inval, "the command cannot have these flags");
  }
  const bool masked = rule->feature && !agreed.features.has(*rule->feature);
  if (masked || (rule->advertised != 0 && (agreed.transmission_flags & rule->advertised) == 0)) {
    return refuse(WireError::inval, "the command was not offered");
  }
  if (request.command == Command::flush && (request.offset != 0 || request.length != 0)) {
    return refuse(WireError::inval, "flush has neither offset nor length");
  }
  if (request.command == Command::block_status && flagged_payload) {
    // What it is about stands in the payload, and is judged when that is there.
    const std::uint64_t most =
        kFilterHeadBytes + kContextIdBytes * std::uint64_t{agreed.contexts.size()};
    if (request.length < kFilterHeadBytes + kContextIdBytes || request.length > most ||
        request.length % kContextIdBytes != 0) {
      return refuse(WireError::inval, "a list of contexts cannot have this length");
    }
    return verdict;
  }
  const std::uint64_t size = agreed.exported.device->geometry().size_bytes;
  if (rule->has_range && (request.length > size || request.offset > size - request.length)) {
    return refuse(rule->range_error, "the range is outside the export");
  }
  const std::uint64_t block_bytes = minimum_block_bytes(agreed.exported.device->geometry());
  if (rule->has_range && ((request.offset | request.length) & (block_bytes - 1)) != 0) {
    return refuse(WireError::inval, "the range is not in whole blocks of the export");
  }
  if (request.command == Command::read && request.length > kLargestPayload) {
    return refuse(WireError::overflow, "the reply would be larger than a payload may be");
  }
  if (request.command == Command::block_status) {
    if (agreed.contexts.empty()) return refuse(WireError::inval, "no context was selected");
    // The answer must have a descriptor, and that must not be empty.
    if (request.length == 0) return refuse(WireError::inval, "the status of nothing was asked");
  }
  return verdict;
}

}  // namespace mkvirtfs::nbd
