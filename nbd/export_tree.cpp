// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/export_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "support/text.h"

namespace mkvirtfs::nbd {
namespace {

constexpr std::uint64_t kLargestExport = (std::uint64_t{1} << 63) - 1;

bool has_control_character(std::string_view text) noexcept {
  return std::ranges::any_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7F;
  });
}

bool is_protocol_string(std::string_view text) noexcept {
  return text.size() <= kLongestString && is_valid_utf8(text) && !has_control_character(text);
}

/// A name in a message: a client can make it thousands of bytes long.
std::string shortened(std::string_view name) {
  constexpr std::size_t kMost = 80;
  return name.size() <= kMost ? printable(name) : printable(name.substr(0, kMost)) + "...";
}

/// The exports that were named when the tree was made; immutable after that.
class FixedExports final : public ExportTree {
 public:
  /// nullptr when the name is taken.
  const Export* add(const Export& added) {
    const auto [place, is_new] = exports_.try_emplace(added.name, added);
    if (!is_new) return nullptr;
    if (default_ == nullptr) default_ = &place->second;
    return &place->second;
  }

  Result<std::vector<ExportEntry>> list(std::string_view directory,
                                        std::optional<std::string_view> after,
                                        std::size_t most) override;

  Result<Export> open(std::string_view name) override {
    const auto found = exports_.find(name);
    if (found != exports_.end()) return found->second;
    if (name.empty()) return *default_;
    return fail(Errc::usage, fmt::format("there is no export \"{}\"", shortened(name)));
  }

 private:
  std::map<std::string, Export, std::less<>> exports_;
  const Export* default_ = nullptr;
};

Result<std::vector<ExportEntry>> FixedExports::list(std::string_view directory,
                                                    std::optional<std::string_view> after,
                                                    std::size_t most) {
  const std::string prefix = directory.empty() ? std::string() : std::string(directory) + '/';
  // A directory "a" and the names below it need not be neighbours in bytewise order of full names
  // ("a", "a-b", "a/c"), so the level is gathered before it is paged.
  std::map<std::string, ExportEntry, std::less<>> level;
  for (auto at = exports_.lower_bound(prefix); at != exports_.end(); ++at) {
    const auto& [name, exported] = *at;
    if (!name.starts_with(prefix)) break;
    const std::size_t slash = name.find('/', prefix.size());
    const std::string child = name.substr(0, slash);
    auto [entry, is_new] = level.try_emplace(child, ExportEntry{child, {}, false, false});
    if (slash == std::string::npos) {
      entry->second.is_export = true;
      entry->second.description = exported.description;
    } else {
      entry->second.is_directory = true;
    }
  }
  if (level.empty() && !directory.empty()) {
    return fail(Errc::usage,
                fmt::format("there is no directory \"{}\" of exports", shortened(directory)));
  }
  std::vector<ExportEntry> page;
  auto next = after ? level.upper_bound(*after) : level.begin();
  for (; next != level.end() && page.size() < most; ++next) page.push_back(std::move(next->second));
  return page;
}

}  // namespace

bool is_valid_export_name(std::string_view name) noexcept {
  if (name.empty()) return true;
  if (!is_protocol_string(name)) return false;
  while (true) {
    const std::size_t slash = name.find('/');
    const std::string_view component = name.substr(0, slash);
    if (component.empty() || component == "." || component == "..") return false;
    if (slash == std::string_view::npos) return true;
    name.remove_prefix(slash + 1);
  }
}

Result<std::shared_ptr<ExportTree>> make_fixed_exports(const std::vector<Export>& exports) {
  if (exports.empty()) return fail(Errc::usage, "there is nothing to export");
  auto tree = std::make_shared<FixedExports>();
  for (const Export& added : exports) {
    const std::string shown = shortened(added.name);
    if (!is_valid_export_name(added.name)) {
      return fail(Errc::usage,
                  fmt::format("\"{}\" can not be the name of an export: it takes at most {} bytes "
                              "of UTF-8, with no empty, \".\" or \"..\" component",
                              shown, kLongestString));
    }
    if (!is_protocol_string(added.description)) {
      return fail(Errc::usage,
                  fmt::format("the description of export \"{}\" is not a line of at most {} bytes "
                              "of UTF-8",
                              shown, kLongestString));
    }
    if (added.device == nullptr) {
      return fail(Errc::usage, fmt::format("export \"{}\" has no device", shown));
    }
    if (added.device->geometry().size_bytes > kLargestExport) {
      return fail(Errc::usage, fmt::format("export \"{}\" is {} bytes; NBD ends at {}", shown,
                                           added.device->geometry().size_bytes, kLargestExport));
    }
    if (tree->add(added) == nullptr) {
      return fail(Errc::usage, fmt::format("two exports have the name \"{}\"", shown));
    }
  }
  return tree;
}

Result<std::shared_ptr<ExportTree>> make_single_export(std::shared_ptr<BlockDevice> device,
                                                       std::string name, std::string description) {
  std::vector<Export> exports;
  exports.push_back({std::move(name), std::move(description), std::move(device)});
  return make_fixed_exports(exports);
}

}  // namespace mkvirtfs::nbd
