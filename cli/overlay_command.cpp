// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>

#include "block/overlay.h"
#include "block/overlay_file.h"
#include "cli/command.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

std::string hex(std::span<const std::byte> id) {
  std::string text;
  for (const std::byte byte : id) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

/// What serve --overlay=FILE has written, seen from outside.
class OverlayCommand final : public Command {
 public:
  explicit OverlayCommand(CLI::App& overlay_app) : Command(overlay_app) {
    overlay_app.add_option("WHAT", what_, "check: is all of it sound? info: what is in it?")
        ->check(CLI::IsMember({"check", "info"}))
        ->option_text("check|info")
        ->required();
    overlay_app.add_option("FILE", file_, "The overlay")->option_text(" ")->required();
    overlay_app.add_flag("--json", json_, "One JSON object");
  }

  Result<int> run(const Streams& streams) override {
    const Result<OverlayFile::Facts> facts = OverlayFile::check(file_);
    if (!facts) return std::unexpected(facts.error());
    if (!print(streams.out, what_ == "check" && !json_ ? "sound\n" : told(*facts))) {
      return fail(Errc::io, "standard output can not be written");
    }
    return 0;
  }

 private:
  static nlohmann::ordered_json layer_of(const OverlayFile::Facts& facts) {
    return {{"file", facts.path},
            {"layer", facts.header.layer},
            {"id", facts.header.is_frozen() ? hex(facts.header.id) : std::string()},
            {"written_bytes", facts.written_blocks * Overlay::kBlockBytes},
            {"zero_bytes", facts.zero_blocks * Overlay::kBlockBytes},
            {"file_bytes", facts.file_bytes}};
  }

  std::string told(const OverlayFile::Facts& facts) const {
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
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_overlay(CLI::App& program) {
  return std::make_unique<OverlayCommand>(
      *program.add_subcommand("overlay", "Check an overlay, tell what is in it"));
}

}  // namespace mkvirtfs::cli
