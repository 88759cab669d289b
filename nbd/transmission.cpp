// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/transmission.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <utility>

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
    CommandRule{Command::read, kDf, 0, false, true, false, WireError::inval},
    CommandRule{Command::write, 0, 0, true, true, true, WireError::nospc},
    CommandRule{Command::disc, 0, 0, false, false, false, WireError::inval},
    CommandRule{Command::flush, 0, 0, false, false, false, WireError::inval},
    CommandRule{Command::trim, 0, kSendTrim, true, true, false, WireError::inval},
    CommandRule{Command::cache, 0, 0, false, true, false, WireError::inval},
    CommandRule{Command::write_zeroes, kNoHole | kFastZero, kSendWriteZeroes, true, true, false,
                WireError::nospc},
    CommandRule{Command::block_status, kReqOne, 0, false, true, false, WireError::inval},
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

std::uint16_t acceptable_flags(const CommandRule& rule, std::uint16_t transmission_flags) noexcept {
  unsigned flags = rule.flags | kFua;
  for (const FlagRule& limited : kFlagRules) {
    if ((transmission_flags & limited.advertised) == 0) {
      flags &= ~static_cast<unsigned>(limited.flag);
    }
  }
  return static_cast<std::uint16_t>(flags);
}

/// The most descriptors in one block status reply: clients ask on from where it ends.
/// All its contexts share them.
constexpr std::size_t kMostDescriptors = 8192;
constexpr std::size_t kStatusRoom = kMostDescriptors * 8 + Batch::kPieceBytes;
static_assert(kMostContexts * (kChunkHeaderBytes + 4) <= Batch::kPieceBytes);
/// The most extents of a map that one block status looks at, so that one request of 4 GiB over
/// tiny extents can not keep its thread for long. All its contexts share them, too.
constexpr std::size_t kMostExtentsWalked = 1U << 18;

}  // namespace

Verdict judge(const Request& request, const Agreement& agreed) noexcept {
  using Action = Verdict::Action;
  Verdict verdict;
  const auto refuse = [&](WireError error, std::string_view reason) {
    verdict.action = Action::refuse;
    verdict.error = error;
    verdict.reason = reason;
    return verdict;
  };
  const CommandRule* rule = find_rule(request.command);
  if (rule == nullptr) return refuse(WireError::inval, "this command is not known here");
  if (request.command == Command::disc) {
    verdict.action = Action::finish;
    return verdict;
  }
  if (rule->has_payload) {
    if (request.length > kLargestPayload) {
      verdict.action = Action::disconnect;
      verdict.reason = "the client sent a larger payload than it may";
      return verdict;
    }
    verdict.payload_bytes = request.length;
  }
  if (rule->writes && (agreed.transmission_flags & kReadOnly) != 0) {
    return refuse(WireError::perm, "the export is read-only");
  }
  if ((request.flags & ~acceptable_flags(*rule, agreed.transmission_flags)) != 0) {
    return refuse(WireError::inval, "the command can not have these flags");
  }
  if (rule->advertised != 0 && (agreed.transmission_flags & rule->advertised) == 0) {
    return refuse(WireError::inval, "the command was not offered");
  }
  if (request.command == Command::flush && (request.offset != 0 || request.length != 0)) {
    return refuse(WireError::inval, "flush has neither offset nor length");
  }
  const std::uint64_t size = agreed.exported.device->geometry().size_bytes;
  if (rule->has_range && (request.length > size || request.offset > size - request.length)) {
    return refuse(rule->range_error, "the range is outside the export");
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

Transmission::Transmission(Agreement agreed, Batch& out, const TransmissionTuning& tuning)
    : agreed_(std::move(agreed)),
      out_(out),
      read_(*agreed_.exported.device, out, agreed_.structured_replies,
            tuning.file_runs ? tuning.file_run_bytes : std::numeric_limits<std::uint64_t>::max()) {
  assert(tuning.batch_bytes >= kStatusRoom + Batch::kPieceBytes);
}

std::size_t Transmission::consume(std::span<const std::byte> input) {
  std::size_t used = 0;
  while (!ended_) {
    if (read_.active()) {
      read_.advance();
      if (read_.broken()) end(read_.reason());
      if (read_.active()) break;
    }
    if (out_.is_full()) break;
    const auto rest = input.subspan(used);
    if (dropping_) {
      used += drop(rest);
      if (dropping_) break;
      continue;
    }
    if (rest.size() < kRequestBytes) break;
    const auto request = decode_request(rest.first<kRequestBytes>());
    if (!request) {
      end("a request did not begin with its magic number");
      break;
    }
    if (request->command == Command::block_status && !out_.empty() && out_.room() < kStatusRoom) {
      break;
    }
    used += kRequestBytes;
    handle(*request);
  }
  return used;
}

void Transmission::batch_sent(const FileMove& move) { read_.batch_sent(move); }

std::size_t Transmission::drop(std::span<const std::byte> input) {
  if (!dropping_) return 0;
  const std::size_t taken = std::min<std::size_t>(input.size(), dropping_->bytes_left);
  dropping_->bytes_left -= static_cast<std::uint32_t>(taken);
  if (dropping_->bytes_left == 0) {
    append_error(out_, dropping_->cookie, dropping_->failure, agreed_.structured_replies);
    dropping_.reset();
  }
  return taken;
}

void Transmission::handle(const Request& request) {
  Verdict verdict = judge(request, agreed_);
  if (shutting_down_ &&
      (verdict.action == Verdict::Action::serve || verdict.action == Verdict::Action::refuse)) {
    verdict.action = Verdict::Action::refuse;
    verdict.error = WireError::shutdown;
    verdict.reason = "the server stops";
  }
  switch (verdict.action) {
    case Verdict::Action::finish:
      end("");
      return;
    case Verdict::Action::disconnect:
      end(verdict.reason);
      return;
    case Verdict::Action::refuse:
      dropping_ = {verdict.payload_bytes,
                   request.cookie,
                   {verdict.error, std::string(verdict.reason), std::nullopt}};
      drop({});
      return;
    case Verdict::Action::serve:
      break;
  }
  switch (request.command) {
    case Command::read:
      read_.begin(request);
      break;
    case Command::block_status:
      serve_block_status(request);
      break;
    default:
      // FLUSH and CACHE: everything is on stable storage, and the page cache does its own
      // reading ahead. Only reads must be answered with chunks.
      assert(request.command == Command::flush || request.command == Command::cache);
      out_.append(encode_simple_reply(WireError::ok, request.cookie));
      break;
  }
}

void Transmission::serve_block_status(const Request& request) {
  const std::size_t contexts = agreed_.contexts.size();
  const bool one = (request.flags & kReqOne) != 0;
  const StatusLimits limits{one ? 1 : kMostDescriptors / contexts, kMostExtentsWalked / contexts};
  for (std::size_t i = 0; i < contexts; ++i) {
    const auto& [id, context] = agreed_.contexts[i];
    runs_.clear();
    context->append_status(*agreed_.exported.device, {request.offset, request.length}, limits,
                           runs_);
    assert(!runs_.empty() && runs_.size() <= limits.most_runs &&
           runs_.front().range.offset == request.offset &&
           runs_.back().range.end() <= request.offset + request.length);
    out_.append(encode_chunk_header(i + 1 == contexts ? kChunkDone : 0, ChunkType::block_status,
                                    request.cookie, narrow<std::uint32_t>(4 + 8 * runs_.size())));
    out_.append(pack(id));
    for (const StatusRun& run : runs_) {
      out_.append(pack(narrow<std::uint32_t>(run.range.length), run.flags));
    }
  }
}

void Transmission::end(std::string_view reason) {
  end_reason_ = reason;
  ended_ = true;
}

}  // namespace mkvirtfs::nbd
