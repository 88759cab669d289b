// SPDX-License-Identifier: BSD-3-Clause
//
// A made piece is kept as one file: its bytes, then their SHA-256. The program that makes one
// writes into memory, so nothing of it needs a directory.
#include "bootsect/made_pieces.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>

#include "bootsect/boot_pieces.h"
#include "bootsect/grub.h"
#include "support/child_process.h"
#include "support/file_bytes.h"
#include "support/sha256.h"
#include "support/text.h"
#include "support/unique_fd.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::string_view kVersion = "mkvirtfs made piece 1";
constexpr std::string_view kSuffix = ".piece";
constexpr std::size_t kDigestBytes = 32;
constexpr std::size_t kMostBytes = 4u << 20;
constexpr std::size_t kMostKept = 32;
constexpr std::chrono::seconds kMostTime{60};

/// A program with its arguments, and all files that it reads.
struct Recipe {
  std::vector<std::string> words;
  std::vector<std::string> inputs;
};

std::string_view as_text(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::array<std::byte, kDigestBytes> digest_of(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.update(bytes);
  return digest.finish();
}

std::unexpected<Error> fail_missing(int error, const std::string& path, std::string_view package) {
  auto failed = fail_errno(Errc::unreadable, error, "read " + path);
  failed.error().hints = {{"", fmt::format("Debian's package {}", package)}, {"boot-files"}};
  return failed;
}

/// The file's name in the cache. A file that is replaced has another mtime, whatever put it there.
Result<std::string> name_of(const Recipe& recipe) {
  std::string text = fmt::format("{}\n{}\n", kVersion, fmt::join(recipe.words, "\n"));
  for (const std::string& path : recipe.inputs) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0) {
      return fail_errno(Errc::unreadable, errno, "read " + path);
    }
    text += fmt::format("{} {} {}.{:09}\n", path, status.st_size, status.st_mtim.tv_sec,
                        status.st_mtim.tv_nsec);
  }
  return hex(as_text(digest_of(std::as_bytes(std::span(text))))) + std::string(kSuffix);
}

/// Only what is ours alone is looked at.
UniqueFd open_cache(const std::string& path) {
  UniqueFd directory(path.empty() ? -1 : ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat status{};
  if (!directory || ::fstat(directory.get(), &status) != 0 || status.st_uid != ::geteuid() ||
      (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return {};
  }
  return directory;
}

std::optional<std::vector<std::byte>> find_kept(const std::string& path, const std::string& name) {
  const UniqueFd directory = open_cache(path);
  if (!directory) return std::nullopt;
  const UniqueFd file(
      ::openat(directory.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) return std::nullopt;
  auto bytes = read_all(file.get(), kMostBytes);
  if (!bytes || bytes->size() <= kDigestBytes) return std::nullopt;
  const auto piece = std::span(*bytes).first(bytes->size() - kDigestBytes);
  if (!std::ranges::equal(digest_of(piece), std::span(*bytes).last(kDigestBytes))) {
    return std::nullopt;
  }
  bytes->resize(piece.size());
  ::futimens(file.get(), nullptr);  // when it was last of use
  return bytes;
}

/// The longest unused ones go. What fails here only takes room.
void give_up_the_oldest(const std::string& directory) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  std::vector<std::pair<fs::file_time_type, fs::path>> kept;
  for (const fs::directory_entry& each : fs::directory_iterator(directory, ignored)) {
    if (each.path().extension() != kSuffix) continue;
    kept.emplace_back(each.last_write_time(ignored), each.path());
  }
  if (kept.size() <= kMostKept) return;
  std::ranges::sort(kept);
  kept.resize(kept.size() - kMostKept);
  for (const auto& [used, path] : kept) fs::remove(path, ignored);
}

/// Never an error: what is not kept is made again.
void keep(const std::string& path, const std::string& name, std::span<const std::byte> piece) {
  if (path.empty()) return;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    std::filesystem::create_directories(path, ignored);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all, ignored);
  }
  if (!open_cache(path)) return;
  std::string unfinished = fmt::format("{}/.unfinished-XXXXXX", path);
  const UniqueFd file(::mkostemp(unfinished.data(), O_CLOEXEC));
  if (!file) return;
  if (!write_all(file.get(), piece) || !write_all(file.get(), digest_of(piece)) ||
      ::rename(unfinished.c_str(), fmt::format("{}/{}", path, name).c_str()) != 0) {
    ::unlink(unfinished.c_str());
    return;
  }
  give_up_the_oldest(path);
}

/// What a program writes to its standard output.
Result<std::vector<std::byte>> output_of(const std::vector<std::string>& words) {
  const UniqueFd output(::memfd_create("piece", MFD_CLOEXEC));
  const UniqueFd messages(::memfd_create("messages", MFD_CLOEXEC));
  if (!output || !messages) return fail_errno(Errc::io, errno, "get memory for " + words[0]);
  ChildProcess program;
  if (const int failure = program.start({.words = words,
                                         .output = output.get(),
                                         .messages = messages.get(),
                                         .environment = {{"LC_ALL=C"}}});
      failure != 0) {
    return fail_errno(Errc::unsupported, failure, "run " + words[0]);
  }
  const std::optional<int> status = program.wait(kMostTime);
  if (!status) {
    return fail(Errc::unsupported,
                fmt::format("{} did not end in {} s", words[0], kMostTime.count()));
  }
  auto bytes = read_all(output.get(), kMostBytes);
  if (WIFEXITED(*status) && WEXITSTATUS(*status) == 0 && bytes && !bytes->empty()) {
    return *std::move(bytes);
  }
  const std::vector<std::byte> said =
      read_all(messages.get(), kMostBytes).value_or(std::vector<std::byte>());
  const std::string_view text = as_text(said);
  return fail(Errc::unsupported,
              fmt::format("{} failed: {}", words[0], text.substr(0, text.find('\n'))));
}

Result<Recipe> core_recipe(std::string_view prefix, const std::string& pieces_directory) {
  std::string_view package;  // of what was looked for last
  const auto find = [&](std::string_view name, int mode) -> Result<std::string> {
    const auto known = std::ranges::find(boot_piece_names(), name, &BootPieceName::name);
    package = known->package;
    std::string path = pieces_directory.empty() ? std::string(known->path)
                                                : fmt::format("{}/{}", pieces_directory, name);
    if (::access(path.c_str(), mode) == 0) return path;
    return fail_missing(errno, path, package);
  };
  const Result<std::string> program = find("grub-mkimage", X_OK);
  if (!program) return propagate(program);
  const Result<std::string> kernel = find("kernel.img", R_OK);
  if (!kernel) return propagate(kernel);
  const std::string directory = std::filesystem::path(*kernel).parent_path();
  Recipe recipe;
  recipe.words = {*program, "-O", "i386-pc", "-d", directory, "-p", std::string(prefix)};
  for (const std::string_view module : grub_modules()) recipe.words.emplace_back(module);
  recipe.inputs.push_back(*program);
  // Modules need others, by a list that is among the files.
  std::error_code error;
  for (const auto& each : std::filesystem::directory_iterator(directory, error)) {
    const std::string extension = each.path().extension();
    if (extension == ".mod" || extension == ".img" || extension == ".lst") {
      recipe.inputs.push_back(each.path());
    }
  }
  if (error) return fail_missing(error.value(), directory, package);
  std::ranges::sort(recipe.inputs);
  return recipe;
}

}  // namespace

Result<std::vector<std::byte>> MadePieces::grub_core(std::string_view prefix,
                                                     const std::string& pieces_directory) {
  const Result<Recipe> recipe = core_recipe(prefix, pieces_directory);
  if (!recipe) return propagate(recipe);
  const Result<std::string> name = name_of(*recipe);
  if (!name) return propagate(name);
  const MutexLock lock(mutex_);  // so that two who want the same make it once
  if (const auto known = made_.find(*name); known != made_.end()) return known->second;
  if (auto kept = find_kept(directory_, *name)) {
    return made_.emplace(*name, *std::move(kept)).first->second;
  }
  auto made = output_of(recipe->words);
  if (!made) return propagate(made);
  keep(directory_, *name, *made);
  return made_.emplace(*name, *std::move(made)).first->second;
}

}  // namespace mkvirtfs::bootsect
