// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "block/dump.h"
#include "cli/command.h"
#include "cli/command_image.h"
#include "cli/converted_dump.h"
#include "cli/error_text.h"
#include "cli/image_options.h"
#include "cli/json_text.h"
#include "cli/program_resources.h"
#include "cli/progress.h"
#include "cli/source_options.h"
#include "compose/prepare.h"
#include "support/log.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Output";

/// Makes the first SIGINT, SIGTERM or SIGHUP a request to stop; a second one ends the process as
/// ever. One at a time in a process.
class Interruptible {
 public:
  Interruptible() {
    requested_ = false;
    struct sigaction action{};
    action.sa_handler = [](int) { requested_ = true; };
    // No SA_RESTART: a write that waits for a slow reader is to notice.
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], &action, &before_[i]);
      // What the parent wanted ignored (nohup) stays ignored.
      if (before_[i].sa_handler == SIG_IGN) ::sigaction(kSignals[i], &before_[i], nullptr);
    }
  }
  ~Interruptible() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], &before_[i], nullptr);
    }
  }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

  static const std::atomic<bool>* requested() { return &requested_; }

 private:
  static constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGHUP};
  static inline std::atomic<bool> requested_ = false;
  std::array<struct sigaction, 3> before_{};
};

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

class DumpCommand final : public Command {
 public:
  DumpCommand(OptionSet& options, const FormatRegistry& formats);
  Result<int> run(const Streams& streams) override;

 private:
  Result<void> check() const;
  /// `log` must outlive the image's device.
  Result<PreparedImage> prepare_image(const ImageSpec& spec, const Streams& streams,
                                      LogSink& log) const;
  bool is_converted() const { return !format_.empty() && format_ != "raw"; }
  Result<int> dump_in_format(const PreparedImage& prepared, const Streams& streams,
                             LogSink& log) const;
  Result<int> dump_raw(const ImageSpec& spec, const PreparedImage& prepared, const Streams& streams,
                       LogSink& log) const;
  std::string summary_text(const DumpSummary& summary, double seconds) const;
  /// What all formats have.
  Json summary_json(const PreparedImage& prepared, std::uint64_t image_bytes, double seconds) const;

  SourceOptions source_;
  ImageOptions image_;
  std::string output_;
  std::string format_;
  bool force_ = false;
  bool sha256_ = false;
  int progress_fd_ = -1;
  bool json_ = false;
};

DumpCommand::DumpCommand(OptionSet& options, const FormatRegistry& formats)
    : Command(options), image_(formats) {
  source_.add_to(options);
  options
      .add_value("-o,--output", output_, "FILE|-", "Write the image there; '-' is standard output")
      .required()
      .group(kGroup);
  options.add_flag("--force", force_, "Replace FILE, or write to a block device").group(kGroup);
  options
      .add_value("--format", format_, "FORMAT",
                 "raw (default), or qcow2, vmdk, vhdx: qemu-img\nwrites these")
      .one_of({"raw", "qcow2", "vmdk", "vhdx"})
      .group(kGroup);
  options.add_flag("--sha256", sha256_, "Print the SHA-256 of the image").group(kGroup);
  options.add_value("--progress", progress_fd_, "FD", "Write N/100 lines to this descriptor")
      .not_negative()
      .group(kGroup);
  options.add_flag("--json", json_, "Print the summary as JSON").group(kGroup);
  image_.add_to(options);
}

Result<void> DumpCommand::check() const {
  if (output_.empty()) return fail(Errc::usage, "--output is empty");
  if (output_ == "-" && json_) {
    return fail(Errc::usage, "--json and --output=- both want standard output");
  }
  if (output_ == "-" && force_) {
    return fail(Errc::usage, "--force has nothing to replace with --output=-");
  }
  if (is_converted()) {
    for (const auto& [given, word] : {std::pair{output_ == "-", "--output=-"},
                                      {sha256_, "--sha256"},
                                      {progress_fd_ >= 0, "--progress"}}) {
      if (!given) continue;
      return fail(Errc::usage,
                  fmt::format("{} is for raw images, not for --format={}", word, format_));
    }
  }
  if (progress_fd_ >= 0 && ::fcntl(progress_fd_, F_GETFD) < 0) {
    return fail(Errc::usage, fmt::format("--progress={} is not an open descriptor", progress_fd_));
  }
  return {};
}

std::string hex_of(const std::array<std::byte, 32>& digest) {
  return hex({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

std::string DumpCommand::summary_text(const DumpSummary& summary, double seconds) const {
  const auto rate =
      static_cast<std::uint64_t>(static_cast<double>(summary.data_bytes) / std::max(seconds, 1e-3));
  std::string text =
      fmt::format("{}: {} bytes, {} of data, in {:.2f} s ({}/s)\n",
                  output_ == "-" ? "standard output" : printable(output_), summary.image_bytes,
                  human_size(summary.data_bytes), seconds, human_size(rate));
  // As sha256sum prints and reads it.
  if (summary.sha256) {
    text += fmt::format("{}  {}\n", hex_of(*summary.sha256), printable(output_));
  }
  return text;
}

Json DumpCommand::summary_json(const PreparedImage& prepared, std::uint64_t image_bytes,
                               double seconds) const {
  Json json = Json::object();
  json.set("output", printable(output_));
  json.set("volume_id", prepared.image->volume_id());
  json.set("image_bytes", image_bytes);
  json.set("scan_seconds", prepared.report.scan_seconds);
  json.set("plan_seconds", prepared.report.plan_seconds);
  json.set("dump_seconds", seconds);
  return json;
}

Result<PreparedImage> DumpCommand::prepare_image(const ImageSpec& spec, const Streams& streams,
                                                 LogSink& log) const {
  Resources resources(program_resources(log, image_.formats()));
  RunOutputs& outputs = resources.outputs();
  if (output_ != "-") outputs.add_path(output_);
  outputs.add_descriptor(streams.out, "the file of standard output");
  outputs.add_descriptor(streams.err, "the file of standard error");
  if (progress_fd_ >= 0) outputs.add_descriptor(progress_fd_, "the file of --progress");
  raise_open_file_limit();
  return prepare(spec, resources);
}

Result<int> DumpCommand::run(const Streams& streams) {
  if (Result<void> good = check(); !good) return propagate(good);
  const Result<std::vector<PlacedSource>> words = source_.words();
  if (!words) return propagate(words);
  const Result<ImageSpec> spec = command_image(source_, *words, image_);
  if (!spec) return propagate(spec);
  WordedLog log(streams.err, LogLevel::info);
  const Result<PreparedImage> prepared = prepare_image(*spec, streams, log);
  if (!prepared) return propagate(prepared);

  return is_converted() ? dump_in_format(*prepared, streams, log)
                        : dump_raw(*spec, *prepared, streams, log);
}

Result<int> DumpCommand::dump_in_format(const PreparedImage& prepared, const Streams& streams,
                                        LogSink& log) const {
  const Interruptible interruptible;
  const Stopwatch watch;
  const Result<std::uint64_t> stored =
      dump_converted(prepared.device, {output_, format_, force_}, *Interruptible::requested(), log);
  if (!stored) return propagate(stored);
  const std::uint64_t image_bytes = prepared.device->geometry().size_bytes;
  if (json_) {
    Json json = summary_json(prepared, image_bytes, watch.seconds());
    json.set("format", format_);
    json.set("stored_bytes", *stored);
    print(streams.out, json.lines());
  } else {
    print(streams.out,
          fmt::format("{}: {} bytes as {}, {} stored, in {:.2f} s\n", printable(output_),
                      image_bytes, format_, human_size(*stored), watch.seconds()));
  }
  return 0;
}

Result<int> DumpCommand::dump_raw(const ImageSpec& spec, const PreparedImage& prepared,
                                  const Streams& streams, LogSink& log) const {
  DumpOptions options;
  if (output_ == "-") {
    options.output = DumpStream{streams.out, "standard output"};
  } else {
    options.output = DumpFile{output_, force_};
  }
  options.sha256 = sha256_;
  const std::vector<SourceSpec> sources = all_sources(spec);
  if (!sources.empty()) options.threads = sources.front().threads;
  std::optional<ProgressBar> bar;
  std::optional<ProgressLines> lines;
  if (progress_fd_ >= 0) {
    options.progress = [&lines = lines.emplace(progress_fd_)](const DumpProgress& progress) {
      lines.update(progress);
    };
  } else if (::isatty(streams.err) == 1) {
    options.progress = [&bar = bar.emplace(streams.err)](const DumpProgress& progress) {
      bar.update(progress);
    };
  }
  const Interruptible interruptible;
  options.cancel = Interruptible::requested();
  options.log = &log;

  const Stopwatch watch;
  const Result<DumpSummary> summary = dump(*prepared.device, options);
  const double seconds = watch.seconds();
  bar.reset();
  if (!summary) return propagate(summary);
  std::string text;
  if (json_) {
    Json json = summary_json(prepared, summary->image_bytes, seconds);
    json.set("data_bytes", summary->data_bytes);
    json.set("moved_bytes", summary->moved_bytes);
    if (summary->sha256) json.set("sha256", hex_of(*summary->sha256));
    text = json.lines();
  } else {
    text = summary_text(*summary, seconds);
  }
  print(output_ == "-" ? streams.err : streams.out, text);
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_dump(OptionSet& program, const FormatRegistry& formats) {
  return std::make_unique<DumpCommand>(
      program.add_subcommand("dump", "Write the image to a file or a pipe"), formats);
}

}  // namespace mkvirtfs::cli
