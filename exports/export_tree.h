// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/device.h"
#include "support/error.h"

namespace mkvirtfs {

/// The longest name and the longest description of an export, in bytes.
inline constexpr std::size_t kLongestExportText = 4096;
/// The largest device behind an export: offsets are signed numbers of 64 bits to the system.
inline constexpr std::uint64_t kLargestExportBytes = (std::uint64_t{1} << 63) - 1;
/// The largest minimum block of a device behind an export.
inline constexpr std::uint32_t kLargestMinimumBlockBytes = 65536;

/// A device under a name that clients can ask for. Copies share the device.
struct Export {
  /// The canonical full name: path components joined by '/', or "".
  std::string name = {};
  /// One line for people; may be empty.
  std::string description = {};
  std::shared_ptr<BlockDevice> device = nullptr;
  /// Writes, zeroes and trims are answered when they are on stable storage.
  bool write_through = false;
};

/// One name directly below a directory of an ExportTree.
struct ExportEntry {
  std::string name;  ///< full, as open() and list() take it: "photos/2023"
  std::string description;
  bool is_export = true;      ///< open() takes it
  bool is_directory = false;  ///< list() takes it
  /// How many entries the directory has, where that is known without looking.
  std::optional<std::uint32_t> children;
};

/// The names a server offers, and the devices behind them. Knows nothing of sockets or clients.
/// Every method may run on several threads at once.
class ExportTree {
 public:
  virtual ~ExportTree() = default;

  /// At most `most` entries directly below `directory` ("" is the root), in bytewise order of
  /// their last component, beginning behind the entry whose full name is `after`, or from the
  /// start. Fewer than `most` means that there are no more. Must not open a device.
  virtual Result<std::vector<ExportEntry>> list(std::string_view directory,
                                                std::optional<std::string_view> after,
                                                std::size_t most) = 0;

  /// What open() would give for `name`, under its canonical name, without opening it.
  virtual Result<ExportEntry> find(std::string_view name) = 0;

  /// The export of that name; "" is the default export. Its device has at most kLargestExportBytes.
  /// Two calls with one name give the same device while it is held, so that all its clients
  /// see the same bytes. May take as long as building the device does, but waits for no other
  /// export. The error text travels to the client.
  virtual Result<Export> open(std::string_view name) = 0;

  /// What open() would give, when that takes no waiting: the device is there, or there is no such
  /// export. Nothing, which is always right, when it might: a server then calls open() on a thread
  /// that no other client needs.
  virtual std::optional<Result<Export>> open_at_once(std::string_view name);

 protected:
  ExportTree() = default;
  ExportTree(const ExportTree&) = default;
  ExportTree& operator=(const ExportTree&) = default;
};

/// Whether `name` can be an export's name: "", or components joined by '/' of which none is empty,
/// "." or "..", in UTF-8 without control characters, at most kLongestExportText bytes.
bool is_valid_export_name(std::string_view name) noexcept;

/// Orders full names as a walk through the tree does: a directory's names follow it at once.
struct WalkOrder {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const noexcept;
};

/// A key behind everything in the directory `name`, and before whatever follows it in WalkOrder:
/// names have no control characters.
std::string behind_name(std::string_view name);

/// A fixed list of exports, of which the first is the default one. Fails (Errc::usage) on an empty
/// list, a missing device, a malformed or repeated name, a description that is not one line of
/// UTF-8 within kLongestExportText, or a device that is larger than kLargestExportBytes or does not
/// consist of whole minimum blocks (a power of two up to kLargestMinimumBlockBytes).
Result<std::shared_ptr<ExportTree>> make_fixed_exports(const std::vector<Export>& exports);

/// An export whose device is made when a client needs it.
struct LazyExport {
  std::string name = {};
  std::string description = {};
  /// Makes the device. Never runs twice at once, but again when a client comes after the last
  /// holder of the device has gone, and after a failure; that one's text travels to the clients.
  std::function<Result<std::shared_ptr<BlockDevice>>()> build = nullptr;
};

/// The same, with devices that are built on their first open() and shared while they are held.
/// An open() during a build waits for that build, and shares its failure.
Result<std::shared_ptr<ExportTree>> make_lazy_exports(const std::vector<LazyExport>& exports);

/// The common case: one device, which is the default export and answers to `name` as well.
Result<std::shared_ptr<ExportTree>> make_single_export(std::shared_ptr<BlockDevice> device,
                                                       std::string name = {},
                                                       std::string description = {});

}  // namespace mkvirtfs
