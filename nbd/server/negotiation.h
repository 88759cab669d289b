// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "exports/export_tree.h"
#include "nbd/server/agreement.h"
#include "nbd/server/batch.h"
#include "nbd/server/extension.h"
#include "nbd/server/feature_set.h"
#include "nbd/server/job.h"
#include "nbd/server/name_walk.h"
#include "nbd/server/remark.h"
#include "nbd/server/tls_mode.h"
#include "nbd/wire/codec.h"

namespace mkvirtfs::nbd {

/// LIST sends so many names, unless the server has another limit; GO takes every name,
/// listed or not, and LIST_HIER lists all.
inline constexpr std::size_t kMostNamesListed = 1000;

/// Where an export is opened that is not there at once.
enum class OpensExports : std::uint8_t {
  in_consume,  ///< on the thread that calls consume(), which waits
  by_job,      ///< by a job; the option that asked for it is taken when that came back
};

/// The handshake of one client ("Newstyle negotiation", fixed newstyle only): bytes in, bytes out.
///
/// A table says for each option how long its data may be, when it may be sent and what handles it,
/// and Extensions add lines to it; all that is alike for every option (magic, limits, dropping
/// data, framing of replies, the budget) stands once, around the table. No socket, clock or thread.
/// Belongs to one thread; the tree, the extensions, the batch and the remarks, which may be null,
/// live longer.
class Negotiation {
 public:
  /// Puts the greeting into `out`.
  Negotiation(ExportTree& exports, Batch& out, TlsMode tls = TlsMode::off,
              const Extensions& extensions = Extensions::standard(), Features features = {},
              Remarks* remarks = nullptr, std::size_t most_names_listed = kMostNamesListed,
              OpensExports opens = OpensExports::in_consume);

  /// Takes messages from the front of `input` and puts the answers into `out`; says how many bytes
  /// it took. It takes none when it must see wanted_bytes() first, when is_opening(), or when
  /// ended() or agreed().
  std::size_t consume(std::span<const std::byte> input);
  /// How many bytes of input make the next message whole, as far as is known.
  std::size_t wanted_bytes() const noexcept { return wanted_; }

  /// A job opens an export: see OpensExports.
  bool is_opening() const noexcept { return opening_ != nullptr; }
  /// See Session::take_job().
  std::shared_ptr<Job> take_job() noexcept { return std::exchange(new_job_, nullptr); }
  void job_done(Job& job);

  /// The client is to be disconnected, once it has been sent what is in the batch.
  bool ended() const noexcept { return phase_ == Phase::ended; }
  /// Why, for the log; "" when the client asked for it.
  std::string_view end_reason() const noexcept { return end_reason_; }
  /// The client has asked for an export, by INFO or GO, and there was one.
  bool has_opened_export() const noexcept { return has_opened_export_; }
  /// Why the client was refused what it asked for last; for the log.
  const Remark& refusal() const noexcept { return refusal_; }
  /// The handshake succeeded: what follows in the input belongs to transmission.
  bool agreed() const noexcept { return phase_ == Phase::agreed; }
  Agreement take_agreement();

  /// STARTTLS was answered: once the batch is sent, TLS begins. Any byte that was received behind
  /// STARTTLS without it ends the handshake.
  bool wants_tls() const noexcept { return phase_ == Phase::starting_tls; }
  /// TLS is on, and what consume() takes from now on came through it.
  void tls_established() noexcept;

  /// From now on every option but ABORT is refused with ERR_SHUTDOWN.
  void begin_shutdown() noexcept { shutting_down_ = true; }

  /// The most names that one option sent to this client. Its budget of options grows with them, and
  /// its time should: clients ask for each name that they were sent.
  std::size_t names_listed() const noexcept { return names_listed_; }

 private:
  enum class Phase : std::uint8_t { client_flags, options, starting_tls, agreed, ended };
  struct Rule;
  class Call;
  class Listing;
  class Queried;
  using Data = std::span<const std::byte>;

  static const Rule* find_rule(Option option) noexcept;

  /// What the server knows of an option.
  struct Known {
    const Rule* own = nullptr;                   ///< the protocol's,
    const OptionExtension* extension = nullptr;  ///< or an extension's
    const OptionRule* rule = nullptr;            ///< of either
    bool lacks_tls = false;                      ///< it is not answered without TLS
  };
  Known find_known(Option option) const noexcept;
  bool is_acceptable(const Known& known, std::uint32_t length) const noexcept;
  std::size_t refuse_unacceptable(const Known& known, const OptionHeader& header);

  /// Takes an extension's option from its budget; false when the common one is to pay.
  bool is_free(const OptionExtension& extension);

  std::size_t consume_client_flags(Data input);
  std::size_t consume_option(Data input);
  std::size_t drop(Data input);
  /// Answers the option once its `length` bytes of data are dropped.
  void refuse_after(std::uint32_t length, Option option, OptionReply reply, std::string text);

  void on_export_name(Option option, Data data);
  void on_list(Option option, Data data);
  /// Sends one page of the names, or the end of the list.
  void list_on();
  void end_list();
  void on_starttls(Option option, Data data);
  void on_info_or_go(Option option, Data data);
  void on_extended_headers(Option option, Data data);
  void on_structured_reply(Option option, Data data);
  void on_list_meta_context(Option option, Data data);
  void on_set_meta_context(Option option, Data data);
  void on_extension(const OptionExtension& extension, Data data);
  bool offers(const MetaNamespace& known) const noexcept;
  /// The namespace of "NAME:rest", nullptr when it is not known, and the rest.
  std::pair<const MetaNamespace*, std::string_view> find_namespace(
      std::string_view query) const noexcept;

  Result<Export> open(std::string_view name);
  Result<Export> open_in_tree(std::string_view name);
  void agree(Export exported);
  std::uint16_t transmission_flags(const Export& exported) const noexcept;
  void reply_export(Option option, const ExportEntry& entry);
  void reply_context(Option option, std::uint32_t id, std::string_view name);
  void reply(Option option, OptionReply reply, std::span<const std::byte> data = {});
  void refuse(Option option, OptionReply reply, std::string_view text);
  void end(std::string_view reason);
  void note_refusal(const Error& error);

  ExportTree& exports_;
  const Extensions& extensions_;
  Batch& out_;
  const TlsMode tls_;
  const Features features_;
  Remarks* const remarks_;
  const std::size_t most_names_listed_;
  const OpensExports opens_;
  bool tls_is_on_ = false;
  Phase phase_ = Phase::client_flags;
  std::string end_reason_;
  Remark refusal_;
  bool shutting_down_ = false;
  bool fixed_newstyle_ = false;
  bool no_zeroes_ = false;
  bool structured_replies_ = false;
  bool extended_headers_ = false;
  std::size_t wanted_ = kClientFlagsBytes;
  std::size_t options_taken_ = 0;
  std::size_t names_listed_ = 0;
  /// How often each of the extensions' options was sent; empty until the first.
  std::vector<std::size_t> extension_calls_;

  /// An option whose data is being dropped, and its answer.
  struct Dropping {
    std::uint32_t bytes_left = 0;
    Option option{};
    OptionReply reply{};
    std::string text;
  };
  std::optional<Dropping> dropping_;

  /// A LIST that is being answered, page by page as the batch is sent.
  std::optional<NameWalk> listing_;
  bool has_remarked_cut_list_ = false;

  /// What SET_META_CONTEXT selected, and the canonical name of the export for which it did.
  struct Selection {
    std::string export_name;
    std::vector<SelectedContext> contexts;
  };
  std::optional<Selection> selection_;

  /// The last export that was opened, so that INFO, SET_META_CONTEXT and GO open it once.
  struct Opened {
    std::string asked_name;
    Export exported;
  };
  std::optional<Opened> opened_;
  bool has_opened_export_ = false;
  std::shared_ptr<Job> opening_;  // until it came back
  std::shared_ptr<Job> new_job_;  // until it is taken
  /// What a job found, for the option that asked for it.
  struct Tried {
    std::string asked_name;
    Result<Export> outcome;
  };
  std::optional<Tried> tried_;
  Agreement agreement_;
};

}  // namespace mkvirtfs::nbd
