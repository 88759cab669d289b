// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>
#include <sys/stat.h>

#include <span>
#include <string>
#include <utility>

#include "block/overlay/base_manifest.h"
#include "block/overlay/file.h"
#include "block/overlay/overlay.h"
#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/overlay_base.h"
#include "cli/overlay_export.h"
#include "fsgen/tree/source_differences.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

std::string id_text(std::span<const std::byte> id) {
  return hex({reinterpret_cast<const char*>(id.data()), id.size()});
}

bool is_same_place(const std::string& one, const std::string& other) {
  struct stat a{};
  struct stat b{};
  return ::stat(one.c_str(), &a) == 0 && ::stat(other.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

/// What serve --overlay=FILE has written, seen from outside.
class OverlayCommand final : public Command {
 public:
  explicit OverlayCommand(OptionSet& options) : Command(options) {
    options
        .add_value("WHAT", what_, "check|info|seal|export",
                   "check: is all of it sound? info: what is in it?\n"
                   "seal: take digests of the files below it\n"
                   "export: write what it holds to -o OUT")
        .one_of({"check", "info", "seal", "export"})
        .required();
    options.add_value("FILE", file_, " ", "The overlay").required();
    options.add_flag("--json", json_, "check, info: one JSON object");
    options.add_value("-o,--output", output_, "OUT",
                      "export: the file to write, sparse; the ranges in\nit go to standard output");
    options.add_flag("--force", force_, "export: replace OUT");
  }

  Result<int> run(const Streams& streams) override {
    if ((what_ == "export") != !output_.empty()) {
      return fail(Errc::usage,
                  output_.empty() ? "overlay export needs -o OUT" : "-o is for overlay export");
    }
    if (force_ && what_ != "export") return fail(Errc::usage, "--force is for overlay export");
    if (json_ && what_ != "check" && what_ != "info") {
      return fail(Errc::usage, "--json is for overlay check and info");
    }
    if (what_ == "export") return export_to(streams);
    Result<std::string> text = what_ == "seal" ? seal() : look();
    if (!text) return propagate(text);
    if (!print(streams.out, *text)) return fail(Errc::io, "standard output cannot be written");
    return 0;
  }

 private:
  /// What of the base is known, from FILE.base.
  struct KnownBase {
    bool is_there = false;
    std::uint64_t files = 0;  ///< that the host can be asked about
    std::uint64_t sealed = 0;
  };

  Result<KnownBase> known_base() const {
    KnownBase known;
    const auto manifest = BaseManifestReader::open(file_);
    if (!manifest) return propagate(manifest);
    if (*manifest == nullptr) return known;
    known.is_there = true;
    BaseEntry entry;
    while (true) {
      const Result<bool> got = (*manifest)->next(entry);
      if (!got) return propagate(got);
      if (!*got) return known;
      if (!entry.is_container && !S_ISREG(entry.mode)) continue;
      if (entry.host) ++known.files;
      if (entry.digest) ++known.sealed;
    }
  }

  Result<std::string> look() const {
    const Result<OverlayFile::Facts> facts = OverlayFile::check(file_);
    if (!facts) return propagate(facts);
    const Result<KnownBase> base = known_base();
    if (!base) return propagate(base);
    if (json_) return json_of(*facts, *base);
    return what_ == "check" ? "sound\n" : text_of(*facts, *base);
  }

  Result<std::string> seal() const {
    const Result<Sealed> sealed = seal_overlay(file_);
    if (!sealed) return propagate(sealed);
    return fmt::format("{} ({} read)\n",
                       counted(sealed->files, "file has a digest", "files have digests"),
                       human_size(sealed->read_bytes));
  }

  Result<int> export_to(const Streams& streams) const {
    if (is_same_place(output_, file_)) {
      return fail(Errc::usage, fmt::format("-o {} is the overlay itself", output_));
    }
    Result<void> done = export_overlay(file_, output_, force_, [&](const ExportedRange& range) {
      return print(streams.out, fmt::format("{} {} {}\n", range.offset, range.length_bytes,
                                            range.is_zero ? "zero" : "data"));
    });
    if (!done) return propagate(done);
    return 0;
  }

  static Json layer_of(const OverlayFile::Facts& facts) {
    return Json::object()
        .set("file", facts.path)
        .set("layer", facts.header.layer)
        .set("id", facts.header.is_frozen() ? id_text(facts.header.id) : std::string())
        .set("written_bytes", facts.written_blocks * Overlay::kBlockBytes)
        .set("zero_bytes", facts.zero_blocks * Overlay::kBlockBytes)
        .set("file_bytes", facts.file_bytes);
  }

  static std::string json_of(const OverlayFile::Facts& facts, const KnownBase& base) {
    const OverlayHeader& header = facts.header;
    Json below = Json::array();
    for (const OverlayFile::Facts& each : facts.below) below.add(layer_of(each));
    return Json::object()
        .set("version", header.version())
        .set("size_bytes", header.size_bytes)
        .set("base_id", id_text(header.base))
        .set("written_bytes", facts.written_blocks * Overlay::kBlockBytes)
        .set("zero_bytes", facts.zero_blocks * Overlay::kBlockBytes)
        .set("file_bytes", facts.file_bytes)
        .set("journal_was_pending", facts.journal_was_pending)
        .set("snapshot_was_pending", facts.snapshot_was_pending)
        .set("frozen", header.is_frozen())
        .set("began_as_snapshot", header.is_branch())
        .set("layer", header.layer)
        .set("base_manifest", base.is_there)
        .set("base_files", base.files)
        .set("base_digests", base.sealed)
        .set("below", std::move(below))
        .lines();
  }

  static std::string text_of(const OverlayFile::Facts& facts, const KnownBase& base) {
    const OverlayHeader& header = facts.header;
    const std::uint64_t written = facts.written_blocks * Overlay::kBlockBytes;
    const std::uint64_t zeroes = facts.zero_blocks * Overlay::kBlockBytes;
    std::string text = fmt::format(
        "version       {}\n"
        "disk          {} bytes ({})\n"
        "base          {}\n"
        "written       {} bytes ({})\n"
        "zeroes        {} bytes ({})\n"
        "takes         {} bytes ({})\n"
        "journal       {}\n",
        header.version(), header.size_bytes, human_size(header.size_bytes), id_text(header.base),
        written, human_size(written), zeroes, human_size(zeroes), facts.file_bytes,
        human_size(facts.file_bytes),
        facts.journal_was_pending ? "pending: the next serve takes it over" : "nothing pending");
    if (facts.snapshot_was_pending) {
      text += "snapshot      pending: the next serve finishes it\n";
    }
    text += fmt::format("layer         {}{}{}\n", header.layer,
                        header.is_branch() ? ", it began as a snapshot" : "",
                        header.is_frozen() ? ", frozen" : "");
    text += base.is_there
                ? fmt::format("base files    {}, {} with digests\n", base.files, base.sealed)
                : std::string("base files    not known: there is no base manifest\n");
    for (const OverlayFile::Facts& below : facts.below) {
      text += fmt::format(
          "over          {}: {} written, {} zeroes, takes {}\n", printable(below.path),
          human_size(below.written_blocks * Overlay::kBlockBytes),
          human_size(below.zero_blocks * Overlay::kBlockBytes), human_size(below.file_bytes));
    }
    return text;
  }

  std::string what_;
  std::string file_;
  std::string output_;
  bool json_ = false;
  bool force_ = false;
};

}  // namespace

std::unique_ptr<Command> make_overlay(OptionSet& program) {
  return std::make_unique<OverlayCommand>(
      program.add_subcommand("overlay", "Check, seal or export an overlay, say what is in it"));
}

}  // namespace mkvirtfs::cli
