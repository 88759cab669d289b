// SPDX-License-Identifier: BSD-3-Clause
//
// Directories of the image are filled in the order of their numbers, and each adds the directories
// in it at the end: breadth first. Entries of the source become drafts, one after the other, or are
// left out; names that differ only in case are found by a hash that does not see case; what is left
// becomes items, as many as the directory has slots for; and short names that do not fit get
// numeric tails.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <expected>
#include <limits>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fsgen/fat32/attribute_rules.h"
#include "fsgen/fat32/contents.h"
#include "fsgen/tree/symlink_target.h"
#include "support/byte_order.h"
#include "support/text.h"

namespace mkvirtfs::fat32 {
namespace {

constexpr std::uint32_t kPacked = (1u << 17) - 1;  // bits of the numbers that Item packs
constexpr std::uint32_t kPackedAttributes = (1u << 3) - 1;
constexpr std::uint64_t kMostFileBytes = std::numeric_limits<std::uint32_t>::max();

Reason reason_of_special(const Node& node) noexcept {
  if (S_ISCHR(node.mode)) return Reason::character_device;
  if (S_ISBLK(node.mode)) return Reason::block_device;
  return S_ISFIFO(node.mode) ? Reason::fifo : Reason::socket;
}

Reason reason_of(LeadsNowhere why) noexcept {
  switch (why) {
    case LeadsNowhere::dangling:
      return Reason::symlink_dangling;
    case LeadsNowhere::outside:
      return Reason::symlink_outside;
    case LeadsNowhere::loop:
      return Reason::symlink_loop;
  }
  std::unreachable();
}

/// A short name, or its beginning, as a number.
struct ShortKey {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  explicit ShortKey(const ShortName& name) noexcept {
    std::array<std::byte, 16> bytes{};
    std::ranges::copy(std::as_bytes(std::span(name)), bytes.begin());
    low = load_le<std::uint64_t>(bytes, 0);
    high = load_le<std::uint64_t>(bytes, 8);
  }
  friend auto operator<=>(const ShortKey&, const ShortKey&) = default;
};
struct ShortKeyHash {
  std::size_t operator()(const ShortKey& key) const noexcept {
    std::uint64_t hash = (key.low ^ key.high * 0x9E3779B97F4A7C15) * 0xFF51AFD7ED558CCD;
    return hash ^ hash >> 32;
  }
};

/// Gives out numeric tails within one directory, each short name once, in time linear in the names.
///
/// A name of the form "STEM~N" can be read in one way only, so names with different stems never
/// meet, and each stem counts by itself; the stem is as long as N's digits leave it. What is in the
/// way are names of the source that look just so: they are known before.
class Tails {
 public:
  /// Sorted: the short names of those that need no tail.
  explicit Tails(const std::vector<ShortKey>& taken) : taken_(taken) {}

  std::uint32_t next(const ShortForm& form) {
    std::uint32_t first = 1;
    for (; first < kMostTail; first *= 10) {
      // With the smallest number of these digits, the name stands for all of them.
      std::uint32_t& used = used_[ShortKey(with_tail(form, first))];
      const std::uint32_t end = first * 10;
      for (std::uint32_t tail = first + used; tail < end; ++tail) {
        ++used;
        if (!std::ranges::binary_search(taken_, ShortKey(with_tail(form, tail)))) return tail;
      }
    }
    // A directory's 65,536 slots end long before the 90,000 names of five digits.
    assert(false && "no short name left");
    return 0;
  }

 private:
  const std::vector<ShortKey>& taken_;
  std::unordered_map<ShortKey, std::uint32_t, ShortKeyHash> used_;
};

}  // namespace

/// Makes Contents of a tree, directory after directory. A class of its own for what is needed only
/// meanwhile.
class ContentsBuilder {
 public:
  ContentsBuilder(Contents& contents, const AttributeRules& attributes)
      : contents_(contents),
        attributes_(attributes),
        tree_(contents.tree()),
        options_(contents.options_) {}

  Result<void> build() {
    contents_.items_.reserve(tree_.node_count());
    contents_.directories_.reserve(tree_.directories().size());
    contents_.directories_.push_back({});
    for (FatDirectoryNo no; no.value() < contents_.directories_.size(); ++no) {
      if (Result<void> filled = fill(no); !filled) return filled;
    }
    contents_.unmatched_ = attributes_.unmatched();
    return {};
  }

 private:
  /// An entry that is about to become an item.
  struct Draft {
    std::uint32_t entry = 0;
    NodeNo target{};
    DirectoryNo source{};     // of a directory
    std::uint32_t clash = 0;  // 1 + the draft that it is like but for case; or 0
    std::uint64_t hash = 0;
    ShortForm form{};
    std::uint8_t slots = 1;
    bool is_directory = false;
    bool is_mapped = false;
  };

  std::string path_of(std::uint32_t entry) const { return contents_.path(directory_, entry); }
  std::string_view raw_name(std::uint32_t entry) const {
    return tree_.name(*source_, tree_.entries(*source_)[entry]);
  }

  void skip(std::uint32_t entry, Reason reason) {
    contents_.skipped_.push_back({directory_, entry, reason});
    ++contents_.skipped_counts_[static_cast<std::size_t>(reason)];
  }
  /// Leaves out, if that is wished, or fails with these words behind the path.
  Result<void> unfit(std::uint32_t entry, Reason reason, const std::string& words,
                     std::vector<Setting> hints) {
    if (!options_.skip_unfit) {
      return fail(Errc::does_not_fit, path_of(entry) + words, std::move(hints));
    }
    skip(entry, reason);
    return {};
  }

  Result<void> fill(FatDirectoryNo directory) {
    directory_ = directory;
    source_ = &tree_.directory(contents_.directory(directory).source);
    drafts_.clear();
    const auto entries = tree_.entries(*source_);
    for (std::uint32_t entry = 0; entry < entries.size(); ++entry) {
      if (drafts_.size() > kMostSlots) {
        // Each takes a slot: what comes now can only be left out.
        if (!options_.skip_unfit) return full();
        skip(entry, Reason::directory_full);
        continue;
      }
      if (Result<void> drafted = draft(entry, entries[entry].node); !drafted) return drafted;
    }
    if (Result<void> good = settle_clashes(); !good) return good;
    if (Result<void> good = adopt(); !good) return good;
    give_tails();
    give_attributes();
    return {};
  }

  /// Makes a draft of an entry, or leaves it out.
  Result<void> draft(std::uint32_t entry, NodeNo no) {
    const Result<std::optional<NodeNo>> target = target_of(entry, no);
    if (!target) return propagate(target);
    if (!*target) return {};
    const Node& node = tree_.node(**target);
    if (!node.is_regular() && !node.is_directory()) {
      skip(entry, reason_of_special(node));
      return {};
    }
    if (node.size_bytes > kMostFileBytes) {
      return unfit(
          entry, Reason::too_large,
          fmt::format(" is {} bytes; FAT files end at {}", node.size_bytes, kMostFileBytes),
          {{"fs", "ext4"}, {"exclude"}, {"skip-unfit"}});
    }
    const std::string_view raw = raw_name(entry);
    const LongName name = long_name(raw);
    if (name.is_mapped() && options_.bad_names != BadNames::escape && !is_valid_utf8(raw)) {
      if (options_.bad_names == BadNames::error) {
        return fail(Errc::does_not_fit, path_of(entry) + ": the name is not UTF-8",
                    {{"names", "escape"}, {"names", "skip"}});
      }
      skip(entry, Reason::not_utf8);
      return {};
    }
    Draft draft{.entry = entry, .target = **target, .hash = case_blind_hash(name.units())};
    draft.is_directory = node.is_directory();
    if (draft.is_directory) draft.source = tree_.directory_no(draft.target);
    take_name(draft, name);
    drafts_.push_back(draft);
    return {};
  }

  /// The node that an entry shows: its own, or where its symlink leads; nullopt: it is left out.
  Result<std::optional<NodeNo>> target_of(std::uint32_t entry, NodeNo no) {
    if (!tree_.node(no).is_symlink()) return no;
    switch (options_.symlinks) {
      case Symlinks::skip:
        skip(entry, Reason::symlink);
        return std::nullopt;
      case Symlinks::error:
        return fail(Errc::does_not_fit, path_of(entry) + " is a symlink; FAT has none",
                    {{"symlinks", "skip"}, {"symlinks", "follow"}});
      case Symlinks::follow:
        break;
    }
    const auto followed = followed_to(no);
    if (followed) return *followed;
    const Result<void> skipped =
        unfit(entry, followed.error(),
              fmt::format(" {}: {}", words_of(followed.error()), tree_.symlink_target(no)),
              {{"symlinks", "skip"}, {"skip-unfit"}});
    if (!skipped) return propagate(skipped);
    return std::nullopt;
  }

  static void take_name(Draft& draft, const LongName& name) {
    draft.form = short_form(name.units());
    draft.slots = static_cast<std::uint8_t>(1 + (draft.form.needs_long ? name.slots() : 0));
    draft.is_mapped = name.is_mapped();
  }

  /// What a symlink of this directory leads to, if that can be copied here.
  std::expected<NodeNo, Reason> followed_to(NodeNo link) const {
    const auto target = follow_symlink(tree_, source_->node, link);
    if (!target) return std::unexpected(reason_of(target.error()));
    if (!tree_.node(*target).is_directory()) return *target;
    // A copy of a directory inside itself would go on for ever.
    for (FatDirectoryNo d = directory_;; d = contents_.directory(d).parent) {
      if (contents_.node_of(d) == *target) return std::unexpected(Reason::symlink_loop);
      if (d == kFatRoot) return *target;
    }
  }

  /// Of names that FAT would take for one the first stays; the others are refused, left out, or
  /// get names that say so.
  Result<void> settle_clashes() {
    const Result<std::size_t> clashes = find_clashes();
    if (!clashes) return propagate(clashes);
    if (*clashes == 0) return {};
    if (options_.case_clashes != CaseClashes::escape) {
      std::erase_if(drafts_, [](const Draft& draft) { return draft.clash != 0; });
      return {};
    }
    for (Draft& draft : drafts_) {
      if (draft.clash == 0) continue;
      take_name(draft, long_name(raw_name(draft.entry), raw_name(drafts_[draft.clash - 1].entry)));
    }
    return {};
  }

  /// How many drafts clash with an earlier one, which each of them then names.
  Result<std::size_t> find_clashes() {
    by_hash_.clear();
    for (std::uint32_t i = 0; i < drafts_.size(); ++i) by_hash_.emplace_back(drafts_[i].hash, i);
    std::ranges::sort(by_hash_);
    std::size_t found = 0;
    // Drafts of one hash that clash with none before: one, mostly.
    std::vector<std::uint32_t> firsts;
    for (std::size_t i = 1; i < by_hash_.size(); ++i) {
      if (by_hash_[i].first != by_hash_[i - 1].first) {
        firsts.clear();
        continue;
      }
      if (firsts.empty()) firsts.push_back(by_hash_[i - 1].second);
      const std::uint32_t now = by_hash_[i].second;
      const LongName name = long_name(raw_name(drafts_[now].entry));
      const auto first = std::ranges::find_if(firsts, [&](std::uint32_t earlier) {
        return equal_but_for_case(long_name(raw_name(drafts_[earlier].entry)).units(),
                                  name.units());
      });
      if (first == firsts.end()) {
        firsts.push_back(now);
        continue;
      }
      if (Result<void> noted = note_clash(drafts_[now], *first); !noted) return propagate(noted);
      ++found;
    }
    return found;
  }

  /// A draft is like the draft number `first` but for case.
  Result<void> note_clash(Draft& draft, std::uint32_t first) {
    draft.clash = first + 1;
    if (options_.case_clashes == CaseClashes::error) {
      return unfit(draft.entry, Reason::case_clash,
                   fmt::format(" and {} differ only in case, FAT would take one for the other",
                               raw_name(drafts_[first].entry)),
                   {{"case-clashes", "escape"}, {"skip-unfit"}});
    }
    if (options_.case_clashes == CaseClashes::skip) skip(draft.entry, Reason::case_clash);
    return {};
  }

  std::unexpected<Error> full() const {
    const std::string path = contents_.path(directory_);
    return fail(
        Errc::does_not_fit,
        fmt::format("{} has {} entries; with their long names they need more than the {} "
                    "slots of a FAT directory",
                    path.empty() ? "the source's root" : path, source_->entry_count, kMostSlots),
        {{"fs", "ext4"}, {"skip-unfit"}});
  }

  ItemNo next_item() const noexcept {
    return ItemNo{static_cast<std::uint32_t>(contents_.items_.size())};
  }

  /// Makes items of the drafts.
  Result<void> adopt() {
    const ItemNo first_item = next_item();
    std::uint32_t slot = contents_.header_slots(directory_);
    std::uint32_t taken = 0;
    for (; taken < drafts_.size(); ++taken) {
      const Draft& draft = drafts_[taken];
      if (slot + draft.slots > kMostSlots) break;
      if (contents_.items_.size() >= most_items()) {
        return fail(Errc::does_not_fit,
                    fmt::format("{}: with all symlinks followed there are more than {} files and "
                                "directories",
                                path_of(draft.entry), most_items()),
                    {{"symlinks", "skip"}, {"exclude"}});
      }
      std::uint32_t target = draft.target.value();
      if (draft.is_directory) {
        target = static_cast<std::uint32_t>(contents_.directories_.size());
        contents_.directories_.push_back({draft.source, directory_, {}, 0, 0, next_item()});
      }
      contents_.items_.push_back({draft.entry, target, slot & kPacked, 0, draft.clash & kPacked,
                                  draft.is_directory ? 1u : 0u, 0});
      slot += draft.slots;
      contents_.mapped_count_ += draft.is_mapped ? 1 : 0;
      if (contents_.is_followed(contents_.directory(directory_), contents_.items_.back())) {
        ++contents_.followed_count_;
      }
    }
    if (taken < drafts_.size()) {
      if (!options_.skip_unfit) return full();
      for (std::uint32_t i = taken; i < drafts_.size(); ++i) {
        skip(drafts_[i].entry, Reason::directory_full);
      }
      drafts_.resize(taken);
    }
    Contents::FatDirectory& directory = contents_.directories_[directory_.value()];
    directory.first_item = first_item;
    directory.item_count = taken;
    directory.slot_count = slot;
    return {};
  }

  void give_tails() {
    if (std::ranges::all_of(drafts_, [](const Draft& draft) { return draft.form.fits; })) return;
    taken_.clear();
    for (const Draft& draft : drafts_) {
      if (draft.form.fits) taken_.emplace_back(draft.form.name);
    }
    std::ranges::sort(taken_);
    Tails tails(taken_);
    Contents::Item* item = &contents_.items_[contents_.directory(directory_).first_item.value()];
    for (const Draft& draft : drafts_) {
      if (!draft.form.fits) item->tail = tails.next(draft.form) & kPacked;
      ++item;
    }
  }

  void give_attributes() {
    if (attributes_.empty()) return;
    const Contents::FatDirectory& directory = contents_.directory(directory_);
    std::string path = contents_.path(directory_);
    if (!path.empty()) path += '/';
    const auto items = std::span(contents_.items_).subspan(directory.first_item.value());
    for (Contents::Item& item : items) {
      const std::uint32_t bits =
          attributes_.attributes_of(path, contents_.raw_name(directory, item),
                                    item.is_directory ? EntryKind::directory : EntryKind::other);
      item.attributes = bits & kPackedAttributes;
    }
  }

  /// Symlinks to directories can multiply a small tree beyond all bounds.
  std::uint64_t most_items() const noexcept {
    if (options_.symlinks != Symlinks::follow) return std::numeric_limits<std::uint32_t>::max();
    return std::min<std::uint64_t>(1'000'000 + std::uint64_t{16} * tree_.node_count(),
                                   std::numeric_limits<std::uint32_t>::max());
  }

  Contents& contents_;
  const AttributeRules& attributes_;
  const SourceTree& tree_;
  const Options& options_;
  FatDirectoryNo directory_;           // the one being filled
  const Directory* source_ = nullptr;  // the same in the tree
  std::vector<Draft> drafts_;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> by_hash_;
  std::vector<ShortKey> taken_;
};

Result<std::unique_ptr<const Contents>> Contents::make(std::shared_ptr<const SourceTree> tree,
                                                       const Options& options) {
  const Result<AttributeRules> attributes = AttributeRules::make(options);
  if (!attributes) return propagate(attributes);
  auto contents = std::make_unique<Contents>(std::move(tree), options);
  if (Result<void> built = ContentsBuilder(*contents, *attributes).build(); !built) {
    return propagate(built);
  }
  contents->count_clusters();
  return contents;
}

}  // namespace mkvirtfs::fat32
