// SPDX-License-Identifier: BSD-3-Clause
//
// A boot is two edits. Before a volume is planned, files are added to its tree, over all that it
// has there: the loader, and a configuration unless it has one. Once it is planned, the places of
// these files are known, and patches make the loader find them.
//
// A made configuration names a kernel of the sources. One that lies in another volume than the
// loader is shown in the loader's, too: as one more file with the same bytes, which are read from
// where they are.
#include "compose/boot.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <utility>

#include "block/joined_contents.h"
#include "bootsect/boot_pieces.h"
#include "bootsect/kernel.h"
#include "fsgen/tree/merge.h"
#include "fsgen/tree/tree_builder.h"
#include "fsgen/tree/tree_path.h"
#include "support/ascii_case.h"

namespace mkvirtfs {
namespace {

constexpr std::string_view kConsole = "console=tty0 console=ttyS0,115200";
constexpr std::string_view kCopiedTo = "boot";  // kernels of other volumes

/// A file of a volume.
struct VolumeFile {
  std::size_t volume = 0;
  NodeNo node{};
};

/// Whether a command line says a word "name=...".
bool has_word(std::string_view line, std::string_view name) {
  for (std::size_t at = line.find(name); at != line.npos; at = line.find(name, at + 1)) {
    const bool begins = at == 0 || line[at - 1] == ' ';
    if (begins && line.substr(at + name.size()).starts_with('=')) return true;
  }
  return false;
}

/// The path of a file that has these names but for case; nullopt when there is none.
std::optional<std::string> find_any_case(const SourceTree& tree, std::string_view path) {
  NodeNo at = kRootNode;
  for (const std::string_view component : components_of(path)) {
    if (!tree.node(at).is_directory()) return std::nullopt;
    const Directory& directory = tree.directory(tree.directory_no(at));
    const auto entries = tree.entries(directory);
    const auto found = std::ranges::find_if(entries, [&](const Entry& entry) {
      return ascii_lower(tree.name(directory, entry)) == ascii_lower(component);
    });
    if (found == entries.end()) return std::nullopt;
    at = found->node;
  }
  if (!tree.node(at).is_regular()) return std::nullopt;
  return tree.path(at);
}

std::optional<std::string> find_config(const SourceTree& tree, const bootsect::BootLoader& loader,
                                       bool any_case) {
  for (const std::string_view path : loader.config_paths) {
    if (any_case) {
      if (auto found = find_any_case(tree, path)) return found;
    } else if (bootsect::find_file(tree, path)) {
      return std::string(path);
    }
  }
  return std::nullopt;
}

bool has_init(const SourceTree& tree) {
  return std::ranges::any_of(
      std::array<std::string_view, 4>{"sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd",
                                      "etc/inittab"},
      [&](std::string_view path) { return bootsect::find_file(tree, path).has_value(); });
}

/// Whether a configuration can name that path.
bool is_nameable(std::string_view path, bool quoted) noexcept {
  return path.find_first_of(quoted ? "\r\n" : " \t\r\n,") == path.npos;
}

/// A kernel that can be read, and is none for another machine; what is no kernel at all may be
/// something else that starts by itself.
Result<void> check_kernel(const ReadSources& read, NodeNo node) {
  std::array<std::byte, bootsect::kKernelHeadBytes> head{};
  if (read.tree->node(node).size_bytes < head.size()) return {};
  if (Result<void> good = read.contents->read(content_no(node), 0, head); !good) return good;
  const auto architecture = bootsect::kernel_architecture(head);
  if (!architecture || architecture->starts_with("x86")) return {};
  return fail(Errc::unsupported,
              fmt::format("{} is a kernel for {}, and a PC with a BIOS starts those for x86",
                          read.tree->path(node), *architecture),
              {{"kernel"}});
}

/// The file at a path of any volume.
std::optional<VolumeFile> find_in(const std::vector<BootVolume>& volumes, std::size_t first,
                                  std::string_view path) {
  std::optional<VolumeFile> found;
  for (std::size_t at = 0; at < volumes.size() && !found; ++at) {
    // The loader's own volume comes first.
    const std::size_t volume = at == 0 ? first : at <= first ? at - 1 : at;
    if (const auto node = bootsect::find_file(*volumes[volume].read->tree, path)) {
      found = VolumeFile{volume, *node};
    }
  }
  return found;
}

}  // namespace

/// What is added to a tree.
struct Boot::Files {
  struct File {
    std::uint64_t size_bytes = 0;
    JoinedContent content;
  };
  std::map<std::string, File> by_path;

  void add(std::string path, std::vector<std::byte> bytes) {
    const std::uint64_t size_bytes = bytes.size();
    JoinedContent content{path, {}};
    if (size_bytes != 0) content.pieces.push_back(ContentPiece::memory(std::move(bytes)));
    by_path.insert_or_assign(std::move(path), File{size_bytes, std::move(content)});
  }
  /// The bytes of another volume's file. Returns `path`.
  std::string add(std::string path, const ReadSources& from, NodeNo node) {
    const std::uint64_t size_bytes = from.tree->node(node).size_bytes;
    JoinedContent content{path, {}};
    if (size_bytes != 0) {
      content.pieces.push_back(ContentPiece::of(from.contents, content_no(node), {0, size_bytes}));
    }
    by_path.insert_or_assign(path, File{size_bytes, std::move(content)});
    return path;
  }

  Layer layer(Timestamp time) const {
    TreeBuilder builder;
    // Their bytes come from the joined contents; the builder's are never asked for.
    for (const auto& [path, file] : by_path) {
      builder.patterned_file(path, file.size_bytes).mode(0644).mtime(time);
    }
    Layer layer;
    layer.tree = builder.build().tree;
    std::map<ContentNo, JoinedContent> contents;
    for (const auto& [path, file] : by_path) {
      const Node* const node = layer.tree->find_path(path);
      contents.emplace(content_no(layer.tree->number_of(*node)), file.content);
    }
    layer.contents = std::make_shared<JoinedContents>(std::move(contents));
    for (const Directory& directory : layer.tree->directories()) {
      layer.implied_directories.push_back(directory.node);
    }
    std::ranges::sort(layer.implied_directories);
    return layer;
  }
};

Result<Boot> Boot::make(const BootSettings& settings, const DiskSettings& disk) {
  Boot boot(settings);
  for (const std::string& name : settings.loaders) {
    const bootsect::BootLoader* const loader = bootsect::find_boot_loader(name);
    if (loader == nullptr) {
      std::vector<std::string_view> known;
      for (const bootsect::BootLoader& each : bootsect::boot_loaders()) known.push_back(each.name);
      return fail_option({"boot", name}, fmt::format("none of {}", fmt::join(known, ", ")));
    }
    for (const Start& before : boot.starts_) {
      Result<void> good = bootsect::check_pair(*before.loader, *loader);
      if (good) continue;
      return fail_option({"boot", fmt::format("{}", fmt::join(settings.loaders, ","))},
                         std::move(good).error().what);
    }
    boot.starts_.push_back(
        {.loader = loader, .place = {.table = disk.table, .sector_bytes = disk.sector_bytes}});
  }
  return boot;
}

/// The first of `order` from which the loader starts; of several refusals, the first one counts.
Result<void> Boot::find_volume(const std::vector<BootVolume>& volumes,
                               std::span<const std::size_t> order, Start& start) {
  Result<void> refused;
  for (const std::size_t at : order) {
    bootsect::BootPlace place = start.place;
    place.format = volumes[at].format;
    place.partition = volumes[at].partition;
    Result<void> good = start.loader->check(place);
    if (good) {
      start.place = place;
      start.volume = at;
      start.read = volumes[at].read;
      return {};
    }
    if (refused) refused = std::move(good);
  }
  if (refused) refused = fail(Errc::unsupported, "there is no file system to boot from");
  Error error = std::move(refused).error();
  error.at_fault = {"boot", std::string(start.loader->name)};
  return std::unexpected(std::move(error));
}

Result<void> Boot::choose(const std::vector<BootVolume>& volumes) {
  std::vector<std::size_t> order;  // what is chosen comes first
  for (const bool is_chosen : {true, false}) {
    for (std::size_t at = 0; at < volumes.size(); ++at) {
      if (volumes[at].is_chosen == is_chosen) order.push_back(at);
    }
  }
  const auto chosen_count = std::ranges::count_if(volumes, &BootVolume::is_chosen);
  const auto chosen = std::span(order).first(static_cast<std::size_t>(chosen_count));
  for (Start& start : starts_) {
    Result<void> good = find_volume(volumes, order, start);
    if (good) continue;
    // Another format would suit this loader, and not the others.
    if (starts_.size() > 1 && volumes.size() == 1) good.error().hints = {{"partition"}};
    return good;
  }
  const auto is_bios = [](const Start& start) { return !start.loader->mbr_code.empty(); };
  const auto is_active = [&](const Start& start) {
    return is_bios(start) && (chosen.empty() || volumes[start.volume].is_chosen);
  };
  const auto first = std::ranges::find_if(starts_, is_bios);
  const auto active = std::ranges::find_if(starts_, is_active);
  if (active != starts_.end()) active_ = active->read;
  if (active != starts_.end() || first == starts_.end()) return {};
  return find_volume(volumes, chosen, *first);
}

Result<void> Boot::read_pieces(bootsect::MadePieces& made_pieces, Start& start) const {
  for (const bootsect::PieceRequest& request : start.loader->pieces(start.place)) {
    if (!request.parameter.empty()) {
      auto made = made_pieces.grub_core(request.parameter, settings_.files_directory);
      if (!made) return propagate(made);
      start.pieces.insert_or_assign(std::string(request.name), *std::move(made));
      continue;
    }
    Result<bootsect::BootPiece> read =
        bootsect::read_boot_piece(request.name, settings_.files_directory);
    if (!read) return propagate(read);
    start.pieces.insert_or_assign(std::string(request.name), std::move(read->bytes));
  }
  return {};
}

Result<std::string> Boot::append_of(const std::vector<BootVolume>& volumes, std::size_t boot_volume,
                                    std::size_t kernel_volume, bool has_initrd,
                                    const std::function<Result<std::string>()>& bare_volume_id) {
  std::string append;
  if (!has_word(settings_.append, "root")) {
    std::size_t root = has_init(*volumes[kernel_volume].read->tree) ? kernel_volume : boot_volume;
    for (std::size_t at = 0; at < volumes.size(); ++at) {
      if (volumes[at].is_root) root = at;
    }
    if (!volumes[root].partuuid.empty()) {
      append = fmt::format("root=PARTUUID={}", volumes[root].partuuid);
    } else if (has_initrd) {
      if (!named_volume_id_) {
        Result<std::string> id = bare_volume_id();
        if (!id) return propagate(id);
        named_volume_id_ = *std::move(id);
      }
      append = fmt::format("root=UUID={}", *named_volume_id_);
    } else {
      return fail(Errc::usage,
                  "a kernel by itself finds no file system by its UUID: without a partition table "
                  "and an initrd, the root is yours to name",
                  {{"append", "root=/dev/vda"}, {"table", "mbr"}});
    }
  }
  const auto add = [&](std::string_view words) {
    if (words.empty()) return;
    if (!append.empty()) append += ' ';
    append += words;
  };
  add(settings_.append);
  if (!has_word(settings_.append, "console")) add(kConsole);
  return append;
}

Result<bootsect::BootEntry> Boot::make_entry(
    const std::vector<BootVolume>& volumes, const Start& start,
    const std::function<Result<std::string>()>& bare_volume_id, Files& files) {
  bootsect::BootEntry entry;
  entry.timeout_s = settings_.timeout_s;
  std::optional<VolumeFile> kernel;
  std::vector<VolumeFile> initrds;
  if (!settings_.kernel.empty()) {
    kernel = find_in(volumes, start.volume, settings_.kernel);
    if (!kernel) {
      return fail_option({"kernel", settings_.kernel}, "no file of the sources");
    }
  } else {
    for (std::size_t at = 0; at < volumes.size() && !kernel; ++at) {
      const std::size_t volume = at == 0 ? start.volume : at <= start.volume ? at - 1 : at;
      const auto found = bootsect::find_kernel(*volumes[volume].read->tree);
      if (!found) continue;
      kernel = VolumeFile{volume, found->kernel};
      if (!settings_.initrds.empty()) break;
      for (const NodeNo initrd : found->initrds) initrds.push_back({volume, initrd});
    }
    if (!kernel) {
      return fail(Errc::unreadable,
                  "no source has a kernel (usr/lib/modules/*/vmlinuz, boot/vmlinuz-*, vmlinuz) or "
                  "a configuration of the loader",
                  {{"kernel"}});
    }
  }
  for (const std::string& path : settings_.initrds) {
    const auto initrd = find_in(volumes, start.volume, path);
    if (!initrd) return fail_option({"initrd", path}, "no file of the sources");
    initrds.push_back(*initrd);
  }
  if (Result<void> good = check_kernel(*volumes[kernel->volume].read, kernel->node); !good) {
    return propagate(good);
  }
  const auto path_of = [&](const VolumeFile& file) -> Result<std::string> {
    const ReadSources& read = *volumes[file.volume].read;
    std::string path = read.tree->path(file.node);
    if (!is_nameable(path, start.loader->quotes_paths)) {
      return fail(Errc::unsupported,
                  fmt::format("{}: a configuration of {} names no such path: it has a blank or a "
                              "comma",
                              path, start.loader->name));
    }
    if (file.volume == start.volume) return path;
    return files.add(join_path(kCopiedTo, path.substr(path.rfind('/') + 1)), read, file.node);
  };
  Result<std::string> kernel_path = path_of(*kernel);
  if (!kernel_path) return propagate(kernel_path);
  entry.kernel = *std::move(kernel_path);
  for (const VolumeFile& initrd : initrds) {
    Result<std::string> path = path_of(initrd);
    if (!path) return propagate(path);
    entry.initrds.push_back(*std::move(path));
  }
  Result<std::string> append =
      append_of(volumes, start.volume, kernel->volume, !initrds.empty(), bare_volume_id);
  if (!append) return propagate(append);
  if (start.loader->check_append != nullptr) {
    if (Result<void> good = start.loader->check_append(*append); !good) return propagate(good);
  }
  entry.append = *std::move(append);
  return entry;
}

Result<void> Boot::add_configuration(const std::vector<BootVolume>& volumes, const Start& start,
                                     const std::function<Result<std::string>()>& bare_volume_id,
                                     Files& files, Remarks& remarks) {
  const SourceTree& tree = *volumes[start.volume].read->tree;
  const auto known = find_config(tree, *start.loader, start.place.format.starts_with("fat"));
  const bool makes_one = !settings_.kernel.empty() || !settings_.initrds.empty() ||
                         !settings_.append.empty() || settings_.timeout_s;
  if (known && !settings_.replaces_config) {
    if (makes_one) {
      remarks.add(Remark::About::boot, LogLevel::warning,
                  fmt::format("the source has a configuration, {}: it is the one that counts, and "
                              "not what the options say",
                              *known),
                  {}, {{"boot-config", "ours"}});
    }
    return {};
  }
  Result<bootsect::BootEntry> entry = make_entry(volumes, start, bare_volume_id, files);
  if (!entry) return propagate(entry);
  const std::string text = start.loader->config(*entry);
  const auto bytes = std::as_bytes(std::span(text));
  files.add(known.value_or(std::string(start.loader->made_config)), {bytes.begin(), bytes.end()});
  return {};
}

/// All files are known before the first is added: no loader takes another's for the user's.
Result<void> Boot::add_files(bootsect::MadePieces& made_pieces,
                             const std::vector<BootVolume>& volumes,
                             std::span<const std::byte> seed,
                             const std::function<Result<std::string>()>& bare_volume_id,
                             Remarks& remarks) {
  struct Added {
    Files files;
    std::string loaders;
  };
  std::map<std::size_t, Added> added;  // by volume
  for (Start& start : starts_) {
    if (Result<void> good = read_pieces(made_pieces, start); !good) return good;
    start.place.disk_id = bootsect::DiskIds::derived(seed, 0).mbr;
    Added& to = added[start.volume];
    if (Result<void> good = add_configuration(volumes, start, bare_volume_id, to.files, remarks);
        !good) {
      return good;
    }
    Result<std::vector<bootsect::BootFile>> own = start.loader->files(start.pieces, start.place);
    if (!own) return propagate(own);
    for (bootsect::BootFile& file : *own) to.files.add(std::move(file.path), std::move(file.bytes));
    to.loaders += fmt::format("{}{}", to.loaders.empty() ? "" : ",", start.loader->name);
  }
  for (const auto& [volume, to] : added) {
    ReadSources& read = *volumes[volume].read;
    if (Result<void> good = read.add(to.files.layer(read.tree->newest_mtime()), to.loaders);
        !good) {
      return good;
    }
  }
  return {};
}

void Boot::add_wishes(const ReadSources& volume, PlanRequest& request) const {
  for (const Start& start : starts_) {
    if (start.read != &volume) continue;
    if (!start.loader->boot_file.empty()) request.boot_file = start.loader->boot_file;
    request.align_bytes = std::max(request.align_bytes, start.loader->align_bytes);
  }
}

bool Boot::wants_bios_boot() const noexcept {
  return std::ranges::any_of(starts_, [](const Start& start) {
    return start.loader->wants_bios_boot && start.place.table == bootsect::TableKind::gpt;
  });
}

bool Boot::is_active(const ReadSources& volume) const noexcept { return &volume == active_; }

Result<std::shared_ptr<const PlannedImage>> Boot::patch(const ReadSources& volume,
                                                        std::shared_ptr<const PlannedImage> image,
                                                        std::uint64_t start_bytes) const {
  for (const Start& start : starts_) {
    if (start.read != &volume) continue;
    bootsect::BootPlace place = start.place;
    place.start_bytes = start_bytes;
    Result<std::vector<Patch>> patches = start.loader->volume_patches(start.pieces, place, *image);
    if (!patches) return propagate(patches);
    auto with_patches = patched(std::move(image), *std::move(patches));
    if (!with_patches) return with_patches;
    image = *std::move(with_patches);
  }
  return image;
}

/// The code of the first sector comes from the first loader: check_pair() has seen to it that the
/// others, if they have any, have the same.
Result<std::vector<Patch>> Boot::disk_patches(std::span<const bootsect::PlacedPart> parts) const {
  for (const Start& start : starts_) {
    if (start.loader->disk_patches == nullptr) continue;
    return start.loader->disk_patches(start.pieces, start.place, parts);
  }
  return std::vector<Patch>();
}

}  // namespace mkvirtfs
