// SPDX-License-Identifier: BSD-3-Clause
#include "compose/named_ids.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <span>

#include "bootsect/kernel.h"
#include "support/ascii_case.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kMostBytes = 1u << 20;

constexpr std::array<std::string_view, 12> kFiles{"etc/fstab",
                                                  "boot/grub/grub.cfg",
                                                  "grub/grub.cfg",
                                                  "extlinux.conf",
                                                  "syslinux.cfg",
                                                  "boot/syslinux/extlinux.conf",
                                                  "boot/syslinux/syslinux.cfg",
                                                  "syslinux/syslinux.cfg",
                                                  "boot/extlinux/extlinux.conf",
                                                  "extlinux/extlinux.conf",
                                                  "isolinux/isolinux.cfg",
                                                  "boot/isolinux/isolinux.cfg"};
constexpr std::array<std::string_view, 2> kDirectories{"loader/entries", "boot/loader/entries"};

// The longer words first: each is the end of one.
constexpr std::array<std::string_view, 4> kKinds{"PARTUUID", "PARTLABEL", "UUID", "LABEL"};

bool ends_value(char c) noexcept { return std::string_view(" \t\r\n,;\"'").contains(c); }

/// A UUID of 36 characters, or one of FAT.
bool is_uuid(std::string_view word) noexcept {
  const bool is_made_of_hex = std::ranges::all_of(word, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '-';
  });
  return is_made_of_hex &&
         ((word.size() == 36 && word[8] == '-') || (word.size() == 9 && word[4] == '-'));
}

void add_named(std::string_view line, std::vector<NamedId>& ids) {
  for (std::size_t equals = line.find('='); equals != line.npos;
       equals = line.find('=', equals + 1)) {
    const auto kind = std::ranges::find_if(
        kKinds, [&](std::string_view word) { return line.substr(0, equals).ends_with(word); });
    if (kind == kKinds.end()) continue;
    const std::size_t start = equals - kind->size();
    const bool is_word = start == 0 || ends_value(line[start - 1]) || line[start - 1] == '=';
    if (!is_word) continue;
    std::string_view rest = line.substr(equals + 1);
    if (!rest.empty() && (rest.front() == '"' || rest.front() == '\'')) rest.remove_prefix(1);
    const auto end = std::ranges::find_if(rest, ends_value);
    const std::string_view value(rest.begin(), end);
    // A variable of GRUB's shell says nothing.
    if (!value.empty() && !value.contains('$')) {
      ids.push_back({std::string(*kind), std::string(value)});
    }
  }
}

/// GRUB's "search --fs-uuid --set=root 1234-ABCD".
void add_searched(std::string_view line, std::vector<NamedId>& ids) {
  if (!line.contains("search") || !line.contains("fs-uuid")) return;
  while (!line.empty()) {
    const auto end = std::ranges::find_if(line, ends_value);
    const std::string_view word(line.begin(), end);
    if (is_uuid(word)) ids.push_back({"UUID", std::string(word)});
    line.remove_prefix(std::min(word.size() + 1, line.size()));
  }
}

std::vector<std::string> files_of(const SourceTree& tree) {
  std::vector<std::string> paths(kFiles.begin(), kFiles.end());
  for (const std::string_view path : kDirectories) {
    const Node* const node = tree.find_path(path);
    if (node == nullptr || !node->is_directory()) continue;
    const Directory& directory = tree.directory(tree.directory_no(tree.number_of(*node)));
    for (const Entry& entry : tree.entries(directory)) {
      const std::string_view name = tree.name(directory, entry);
      if (name.ends_with(".conf")) paths.push_back(fmt::format("{}/{}", path, name));
    }
  }
  return paths;
}

/// "" for a file that is not there. Of one that is not read, the error says why.
Result<std::string> read_small(const NamedVolume& volume, std::string_view path) {
  const auto node = bootsect::find_file(*volume.tree, path);
  if (!node) return std::string();
  const std::uint64_t size_bytes = volume.tree->node(*node).size_bytes;
  if (size_bytes > kMostBytes) {
    return fail(Errc::unsupported, fmt::format("it has more than {} bytes", kMostBytes));
  }
  std::string text(static_cast<std::size_t>(size_bytes), '\0');
  const auto out = std::as_writable_bytes(std::span(text));
  if (out.empty()) return text;
  if (Result<void> good = volume.contents->read(content_no(*node), 0, out); !good) {
    return propagate(good);
  }
  return text;
}

std::string_view value_of(const NamedVolume& volume, std::string_view kind) {
  if (kind == "UUID") return volume.uuid;
  if (kind == "PARTUUID") return volume.partuuid;
  return kind == "LABEL" ? volume.label : volume.name;
}

/// The option that gives a volume this id; none for a UUID that no format takes.
std::vector<Setting> hints_for(const NamedId& id, bool has_partitions) {
  // What only a partition has is an option of one, in any case.
  const auto of_partition = [&](std::string_view option) -> std::vector<Setting> {
    return {{"partition", fmt::format("SOURCE,{}={}", option, id.value)}};
  };
  if (id.kind == "UUID" && !is_uuid(id.value)) return {};
  if (id.kind == "PARTLABEL") return of_partition("name");
  if (id.kind == "UUID" || id.kind == "LABEL") {
    const std::string option = ascii_lower(id.kind);
    if (has_partitions) return of_partition(option);
    return {{option, id.value}};
  }
  constexpr std::size_t kMbrIdDigits = 8;
  const bool is_mbr = id.value.size() == kMbrIdDigits + 3;
  if (is_mbr) return {{"disk-id", id.value.substr(0, kMbrIdDigits)}};
  return of_partition("partuuid");
}

class IdRemarks {
 public:
  IdRemarks(const std::vector<NamedVolume>& volumes, const NamedPlace& place, Remarks& remarks)
      : volumes_(volumes), place_(place), remarks_(remarks) {}

  void look_at(const NamedVolume& volume, const std::string& path);

 private:
  void look_for(const NamedId& id, const std::string& path);

  const std::vector<NamedVolume>& volumes_;
  const NamedPlace& place_;
  Remarks& remarks_;
  std::set<NamedId> said_;
};

void IdRemarks::look_at(const NamedVolume& volume, const std::string& path) {
  const Result<std::string> text = read_small(volume, path);
  if (!text) {
    remarks_.add(
        Remark::About::named_id, LogLevel::info,
        fmt::format("/{} is not looked at for ids of file systems: {}", path, text.error().what));
    return;
  }
  for (const NamedId& id : ids_in(*text)) look_for(id, path);
}

void IdRemarks::look_for(const NamedId& id, const std::string& path) {
  const auto is_it = [&](const NamedVolume& each) {
    return ascii_lower(value_of(each, id.kind)) == ascii_lower(id.value);
  };
  if (std::ranges::any_of(volumes_, is_it) || !said_.insert(id).second) return;
  std::string known;
  for (const NamedVolume& each : volumes_) {
    const std::string_view value = value_of(each, id.kind);
    if (value.empty()) continue;
    known += fmt::format("{}{}{}{}", known.empty() ? "" : ", ", each.what,
                         each.what.empty() ? "" : " has ", value);
  }
  if (!known.empty()) known.insert(0, ": ");
  // It may be right.
  if (!place_.unknown.empty()) {
    remarks_.add(Remark::About::named_id, LogLevel::info,
                 fmt::format("/{} names {}={}, and nothing here has that, unless it is in a ready "
                             "image, which is not looked at ({}){}",
                             path, id.kind, id.value, place_.unknown, known));
    return;
  }
  remarks_.add(
      Remark::About::named_id, LogLevel::warning,
      fmt::format("/{} names {}={}, and nothing here has that{}", path, id.kind, id.value, known),
      {}, hints_for(id, place_.has_partitions));
}

}  // namespace

std::vector<NamedId> ids_in(std::string_view text) {
  std::vector<NamedId> ids;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t start = line.find_first_not_of(" \t");
    if (start == line.npos || line[start] == '#') continue;
    line.remove_prefix(start);
    add_named(line, ids);
    add_searched(line, ids);
  }
  return ids;
}

void remark_on_named_ids(const std::vector<NamedVolume>& volumes, const NamedPlace& place,
                         Remarks& remarks) {
  IdRemarks of(volumes, place, remarks);
  for (const NamedVolume& volume : volumes) {
    if (!volume.tree) continue;
    for (const std::string& path : files_of(*volume.tree)) of.look_at(volume, path);
  }
}

}  // namespace mkvirtfs
