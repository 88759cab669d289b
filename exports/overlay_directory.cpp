// SPDX-License-Identifier: BSD-3-Clause
#include "exports/overlay_directory.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <filesystem>
#include <set>
#include <system_error>

#include "block/overlay/snapshot.h"
#include "exports/export_tree.h"

namespace mkvirtfs {
namespace {

constexpr std::string_view kSuffix = ".overlay";
constexpr std::string_view kNameless = "%";

bool stands_for_itself(char c, bool is_first) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || (c == '.' && !is_first);
}

}  // namespace

Result<std::string> overlay_file_name(std::string_view export_name) {
  std::string name;
  for (const char c : export_name) {
    if (stands_for_itself(c, name.empty())) {
      name += c;
    } else {
      name += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
    if (name.size() + kSuffix.size() > NAME_MAX) {
      return fail(Errc::usage,
                  fmt::format("the name of the export is too long for the file of its overlay: "
                              "{}... would have more than {} bytes",
                              name.substr(0, 40), NAME_MAX));
    }
  }
  if (name.empty()) name += kNameless;
  return name.append(kSuffix);
}

std::optional<std::string> export_of_overlay_file(std::string_view file_name) {
  if (!file_name.ends_with(kSuffix)) return std::nullopt;
  file_name.remove_suffix(kSuffix.size());
  std::string name;
  for (std::size_t at = 0; file_name != kNameless && at < file_name.size(); ++at) {
    if (file_name[at] != '%') {
      name += file_name[at];
      continue;
    }
    unsigned value = 0;
    for (const char digit : file_name.substr(at + 1, 2)) {
      value = value * 16 + static_cast<unsigned>(digit <= '9' ? digit - '0' : digit - 'A' + 10);
    }
    name += static_cast<char>(value);
    at += 2;
  }
  // Whatever is not written as we write it is not ours.
  if (!is_valid_export_name(name)) return std::nullopt;
  const Result<std::string> again = overlay_file_name(name);
  if (!again || *again != std::string(file_name).append(kSuffix)) return std::nullopt;
  return name;
}

Result<std::string> branch_file_name(std::string_view base, std::string_view export_name) {
  Result<std::string> name = overlay_file_name(export_name);
  if (!name) return name;
  // No export's name makes an '@'.
  std::string whole = std::string(base).append("@").append(*name);
  if (whole.size() > NAME_MAX) {
    return fail(Errc::usage,
                fmt::format("the name of the snapshot is too long for a file beside the overlay: "
                            "{}... would have more than {} bytes",
                            whole.substr(0, 40), NAME_MAX));
  }
  return whole;
}

std::optional<std::string> export_of_branch_file(std::string_view base,
                                                 std::string_view file_name) {
  if (!file_name.starts_with(base) || !file_name.substr(base.size()).starts_with('@')) {
    return std::nullopt;
  }
  return export_of_overlay_file(file_name.substr(base.size() + 1));
}

Result<void> make_overlay_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return {};
  const int error = errno;
  struct stat status{};
  if (error == EEXIST && ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return {};
  return fail_errno(Errc::usage, error, fmt::format("make the directory {}", path));
}

Result<std::vector<KeptOverlay>> overlays_in_directory(
    const std::string& path,
    const std::function<std::optional<std::string>(std::string_view)>& export_of, LogSink& log) {
  std::set<std::string> files;
  std::set<std::string> layers;
  std::set<std::string> unfinished;
  std::error_code error;
  std::filesystem::directory_iterator entries(path, error);
  const std::filesystem::directory_iterator end;
  for (; !error && entries != end; entries.increment(error)) {
    std::string file = entries->path().filename().string();
    if (export_of(file)) {
      files.insert(std::move(file));
    } else if (const std::string next = overlay_of_unfinished_path(file); export_of(next)) {
      unfinished.insert(next);
    } else if (const std::string over = overlay_of_layer_path(file); export_of(over)) {
      layers.insert(std::move(file));
    }
  }
  if (error) return fail_errno(Errc::usage, error.value(), fmt::format("list {}", path));
  const auto in_directory = [&](const std::string& file) {
    return fmt::format("{}{}{}", path, path.ends_with('/') ? "" : "/", file);
  };
  for (const std::string& file : unfinished) {
    if (const Result<void> recovered = recover_overlay(in_directory(file)); !recovered) {
      log.write(LogLevel::error, recovered.error().what);
    }
    struct stat status{};
    if (::lstat(in_directory(file).c_str(), &status) == 0) files.insert(file);
  }
  for (const std::string& file : layers) {
    const std::string over = overlay_of_layer_path(file);
    if (files.contains(over) || unfinished.contains(over)) continue;
    log.write(LogLevel::warning,
              fmt::format("{}: the overlay that lay over it is gone; remove it if it is not needed",
                          in_directory(file)));
  }
  std::vector<KeptOverlay> kept;
  for (const std::string& file : files) {
    KeptOverlay& overlay = kept.emplace_back(KeptOverlay{*export_of(file), false, {}});
    // What is wrong with a file is reported when it is opened.
    if (const auto header = overlay_header_at(in_directory(file)); header && *header) {
      overlay.is_branch = (*header)->is_branch();
      overlay.origin = (*header)->origin;
    }
  }
  std::ranges::sort(kept, {}, &KeptOverlay::name);
  return kept;
}

}  // namespace mkvirtfs
