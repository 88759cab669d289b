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
#include "bootsect/isolinux.h"
#include "bootsect/kernel.h"
#include "bootsect/uefi.h"
#include "bootsect/uki.h"
#include "compose/efi_boot.h"
#include "compose/efi_image.h"
#include "fsgen/tree/merge.h"
#include "fsgen/tree/tree_path.h"
#include "support/ascii_case.h"

namespace mkvirtfs {
namespace {

constexpr std::string_view kConsole = "console=tty0 console=ttyS0,115200";
constexpr std::string_view kCopiedTo = "boot";  // kernels of other volumes

/// Whether a command line says a word "name=...".
bool has_word(std::string_view line, std::string_view name) {
  for (std::size_t at = line.find(name); at != line.npos; at = line.find(name, at + 1)) {
    const bool begins = at == 0 || line[at - 1] == ' ';
    if (begins && line.substr(at + name.size()).starts_with('=')) return true;
  }
  return false;
}

/// The file at a path, whatever the case of its letters; its last name may be "*" and an ending.
std::optional<NodeNo> find_matching(const SourceTree& tree, std::string_view path) {
  const std::size_t star = path.find('*');
  if (star == path.npos) {
    const auto node = find_any_case(tree, path);
    return node && tree.node(*node).is_regular() ? node : std::nullopt;
  }
  const auto node = find_any_case(tree, parent_path(path));
  if (!node || !tree.node(*node).is_directory()) return std::nullopt;
  const Directory& directory = tree.directory(tree.directory_no(*node));
  for (const Entry& entry : tree.entries(directory)) {
    if (!tree.node(entry.node).is_regular()) continue;
    if (ascii_lower(tree.name(directory, entry)).ends_with(path.substr(star + 1)))
      return entry.node;
  }
  return std::nullopt;
}

std::optional<std::string> find_config(const SourceTree& tree, const bootsect::BootLoader& loader,
                                       bool any_case) {
  for (const std::string_view path : loader.config_paths) {
    if (any_case) {
      if (const auto found = find_matching(tree, path)) return tree.path(*found);
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

/// All volumes, the loader's own first.
std::vector<std::size_t> order_from(std::size_t first, std::size_t count) {
  std::vector<std::size_t> order{first};
  for (std::size_t at = 0; at < count; ++at) {
    if (at != first) order.push_back(at);
  }
  return order;
}

/// The volume that becomes the root: the one that says so, or else one with an init, the kernel's
/// own first, or else the one that boots, unless that is there for nothing else.
std::size_t root_of(const std::vector<BootVolume>& volumes, std::size_t boot_volume,
                    std::size_t kernel_volume) {
  const auto root = std::ranges::find_if(volumes, &BootVolume::is_root);
  if (root != volumes.end()) return static_cast<std::size_t>(root - volumes.begin());
  for (const std::size_t at : order_from(kernel_volume, volumes.size())) {
    if (has_init(*volumes[at].read->tree)) return at;
  }
  if (!volumes[boot_volume].is_esp) return boot_volume;
  for (const std::size_t at : order_from(kernel_volume, volumes.size())) {
    if (!volumes[at].is_esp) return at;
  }
  return boot_volume;
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

/// What the source has where firmware looks gives way.
void remark_on_replaced(const SourceTree& tree, const bootsect::BootLoader& loader,
                        Remarks& remarks) {
  const auto there = find_any_case(tree, join_path(bootsect::kEfiDirectory, "BOOTX64.EFI"));
  if (!there) return;
  remarks.add(Remark::About::boot, LogLevel::warning,
              fmt::format("the source has {}: in its place stands what {} starts",
                          tree.path(*there), loader.title),
              {}, {{"boot", "uefi"}});
}

/// The file at a path of any volume.
std::optional<VolumeFile> find_in(const std::vector<BootVolume>& volumes, std::size_t first,
                                  std::string_view path) {
  for (const std::size_t volume : order_from(first, volumes.size())) {
    if (const auto node = bootsect::find_file(*volumes[volume].read->tree, path)) {
      return VolumeFile{volume, *node};
    }
  }
  return std::nullopt;
}

}  // namespace

Result<Boot> Boot::make(const BootSettings& settings, const DiskSettings& disk) {
  Boot boot(settings);
  boot.is_hybrid_ = disk.is_hybrid;
  boot.gpt_id_ = disk.gpt_id;
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
  if (!disk.table && disk.gpt_id && !boot.wants_efi_image()) {
    return fail_option({"disk-id", to_string(*disk.gpt_id)},
                       "an ISO image has a GPT when UEFI starts it", {{"boot", "isolinux,uki"}});
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
      if (volumes[at].is_efi_image) continue;
      if (volumes[at].is_chosen == is_chosen) order.push_back(at);
    }
  }
  const auto chosen_count = std::ranges::count_if(volumes, &BootVolume::is_chosen);
  const auto chosen = std::span(order).first(static_cast<std::size_t>(chosen_count));
  std::vector<std::size_t> efi_order;  // that of UEFI: the partition that is meant for it
  for (const bool is_esp : {true, false}) {
    for (std::size_t at = 0; at < volumes.size(); ++at) {
      if (volumes[at].is_esp == is_esp) efi_order.push_back(at);
    }
  }
  if (volumes.back().is_efi_image) efi_iso_ = volumes.front().read;
  for (Start& start : starts_) {
    const bool is_efi = start.loader->efi != bootsect::EfiStart::none;
    Result<void> good = find_volume(volumes, is_efi ? efi_order : order, start);
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
                                    const VolumeId& bare_volume_id) {
  std::string append;
  if (!has_word(settings_.append, "root")) {
    const std::size_t root = root_of(volumes, boot_volume, kernel_volume);
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

Result<Boot::Found> Boot::find_entry(const std::vector<BootVolume>& volumes, const Start& start) {
  Found found;
  std::optional<VolumeFile> kernel;
  if (!settings_.kernel.empty()) {
    kernel = find_in(volumes, start.volume, settings_.kernel);
    if (!kernel) {
      return fail_option({"kernel", settings_.kernel}, "no file of the sources");
    }
  } else {
    for (const std::size_t volume : order_from(start.volume, volumes.size())) {
      const auto newest = bootsect::find_kernel(*volumes[volume].read->tree);
      if (!newest) continue;
      kernel = VolumeFile{volume, newest->kernel};
      found.version = newest->version;
      if (!settings_.initrds.empty()) break;
      for (const NodeNo initrd : newest->initrds) found.initrds.push_back({volume, initrd});
      break;
    }
    if (!kernel) {
      return fail(Errc::unreadable,
                  "no source has a kernel (usr/lib/modules/*/vmlinuz, boot/vmlinuz-*, vmlinuz) or "
                  "a configuration of the loader",
                  {{"kernel"}});
    }
  }
  found.kernel = *kernel;
  for (const std::string& path : settings_.initrds) {
    const auto initrd = find_in(volumes, start.volume, path);
    if (!initrd) return fail_option({"initrd", path}, "no file of the sources");
    found.initrds.push_back(*initrd);
  }
  const ReadSources& read = *volumes[kernel->volume].read;
  if (start.loader->efi == bootsect::EfiStart::none) {
    if (Result<void> good = check_kernel(read, kernel->node); !good) return propagate(good);
    return found;
  }
  Result<bootsect::PeImage> headers = check_efi_kernel(read, kernel->node, *start.loader);
  if (!headers) return propagate(headers);
  found.headers = *std::move(headers);
  if (found.version.empty()) found.version = version_in_kernel(read, kernel->node);
  return found;
}

/// Files of other volumes are shown in the loader's.
Result<bootsect::BootEntry> Boot::name_entry(const std::vector<BootVolume>& volumes,
                                             const Start& start, const Found& found,
                                             BootFiles& files) {
  bootsect::BootEntry entry;
  entry.timeout_s = settings_.timeout_s;
  entry.version = found.version;
  // GRUB reads ISO 9660.
  entry.is_elsewhere = start.loader->efi == bootsect::EfiStart::verified_menu &&
                       volumes[start.volume].is_efi_image && found.kernel.volume != start.volume;
  const auto path_of = [&](const VolumeFile& file) -> Result<std::string> {
    const ReadSources& read = *volumes[file.volume].read;
    std::string path = read.tree->path(file.node);
    if (!is_nameable(path, start.loader->quotes_paths)) {
      return fail(Errc::unsupported,
                  fmt::format("{}: a configuration of {} names no such path: it has a blank or a "
                              "comma",
                              path, start.loader->name));
    }
    if (file.volume == start.volume || entry.is_elsewhere) return path;
    return files.add(
        spelled_in(volumes, start, join_path(kCopiedTo, path.substr(path.rfind('/') + 1))), read,
        file.node);
  };
  Result<std::string> kernel_path = path_of(found.kernel);
  if (!kernel_path) return propagate(kernel_path);
  entry.kernel = *std::move(kernel_path);
  for (const VolumeFile& initrd : found.initrds) {
    Result<std::string> path = path_of(initrd);
    if (!path) return propagate(path);
    entry.initrds.push_back(*std::move(path));
  }
  return entry;
}

/// FAT has one name for "EFI" and "efi".
std::string Boot::spelled_in(const std::vector<BootVolume>& volumes, const Start& start,
                             std::string_view path) {
  if (!start.place.format.starts_with("fat")) return std::string(path);
  return spelled_as_in(*volumes[start.volume].read->tree, path);
}

Result<void> Boot::add_unified_kernel(const std::vector<BootVolume>& volumes, const Start& start,
                                      const VolumeId& bare_volume_id, BootFiles& files) {
  const Result<Found> found = find_entry(volumes, start);
  if (!found) return propagate(found);
  Result<std::string> append = append_of(volumes, start.volume, found->kernel.volume,
                                         !found->initrds.empty(), bare_volume_id);
  if (!append) return propagate(append);
  const auto piece = [&](const VolumeFile& file) {
    return piece_of(*volumes[file.volume].read, file.node);
  };
  std::vector<const ReadSources*> sources;
  for (const std::size_t at : order_from(found->kernel.volume, volumes.size())) {
    sources.push_back(volumes[at].read);
  }
  bootsect::UkiParts parts;
  parts.stub = bootsect::piece(start.pieces, bootsect::kUkiStub);
  parts.os_release = os_release_of(sources);
  if (parts.os_release.empty()) parts.os_release = "ID=linux\nPRETTY_NAME=\"Linux\"\n";
  parts.kernel_version = found->version;
  parts.command_line = *std::move(append);
  for (const VolumeFile& initrd : found->initrds) {
    if (volumes[initrd.volume].read->tree->node(initrd.node).size_bytes == 0) continue;
    parts.initrds.push_back(piece(initrd));
  }
  parts.kernel = piece(found->kernel);
  parts.kernel_headers = found->headers;
  std::string path =
      spelled_in(volumes, start,
                 join_path(bootsect::kEfiDirectory,
                           bootsect::find_efi_machine(found->headers.machine)->loader_name));
  Result<JoinedContent> joined = bootsect::join_uki(parts, path);
  if (!joined) return propagate(joined);
  files.add(std::move(path), *std::move(joined));
  return {};
}

/// The user's own loader, or one that the sources have where firmware looks for it.
Result<void> Boot::add_own_loader(const std::vector<BootVolume>& volumes, const Start& start,
                                  BootFiles& files) {
  const SourceTree& tree = *volumes[start.volume].read->tree;
  if (own_loader_ != nullptr) {
    constexpr NodeNo kOnlyFile{1};
    return add_given_loader(*own_loader_, kOnlyFile, tree, files);
  }
  for (const std::size_t volume : order_from(start.volume, volumes.size())) {
    const ReadSources& read = *volumes[volume].read;
    const Result<std::vector<NodeNo>> loaders = find_efi_loaders(read);
    if (!loaders) return propagate(loaders);
    if (loaders->empty()) continue;
    for (const NodeNo each : *loaders) {
      if (volume == start.volume) continue;  // it is there
      if (Result<void> good = add_given_loader(read, each, tree, files); !good) return good;
    }
    return {};
  }
  return fail(Errc::unreadable,
              "no source has a loader or a unified kernel image at EFI/BOOT/BOOT*.EFI",
              {{"loader"}, {"boot", "uki"}, {"boot", "systemd-boot"}});
}

Result<void> Boot::add_configuration(const std::vector<BootVolume>& volumes, const Start& start,
                                     const VolumeId& bare_volume_id, BootFiles& files,
                                     Remarks& remarks) {
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
  const Result<Found> found = find_entry(volumes, start);
  if (!found) return propagate(found);
  Result<bootsect::BootEntry> entry = name_entry(volumes, start, *found, files);
  if (!entry) return propagate(entry);
  Result<std::string> append = append_of(volumes, start.volume, found->kernel.volume,
                                         !found->initrds.empty(), bare_volume_id);
  if (!append) return propagate(append);
  if (start.loader->check_append != nullptr) {
    if (Result<void> good = start.loader->check_append(*append); !good) return propagate(good);
  }
  entry->append = *std::move(append);
  const bootsect::BootLoader& loader = *start.loader;
  // An entry among others has a name of its own.
  const bool is_in_place = known && loader.settings == nullptr;
  files.add(is_in_place ? *known : spelled_in(volumes, start, loader.made_config),
            loader.config(*entry));
  if (loader.settings != nullptr) {
    files.add(spelled_in(volumes, start, loader.made_settings), loader.settings(*entry));
  }
  return {};
}

Result<void> Boot::add_loader(const std::vector<BootVolume>& volumes, Start& start,
                              const VolumeId& bare_volume_id, BootFiles& files, Remarks& remarks) {
  if (start.loader->efi == bootsect::EfiStart::given) return add_own_loader(volumes, start, files);
  if (start.loader->efi != bootsect::EfiStart::none) {
    remark_on_replaced(*volumes[start.volume].read->tree, *start.loader, remarks);
  }
  if (start.loader->efi == bootsect::EfiStart::unified) {
    return add_unified_kernel(volumes, start, bare_volume_id, files);
  }
  if (Result<void> good = add_configuration(volumes, start, bare_volume_id, files, remarks);
      !good) {
    return good;
  }
  Result<std::vector<bootsect::BootFile>> own = start.loader->files(start.pieces, start.place);
  if (!own) return propagate(own);
  for (bootsect::BootFile& file : *own) {
    std::vector<std::byte>& bytes =
        file.piece.empty() ? file.bytes : start.pieces.find(file.piece)->second;
    files.add(spelled_in(volumes, start, file.path), std::move(bytes));
  }
  return {};
}

/// All files are known before the first is added: no loader takes another's for the user's.
Result<void> Boot::add_files(bootsect::MadePieces& made_pieces,
                             const std::vector<BootVolume>& volumes,
                             std::span<const std::byte> seed, const VolumeId& bare_volume_id,
                             Remarks& remarks) {
  struct Added {
    BootFiles files;
    std::string loaders;
  };
  std::map<std::size_t, Added> added;  // by volume
  iso_ids_ = bootsect::DiskIds::derived(seed, 1);
  iso_ids_.disk = gpt_id_.value_or(iso_ids_.disk);
  for (Start& start : starts_) {
    if (Result<void> good = read_pieces(made_pieces, start); !good) return good;
    Added& to = added[start.volume];
    if (Result<void> good = add_loader(volumes, start, bare_volume_id, to.files, remarks); !good) {
      return good;
    }
    if (start.loader->efi == bootsect::EfiStart::verified_menu &&
        volumes[start.volume].is_efi_image) {
      // Started from a CD, GRUB looks there, and started from a disk, where it lies itself.
      added[0].files.add_from(to.files, start.loader->made_config);
    }
    to.loaders += fmt::format("{}{}", to.loaders.empty() ? "" : ",", start.loader->name);
  }
  Timestamp newest;
  for (const BootVolume& volume : volumes) {
    newest = std::max(newest, volume.read->tree->newest_mtime());
  }
  for (const auto& [volume, to] : added) {
    if (to.files.empty()) continue;
    ReadSources& read = *volumes[volume].read;
    const bool is_empty = read.tree->node_count() == 1;
    const Timestamp time = is_empty ? newest : read.tree->newest_mtime();
    if (Result<void> good = read.add(to.files.layer(time), to.loaders); !good) {
      return good;
    }
  }
  return {};
}

void Boot::add_wishes(const ReadSources& volume, PlanRequest& request) const {
  if (&volume == efi_iso_) {
    request.last_file = kEfiImagePath;
    if (is_hybrid_) request.tail_bytes = bootsect::iso_gpt_tail_bytes();
  }
  for (const Start& start : starts_) {
    if (start.read != &volume) continue;
    if (!start.loader->boot_file.empty()) request.boot_file = start.loader->boot_file;
    request.align_bytes = std::max(request.align_bytes, start.loader->align_bytes);
  }
}

bool Boot::wants_efi_image() const noexcept {
  return std::ranges::any_of(starts_, [](const Start& start) {
    return start.loader->efi != bootsect::EfiStart::none && !start.place.table;
  });
}

bool Boot::wants_bios_boot() const noexcept {
  return std::ranges::any_of(starts_, [](const Start& start) {
    return start.loader->wants_bios_boot && start.place.table == bootsect::TableKind::gpt;
  });
}

bool Boot::is_esp(const ReadSources& volume) const noexcept {
  return std::ranges::any_of(starts_, [&](const Start& start) {
    return start.loader->efi != bootsect::EfiStart::none && start.read == &volume;
  });
}

bool Boot::is_active(const ReadSources& volume) const noexcept { return &volume == active_; }

Result<std::shared_ptr<const PlannedImage>> Boot::patch(const ReadSources& volume,
                                                        std::shared_ptr<const PlannedImage> image,
                                                        std::uint64_t start_bytes) const {
  bootsect::IsoTable iso{.ids = iso_ids_, .efi_image = {}, .is_hybrid = is_hybrid_};
  if (&volume == efi_iso_) {
    const DataPlacement placed = image->data_at(kEfiImagePath);
    iso.efi_image = {placed.find(0).value_or(0), placed.size_bytes};
  }
  const bool has_start =
      std::ranges::any_of(starts_, [&](const Start& start) { return start.read == &volume; });
  if (iso.efi_image.length != 0 && !has_start) {
    Result<std::vector<Patch>> patches = bootsect::efi_iso_patches(*image, iso);
    if (!patches) return propagate(patches);
    return patched(std::move(image), *std::move(patches));
  }
  for (const Start& start : starts_) {
    if (start.read != &volume) continue;
    bootsect::BootPlace place = start.place;
    place.start_bytes = start_bytes;
    place.iso = iso;
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
