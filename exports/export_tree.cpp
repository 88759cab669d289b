// SPDX-License-Identifier: BSD-3-Clause
#include "exports/export_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <exception>
#include <map>
#include <utility>

#include "support/message.h"
#include "support/mutex.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

bool has_control_character(std::string_view text) noexcept {
  return std::ranges::any_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7F;
  });
}

bool is_line_of_text(std::string_view text) noexcept {
  return text.size() <= kLongestExportText && is_valid_utf8(text) && !has_control_character(text);
}

/// A name in a message: a client can make it thousands of bytes long.
std::string shortened(std::string_view name) {
  constexpr std::size_t kMost = 80;
  return name.size() <= kMost ? std::string(name) : std::string(name.substr(0, kMost)) + "...";
}

/// Whether an export can have a device of that shape.
Result<void> check_geometry(const Geometry& geometry) {
  if (geometry.size_bytes > kLargestExportBytes) {
    return fail(Errc::does_not_fit, fmt::format("the export is {} bytes; exports end at {}",
                                                geometry.size_bytes, kLargestExportBytes));
  }
  const std::uint32_t block_bytes = geometry.minimum_block_bytes;
  if (!std::has_single_bit(block_bytes) || block_bytes > kLargestMinimumBlockBytes ||
      geometry.size_bytes % block_bytes != 0) {
    return fail(Errc::does_not_fit,
                fmt::format("the export is {} bytes in blocks of at least {}; exports have whole "
                            "blocks of a power of two up to {}",
                            geometry.size_bytes, block_bytes, kLargestMinimumBlockBytes));
  }
  return {};
}

using Build = std::function<Result<std::shared_ptr<BlockDevice>>()>;

/// Builds a device once for all calls that want it at the same time, and remembers it while it
/// lives.
class SharedDevice {
 public:
  /// `known` is what `build` would give, if that is known.
  SharedDevice(Build build, const std::shared_ptr<BlockDevice>& known)
      : build_(std::move(build)), device_(known) {}

  Result<std::shared_ptr<BlockDevice>> get();
  /// Null when it would have to be built.
  std::shared_ptr<BlockDevice> get_at_once() {
    const MutexLock lock(mutex_);
    return device_.lock();
  }

 private:
  /// What the calls that wait for one build share.
  struct Attempt {
    std::optional<Result<std::shared_ptr<BlockDevice>>> outcome;
  };

  Result<std::shared_ptr<BlockDevice>> build() const;

  const Build build_;
  Mutex mutex_;
  std::condition_variable_any ended_;
  std::weak_ptr<BlockDevice> device_ GUARDED_BY(mutex_);
  std::shared_ptr<Attempt> attempt_ GUARDED_BY(mutex_);
};

Result<std::shared_ptr<BlockDevice>> SharedDevice::get() {
  std::shared_ptr<Attempt> attempt;
  {
    MutexLock lock(mutex_);
    if (auto device = device_.lock()) return device;
    if (attempt_) {
      attempt = attempt_;
      while (!attempt->outcome) lock.wait(ended_);
      return *attempt->outcome;
    }
    attempt = attempt_ = std::make_shared<Attempt>();
  }
  Result<std::shared_ptr<BlockDevice>> outcome = build();
  {
    const MutexLock lock(mutex_);
    if (outcome) device_ = *outcome;
    attempt->outcome = outcome;
    attempt_.reset();
  }
  ended_.notify_all();
  return outcome;
}

Result<std::shared_ptr<BlockDevice>> SharedDevice::build() const {
  // Whatever goes wrong, the calls that wait must learn of it.
  try {
    auto device = build_();
    if (!device) return device;
    if (*device == nullptr) return fail(Errc::io, "there is no device");
    Result<void> fits = check_geometry((*device)->geometry());
    if (!fits) return propagate(fits);
    return device;
  } catch (...) {
    return std::unexpected(error_of_exception("make the image of the export"));
  }
}

/// The exports that were named when the tree was made; only their devices change after that.
class NamedExports final : public ExportTree {
 public:
  /// False when the name is taken.
  bool add(const LazyExport& added, const std::shared_ptr<BlockDevice>& known) {
    const auto [place, is_new] =
        exports_.try_emplace(added.name, added.description, added.build, known);
    if (default_ == exports_.end()) default_ = place;
    return is_new;
  }

  Result<std::vector<ExportEntry>> list(std::string_view directory,
                                        std::optional<std::string_view> after,
                                        std::size_t most) override;

  Result<ExportEntry> find(std::string_view name) override {
    const auto found = lookup(name);
    if (!found) return propagate(found);
    return entry_at(*found, (*found)->first);
  }

  Result<Export> open(std::string_view name) override {
    const auto found = lookup(name);
    if (!found) return propagate(found);
    auto device = (*found)->second.device.get();
    if (!device) return propagate(device);
    return Export{(*found)->first, (*found)->second.description, *std::move(device)};
  }

  std::optional<Result<Export>> open_at_once(std::string_view name) override {
    const auto found = lookup(name);
    if (!found) return propagate(found);
    auto device = (*found)->second.device.get_at_once();
    if (!device) return std::nullopt;
    return Export{(*found)->first, (*found)->second.description, std::move(device)};
  }

 private:
  struct Named {
    Named(std::string text, Build build, const std::shared_ptr<BlockDevice>& known)
        : description(std::move(text)), device(std::move(build), known) {}
    std::string description;
    SharedDevice device;
  };
  using Exports = std::map<std::string, Named, WalkOrder>;

  Result<Exports::iterator> lookup(std::string_view name) {
    const auto found = exports_.find(name);
    if (found != exports_.end()) return found;
    if (name.empty()) return default_;
    return fail(Errc::usage, fmt::format("there is no export \"{}\"", shortened(name)));
  }

  /// What `name` is, when `at` is the first export of that name or below it.
  ExportEntry entry_at(Exports::iterator at, std::string_view name) const {
    ExportEntry entry{std::string(name), {}, at->first == name, false, std::nullopt};
    if (entry.is_export) {
      entry.description = at->second.description;
      ++at;
    }
    entry.is_directory = !name.empty() && at != exports_.end() && at->first.size() > name.size() &&
                         at->first.starts_with(name) && at->first[name.size()] == '/';
    return entry;
  }

  Exports exports_;
  Exports::iterator default_ = exports_.end();
};

Result<std::vector<ExportEntry>> NamedExports::list(std::string_view directory,
                                                    std::optional<std::string_view> after,
                                                    std::size_t most) {
  const std::string prefix = directory.empty() ? std::string() : std::string(directory) + '/';
  auto at = exports_.lower_bound(prefix);
  if (!prefix.empty() && (at == exports_.end() || !at->first.starts_with(prefix))) {
    return fail(Errc::usage,
                fmt::format("there is no directory \"{}\" of exports", shortened(directory)));
  }
  if (after && after->starts_with(prefix)) at = exports_.lower_bound(behind_name(*after));
  std::vector<ExportEntry> page;
  while (page.size() < most && at != exports_.end() && at->first.starts_with(prefix)) {
    page.push_back(entry_at(at, at->first.substr(0, at->first.find('/', prefix.size()))));
    at = exports_.lower_bound(behind_name(page.back().name));
  }
  return page;
}

/// `devices` are those of the exports, or empty when they are to be built.
Result<std::shared_ptr<ExportTree>> make_tree(
    const std::vector<LazyExport>& exports,
    const std::vector<std::shared_ptr<BlockDevice>>& devices = {}) {
  if (exports.empty()) return fail(Errc::usage, "there is nothing to export");
  auto tree = std::make_shared<NamedExports>();
  for (std::size_t i = 0; i < exports.size(); ++i) {
    const LazyExport& added = exports[i];
    const std::string shown = shortened(added.name);
    if (!is_valid_export_name(added.name)) {
      return fail(Errc::usage,
                  fmt::format("\"{}\" cannot be the name of an export: it takes at most {} bytes "
                              "of UTF-8, with no empty, \".\" or \"..\" component",
                              shown, kLongestExportText));
    }
    if (!is_line_of_text(added.description)) {
      return fail(Errc::usage,
                  fmt::format("the description of export \"{}\" is not a line of at most {} bytes "
                              "of UTF-8",
                              shown, kLongestExportText));
    }
    if (!tree->add(added, devices.empty() ? nullptr : devices[i])) {
      return fail(Errc::usage, fmt::format("two exports have the name \"{}\"", shown));
    }
  }
  return tree;
}

}  // namespace

std::optional<Result<Export>> ExportTree::open_at_once(std::string_view) { return std::nullopt; }

bool WalkOrder::operator()(std::string_view a, std::string_view b) const noexcept {
  const auto rank = [](char c) -> unsigned { return c == '/' ? 0 : static_cast<unsigned char>(c); };
  return std::ranges::lexicographical_compare(
      a, b, [&](char left, char right) { return rank(left) < rank(right); });
}

std::string behind_name(std::string_view name) { return std::string(name) + '\x01'; }

bool is_valid_export_name(std::string_view name) noexcept {
  if (name.empty()) return true;
  if (!is_line_of_text(name)) return false;
  while (true) {
    const std::size_t slash = name.find('/');
    const std::string_view component = name.substr(0, slash);
    if (component.empty() || component == "." || component == "..") return false;
    if (slash == std::string_view::npos) return true;
    name.remove_prefix(slash + 1);
  }
}

Result<std::shared_ptr<ExportTree>> make_fixed_exports(const std::vector<Export>& exports) {
  std::vector<LazyExport> lazy;
  std::vector<std::shared_ptr<BlockDevice>> devices;
  lazy.reserve(exports.size());
  devices.reserve(exports.size());
  for (const Export& added : exports) {
    if (added.device == nullptr) {
      return fail(Errc::usage, fmt::format("export \"{}\" has no device", shortened(added.name)));
    }
    if (Result<void> fits = check_geometry(added.device->geometry()); !fits) {
      fits.error().code = Errc::usage;
      return propagate(fmt::format("export \"{}\"", shortened(added.name)), fits);
    }
    lazy.push_back({added.name, added.description, [device = added.device] { return device; }});
    devices.push_back(added.device);
  }
  return make_tree(lazy, devices);
}

Result<std::shared_ptr<ExportTree>> make_lazy_exports(const std::vector<LazyExport>& exports) {
  for (const LazyExport& added : exports) {
    if (!added.build) {
      return fail(Errc::usage,
                  fmt::format("export \"{}\" has no way to be built", shortened(added.name)));
    }
  }
  return make_tree(exports);
}

Result<std::shared_ptr<ExportTree>> make_single_export(std::shared_ptr<BlockDevice> device,
                                                       std::string name, std::string description) {
  std::vector<Export> exports;
  exports.push_back({std::move(name), std::move(description), std::move(device)});
  return make_fixed_exports(exports);
}

}  // namespace mkvirtfs
