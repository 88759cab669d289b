// SPDX-License-Identifier: BSD-3-Clause
// A machine's disk is served by this process, with an overlay over the image, and QEMU is its one
// client. The kernel and its initrd are copied out of the source, because QEMU loads them itself.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/filesystem/operations.hpp>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/boot_kernel.h"
#include "cli/command.h"
#include "cli/command_image.h"
#include "cli/error_text.h"
#include "cli/image_options.h"
#include "cli/kept_places.h"
#include "cli/overlay_options.h"
#include "cli/private_directory.h"
#include "cli/program_path.h"
#include "cli/program_resources.h"
#include "cli/running_machine.h"
#include "cli/running_server.h"
#include "cli/source_options.h"
#include "cli/stop_watcher.h"
#include "cli/terminal.h"
#include "compose/prepare.h"
#include "exports/export_tree.h"
#include "support/log.h"
#include "support/text.h"
#include "vm/accelerator.h"
#include "vm/machine.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Machine";
/// As docker has it: below it are the statuses of what ran in the guest.
constexpr int kOwnFailure = 125;
constexpr int kLeft = 128 + SIGINT;
constexpr const char* kQemu = "qemu-system-x86_64";
constexpr const char* kQemuPackage = "qemu-system-x86";
constexpr std::string_view kDefaultFormat = "ext4";
constexpr std::string_view kDefaultFree = "1G";

/// Whether the command line has a word that is `name`, or begins with it where it ends with '='.
bool has_word(std::string_view words, std::string_view name) {
  for (std::size_t at = 0; at < words.size();) {
    const std::size_t end = std::min(words.find(' ', at), words.size());
    const std::string_view word = words.substr(at, end - at);
    if (word == name || (name.ends_with('=') && word.starts_with(name))) return true;
    at = end + 1;
  }
  return false;
}

/// The format of an image of one file system; nullptr for a name that there is not.
const Format* format_of(const FormatRegistry& formats, const ImageSpec& spec) {
  return formats.find(formats.resolve(spec.format, spec.options));
}

bool has_option(const FormatRegistry& formats, const ImageSpec& spec, std::string_view name) {
  const Format* const format = format_of(formats, spec);
  return std::ranges::any_of(formats.options(), [&](const FormatRegistry::Option& option) {
    return option.row.name == name &&
           std::ranges::find(option.formats, format) != option.formats.end();
  });
}

/// Whether KVM is to blame for the end.
bool has_never_run(const MachineEnd& end) noexcept {
  return end.how == MachineEnd::How::not_started || end.how == MachineEnd::How::internal_error ||
         (end.how == MachineEnd::How::failed && !end.has_console_output);
}

int print_machine(const vm::Machine& machine, const Streams& streams) {
  std::vector<std::string> words = vm::qemu_arguments(machine);
  words.insert(words.begin(), kQemu);
  return print(streams.out, vm::shell_line(words) + "\n") ? 0 : kOwnFailure;
}

class Boot final : public Command {
 public:
  Boot(OptionSet& options, const FormatRegistry& formats);
  Result<int> run(const Streams& streams) override;
  int failure_status(Errc) const noexcept override { return kOwnFailure; }

 private:
  /// What the command line says, checked.
  struct Line {
    ImageSpec image;
    KernelWish kernel;
    std::string append;
    std::uint64_t memory_bytes = 0;
    std::string qemu;
    bool is_read_only = false;
  };
  Result<Line> read_command_line() const;
  Result<ImageSpec> read_image() const;
  Result<std::string> find_qemu() const;
  std::string command_line(const Line& line, vm::Accelerator accelerator) const;

  /// The disk: the image, or an overlay over it.
  Result<std::shared_ptr<ExportTree>> make_exports(const Line& line, const PreparedImage& prepared,
                                                   LogSink& log) const;
  vm::AcceleratorChoice choose(const std::string& failure_file, LogSink& log) const;
  /// From the image to the exit status.
  Result<int> boot(const Line& line, const PreparedImage& prepared, const Streams& streams,
                   LogSink& log) const;
  /// One machine, with an overlay of its own.
  Result<MachineEnd> run_once(const Line& line, const PreparedImage& prepared,
                              const MachineSetting& setting, LogSink& log) const;
  static Result<int> status_of(const MachineEnd& end);

  SourceOptions source_;
  ImageOptions image_;
  std::string memory_ = "1G";
  unsigned cpus_ = 1;
  std::string accelerator_ = "auto";
  std::string keep_;
  bool prints_ = false;
};

Boot::Boot(OptionSet& options, const FormatRegistry& formats) : Command(options), image_(formats) {
  source_.add_to(options);
  options.add_value("-m,--memory", memory_, "SIZE", "Its memory (default: 1G)").group(kGroup);
  options.add_value("--cpus", cpus_, "N", "Its processors (default: 1)")
      .in_range(1, 255)
      .group(kGroup);
  options
      .add_value("--accel", accelerator_, "HOW",
                 "kvm, tcg (QEMU's translator), or auto (default):\nkvm where it works")
      .one_of({"auto", "kvm", "tcg"})
      .group(kGroup);
  options
      .add_value("--keep", keep_, "OVERLAY",
                 "Keep what the guest writes in this file, and go\non with it the next time "
                 "(default: forget it)")
      .group(kGroup);
  options.add_flag("--print", prints_, "Print QEMU's command line, and stop").group(kGroup);
  image_.add_to(options);
}

Result<std::string> Boot::find_qemu() const {
  std::optional<std::string> path = find_program(kQemu);
  if (path) return *std::move(path);
  return fail(
      Errc::unsupported,
      fmt::format("{} runs the machine, and is not installed (package {})", kQemu, kQemuPackage));
}

Result<ImageSpec> Boot::read_image() const {
  const Result<std::vector<PlacedSource>> words = source_.words();
  if (!words) return propagate(words);
  Result<ImageSpec> spec = command_image(source_, *words, image_);
  if (!spec) return spec;
  for (const char* option : {"table", "partition", "esp", "boot"}) {
    if (!image_.values().has(option)) continue;
    return fail(
        Errc::unsupported,
        fmt::format("--{}: QEMU loads the kernel itself, and the disk is one file system", option));
  }
  for (const char* option : {"kernel", "initrd", "append"}) spec->options.remove(option);
  // What a system writes to.
  const FormatRegistry& formats = image_.formats();
  const bool is_named =
      !spec->format.empty() || formats.resolve("", spec->options) != formats.default_name();
  if (!is_named) spec->format = kDefaultFormat;
  if (has_option(formats, *spec, "free") && !spec->options.has("size") &&
      !spec->options.has("free")) {
    spec->options.add("free", std::string(kDefaultFree));
  }
  spec->keep_base = !keep_.empty();
  if (spec->keep_base) {
    spec->given_options =
        given_options(source_.values(), spec->format, spec->options, image_.formats());
    const std::vector<KeptPlace> places = {{"--keep", keep_}};
    if (Result<void> outside = check_outside_source(all_sources(*spec), places); !outside) {
      return propagate(outside);
    }
  }
  return spec;
}

Result<Boot::Line> Boot::read_command_line() const {
  Line line;
  const std::optional<std::uint64_t> memory_bytes = parse_size(memory_);
  constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;
  if (!memory_bytes || *memory_bytes < kMebibyte || *memory_bytes % kMebibyte != 0) {
    return fail(Errc::usage, fmt::format("--memory={} is not a size in whole MiB (1G)", memory_));
  }
  line.memory_bytes = *memory_bytes;
  boost::system::error_code ignored;
  if (keep_.ends_with('/') || boost::filesystem::is_directory(keep_, ignored)) {
    return fail(Errc::usage, fmt::format("--keep={} is a directory, not a file", keep_));
  }
  Result<ImageSpec> image = read_image();
  if (!image) return propagate(image);
  line.image = *std::move(image);
  const OptionValues values = image_.values();
  if (const std::string* kernel = values.find("kernel")) line.kernel.kernel = *kernel;
  for (const std::string& initrd : values.all("initrd")) line.kernel.initrds.push_back(initrd);
  if (const std::string* append = values.find("append")) line.append = *append;
  const Format* const format = format_of(image_.formats(), line.image);
  line.is_read_only = format != nullptr && format->read_only;
  if (line.is_read_only && !keep_.empty()) {
    return fail(Errc::usage,
                fmt::format("--keep={}: no system writes to {}", keep_, line.image.format));
  }
  Result<std::string> qemu = find_qemu();
  if (!qemu) return propagate(qemu);
  line.qemu = *std::move(qemu);
  return line;
}

std::string Boot::command_line(const Line& line, vm::Accelerator accelerator) const {
  std::vector<std::string> words;
  if (!has_word(line.append, "root=")) words.emplace_back("root=/dev/vda");
  if (!has_word(line.append, "ro") && !has_word(line.append, "rw")) {
    words.emplace_back(line.is_read_only ? "ro" : "rw");
  }
  if (!has_word(line.append, "console=")) words.emplace_back("console=ttyS0");
  // A busy host is late with the emulated timer, and the kernel's check of it would fail.
  if (accelerator == vm::Accelerator::tcg) words.emplace_back("no_timer_check");
  if (!line.append.empty()) words.push_back(line.append);
  return fmt::format("{}", fmt::join(words, " "));
}

Result<std::shared_ptr<ExportTree>> Boot::make_exports(const Line& line,
                                                       const PreparedImage& prepared,
                                                       LogSink& log) const {
  auto below = make_single_export(prepared.device);
  if (!below || line.is_read_only) return below;
  OverlayOptions overlay;
  // A name alone may be a word that says another place.
  const bool is_bare = !keep_.empty() && keep_.find('/') == std::string::npos;
  overlay.set_writable(is_bare ? "./" + keep_ : keep_);
  auto made = overlay.make_exports(*std::move(below), log);
  if (!made) return propagate(made);
  // A fault of the file is reported before QEMU starts.
  if (const Result<Export> opened = (*made)->open(""); !opened) return propagate(opened);
  return std::shared_ptr<ExportTree>(*std::move(made));
}

vm::AcceleratorChoice Boot::choose(const std::string& failure_file, LogSink& log) const {
  vm::AcceleratorWish wish = vm::AcceleratorWish::automatic;
  if (accelerator_ == "kvm") wish = vm::AcceleratorWish::kvm;
  if (accelerator_ == "tcg") wish = vm::AcceleratorWish::tcg;
  vm::AcceleratorChoice choice = vm::choose_accelerator(wish, vm::look_at_kvm(failure_file));
  if (!choice.reason.empty()) {
    log.write(LogLevel::info, fmt::format("the machine is emulated (TCG): {}", choice.reason));
  }
  return choice;
}

Result<int> Boot::status_of(const MachineEnd& end) {
  switch (end.how) {
    case MachineEnd::How::powered_off:
      return 0;
    case MachineEnd::How::left:
      return kLeft;
    case MachineEnd::How::stopped:
      return 128 + end.number;
    case MachineEnd::How::failed:
      return fail(Errc::io, fmt::format("{} ended with status {}", kQemu, end.number));
    case MachineEnd::How::internal_error:
      return fail(Errc::io, "KVM ended the machine with an internal error", {{"accel", "tcg"}});
    case MachineEnd::How::not_started:
      break;
  }
  return fail(Errc::io, "the machine did not start", {{"accel", "tcg"}});
}

Result<int> Boot::boot(const Line& line, const PreparedImage& prepared, const Streams& streams,
                       LogSink& log) const {
  const BlockedSignals signals{SIGTERM, SIGINT, SIGHUP};
  const Result<PrivateDirectory> directory = PrivateDirectory::create();
  if (!directory) return propagate(directory);
  Result<vm::DirectKernel> direct = take_kernel(prepared, line.kernel, *directory);
  if (!direct) return propagate(direct);
  const std::string cache = program_resources(log, image_.formats()).index_directory;
  const std::string failure_file = cache.empty() ? "" : cache + "/kvm-failed";
  vm::AcceleratorChoice choice = choose(failure_file, log);

  MachineSetting setting(signals, streams);
  setting.qemu = line.qemu;
  setting.input = STDIN_FILENO;
  vm::Machine& machine = setting.machine;
  machine.memory_bytes = line.memory_bytes;
  machine.cpus = cpus_;
  machine.disk_socket = directory->path_of("disk");
  machine.disk_is_read_only = line.is_read_only;
  machine.direct = *std::move(direct);
  boost::system::error_code ignored;
  const bool was_kept = !keep_.empty() && boost::filesystem::exists(keep_, ignored);
  while (true) {
    machine.accelerator = choice.accelerator;
    machine.direct.command_line = command_line(line, choice.accelerator);
    setting.is_watched = choice.may_fall_back;
    if (prints_) return print_machine(machine, streams);
    const Result<MachineEnd> end = run_once(line, prepared, setting, log);
    if (!end) return propagate(end);
    if (!choice.may_fall_back || !has_never_run(*end)) return status_of(*end);
    log.write(LogLevel::warning, "KVM does not run the guest: it is started again, emulated (TCG)");
    vm::remember_failure(failure_file);
    if (!was_kept && !keep_.empty()) boost::filesystem::remove(keep_, ignored);
    choice = {vm::Accelerator::tcg, false, ""};
  }
}

Result<MachineEnd> Boot::run_once(const Line& line, const PreparedImage& prepared,
                                  const MachineSetting& setting, LogSink& log) const {
  const Result<std::shared_ptr<ExportTree>> exports = make_exports(line, prepared, log);
  if (!exports) return propagate(exports);
  const auto server = RunningServer::start(*exports, setting.machine.disk_socket, log);
  if (!server) return propagate(server);
  const RawTerminal terminal(setting.input);
  if (terminal.is_terminal()) log.write(LogLevel::info, "Ctrl-A X leaves the machine");
  return run_machine(setting, **server);
}

Result<int> Boot::run(const Streams& streams) {
  WordedLog log(streams.err, LogLevel::info);
  const Result<Line> line = read_command_line();
  if (!line) return propagate(line);
  raise_open_file_limit();
  Resources resources(program_resources(log, image_.formats()));
  resources.outputs().add_path(keep_);
  resources.outputs().add_descriptor(streams.out, "the file of standard output");
  resources.outputs().add_descriptor(streams.err, "the file of standard error");
  const Result<PreparedImage> prepared = prepare(line->image, resources);
  if (!prepared) return propagate(prepared);
  return boot(*line, *prepared, streams, log);
}

}  // namespace

std::unique_ptr<Command> make_boot(OptionSet& program, const FormatRegistry& formats) {
  return std::make_unique<Boot>(
      program.add_subcommand("boot", "Boot a virtual machine from the image"), formats);
}

}  // namespace mkvirtfs::cli
