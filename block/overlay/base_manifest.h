// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/file_facts.h"
#include "block/file_operations.h"
#include "block/overlay/header.h"
#include "support/error.h"

// What the files below a kept overlay were when it was made: its base manifest, FILE.base
// (docs/layout-overlay.md). Written and read as a stream, whatever its length.

namespace mkvirtfs {

/// SHA-256 of all bytes of a file.
using ContentDigest = std::array<std::byte, 32>;

/// A source of the image, as the command line names it.
struct BaseSource {
  std::string word;  ///< "rootfs", "oci:app:latest"
  std::string at;    ///< where its root stands in the image, without '/' at either end
  /// The absolute path of the host directory below which its files lie; "" when it has none.
  std::string root;

  friend bool operator==(const BaseSource&, const BaseSource&) = default;
};

/// What stands in front of the entries.
struct BaseHead {
  ImageId base{};
  std::vector<std::string> options;  ///< those that say what image it is: "--fs=ext4"
  std::vector<BaseSource> sources;

  friend bool operator==(const BaseHead&, const BaseHead&) = default;
};

/// A node of the image, or a file that holds many of them: an archive, a layer of a container
/// image.
struct BaseEntry {
  bool is_container = false;
  std::uint16_t source = 0;  ///< number in BaseHead::sources
  /// Of a node, its path in the image, raw bytes, without '/' at either end; of a container, its
  /// path below the root of its source.
  std::string path;
  /// Of a node whose bytes lie under another path below the root of its source; else "".
  std::string host_path;
  /// As the image shows them; of a container only the size says something.
  std::uint32_t mode = 0;  ///< as in st_mode
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  FileTime mtime;
  std::uint64_t size_bytes = 0;
  /// Of what lies on the host by itself.
  std::optional<FileFacts> host;
  std::optional<ContentDigest> digest;

  friend bool operator==(const BaseEntry&, const BaseEntry&) = default;
};

/// Where the file of an entry is below the root of its source.
std::string host_path_of(const BaseEntry& entry, const BaseSource& source);

/// The order in which entries stand: containers first, source by source; then nodes, as a tree
/// numbers them, directory by directory from the root down.
bool stands_before(const BaseEntry& one, const BaseEntry& other) noexcept;

/// Entries one after the other, in their order.
class BaseEntries {
 public:
  virtual ~BaseEntries() = default;
  /// Sets `entry` to the next one; false when there is none.
  virtual Result<bool> next(BaseEntry& entry) = 0;
};

/// Calls `visit` for each entry of both, and for both at once where they stand at the same place;
/// until one call fails.
Result<void> for_each_pair(
    BaseEntries& then, BaseEntries& now,
    const std::function<Result<void>(const BaseEntry* then, const BaseEntry* now)>& visit);

/// The manifest of the overlay at `path`.
std::string base_manifest_path(const std::string& path);

/// Writes a manifest under another name first: it is there as a whole, on the disk, or as it was
/// before. One thread, and one process at a time.
class BaseManifestWriter {
 public:
  /// `overlay` is the path of the overlay. Errc::usage when a file that is no manifest stands
  /// there.
  static Result<std::unique_ptr<BaseManifestWriter>> create(
      const std::string& overlay, const BaseHead& head,
      FileOperations& operations = FileOperations::host());
  ~BaseManifestWriter();
  BaseManifestWriter(const BaseManifestWriter&) = delete;
  BaseManifestWriter& operator=(const BaseManifestWriter&) = delete;

  Result<void> add(const BaseEntry& entry);
  /// Gives it its name, and brings both to the disk.
  Result<void> finish();

 private:
  struct State;
  explicit BaseManifestWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Reads a manifest. Nothing that it says is to be believed before next() has said that it is at
/// its end, where its checksum stands. One thread.
class BaseManifestReader final : public BaseEntries {
 public:
  /// nullptr when there is none. Errc::usage for what is no manifest, Errc::unsupported for a newer
  /// version, Errc::io for a damaged one.
  static Result<std::unique_ptr<BaseManifestReader>> open(const std::string& overlay);
  ~BaseManifestReader() override;

  const BaseHead& head() const noexcept;
  Result<bool> next(BaseEntry& entry) override;

 private:
  struct State;
  explicit BaseManifestReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Removes the manifest of an overlay, and what a writer has left that was cut off. Anything else
/// of that name stays. Returns as FileOperations::unlink(); what is not there is fine.
int remove_base_manifest(const std::string& overlay, FileOperations& operations);

/// One more name of the manifest of `overlay` for that of `child`, which has none yet; where there
/// is no manifest, the child gets none. Returns as FileOperations::link().
int link_base_manifest(const std::string& overlay, const std::string& child,
                       FileOperations& operations);

}  // namespace mkvirtfs
