// SPDX-License-Identifier: BSD-3-Clause
#include "compose/exports.h"

#include <fmt/format.h>

#include <filesystem>
#include <string_view>
#include <utility>

#include "compose/prepare.h"
#include "fsgen/oci/image_name.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

/// The last name in the path of a source, for people.
std::string leaf_of(const std::string& source) {
  const auto image = oci::parse_image_name(source);
  const std::string path = image ? image->path : source;
  if (!path.empty() && path.find_first_not_of('/') == std::string::npos) return "/";
  std::string last = path.substr(path.rfind('/') + 1);
  if (last.empty()) return ".";
  if (last != "..") return last;
  std::string normal = std::filesystem::path(path).lexically_normal().string();
  if (normal.ends_with('/')) normal.pop_back();
  return normal.substr(normal.rfind('/') + 1);
}

/// "ext4 image of rootfs and 2 more"
std::string description_of(const ImageSpec& spec, const FormatRegistry& formats) {
  if (!spec.partitions.empty()) {
    return fmt::format("disk of {} partitions", spec.partitions.size());
  }
  std::string text = fmt::format("{} image of {}", formats.resolve(spec.format, spec.options),
                                 printable(leaf_of(spec.sources.front().path)));
  if (spec.sources.size() > 1) text += fmt::format(" and {} more", spec.sources.size() - 1);
  return text;
}

void report_failure(const std::string& name, Error& error, const Resources& resources) {
  if (resources.is_canceled()) return;
  if (resources.options().on_export_failure) {
    resources.options().on_export_failure(name, error);
  } else {
    resources.log().write_with_hints(LogLevel::error,
                                     fmt::format("export {}: {}", name, error.what), error.hints);
  }
}

}  // namespace

Result<std::shared_ptr<ExportTree>> make_exports(std::vector<ExportSpec> specs,
                                                 Resources& resources) {
  std::vector<LazyExport> exports;
  exports.reserve(specs.size());
  for (ExportSpec& spec : specs) {
    if (spec.image.sources.empty() && spec.image.partitions.empty()) {
      return fail(Errc::usage, fmt::format("the export {} needs a source", spec.name));
    }
    LazyExport& made = exports.emplace_back();
    made.name = spec.name;
    made.description = spec.description.empty()
                           ? description_of(spec.image, *resources.options().formats)
                           : spec.description;
    if (spec.at_once) {
      Result<PreparedImage> prepared = prepare(spec.image, resources);
      if (!prepared) return propagate(prepared);
      made.build = [device = std::move(prepared->device)] { return device; };
      continue;
    }
    made.build = [name = std::move(spec.name),
                  image = std::make_shared<const ImageSpec>(std::move(spec.image)),
                  &resources]() -> Result<std::shared_ptr<BlockDevice>> {
      Result<PreparedImage> prepared = prepare(*image, resources);
      if (prepared) return prepared->device;
      report_failure(name, prepared.error(), resources);
      return propagate(prepared);
    };
  }
  return make_lazy_exports(exports);
}

}  // namespace mkvirtfs
