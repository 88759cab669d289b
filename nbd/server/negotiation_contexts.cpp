// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "nbd/server/negotiation.h"
#include "nbd/server/negotiation_calls.h"

// Metadata contexts in the handshake: what LIST_META_CONTEXT sends, and what SET_META_CONTEXT
// selects ("Metadata querying").

namespace mkvirtfs::nbd {
namespace {

/// So many queries of SET_META_CONTEXT are put to namespaces that we know.
constexpr std::size_t kMostQueriesSelecting = 1000;

}  // namespace

void Negotiation::on_list_meta_context(Option option, Data data) {
  const auto request = MetaRequest::decode(data);
  if (!request) {
    refuse(option, OptionReply::err_invalid, "the lengths or strings in this option are wrong");
    return;
  }
  const auto entry = exports_.find(request->name());
  if (!entry) {
    refuse(option, OptionReply::err_unknown, entry.error().what);
    return;
  }
  Queried queried(*this, request->name(), *entry);
  Listing listing(*this, option);
  // "base:" asks for all contexts of that namespace, no query for all there are. Namespaces that
  // we do not know have no contexts: that is not an error.
  if (request->query_count() == 0) {
    for (const auto& known : extensions_.namespaces()) {
      if (offers(*known)) known->list({}, queried, listing);
    }
  }
  request->for_each_query([&](std::string_view query) {
    if (const auto [known, rest] = find_namespace(query); known != nullptr) {
      known->list(rest, queried, listing);
    }
    return listing.room() > 0;
  });
  reply(option, OptionReply::ack);
}

void Negotiation::on_set_meta_context(Option option, Data data) {
  if (!structured_replies_ && !extended_headers_) {
    refuse(option, OptionReply::err_invalid, "contexts need structured replies");
    return;
  }
  const auto request = MetaRequest::decode(data);
  if (!request) {
    refuse(option, OptionReply::err_invalid, "the lengths or strings in this option are wrong");
    return;
  }
  const auto entry = exports_.find(request->name());
  if (!entry) {
    refuse(option, OptionReply::err_unknown, entry.error().what);
    return;
  }
  Queried queried(*this, request->name(), *entry);
  Selection selection{entry->name, {}};
  std::size_t queries = 0;
  request->for_each_query([&](std::string_view query) {
    const auto [known, rest] = find_namespace(query);
    // A wildcard selects nothing.
    if (known == nullptr || rest.empty()) return true;
    if (++queries > kMostQueriesSelecting) return false;
    auto context = known->select(rest, queried);
    const auto is_same = [&](const SelectedContext& other) {
      return other.context->name() == context->name();
    };
    if (context != nullptr && std::ranges::none_of(selection.contexts, is_same)) {
      const auto id = static_cast<std::uint32_t>(selection.contexts.size() + 1);
      selection.contexts.push_back({id, std::move(context)});
    }
    return selection.contexts.size() <= kMostContexts;
  });
  if (selection.contexts.size() > kMostContexts || queries > kMostQueriesSelecting) {
    refuse(option, OptionReply::err_too_big,
           fmt::format("at most {} contexts can be selected", kMostContexts));
    return;
  }
  for (const SelectedContext& selected : selection.contexts) {
    reply_context(option, selected.id, selected.context->name());
  }
  selection_ = std::move(selection);
  reply(option, OptionReply::ack);
}

bool Negotiation::offers(const MetaNamespace& known) const noexcept {
  const std::optional<Feature> feature = known.feature();
  return !feature ||
         (features_.has(*feature) && (*feature != Feature::hier || features_.has(Feature::list)));
}

std::pair<const MetaNamespace*, std::string_view> Negotiation::find_namespace(
    std::string_view query) const noexcept {
  const std::size_t colon = query.find(':');
  if (colon == std::string_view::npos) return {};
  const MetaNamespace* const known = extensions_.find_namespace(query.substr(0, colon));
  return {known != nullptr && offers(*known) ? known : nullptr, query.substr(colon + 1)};
}

void Negotiation::reply_context(Option option, std::uint32_t id, std::string_view name) {
  out_.append(encode_option_reply(option, OptionReply::meta_context,
                                  static_cast<std::uint32_t>(4 + name.size())));
  out_.append(pack(id));
  out_.append(as_bytes(name));
}

}  // namespace mkvirtfs::nbd
