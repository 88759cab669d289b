// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/device.h"
#include "block/extent.h"
#include "exports/export_tree.h"
#include "nbd/server/feature_set.h"
#include "nbd/wire/codec.h"
#include "nbd/wire/protocol.h"
#include "support/error.h"

// How a server learns options and metadata contexts of its own. All that is alike for every option
// stays with the server: magic numbers, limits, dropping what is refused, TLS, framing, the budget,
// the last reply. Handlers are called on the connections' threads, several at once: what they share
// they must guard. They may wait for nothing but the host.

namespace mkvirtfs::nbd {

/// How an option is to be sent; what breaks it is refused before anything looks at the data.
struct OptionRule {
  Option option{};
  /// How long its data may be; other lengths are ERR_INVALID. At most kLongestOption.
  std::uint32_t least_bytes = 0;
  std::uint32_t most_bytes = 0;
  /// A server that insists on TLS answers ERR_TLS_REQD until the connection has it.
  bool needs_tls = true;
};

/// What a handler may ask and say while it answers one option.
class OptionCall {
 public:
  virtual ExportTree& exports() noexcept = 0;
  /// A reply that is not the last one: neither ACK nor an error. False, and the option ends with
  /// ERR_TOO_BIG, when it needs more than room_bytes().
  virtual bool reply(OptionReply type, std::span<const std::byte> data) = 0;
  /// How many bytes of replies, headers included, may still be given to this option.
  virtual std::size_t room_bytes() const noexcept = 0;
  /// The client was sent so many names, and may ask about each: see Negotiation::names_listed().
  virtual void count_names(std::size_t names) noexcept = 0;

 protected:
  ~OptionCall() = default;
};

/// An option that the protocol does not have, or has not yet.
struct OptionExtension {
  OptionRule rule;
  /// So many of them do not count against what a client may send on one connection.
  std::size_t free_calls = 0;
  /// What it is a part of: without that it is not known, and a Feature::hier without Feature::list
  /// is refused by policy.
  std::optional<Feature> feature;
  /// Answers the option: its last reply is ACK, or the refusal. Data is only there during the call.
  std::function<std::expected<void, OptionRefusal>(std::span<const std::byte> data,
                                                   OptionCall& call)>
      handler;
};

/// A stretch of a device with one status. What the flags mean is for the context to say.
struct StatusRun {
  Range range;
  std::uint32_t flags = 0;

  friend bool operator==(const StatusRun&, const StatusRun&) = default;
};

/// How much a context may report and look at for one request. Neither is 0.
struct StatusLimits {
  std::size_t most_runs = 0;
  std::size_t most_extents = 0;
};

/// One metadata context, as clients select it. Shared by all connections; immutable.
class MetaContext {
 public:
  virtual ~MetaContext() = default;
  /// The full name, "base:allocation": a string of the protocol.
  virtual std::string_view name() const noexcept = 0;
  /// Appends the status of `request`, which is not empty and inside the device: in order, gapless,
  /// from its start, at least one run and at most `limits.most_runs`, none empty, none behind the
  /// end of the request. It may end before the request does.
  virtual void append_status(const BlockDevice& device, Range request, const StatusLimits& limits,
                             std::vector<StatusRun>& runs) const = 0;

 protected:
  MetaContext() = default;
  MetaContext(const MetaContext&) = default;
  MetaContext& operator=(const MetaContext&) = default;
};

/// The export that a client asks about; it may not be built yet.
class QueriedExport {
 public:
  virtual ExportTree& exports() noexcept = 0;
  virtual const ExportEntry& entry() const noexcept = 0;
  /// Builds it, if that was not done. For contexts that only some devices have. A server may fail
  /// this and ask list() or select() again when the device is there; what they gave is forgotten.
  virtual Result<Export> open() = 0;

 protected:
  ~QueriedExport() = default;
};

/// Takes the names that LIST_META_CONTEXT sends. A name is sent once, however often it is given.
class ContextListing {
 public:
  /// A full name, of at most kLongestString bytes. Dropped when there is no room.
  virtual void tell(std::string_view name) = 0;
  /// How many more names are taken, however long they are.
  virtual std::size_t room() const noexcept = 0;
  /// See OptionCall.
  virtual void count_names(std::size_t names) noexcept = 0;

 protected:
  ~ContextListing() = default;
};

/// All contexts with one prefix ("Metadata querying"). Shared by all connections; immutable.
class MetaNamespace {
 public:
  virtual ~MetaNamespace() = default;
  /// What stands before the colon. Ours to choose are names that begin with "x-".
  virtual std::string_view name() const noexcept = 0;
  /// What it is a part of: without that it is not known. Feature::hier needs Feature::list as well.
  virtual std::optional<Feature> feature() const noexcept { return std::nullopt; }
  /// What LIST_META_CONTEXT answers to "NAME:query"; "" asks for all contexts that can be selected.
  virtual void list(std::string_view query, QueriedExport& exported,
                    ContextListing& listing) const = 0;
  /// What SET_META_CONTEXT selects by "NAME:query"; nullptr: nothing.
  virtual std::shared_ptr<const MetaContext> select(std::string_view query,
                                                    QueriedExport& exported) const = 0;

 protected:
  MetaNamespace() = default;
  MetaNamespace(const MetaNamespace&) = default;
  MetaNamespace& operator=(const MetaNamespace&) = default;
};

/// What a server knows beyond the options of the protocol. Filled before the server is made, and
/// immutable from then on.
class Extensions {
 public:
  /// Holds the namespace "base" and nothing else.
  Extensions();
  /// The same, shared by servers without any of their own.
  static const Extensions& standard();

  /// Errc::usage: a number that the protocol or an earlier call has taken, or that is an error's;
  /// lengths that contradict each other or the limits; no handler.
  Result<void> add_option(OptionExtension extension);
  /// Errc::usage: a name that is taken, or is neither one of the protocol's ("base", "nbd-server",
  /// "qemu") nor "x-" and something printable without blanks and colons.
  Result<void> add_namespace(std::shared_ptr<const MetaNamespace> added);

  /// In ascending order of their numbers.
  std::span<const OptionExtension> options() const noexcept { return options_; }
  /// nullptr when there is none.
  const OptionExtension* find_option(Option option) const noexcept;
  const MetaNamespace* find_namespace(std::string_view name) const noexcept;
  std::span<const std::shared_ptr<const MetaNamespace>> namespaces() const noexcept {
    return namespaces_;
  }

 private:
  std::vector<OptionExtension> options_;
  std::vector<std::shared_ptr<const MetaNamespace>> namespaces_;
};

}  // namespace mkvirtfs::nbd
