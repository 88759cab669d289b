// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>

#include "block/base_manifest.h"
#include "block/overlay.h"
#include "block/overlay_file.h"
#include "cli/command.h"
#include "cli/overlay_base.h"
#include "cli/overlay_export.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

std::string hex(std::span<const std::byte> id) {
  std::string text;
  for (const std::byte byte : id) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
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
  explicit OverlayCommand(CLI::App& overlay_app) : Command(overlay_app) {
    overlay_app
        .add_option("WHAT", what_,
                    "check: is all of it sound? info: what is in it?\n"
                    "seal: take digests of the files below it\n"
                    "export: write what it holds to -o OUT")
        ->check(CLI::IsMember({"check", "info", "seal", "export"}))
        ->option_text("check|info|seal|export")
        ->required();
    overlay_app.add_option("FILE", file_, "The overlay")->option_text(" ")->required();
    overlay_app.add_flag("--json", json_, "check, info: one JSON object");
    add_value(overlay_app, "-o,--output", output_, "OUT",
              "export: the file to write, sparse; the ranges in\nit go to standard output");
    overlay_app.add_flag("--force", force_, "export: replace OUT");
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
    if (!text) return std::unexpected(std::move(text.error()));
    if (!print(streams.out, *text)) return fail(Errc::io, "standard output can not be written");
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
    if (!manifest) return std::unexpected(manifest.error());
    if (*manifest == nullptr) return known;
    known.is_there = true;
    BaseEntry entry;
    while (true) {
      const Result<bool> got = (*manifest)->next(entry);
      if (!got) return std::unexpected(got.error());
      if (!*got) return known;
      if (!entry.is_container && !S_ISREG(entry.mode)) continue;
      if (entry.host) ++known.files;
      if (entry.digest) ++known.sealed;
    }
  }

  Result<std::string> look() const {
    const Result<OverlayFile::Facts> facts = OverlayFile::check(file_);
    if (!facts) return std::unexpected(facts.error());
    const Result<KnownBase> base = known_base();
    if (!base) return std::unexpected(base.error());
    return what_ == "check" && !json_ ? std::string("sound\n") : told(*facts, *base);
  }

  Result<std::string> seal() const {
    const Result<Sealed> sealed = seal_overlay(file_);
    if (!sealed) return std::unexpected(sealed.error());
    return fmt::format("{} files have digests ({} read)\n", sealed->files,
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
    if (!done) return std::unexpected(std::move(done.error()));
    return 0;
  }

  static nlohmann::ordered_json layer_of(const OverlayFile::Facts& facts) {
    return {{"file", facts.path},
            {"layer", facts.header.layer},
            {"id", facts.header.is_frozen() ? hex(facts.header.id) : std::string()},
            {"written_bytes", facts.written_blocks * Overlay::kBlockBytes},
            {"zero_bytes", facts.zero_blocks * Overlay::kBlockBytes},
            {"file_bytes", facts.file_bytes}};
  }

  std::string told(const OverlayFile::Facts& facts, const KnownBase& base) const {
    const OverlayHeader& header = facts.header;
    const std::uint64_t written = facts.written_blocks * Overlay::kBlockBytes;
    const std::uint64_t zeroes = facts.zero_blocks * Overlay::kBlockBytes;
    if (json_) {
      nlohmann::ordered_json object = {{"version", header.version()},
                                       {"size_bytes", header.size_bytes},
                                       {"base_id", hex(header.base)},
                                       {"written_bytes", written},
                                       {"zero_bytes", zeroes},
                                       {"file_bytes", facts.file_bytes},
                                       {"journal_was_pending", facts.journal_was_pending},
                                       {"snapshot_was_pending", facts.snapshot_was_pending},
                                       {"frozen", header.is_frozen()},
                                       {"began_as_snapshot", header.is_branch()},
                                       {"layer", header.layer}};
      object["base_manifest"] = base.is_there;
      object["base_files"] = base.files;
      object["base_digests"] = base.sealed;
      object["below"] = nlohmann::ordered_json::array();
      for (const OverlayFile::Facts& below : facts.below)
        object["below"].push_back(layer_of(below));
      return object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
    }
    std::string text = fmt::format(
        "version       {}\n"
        "disk          {} bytes ({})\n"
        "base          {}\n"
        "written       {} bytes ({})\n"
        "zeroes        {} bytes ({})\n"
        "takes         {} bytes ({})\n"
        "journal       {}\n",
        header.version(), header.size_bytes, human_size(header.size_bytes), hex(header.base),
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

std::unique_ptr<Command> make_overlay(CLI::App& program) {
  return std::make_unique<OverlayCommand>(
      *program.add_subcommand("overlay", "Check, seal or export an overlay, say what is in it"));
}

}  // namespace mkvirtfs::cli
