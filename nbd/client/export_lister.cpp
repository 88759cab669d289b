// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/client/export_lister.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "nbd/wire/codec.h"
#include "nbd/wire/hier.h"

// A server lists by LIST_HIER or by the contexts x-mkvirtfs:, page by page, or has the flat list
// alone. The first two are walked depth first, and their order is checked, which is what makes the
// walk end. The flat list is taken as a whole and sorted, and its directories are made of the
// names.

namespace mkvirtfs::nbd {

namespace {

/// So many entries are asked for at a time: a walk keeps one page for each level it is in.
constexpr std::uint32_t kPageEntries = 256;
/// A server may answer a query of contexts with as many as it likes, so there we set the limit.
constexpr std::size_t kMostListedContexts = 8192;
/// Of the flat list, which is kept as a whole.
constexpr std::size_t kMostFlatBytes = 64U << 20;
constexpr std::size_t kDeepest = 256;

std::unexpected<Error> no_directory(const std::string& directory) {
  return fail(Errc::io, fmt::format("there is no directory \"{}\" of exports", directory));
}

/// The last component of an entry's name; nullopt when the entry cannot lie in `directory`.
std::optional<std::string_view> component_in(std::string_view directory, std::string_view name) {
  if (!is_valid_export_name(name)) return std::nullopt;
  if (!directory.empty()) {
    if (!name.starts_with(directory) || name.size() < directory.size() + 2 ||
        name[directory.size()] != '/') {
      return std::nullopt;
    }
    name.remove_prefix(directory.size() + 1);
  }
  return name.find('/') == std::string_view::npos ? std::optional(name) : std::nullopt;
}

/// Orders full names as a walk does; also those that are no paths.
bool walks_before(const ExportEntry& a, const ExportEntry& b) {
  const auto rank = [](char c) { return c == '/' ? 0U : static_cast<unsigned char>(c) + 1U; };
  return std::ranges::lexicographical_compare(
      a.name, b.name, [&](char left, char right) { return rank(left) < rank(right); });
}

/// Visits the entries of a flat list in the order of a walk, with the directories that its names
/// stand for.
class FlatWalk {
 public:
  FlatWalk(const std::vector<ExportEntry>& sorted, std::string prefix, ExportLister::Depth depth,
           const ExportLister::Visit& visit)
      : sorted_(sorted), prefix_(std::move(prefix)), depth_(depth), visit_(visit) {}

  Result<void> run() {
    for (std::size_t i = 0; i < sorted_.size(); ++i) {
      const std::string& name = sorted_[i].name;
      if (!name.starts_with(prefix_)) continue;
      has_found_ = true;
      if (i > 0 && sorted_[i - 1].name == name) continue;
      if (Result<void> done = visit_export(i); !done) return done;
    }
    return {};
  }
  /// There was something below the prefix.
  bool has_found() const noexcept { return has_found_; }

 private:
  Result<void> visit_export(std::size_t at) {
    const ExportEntry& entry = sorted_[at];
    if (!is_valid_export_name(entry.name)) {
      // No path, so it is in no directory but the root.
      return prefix_.empty() ? visit_(entry) : Result<void>();
    }
    if (Result<void> done = visit_directories_above(entry.name); !done) return done;
    const bool is_direct = entry.name.find('/', prefix_.size()) == std::string::npos;
    if (depth_ == ExportLister::Depth::directory && !is_direct) return {};
    ExportEntry shown = entry;
    shown.is_directory = is_directory(at);
    last_ = shown.name;
    return visit_(shown);
  }

  /// Those that were not visited yet.
  Result<void> visit_directories_above(const std::string& name) {
    for (std::size_t slash = name.find('/', prefix_.size()); slash != std::string::npos;
         slash = name.find('/', slash + 1)) {
      const std::string above = name.substr(0, slash);
      const bool is_visited = last_ == above || last_.starts_with(above + '/');
      if (!is_visited) {
        if (auto done = visit_({above, {}, false, true, std::nullopt}); !done) return done;
        last_ = above;
      }
      if (depth_ == ExportLister::Depth::directory) break;
    }
    return {};
  }

  /// What is in a directory follows it at once.
  bool is_directory(std::size_t at) const {
    const std::string& name = sorted_[at].name;
    std::size_t next = at + 1;
    while (next < sorted_.size() && sorted_[next].name == name) ++next;
    return next < sorted_.size() && !name.empty() && sorted_[next].name.starts_with(name + '/') &&
           is_valid_export_name(sorted_[next].name);
  }

  const std::vector<ExportEntry>& sorted_;
  const std::string prefix_;
  const ExportLister::Depth depth_;
  const ExportLister::Visit& visit_;
  bool has_found_ = false;
  std::string last_;  // the entry that was visited last
};

}  // namespace

/// Gathers the entries of one page, and checks what the specification promises of them.
class ExportLister::PageMaker {
 public:
  PageMaker(const std::string& directory, std::size_t most) : directory_(directory), most_(most) {}

  Result<void> add_export(std::string name, std::string description) {
    if (auto good = check(name); !good) return good;
    page_.entries.push_back({std::move(name), std::move(description), true, false, std::nullopt});
    return {};
  }
  Result<void> add_directory(std::string name, std::string description) {
    if (!page_.entries.empty() && page_.entries.back().name == name) {
      if (page_.entries.back().is_directory) return protocol_violation("an entry came twice");
      page_.entries.back().is_directory = true;
      return {};
    }
    if (auto good = check(name); !good) return good;
    page_.entries.push_back({std::move(name), std::move(description), false, true, std::nullopt});
    return {};
  }
  Result<void> set_next(std::string cursor) {
    if (page_.entries.empty() || !page_.next.empty() || cursor.empty() ||
        cursor.size() > kLongestString) {
      return protocol_violation("a page that does not end as it should");
    }
    page_.next = std::move(cursor);
    return {};
  }
  Page take() { return std::move(page_); }

 private:
  Result<void> check(std::string_view name) const {
    const auto component = component_in(directory_, name);
    if (!component) {
      return protocol_violation(
          fmt::format("\"{}\" cannot be in the directory \"{}\"", name.substr(0, 80), directory_));
    }
    if (!page_.next.empty()) return protocol_violation("an entry behind the end of its page");
    if (page_.entries.size() >= most_)
      return protocol_violation("more entries than were asked for");
    if (!page_.entries.empty() && page_.entries.back().name >= name) {
      return protocol_violation("the entries are not in order");
    }
    return {};
  }

  const std::string& directory_;
  const std::size_t most_;
  Page page_;
};

ExportLister::ExportLister(Connect connect, std::chrono::milliseconds patience,
                           std::shared_ptr<const net::TlsCredentials> credentials)
    : connect_(std::move(connect)), patience_(patience), credentials_(std::move(credentials)) {}

ExportLister::~ExportLister() {
  if (client_) client_->abort();
}

Result<HandshakeClient::Verdict> ExportLister::ask(Option option, std::span<const std::byte> data,
                                                   const HandshakeClient::VisitReply& visit) {
  bool visited = false;
  const auto seen = [&](OptionReply reply, std::span<const std::byte> body) {
    visited = true;
    return visit(reply, body);
  };
  while (true) {
    const bool fresh = !client_.has_value();
    if (fresh) {
      Result<UniqueFd> socket = connect_();
      if (!socket) return propagate(socket);
      Result<HandshakeClient> client =
          HandshakeClient::start(*std::move(socket), patience_, credentials_);
      if (!client) return propagate(client);
      client_.emplace(*std::move(client));
    }
    Result<HandshakeClient::Verdict> verdict = client_->ask(option, data, seen);
    if (verdict) return verdict;
    client_.reset();
    // Servers limit what one connection may ask: when an old one ends, a new one may go on.
    if (fresh || visited || verdict.error().code != Errc::io) return verdict;
  }
}

Result<std::optional<ExportLister::Page>> ExportLister::page_by_option(const std::string& directory,
                                                                       const std::string& cursor) {
  std::vector<std::byte> data;
  const auto put = [&](std::span<const std::byte> bytes) {
    data.insert(data.end(), bytes.begin(), bytes.end());
  };
  put(pack(std::uint16_t{0}, std::uint16_t{0}, kPageEntries,
           static_cast<std::uint32_t>(directory.size())));
  put(as_bytes(directory));
  put(pack(static_cast<std::uint32_t>(cursor.size())));
  put(as_bytes(cursor));

  PageMaker maker(directory, kPageEntries);
  const auto take = [&](OptionReply reply, std::span<const std::byte> body) -> Result<void> {
    if (reply == kHierMore) return maker.set_next(std::string(as_text(body)));
    if (reply != OptionReply::server && reply != kServerDir)
      return protocol_violation("an unknown reply");
    const std::size_t fixed_bytes = reply == kServerDir ? 12 : 4;
    if (body.size() < fixed_bytes) return protocol_violation("a reply is too short");
    const std::size_t name_bytes = load_be<std::uint32_t>(body);
    if (name_bytes > body.size() - fixed_bytes)
      return protocol_violation("a name is longer than its reply");
    std::string name(as_text(body.subspan(4, name_bytes)));
    std::string description(as_text(body.subspan(fixed_bytes + name_bytes)));
    return reply == kServerDir ? maker.add_directory(std::move(name), std::move(description))
                               : maker.add_export(std::move(name), std::move(description));
  };
  auto verdict = ask(kListHier, data, take);
  if (!verdict) return propagate(verdict);
  if (!*verdict) return maker.take();
  if ((*verdict)->error == OptionReply::err_unsup) return std::nullopt;
  return fail(Errc::io, (*verdict)->text.empty()
                            ? fmt::format("the server does not list \"{}\"", directory)
                            : (*verdict)->text);
}

Result<std::optional<ExportLister::Page>> ExportLister::page_by_contexts(
    const std::string& directory, const std::string& cursor) {
  const std::string query =
      cursor.empty() ? std::string(kListQuery) + directory : std::string(kListAfterQuery) + cursor;
  std::vector<std::byte> data;
  const auto put = [&](std::span<const std::byte> bytes) {
    data.insert(data.end(), bytes.begin(), bytes.end());
  };
  put(pack(std::uint32_t{0}, std::uint32_t{1}, static_cast<std::uint32_t>(query.size())));
  put(as_bytes(query));

  bool any = false;
  PageMaker maker(directory, kMostListedContexts);
  const auto take = [&](OptionReply reply, std::span<const std::byte> body) -> Result<void> {
    if (reply != OptionReply::meta_context || body.size() < 4)
      return protocol_violation("an unknown reply");
    const std::string name(as_text(body.subspan(4)));
    const auto starts = [&](std::string_view prefix) { return name.starts_with(prefix); };
    any = any || starts(std::string(kListNamespace) + ':');
    if (starts(kListedExport)) return maker.add_export(name.substr(kListedExport.size()), {});
    if (starts(kListedDirectory)) {
      return maker.add_directory(name.substr(kListedDirectory.size()), {});
    }
    if (starts(kListedMore)) return maker.set_next(name.substr(kListedMore.size()));
    return {};  // a context of another kind: not ours to judge
  };
  auto verdict = ask(Option::list_meta_context, data, take);
  if (!verdict) return propagate(verdict);
  if (*verdict || (way_ == Way::unknown && !any)) return std::nullopt;
  return maker.take();
}

Result<ExportLister::Page> ExportLister::page(const std::string& directory,
                                              const std::string& cursor) {
  auto found =
      way_ == Way::option ? page_by_option(directory, cursor) : page_by_contexts(directory, cursor);
  if (!found) return propagate(found);
  if (!*found) return fail(Errc::io, "the server no longer lists its exports");
  // An empty page says of the contexts that there is no such directory.
  if (way_ == Way::contexts && cursor.empty() && (*found)->entries.empty()) {
    return no_directory(directory);
  }
  return **std::move(found);
}

/// Tries the ways, the best first.
Result<void> ExportLister::find_way() {
  if (way_ != Way::unknown) return {};
  auto by_option = page_by_option("", "");
  if (!by_option) return propagate(by_option);
  if (*by_option) {
    way_ = Way::option;
    return {};
  }
  auto by_contexts = page_by_contexts("", "");
  if (!by_contexts) return propagate(by_contexts);
  way_ = *by_contexts ? Way::contexts : Way::flat;
  return {};
}

Result<void> ExportLister::list(const std::string& directory, Depth depth, const Visit& visit) {
  if (Result<void> found = find_way(); !found) return found;
  if (way_ != Way::flat) {
    if (!is_valid_export_name(directory)) {
      return fail(Errc::usage, fmt::format("\"{}\" cannot be a directory of exports", directory));
    }
    return walk(directory, depth, 0, visit);
  }
  const Result<std::vector<ExportEntry>> all = flat_list();
  if (!all) return propagate(all);
  FlatWalk flat(*all, directory.empty() ? "" : directory + '/', depth, visit);
  if (Result<void> done = flat.run(); !done) return done;
  if (!directory.empty() && !flat.has_found()) return no_directory(directory);
  return {};
}

Result<void> ExportLister::walk(const std::string& directory, Depth depth, std::size_t level,
                                const Visit& visit) {
  if (level > kDeepest) {
    return fail(Errc::unsupported, fmt::format("{} levels are too many to walk", level));
  }
  std::string cursor;
  std::optional<std::string> last;
  do {
    Result<Page> found = page(directory, cursor);
    if (!found) return propagate(found);
    // Names ascend over pages, too: that is what makes the walk end.
    if (last && !found->entries.empty() && found->entries.front().name <= *last) {
      return protocol_violation("the entries are not in order");
    }
    for (ExportEntry& entry : found->entries) {
      if (auto done = visit(entry); !done) return done;
      if (depth == Depth::subtree && entry.is_directory) {
        if (auto done = walk(entry.name, depth, level + 1, visit); !done) return done;
      }
      last = std::move(entry.name);
    }
    cursor = std::move(found->next);
  } while (!cursor.empty());
  return {};
}

Result<std::vector<ExportEntry>> ExportLister::flat_list() {
  std::vector<ExportEntry> all;
  std::size_t bytes = 0;
  const auto take = [&](OptionReply reply, std::span<const std::byte> body) -> Result<void> {
    if (reply != OptionReply::server || body.size() < 4) {
      return protocol_violation("an unknown reply");
    }
    const std::size_t name_bytes = load_be<std::uint32_t>(body);
    if (name_bytes > body.size() - 4) {
      return protocol_violation("a name is longer than its reply");
    }
    all.push_back({std::string(as_text(body.subspan(4, name_bytes))),
                   std::string(as_text(body.subspan(4 + name_bytes))), true, false, std::nullopt});
    bytes += body.size() + sizeof(ExportEntry);
    if (bytes > kMostFlatBytes) return fail(Errc::unsupported, "the list of exports has no end");
    return {};
  };
  auto verdict = ask(Option::list, {}, take);
  if (!verdict) return propagate(verdict);
  if (*verdict) {
    return fail(Errc::io,
                fmt::format("the server does not list its exports: {}",
                            (*verdict)->text.empty() ? "it gives no reason" : (*verdict)->text));
  }
  std::ranges::sort(all, walks_before);
  return all;
}

}  // namespace mkvirtfs::nbd
