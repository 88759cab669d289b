// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/list_hier.h"

#include <algorithm>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "exports/export_tree.h"
#include "nbd/wire/codec.h"

namespace mkvirtfs::nbd {
namespace {

using Outcome = std::expected<void, OptionRefusal>;

/// So many entries are taken from the tree at a time.
constexpr std::size_t kTreePage = 64;
/// The largest replies that one entry can take, and the one that may stand behind the last.
constexpr std::size_t kRoomForEntry = 2 * (kOptionReplyHeaderBytes + 12 + 2 * kLongestString) +
                                      kOptionReplyHeaderBytes + kLongestString;

std::unexpected<OptionRefusal> refuse(OptionReply error, std::string text) {
  return std::unexpected(OptionRefusal{error, std::move(text)});
}

/// The last component of a full name.
std::string_view component_of(std::string_view name) noexcept {
  return name.substr(name.rfind('/') + 1);  // npos + 1 is 0
}

// A cursor is the last component that was sent, so that it means the same whatever is added or
// removed meanwhile. The empty component (the root may have an export without a name) would be an
// empty cursor, which means the start; "/" is no component.
constexpr std::string_view kBehindEmptyName = "/";

std::string_view cursor_behind(std::string_view name) noexcept {
  return name.empty() ? kBehindEmptyName : component_of(name);
}

/// The full name behind which a cursor stands; nullopt when it is none of ours.
std::optional<std::string> name_at_cursor(std::string_view path, std::string_view cursor) {
  if (cursor == kBehindEmptyName && path.empty()) return "";
  if (!is_valid_export_name(cursor) || cursor.find('/') != std::string_view::npos) {
    return std::nullopt;
  }
  return path.empty() ? std::string(cursor) : std::string(path) + '/' + std::string(cursor);
}

/// The data of LIST_HIER.
struct HierRequest {
  bool descriptions = true;
  std::size_t most_entries = 0;
  std::string_view path;
  std::string_view cursor;
};

std::expected<HierRequest, OptionRefusal> decode(std::span<const std::byte> data) {
  const auto wrong_lengths = [] {
    return refuse(OptionReply::err_invalid, "the lengths in this option are wrong");
  };
  constexpr std::size_t kFixedBytes = 16;
  if (data.size() < kFixedBytes) return wrong_lengths();
  const std::size_t strings_bytes = data.size() - kFixedBytes;
  const std::size_t path_bytes = load_be<std::uint32_t>(data, 8);
  if (path_bytes > strings_bytes) return wrong_lengths();
  const std::size_t cursor_bytes = load_be<std::uint32_t>(data, 12 + path_bytes);
  if (cursor_bytes != strings_bytes - path_bytes) return wrong_lengths();
  if (path_bytes > kLongestString || cursor_bytes > kLongestString) {
    return refuse(OptionReply::err_too_big, "paths and cursors end at 4096 bytes");
  }
  const auto flags = load_be<std::uint16_t>(data);
  if ((flags & ~kHierNoDescriptions) != 0 || load_be<std::uint16_t>(data, 2) != 0) {
    return refuse(OptionReply::err_invalid, "these flags are not known here");
  }
  HierRequest request;
  request.descriptions = (flags & kHierNoDescriptions) == 0;
  const auto asked = load_be<std::uint32_t>(data, 4);
  request.most_entries = asked == 0 ? kHierPage : std::min(asked, kMostHierPage);
  request.path = as_text(data.subspan(12, path_bytes));
  request.cursor = as_text(data.subspan(16 + path_bytes));
  if (!is_valid_export_name(request.path)) {
    return refuse(OptionReply::err_invalid,
                  "a path has components with one / between them, none of them empty, . or ..");
  }
  return request;
}

void reply_entry(const ExportEntry& entry, bool descriptions, OptionCall& call) {
  const auto put = [](std::vector<std::byte>& body, std::span<const std::byte> bytes) {
    body.insert(body.end(), bytes.begin(), bytes.end());
  };
  const auto name_bytes = static_cast<std::uint32_t>(entry.name.size());
  const std::string_view description =
      descriptions ? std::string_view(entry.description).substr(0, kLongestString) : "";
  if (entry.is_export) {
    std::vector<std::byte> body;
    put(body, pack(name_bytes));
    put(body, as_bytes(entry.name));
    put(body, as_bytes(description));
    call.reply(OptionReply::server, body);
  }
  if (entry.is_directory) {
    std::vector<std::byte> body;
    put(body, pack(name_bytes));
    put(body, as_bytes(entry.name));
    put(body, pack(entry.is_export ? kDirIsExport : std::uint16_t{0}, std::uint16_t{0},
                   entry.children.value_or(kUnknownChildren)));
    // What is an export has its description there.
    if (!entry.is_export) put(body, as_bytes(description));
    call.reply(kServerDir, body);
  }
}

/// One page of a level, handed on entry by entry until `visit` says that it is full. `after` is the
/// last entry that was taken; true when there are more behind it. The error is that of the first
/// look at the tree: whatever goes wrong behind it is met again when the rest is asked for.
template <class Visit>
Result<bool> visit_level(ExportTree& exports, std::string_view path,
                         std::optional<std::string>& after, Visit&& visit) {
  bool first = true;
  while (true) {
    const auto page = exports.list(path, after, kTreePage);
    if (!page) {
      if (!first) return true;
      return propagate(page);
    }
    first = false;
    for (const ExportEntry& entry : *page) {
      // A name that could not be asked for is left out.
      if (is_valid_export_name(entry.name) && !visit(entry)) return true;
      after = entry.name;
    }
    if (page->size() < kTreePage) return false;
  }
}

Outcome list_hier(std::span<const std::byte> data, OptionCall& call) {
  const auto request = decode(data);
  if (!request) return propagate(request);
  std::optional<std::string> after;
  if (!request->cursor.empty()) {
    after = name_at_cursor(request->path, request->cursor);
    if (!after) return refuse(OptionReply::err_invalid, "this cursor is none that was given out");
  }
  std::size_t listed = 0;
  const auto more =
      visit_level(call.exports(), request->path, after, [&](const ExportEntry& entry) {
        if (listed == request->most_entries || call.room_bytes() < kRoomForEntry) return false;
        reply_entry(entry, request->descriptions, call);
        ++listed;
        return true;
      });
  if (!more) return refuse(OptionReply::err_unknown, more.error().what);
  call.count_names(listed);
  if (*more && after) call.reply(kHierMore, as_bytes(cursor_behind(*after)));
  return {};
}

/// "x-mkvirtfs": its contexts are names in the tree, and none can be selected.
class ListNamespace final : public MetaNamespace {
 public:
  std::string_view name() const noexcept override { return kListNamespace; }
  std::optional<Feature> feature() const noexcept override { return Feature::hier; }

  void list(std::string_view query, QueriedExport& exported,
            ContextListing& listing) const override {
    constexpr std::string_view kLevel = kListQuery.substr(kListNamespace.size() + 1);
    constexpr std::string_view kBehind = kListAfterQuery.substr(kListNamespace.size() + 1);
    if (query.starts_with(kLevel)) {
      list_level(query.substr(kLevel.size()), std::nullopt, exported.exports(), listing);
    } else if (query.starts_with(kBehind)) {
      const std::string_view name = query.substr(kBehind.size());
      const std::size_t slash = name.rfind('/');
      list_level(slash == std::string_view::npos ? "" : name.substr(0, slash), std::string(name),
                 exported.exports(), listing);
    }
  }

  std::shared_ptr<const MetaContext> select(std::string_view, QueriedExport&) const override {
    return nullptr;
  }

 private:
  static void list_level(std::string_view path, std::optional<std::string> after,
                         ExportTree& exports, ContextListing& listing) {
    if (!is_valid_export_name(path) || (after && !is_valid_export_name(*after))) return;
    const auto add = [&](std::string_view kind, std::string_view name) {
      listing.tell(std::string(kind) + std::string(name));
    };
    std::size_t listed = 0;
    std::string last;
    const auto more = visit_level(exports, path, after, [&](const ExportEntry& entry) {
      // An export, a directory, and that there is more.
      if (listing.room() < 3) return false;
      if (entry.name.size() > kLongestString - kListedExport.size()) return true;
      if (entry.is_export) add(kListedExport, entry.name);
      if (entry.is_directory) add(kListedDirectory, entry.name);
      ++listed;
      last = entry.name;
      return true;
    });
    listing.count_names(listed);
    if (more && *more && listed > 0) add(kListedMore, last);
  }
};

}  // namespace

Result<void> add_list_hier(Extensions& extensions) {
  OptionExtension option;
  option.rule = {kListHier, 16, kLongestOption, true};
  option.free_calls = kHierCalls;
  option.feature = Feature::hier;
  option.handler = list_hier;
  if (Result<void> added = extensions.add_option(std::move(option)); !added) return added;
  return extensions.add_namespace(std::make_shared<ListNamespace>());
}

}  // namespace mkvirtfs::nbd
