// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/negotiation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <string>
#include <utility>
#include <vector>

#include "nbd/server/allocation.h"
#include "nbd/server/negotiation_calls.h"

namespace mkvirtfs::nbd {
namespace {

/// A client may send this many options, and as many again for each name that LIST sent it: nbdinfo
/// asks nine questions about every export, over one connection.
constexpr std::size_t kOptionBudget = 32;

/// Answers are handed over when they reach this size, before more options are looked at.
constexpr std::size_t kEnoughOutput = 64U << 10;

}  // namespace

/// One line of the table of the protocol's own options.
struct Negotiation::Rule {
  OptionRule shape;
  /// Whether a client that did not take up fixed newstyle may send it.
  bool any_newstyle;
  /// Without it the option is not known.
  std::optional<Feature> feature;
  void (Negotiation::*handler)(Option, Data);
};

const Negotiation::Rule* Negotiation::find_rule(Option option) noexcept {
  constexpr std::uint32_t kString = kLongestString;
  // A name, the number of items and up to 65535 items.
  constexpr std::uint32_t kMostInfo = 4 + kString + 2 + 2 * 65535;
  using N = Negotiation;
  // Sorted by option. ABORT is not here because it has no rule at all: its data means nothing.
  static constexpr std::array kRules = {
      Rule{{Option::export_name, 0, kString, true}, true, {}, &N::on_export_name},
      Rule{{Option::list, 0, 0, true}, false, {}, &N::on_list},
      Rule{{Option::starttls, 0, 0, false}, false, {}, &N::on_starttls},
      Rule{{Option::info, 6, kMostInfo, true}, false, {}, &N::on_info_or_go},
      Rule{{Option::go, 6, kMostInfo, true}, false, {}, &N::on_info_or_go},
      Rule{{Option::structured_reply, 0, 0, true},
           false,
           Feature::structured,
           &N::on_structured_reply},
      Rule{{Option::list_meta_context, 8, kLongestOption, true},
           false,
           Feature::meta_context,
           &N::on_list_meta_context},
      Rule{{Option::set_meta_context, 8, kLongestOption, true},
           false,
           Feature::meta_context,
           &N::on_set_meta_context},
      Rule{{Option::extended_headers, 0, 0, true},
           false,
           Feature::extended_headers,
           &N::on_extended_headers},
  };
  constexpr auto kNumber = [](const Rule& rule) { return rule.shape.option; };
  static_assert(std::ranges::is_sorted(kRules, {}, kNumber));
  const auto found = std::ranges::lower_bound(kRules, option, {}, kNumber);
  return found != kRules.end() && found->shape.option == option ? &*found : nullptr;
}

Negotiation::Negotiation(ExportTree& exports, Batch& out, TlsMode tls, const Extensions& extensions,
                         Features features, Remarks* remarks, std::size_t most_names_listed,
                         OpensExports opens)
    : exports_(exports),
      extensions_(extensions),
      out_(out),
      tls_(tls),
      features_(features),
      remarks_(remarks),
      most_names_listed_(most_names_listed),
      opens_(opens) {
  out_.append(encode_greeting(kFixedNewstyle | kNoZeroes));
}

std::size_t Negotiation::consume(std::span<const std::byte> input) {
  std::size_t used = 0;
  while (!is_opening() && out_.size_bytes() < kEnoughOutput) {
    if (listing_) {
      list_on();
      continue;
    }
    const Data rest = input.subspan(used);
    std::size_t taken = 0;
    if (dropping_) {
      taken = drop(rest);
    } else if (phase_ == Phase::client_flags) {
      taken = consume_client_flags(rest);
    } else if (phase_ == Phase::options) {
      taken = consume_option(rest);
    }
    if (taken == 0) break;
    used += taken;
  }
  // Bytes from before TLS may be an attacker's: they must not be taken for the client's own.
  if (wants_tls() && used < input.size()) end("the client sent something between STARTTLS and TLS");
  return used;
}

void Negotiation::tls_established() noexcept {
  assert(wants_tls());
  tls_is_on_ = true;
  phase_ = Phase::options;
}

std::size_t Negotiation::consume_client_flags(Data input) {
  wanted_ = kClientFlagsBytes;
  if (input.size() < wanted_) return 0;
  const auto flags = load_be<std::uint32_t>(input);
  if ((flags & ~std::uint32_t{kFixedNewstyle | kNoZeroes}) != 0) {
    end(fmt::format("the client sent flags that were not offered: {:#x}", flags));
    return 0;
  }
  fixed_newstyle_ = (flags & kFixedNewstyle) != 0;
  no_zeroes_ = (flags & kNoZeroes) != 0;
  phase_ = Phase::options;
  wanted_ = kOptionHeaderBytes;
  return kClientFlagsBytes;
}

std::size_t Negotiation::consume_option(Data input) {
  wanted_ = kOptionHeaderBytes;
  if (input.size() < wanted_) return 0;
  const auto header = decode_option_header(input.first<kOptionHeaderBytes>());
  if (!header) {
    end("an option did not begin with its magic number");
    return 0;
  }
  const auto [option, length] = *header;
  if (length > kLongestDrainedOption) {
    end(fmt::format("option {} came with {} bytes of data", std::to_underlying(option), length));
    return 0;
  }
  const Known known = find_known(option);
  const bool acceptable = is_acceptable(known, length);
  if (acceptable) {
    wanted_ = kOptionHeaderBytes + length;
    if (input.size() < wanted_) return 0;
  }
  // From here on the option is taken, unless an export must be opened first.
  const bool free = known.extension != nullptr && is_free(*known.extension);
  if (!free && ++options_taken_ > kOptionBudget * (1 + names_listed_)) {
    end("the client sent too many options");
    return 0;
  }
  // SET_META_CONTEXT replaces the former selection even when it fails.
  if (option == Option::set_meta_context) selection_.reset();
  if (acceptable) {
    const Data data = input.subspan(kOptionHeaderBytes, length);
    const Batch::Mark before = out_.mark();
    known.own != nullptr ? (this->*known.own->handler)(option, data)
                         : on_extension(*known.extension, data);
    if (is_opening()) {
      out_.rewind(before);
      if (!free) --options_taken_;
      return 0;
    }
    tried_.reset();
    return kOptionHeaderBytes + length;
  }
  tried_.reset();
  return refuse_unacceptable(known, *header);
}

/// The option of a feature that is missing is answered like an unknown one.
Negotiation::Known Negotiation::find_known(Option option) const noexcept {
  Known known;
  known.own = find_rule(option);
  if (known.own != nullptr) {
    if (known.own->feature && !features_.has(*known.own->feature)) known.own = nullptr;
  } else {
    known.extension = extensions_.find_option(option);
    if (known.extension != nullptr && known.extension->feature &&
        !features_.has(*known.extension->feature)) {
      known.extension = nullptr;
    }
  }
  known.rule = known.own != nullptr         ? &known.own->shape
               : known.extension != nullptr ? &known.extension->rule
                                            : nullptr;
  known.lacks_tls =
      tls_ == TlsMode::require && !tls_is_on_ && (known.rule == nullptr || known.rule->needs_tls);
  return known;
}

bool Negotiation::is_acceptable(const Known& known, std::uint32_t length) const noexcept {
  return known.rule != nullptr && !shutting_down_ && !known.lacks_tls &&
         (fixed_newstyle_ || (known.own != nullptr && known.own->any_newstyle)) &&
         length >= known.rule->least_bytes && length <= known.rule->most_bytes;
}

/// Says why, once the data is dropped. Returns how many bytes it took: those of the header, or none
/// when the handshake has ended.
std::size_t Negotiation::refuse_unacceptable(const Known& known, const OptionHeader& header) {
  const auto [option, length] = header;
  if (option == Option::export_name) {
    // The one option that has no error reply.
    end(shutting_down_    ? "the server stops"
        : known.lacks_tls ? "the client asked for an export without TLS"
                          : "the client asked for an impossible export name");
    return 0;
  }
  if (option == Option::abort) {
    refuse_after(length, option, OptionReply::ack, {});
  } else if (shutting_down_) {
    refuse_after(length, option, OptionReply::err_shutdown, "the server stops");
  } else if (!fixed_newstyle_) {
    refuse_after(length, option, OptionReply::err_invalid,
                 "options other than EXPORT_NAME need the fixed newstyle flag");
  } else if (known.lacks_tls) {
    refusal_.text = "it asked for an export without TLS";
    refuse_after(length, option, OptionReply::err_tls_reqd, "this server wants TLS first");
  } else if (known.rule == nullptr) {
    refuse_after(length, option, OptionReply::err_unsup, "this option is not known here");
  } else if (length > kLongestOption) {
    refuse_after(length, option, OptionReply::err_too_big,
                 fmt::format("the data of an option ends at {} bytes", kLongestOption));
  } else {
    refuse_after(length, option, OptionReply::err_invalid,
                 fmt::format("this option cannot have {} bytes of data", length));
  }
  return kOptionHeaderBytes;
}

void Negotiation::refuse_after(std::uint32_t length, Option option, OptionReply reply,
                               std::string text) {
  dropping_ = {length, option, reply, std::move(text)};
  if (length == 0) drop({});
}

std::size_t Negotiation::drop(Data input) {
  if (!dropping_) return 0;
  const std::size_t taken = std::min<std::size_t>(input.size(), dropping_->bytes_left);
  dropping_->bytes_left -= static_cast<std::uint32_t>(taken);
  wanted_ = 1;
  if (dropping_->bytes_left != 0) return taken;
  const Dropping dropped = std::move(*dropping_);
  dropping_.reset();
  wanted_ = kOptionHeaderBytes;
  if (dropped.reply == OptionReply::ack) {
    reply(dropped.option, OptionReply::ack);
    end("");
  } else {
    refuse(dropped.option, dropped.reply, dropped.text);
  }
  return taken;
}

void Negotiation::on_export_name(Option, Data data) {
  if (!is_request_string(as_text(data))) {
    end("the client asked for an impossible export name");
    return;
  }
  if (extended_headers_) {
    end("EXPORT_NAME cannot follow extended headers");
    return;
  }
  Result<Export> exported = open(as_text(data));
  if (is_opening()) return;
  if (!exported) {
    end(exported.error().what);
    note_refusal(exported.error());
    return;
  }
  const Geometry& geometry = exported->device->geometry();
  out_.append(pack(geometry.size_bytes, transmission_flags(*exported)));
  if (!no_zeroes_) {
    static constexpr std::array<std::byte, kExportNamePadding> kPadding{};
    out_.append(kPadding);
  }
  agree(*std::move(exported));
}

void Negotiation::on_list(Option option, Data) {
  if (!features_.has(Feature::list)) {
    refuse(option, OptionReply::err_policy, "this server does not list its exports");
    return;
  }
  listing_.emplace(exports_, most_names_listed_);
}

void Negotiation::list_on() {
  const bool has_more = listing_->visit_page([&](const ExportEntry& entry) {
    reply_export(Option::list, entry);
    names_listed_ = std::max(names_listed_, listing_->visited());
  });
  if (!has_more) end_list();
}

void Negotiation::end_list() {
  if (listing_->was_cut() && remarks_ != nullptr && !has_remarked_cut_list_) {
    has_remarked_cut_list_ = true;
    remarks_->add(LogLevel::info,
                  fmt::format("NBD_OPT_LIST ended after {} exports, and there are more; LIST_HIER "
                              "lists all",
                              listing_->visited()),
                  {{"list-max"}});
  }
  listing_.reset();
  reply(Option::list, OptionReply::ack);
}

void Negotiation::on_starttls(Option option, Data) {
  if (tls_ == TlsMode::off) {
    refuse(option, OptionReply::err_policy, "this server does not offer TLS");
    return;
  }
  if (tls_is_on_) {
    refuse(option, OptionReply::err_invalid, "TLS is on already");
    return;
  }
  // Nothing that was agreed so far counts: an attacker may have sent it.
  refusal_ = {};
  structured_replies_ = false;
  extended_headers_ = false;
  selection_.reset();
  opened_.reset();
  options_taken_ = 0;
  names_listed_ = 0;
  extension_calls_.clear();
  reply(option, OptionReply::ack);
  phase_ = Phase::starting_tls;
}

void Negotiation::on_info_or_go(Option option, Data data) {
  const auto request = InfoRequest::decode(data);
  if (!request) {
    refuse(option, OptionReply::err_invalid, "the lengths or the name in this option are wrong");
    return;
  }
  Result<Export> exported = open(request->name());
  if (is_opening()) return;
  if (!exported) {
    if (option == Option::go) note_refusal(exported.error());
    // Clients make "there is no such export" of err_unknown. Of one that there is, or might be, and
    // that this client cannot have (a clone beyond the limit, an overlay that cannot be opened),
    // that would be wrong.
    const bool is_known = exports_.find(request->name()).has_value();
    refuse(option, is_known ? OptionReply::err_policy : OptionReply::err_unknown,
           exported.error().what);
    return;
  }
  const Geometry& geometry = exported->device->geometry();
  reply(
      option, OptionReply::info,
      pack(std::to_underlying(Info::export_), geometry.size_bytes, transmission_flags(*exported)));
  const auto tell_text = [&](Info item, std::string_view text) {
    std::vector<std::byte> body;
    std::ranges::copy(pack(std::to_underlying(item)), std::back_inserter(body));
    std::ranges::copy(as_bytes(text), std::back_inserter(body));
    reply(option, OptionReply::info, body);
  };
  if (request->wants(Info::name)) tell_text(Info::name, exported->name);
  if (request->wants(Info::description) && !exported->description.empty()) {
    tell_text(Info::description, exported->description);
  }
  const std::uint32_t minimum_bytes = minimum_block_bytes(geometry);
  // What differs from the default is sent unasked, too.
  if (request->wants(Info::block_size) || minimum_bytes != 1) {
    reply(option, OptionReply::info,
          pack(std::to_underlying(Info::block_size), minimum_bytes,
               allocation_block_bytes(geometry), kLargestPayload));
  }
  reply(option, OptionReply::ack);
  if (option == Option::go) agree(*std::move(exported));
}

void Negotiation::on_extended_headers(Option option, Data) {
  if (extended_headers_) {
    refuse(option, OptionReply::err_invalid, "extended headers are agreed already");
    return;
  }
  extended_headers_ = true;
  reply(option, OptionReply::ack);
}

void Negotiation::on_structured_reply(Option option, Data) {
  if (extended_headers_) {
    refuse(option, OptionReply::err_ext_header_reqd, "extended headers were agreed on");
    return;
  }
  if (structured_replies_) {
    refuse(option, OptionReply::err_invalid, "structured replies are agreed already");
    return;
  }
  structured_replies_ = true;
  reply(option, OptionReply::ack);
}

bool Negotiation::is_free(const OptionExtension& extension) {
  extension_calls_.resize(extensions_.options().size());
  const auto index = static_cast<std::size_t>(&extension - extensions_.options().data());
  return ++extension_calls_[index] <= extension.free_calls;
}

void Negotiation::on_extension(const OptionExtension& extension, Data data) {
  const Option option = extension.rule.option;
  if (extension.feature == Feature::hier && !features_.has(Feature::list)) {
    refuse(option, OptionReply::err_policy, "this server does not list its exports");
    return;
  }
  Call call(*this, option);
  const auto done = extension.handler(data, call);
  if (call.overflowed()) {
    refuse(option, OptionReply::err_too_big, "the answer would be larger than it may be");
  } else if (!done) {
    assert(std::to_underlying(done.error().error) > option_error(0));
    refuse(option, done.error().error, done.error().text);
  } else {
    reply(option, OptionReply::ack);
  }
}

Result<Export> Negotiation::open(std::string_view name) {
  if (opened_ && opened_->asked_name == name) return opened_->exported;
  // The former one first: two plans need not be in memory at once.
  opened_.reset();
  Result<Export> exported = open_in_tree(name);
  if (exported) {
    assert(exported->device != nullptr && exported->device->geometry().size_bytes >> 63 == 0);
    opened_ = {std::string(name), *exported};
    has_opened_export_ = true;
    refusal_ = {};
  }
  return exported;
}

Result<Export> Negotiation::open_in_tree(std::string_view name) {
  if (opens_ == OpensExports::in_consume) return exports_.open(name);
  if (tried_ && tried_->asked_name == name) return tried_->outcome;
  if (auto at_once = exports_.open_at_once(name)) return *std::move(at_once);
  tried_.emplace(std::string(name), fail(Errc::io, "it is being opened"));
  new_job_ = opening_ = std::make_shared<Job>(exports_, std::string(name));
  return tried_->outcome;
}

void Negotiation::job_done(Job& job) {
  tried_->outcome = job.take_opened();
  opening_.reset();
}

void Negotiation::agree(Export exported) {
  agreement_.transmission_flags = transmission_flags(exported);
  agreement_.features = features_;
  agreement_.structured_replies = structured_replies_;
  agreement_.extended_headers = extended_headers_;
  // A selection made for another export is void.
  if (selection_ && selection_->export_name == exported.name) {
    agreement_.contexts = std::move(selection_->contexts);
  }
  agreement_.exported = std::move(exported);
  opened_.reset();
  phase_ = Phase::agreed;
}

Agreement Negotiation::take_agreement() {
  assert(agreed());
  return std::move(agreement_);
}

std::uint16_t Negotiation::transmission_flags(const Export& exported) const noexcept {
  const Geometry& geometry = exported.device->geometry();
  // Many connections to one export are honest, because they share one device: what one of them
  // flushed is flushed for all. DF must not be offered without chunks.
  unsigned flags = kHasFlags | kMultiConn | kSendCache;
  constexpr std::array kFlagsOf = {
      std::pair{Feature::multi_conn, kMultiConn},
      std::pair{Feature::df, kSendDf},
      std::pair{Feature::flush, kSendFlush},
      std::pair{Feature::fua, kSendFua},
      std::pair{Feature::trim, kSendTrim},
      std::pair{Feature::fast_zero, kSendFastZero},
      // There is no fast zero without zeroes.
      std::pair{Feature::zeroes, static_cast<std::uint16_t>(kSendWriteZeroes | kSendFastZero)},
      std::pair{Feature::cache, kSendCache},
  };
  if (geometry.writable) {
    flags |= kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes;
    if (geometry.zeroes_fast) flags |= kSendFastZero;
  } else {
    flags |= kReadOnly;
  }
  if (structured_replies_ || extended_headers_) flags |= kSendDf;
  // Only a client with contexts can choose among them.
  if (extended_headers_ && selection_ && selection_->export_name == exported.name &&
      !selection_->contexts.empty()) {
    flags |= kBlockStatusPayload;
  }
  for (const auto& [feature, its_flags] : kFlagsOf) {
    if (!features_.has(feature)) flags &= ~static_cast<unsigned>(its_flags);
  }
  return static_cast<std::uint16_t>(flags);
}

void Negotiation::reply_export(Option option, const ExportEntry& entry) {
  const std::string_view name = std::string_view(entry.name).substr(0, kLongestString);
  const std::string_view description =
      std::string_view(entry.description).substr(0, kLongestString);
  const auto name_length = static_cast<std::uint32_t>(name.size());
  out_.append(
      encode_option_reply(option, OptionReply::server,
                          4 + name_length + static_cast<std::uint32_t>(description.size())));
  out_.append(pack(name_length));
  out_.append(as_bytes(name));
  out_.append(as_bytes(description));
}

void Negotiation::reply(Option option, OptionReply reply, std::span<const std::byte> data) {
  out_.append(encode_option_reply(option, reply, static_cast<std::uint32_t>(data.size())));
  out_.append(data);
}

void Negotiation::refuse(Option option, OptionReply error, std::string_view text) {
  reply(option, error, as_bytes(wire_text(text)));
}

void Negotiation::end(std::string_view reason) {
  if (!reason.empty()) refusal_ = {LogLevel::info, std::string(reason)};
  end_reason_ = reason;
  phase_ = Phase::ended;
}

void Negotiation::note_refusal(const Error& error) {
  refusal_ = {LogLevel::info, error.what, error.hints};
}

}  // namespace mkvirtfs::nbd
