// SPDX-License-Identifier: BSD-3-Clause
// A machine's disk is served by this process, with an overlay over the image, and QEMU is its one
// client. The kernel and its initrd are copied out of the source, because QEMU loads them itself.
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bootsect/kernel.h"
#include "cli/boot_file.h"
#include "cli/boot_kernel.h"
#include "cli/boot_options.h"
#include "cli/command.h"
#include "cli/error_text.h"
#include "cli/overlay_options.h"
#include "cli/private_directory.h"
#include "cli/program_path.h"
#include "cli/program_resources.h"
#include "cli/reader_path.h"
#include "cli/running_machine.h"
#include "cli/running_server.h"
#include "cli/shared_directory.h"
#include "cli/stop_watcher.h"
#include "cli/terminal.h"
#include "compose/prepare.h"
#include "exports/export_tree.h"
#include "exports/overlay_exports.h"
#include "support/file_bytes.h"
#include "support/log.h"
#include "support/unique_fd.h"
#include "vm/accelerator.h"
#include "vm/firmware.h"
#include "vm/initrd.h"
#include "vm/machine.h"

namespace mkvirtfs::cli {
namespace {

/// As docker has it: below it are the statuses of what ran in the guest.
constexpr int kOwnFailure = 125;
constexpr int kLeft = 128 + SIGINT;
constexpr const char* kQemu = "qemu-system-x86_64";
constexpr const char* kQemuPackage = "qemu-system-x86";
constexpr std::uint64_t kMostInitBytes = std::uint64_t{64} << 20;
/// Where a guest whose initrd is ours finds the host's directory.
constexpr const char* kShareAt = "/mnt/share";
/// Of an overlay that stays, beside it: what firmware keeps.
constexpr const char* kVariablesSuffix = ".uefi-vars";

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

/// What the kernel is told. Where it is to run a command, what is printed is the command's.
std::string command_line(const BootLine& line, vm::Accelerator accelerator, bool has_command) {
  std::vector<std::string> words;
  if (has_command) words.insert(words.end(), {"loglevel=1", "panic=-1"});
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

/// Whether KVM is to blame for the end.
bool has_never_run(const MachineEnd& end) noexcept {
  return end.how == MachineEnd::How::not_started || end.how == MachineEnd::How::internal_error ||
         (end.how == MachineEnd::How::failed && !end.has_console_output);
}

Result<int> status_of(const MachineEnd& end, bool has_command) {
  if (!end.failure.empty()) return fail(Errc::io, fmt::format("in the guest: {}", end.failure));
  if (end.status) return *end.status;
  switch (end.how) {
    case MachineEnd::How::powered_off:
      if (!has_command) return 0;
      return fail(Errc::io,
                  "the machine ended, and its command has no status: it may have crashed");
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

int print_machine(const vm::Machine& machine, const Streams& streams) {
  std::vector<std::string> words = vm::qemu_arguments(machine);
  words.insert(words.begin(), kQemu);
  return print(streams.out, vm::shell_line(words) + "\n") ? 0 : kOwnFailure;
}

/// A port of localhost that nobody has at this moment.
Result<std::uint16_t> find_free_port() {
  const UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const plain = reinterpret_cast<sockaddr*>(&address);
  if (!probe || ::bind(probe.get(), plain, length) != 0 ||
      ::getsockname(probe.get(), plain, &length) != 0) {
    return fail_errno(Errc::io, errno, "find a free port of localhost");
  }
  return ntohs(address.sin_port);
}

/// A later directory has the last word.
std::vector<std::string> firmware_directories() {
  std::vector<std::string> directories{"/usr/share/qemu/firmware", "/etc/qemu/firmware"};
  const std::string settings = environment("XDG_CONFIG_HOME").value_or("");
  const std::string home = environment("HOME").value_or("");
  if (settings.starts_with('/')) {
    directories.push_back(settings + "/qemu/firmware");
  } else if (home.starts_with('/')) {
    directories.push_back(home + "/.config/qemu/firmware");
  }
  return directories;
}

/// What the last source that is a container image runs; nullptr: there is none.
const oci::Process* process_of(const PrepareReport& report) {
  const oci::Process* process = nullptr;
  for (const SourceFacts& facts : report.sources) {
    if (!facts.image_id.empty()) process = &facts.process;
  }
  return process;
}

/// The command and what it has around it. A container image with a kernel of its own is a system,
/// which has an init.
vm::GuestSetup guest_of(const BootLine& line, const PreparedImage& prepared,
                        const MachineSetting& setting) {
  vm::GuestSetup guest;
  guest.root_type = line.mount_type;
  guest.has_overlay = line.is_read_only;
  if (!line.share.empty()) guest.share_at = kShareAt;
  const oci::Process* const process = process_of(prepared.report);
  const bool is_system = line.command.empty() && bootsect::find_kernel(*prepared.tree).has_value();
  if (process != nullptr && !is_system) {
    guest.arguments = process->entrypoint;
    const std::vector<std::string>& rest = line.command.empty() ? process->command : line.command;
    guest.arguments.insert(guest.arguments.end(), rest.begin(), rest.end());
    guest.environment = process->environment;
    guest.user = process->user;
    guest.directory = process->directory;
  } else {
    guest.arguments = line.command;
  }
  winsize size{};
  guest.has_terminal = ::isatty(setting.input) == 1 && ::isatty(setting.streams.out) == 1;
  if (guest.has_terminal && ::ioctl(setting.input, TIOCGWINSZ, &size) == 0) {
    guest.rows = size.ws_row;
    guest.columns = size.ws_col;
  }
  if (guest.has_terminal) {
    guest.environment.push_back("TERM=" + environment("TERM").value_or("linux"));
  }
  return guest;
}

/// A machine with what stays the same when it is started again.
class BootedMachine {
 public:
  /// What is referred to outlives it.
  BootedMachine(const BootLine& line, const PreparedImage& prepared, const Streams& streams,
                LogSink& log)
      : line_(line), prepared_(prepared), log_(log), setting_(signals_, streams) {}

  /// Finds all that it needs on this host.
  Result<void> set_up();
  /// From the first start to the exit status; `failure_file` is that of vm::remember_failure().
  Result<int> run(const std::string& failure_file);

 private:
  Result<void> find_start();
  /// A port of this host that leads to the guest's sshd, which the source has to have.
  Result<void> find_ssh_port();
  /// Our own initrd, for a kernel with these modules.
  Result<void> make_start(const vm::KernelModules& modules);
  Result<void> find_flash(vm::FirmwareKind kind);
  /// The disk: the image, or an overlay over it, which is null for a disk that nobody writes.
  struct Disk {
    std::shared_ptr<ExportTree> exports;
    std::shared_ptr<OverlayExports> overlay;
  };
  Result<Disk> make_disk() const;
  /// One start, with an overlay of its own.
  Result<MachineEnd> run_once();
  vm::AcceleratorChoice choose(const std::string& failure_file) const;
  bool has_command() const noexcept { return !guest_.arguments.empty(); }
  std::string kept_variables() const { return line_.keep + kVariablesSuffix; }

  const BootLine& line_;
  const PreparedImage& prepared_;
  LogSink& log_;
  const BlockedSignals signals_{SIGTERM, SIGINT, SIGHUP};
  std::optional<PrivateDirectory> directory_;
  MachineSetting setting_;
  vm::GuestSetup guest_;       // where the initrd is ours
  bool is_kept_anew_ = false;  // the overlay that stays was not there before
};

Result<void> BootedMachine::set_up() {
  std::optional<std::string> qemu = find_program(kQemu);
  if (!qemu) {
    return fail(
        Errc::unsupported,
        fmt::format("{} runs the machine, and is not installed (package {})", kQemu, kQemuPackage));
  }
  Result<PrivateDirectory> directory = PrivateDirectory::create();
  if (!directory) return propagate(directory);
  directory_.emplace(*std::move(directory));
  setting_.qemu = *std::move(qemu);
  setting_.input = STDIN_FILENO;
  vm::Machine& machine = setting_.machine;
  machine.memory_bytes = line_.memory_bytes;
  machine.cpus = line_.cpus;
  machine.disk_socket = directory_->path_of("disk");
  machine.disk_is_read_only = line_.is_read_only;
  if (!line_.share.empty()) machine.share_socket = directory_->path_of("share");
  machine.disk_block_bytes =
      std::max(machine.disk_block_bytes, prepared_.device->geometry().minimum_block_bytes);
  boost::system::error_code ignored;
  is_kept_anew_ = !line_.keep.empty() && !boost::filesystem::exists(line_.keep, ignored);
  if (line_.has_ssh) {
    if (Result<void> found = find_ssh_port(); !found) return found;
  }
  return find_start();
}

Result<void> BootedMachine::find_ssh_port() {
  const SourceTree* tree = prepared_.tree.get();
  for (const PreparedPartition& each : prepared_.partitions) {
    if (tree == nullptr) tree = each.tree.get();
  }
  const auto has = [&](const char* path) {
    return tree != nullptr && bootsect::find_file(*tree, path).has_value();
  };
  if (!has("usr/sbin/sshd") && !has("usr/bin/sshd")) {
    return fail(Errc::unsupported,
                "the source has no sshd, and so nothing would answer (Debian: package "
                "openssh-server)");
  }
  std::uint16_t& port = setting_.machine.ssh_port;
  port = line_.ssh_port;
  if (port == 0) {
    const Result<std::uint16_t> free = find_free_port();
    if (!free) return propagate(free);
    port = *free;
  }
  log_.write(LogLevel::info, fmt::format("ssh -p {} root@127.0.0.1", port));
  return {};
}

Result<void> BootedMachine::find_start() {
  if (!line_.firmware) {
    KernelWish wish = line_.kernel;
    guest_ = guest_of(line_, prepared_, setting_);
    wish.wants_own_initrd = wish.wants_own_initrd || has_command();
    Result<BootKernel> kernel = take_kernel(prepared_, wish, *directory_, log_);
    if (!kernel) return propagate(kernel);
    setting_.machine.direct = std::move(kernel->direct);
    return kernel->modules ? make_start(*kernel->modules) : Result<void>();
  }
  return *line_.firmware == vm::FirmwareKind::bios ? Result<void>() : find_flash(*line_.firmware);
}

Result<void> BootedMachine::make_start(const vm::KernelModules& modules) {
  const std::string path = init_path();
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto init = file ? read_all(file.get(), kMostInitBytes) : std::nullopt;
  if (!init)
    return fail(Errc::unsupported,
                fmt::format("{}, which starts in the guest, cannot be read", path));
  Result<vm::Initrd> made = vm::make_initrd(*init, guest_, modules);
  if (!made) return propagate(made);
  Result<BootFile> initrd = BootFile::create(directory_->path_of("initrd"));
  if (!initrd) return propagate(initrd);
  if (Result<void> written = initrd->append(made->archive); !written) return written;
  vm::Machine& machine = setting_.machine;
  machine.direct->initrd = initrd->path();
  machine.status_socket = directory_->path_of("status");
  machine.disk_is_read_only = guest_.has_overlay;
  setting_.passes_signals = has_command();
  return {};
}

Result<void> BootedMachine::find_flash(vm::FirmwareKind kind) {
  const Result<vm::UefiFirmware> firmware = vm::find_firmware(kind, firmware_directories());
  if (!firmware) return propagate(firmware);
  vm::Flash flash{firmware->code, directory_->path_of("uefi-vars"), firmware->is_secure};
  boost::system::error_code failure;
  const bool stays = !line_.keep.empty();
  if (stays) flash.variables = kept_variables();
  if (!stays || !boost::filesystem::exists(flash.variables, failure)) {
    boost::filesystem::copy_file(firmware->variables, flash.variables, failure);
    if (failure) {
      return fail_errno(Errc::io, failure.value(),
                        fmt::format("copy {} to {}", firmware->variables, flash.variables));
    }
    // Its template is read-only to most users.
    if (::chmod(flash.variables.c_str(), 0600) != 0) {
      return fail_errno(errno, fmt::format("make {} writable", flash.variables));
    }
  }
  setting_.machine.flash = std::move(flash);
  return {};
}

Result<BootedMachine::Disk> BootedMachine::make_disk() const {
  auto below = make_single_export(prepared_.device);
  if (!below) return propagate(below);
  if (line_.is_read_only) return Disk{*std::move(below), nullptr};
  OverlayOptions overlay;
  // A name alone may be a word that says another place.
  const bool is_bare = !line_.keep.empty() && line_.keep.find('/') == std::string::npos;
  overlay.set_writable(is_bare ? "./" + line_.keep : line_.keep);
  auto made = overlay.make_exports(*std::move(below), log_);
  if (!made) return propagate(made);
  // A fault of the file is reported before QEMU starts.
  if (const Result<Export> opened = (*made)->open(""); !opened) return propagate(opened);
  return Disk{*made, *made};
}

vm::AcceleratorChoice BootedMachine::choose(const std::string& failure_file) const {
  vm::AcceleratorChoice choice =
      vm::choose_accelerator(line_.accelerator, vm::look_at_kvm(failure_file));
  if (!choice.reason.empty()) {
    log_.write(LogLevel::info, fmt::format("the machine is emulated (TCG): {}", choice.reason));
  }
  return choice;
}

Result<MachineEnd> BootedMachine::run_once() {
  const Result<Disk> disk = make_disk();
  if (!disk) return propagate(disk);
  const auto server = RunningServer::start(disk->exports, setting_.machine.disk_socket, log_);
  if (!server) return propagate(server);
  std::unique_ptr<SharedDirectory> shared;
  if (!line_.share.empty()) {
    auto started = SharedDirectory::start(line_.share, setting_.machine.share_socket, *directory_);
    if (!started) return propagate(started);
    shared = *std::move(started);
  }
  const RawTerminal terminal(setting_.input);
  if (terminal.is_terminal()) log_.write(LogLevel::info, "Ctrl-A X leaves the machine");
  Result<MachineEnd> end = run_machine(setting_, **server);
  // A machine that was left has not written everything to its disk, but what it has written stays.
  if (end && disk->overlay) {
    if (Result<void> flushed = disk->overlay->flush(); !flushed) return propagate(flushed);
  }
  return end;
}

Result<int> BootedMachine::run(const std::string& failure_file) {
  vm::Machine& machine = setting_.machine;
  vm::AcceleratorChoice choice = choose(failure_file);
  while (true) {
    machine.accelerator = choice.accelerator;
    if (machine.direct)
      machine.direct->command_line = command_line(line_, choice.accelerator, has_command());
    setting_.is_watched = choice.may_fall_back;
    if (line_.prints) return print_machine(machine, setting_.streams);
    const Result<MachineEnd> end = run_once();
    if (!end) return propagate(end);
    if (!choice.may_fall_back || !has_never_run(*end)) return status_of(*end, has_command());
    log_.write(LogLevel::warning,
               "KVM does not run the guest: it is started again, emulated (TCG)");
    vm::remember_failure(failure_file);
    boost::system::error_code ignored;
    if (is_kept_anew_) boost::filesystem::remove(line_.keep, ignored);
    choice = {vm::Accelerator::tcg, false, ""};
  }
}

class Boot final : public Command {
 public:
  Boot(OptionSet& options, const FormatRegistry& formats) : Command(options), options_(formats) {
    options_.add_to(options);
  }
  Result<int> run(const Streams& streams) override;
  int failure_status(Errc) const noexcept override { return kOwnFailure; }
  bool takes_rest() const noexcept override { return true; }
  void set_rest(std::vector<std::string> words) override { options_.set_command(std::move(words)); }

 private:
  BootOptions options_;
};

Result<int> Boot::run(const Streams& streams) {
  WordedLog log(streams.err, LogLevel::info);
  const Result<BootLine> line = options_.read();
  if (!line) return propagate(line);
  raise_open_file_limit();
  Resources resources(program_resources(log, options_.formats()));
  resources.outputs().add_path(line->keep);
  resources.outputs().add_descriptor(streams.out, "the file of standard output");
  resources.outputs().add_descriptor(streams.err, "the file of standard error");
  const Result<PreparedImage> prepared = prepare(line->image, resources);
  if (!prepared) return propagate(prepared);
  BootedMachine machine(*line, *prepared, streams, log);
  if (Result<void> ready = machine.set_up(); !ready) return propagate(ready);
  const std::string cache = resources.options().index_directory;
  return machine.run(cache.empty() ? "" : cache + "/kvm-failed");
}

}  // namespace

std::unique_ptr<Command> make_boot(OptionSet& program, const FormatRegistry& formats) {
  return std::make_unique<Boot>(
      program.add_subcommand("boot", "Boot a virtual machine from the image"), formats);
}

}  // namespace mkvirtfs::cli
