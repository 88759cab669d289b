// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/filesystem/operations.hpp>
#include <boost/system/error_code.hpp>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/background.h"
#include "cli/child.h"
#include "cli/client_options.h"
#include "cli/command.h"
#include "cli/control.h"
#include "cli/control_server.h"
#include "cli/error_text.h"
#include "cli/image_options.h"
#include "cli/kept_places.h"
#include "cli/listen_options.h"
#include "cli/overlay_options.h"
#include "cli/pid_file.h"
#include "cli/program_resources.h"
#include "cli/served_sources.h"
#include "cli/service_manager.h"
#include "cli/source_options.h"
#include "cli/statistics_text.h"
#include "cli/stop_watcher.h"
#include "cli/stopper.h"
#include "cli/tls_options.h"
#include "exports/export_tree.h"
#include "nbd/server/allocation_depth.h"
#include "nbd/server/extension.h"
#include "nbd/server/list_hier.h"
#include "nbd/server/server.h"
#include "support/log.h"
#include "support/message.h"
#include "support/parse_number.h"

namespace mkvirtfs::cli {
namespace {

constexpr const char* kGroup = "Server";
/// How long a --run command that was told to end may take.
constexpr std::chrono::seconds kChildGrace{5};

/// The port in "nbd://HOST:PORT/NAME", "nbds+vsock://USER@CID:PORT/NAME"; "" when it has none.
std::string port_in(const std::string& uri) {
  if (uri.find("+unix://") != std::string::npos) return {};
  const std::size_t host = uri.find("//") + 2;
  const std::size_t slash = uri.find('/', host);
  const std::size_t colon = uri.rfind(':', slash);
  if (colon == std::string::npos || colon < host) return {};
  return uri.substr(colon + 1, slash == std::string::npos ? slash : slash - colon - 1);
}

/// Of --exit-on-last[=SECONDS], which is "true" without seconds.
Result<std::chrono::milliseconds> parse_grace(const std::string& text) {
  if (text.empty() || text == "true") return std::chrono::milliseconds(0);
  const auto seconds = parse_number<unsigned>(text);
  if (!seconds || *seconds > 1'000'000) {
    return fail(Errc::usage,
                fmt::format("--exit-on-last={} is not a number of seconds up to 1000000", text));
  }
  return std::chrono::seconds(*seconds);
}

/// How long the rest of the program may take after a second signal.
constexpr std::chrono::milliseconds kHurry{500};

bool reads_input(const ExportSpec& spec) {
  const std::vector<SourceSpec> sources = all_sources(spec.image);
  return std::ranges::find(sources, "-", &SourceSpec::path) != sources.end();
}

class Serve final : public Command {
 public:
  Serve(OptionSet& options, const FormatRegistry& formats);
  Result<int> run(const Streams& streams) override;

 private:
  /// What clients are offered, and that part of it which they can write to; null when none is.
  struct Exports {
    std::shared_ptr<ExportTree> tree;
    std::shared_ptr<OverlayExports> writable;
  };

  /// What the command line says, checked.
  struct CommandLine {
    std::vector<Address> addresses;
    nbd::ServerOptions options;
    std::vector<ExportSpec> exports;
    std::vector<std::string> names;  // of the exports, the default one's first
    bool reads_input = false;        // standard input is a source
  };

  /// `log` must outlive the server.
  Result<CommandLine> read_command_line(LogSink& log) const;
  /// The words that cannot be given together or mean nothing.
  Result<void> check(const std::vector<Address>& addresses) const;
  /// `log` must outlive the server.
  Result<nbd::ServerOptions> server_options(LogSink& log) const;
  /// What the run itself writes, which is no part of any image.
  void add_outputs(const Streams& streams, RunOutputs& outputs) const;
  Result<std::vector<ExportSpec>> parse_exports() const;
  void warn_of_read_only_formats(std::span<const ExportSpec> specs, LogSink& log) const;
  /// `resources` outlive the exports.
  Result<Exports> make_exports(std::vector<ExportSpec> specs, Resources& resources) const;
  /// From listeners to the exit status.
  Result<int> run_server(const Exports& exports, const CommandLine& line, Resources& resources,
                         Stopper& stopper, const BlockedSignals& signals,
                         const Streams& streams) const;
  /// run() in the process that serves.
  Result<int> run_here(const Streams& streams);
  Result<void> open_doors(nbd::Server& server, const std::vector<Address>& addresses,
                          Listening& listening, Resources& resources) const;
  /// Nothing without --pidfile.
  Result<std::optional<PidFile>> make_pid_file() const;
  /// Nothing without --ctl. `server` must outlive it.
  Result<std::optional<ControlServer>> start_control(
      const std::shared_ptr<OverlayExports>& writable, const nbd::Server& server) const;
  /// Nothing without --run.
  Result<std::optional<Child>> start_command(const nbd::Server& server, const Listening& listening,
                                             const std::vector<std::string>& names) const;
  /// Prints the URIs, unless the command of --run has them; with --fork the command that waits
  /// does.
  Result<void> announce(const nbd::Server& server, const CommandLine& line,
                        const Streams& streams) const;
  Result<Child> start_child(const nbd::Server& server, const Listening& listening,
                            const std::string& name) const;
  /// Serves until the server is stopped; the exit status.
  Result<int> serve(nbd::Server& server, Stopper& stopper, std::optional<Child>& child,
                    const Streams& streams) const;
  /// Has signals, and the end of the child, stop the server. `private_directory` goes when a second
  /// signal must end the process from outside.
  StopWatcher::Reactions reactions(Stopper& stopper, const std::string& private_directory,
                                   const Streams& streams) const;
  LogLevel log_level() const;
  void print_statistics(const nbd::ServerStatistics& statistics, const Streams& streams) const;
  /// Where files come and go with each start.
  std::vector<KeptPlace> kept_places() const;

  std::vector<std::string> sources_;
  SourceOptions source_;
  ImageOptions image_;
  ListenOptions listen_;
  std::string export_name_;
  std::string command_;
  std::string pid_file_;
  TlsOptions tls_;
  ClientOptions clients_;
  OverlayOptions overlay_;
  std::string control_socket_;
  std::string exit_on_last_;
  std::string statistics_;
  bool single_client_ = false;
  bool forks_ = false;
  std::optional<Background> background_;  // in the process that --fork made
  bool read_only_ = false;
  bool exit_with_parent_ = false;
  bool verbose_ = false;
  std::string log_level_;
};

Serve::Serve(OptionSet& options, const FormatRegistry& formats)
    : Command(options), image_(formats) {
  options.add_values("SOURCE", sources_, "...",
                     "A directory, an archive (- is standard input) or\noci:PATH to show; also "
                     "NAME=that[,OPTION...]");
  source_.add_options_to(options);
  listen_.add_to(options, kGroup);
  options.add_value("-e,--exportname", export_name_, "NAME", "The default export's name")
      .may_be_empty()
      .group(kGroup);
  tls_.add_to(options, kGroup);
  options.add_flag("-r,--readonly", read_only_, "Serve read-only (so without --rw)").group(kGroup);
  overlay_.add_to(options, kGroup);
  options.add_value("--ctl", control_socket_, "PATH", "A socket for mkvirtfs ctl").group(kGroup);
  options
      .add_value("--run", command_, "COMMAND",
                 "Run it with $uri, $unixsocket, $port and\n$exportname; stop when it ends, with "
                 "its status")
      .group(kGroup);
  options.add_value("-P,--pidfile", pid_file_, "FILE", "Write the process id when ready")
      .group(kGroup);
  options
      .add_flag("--fork", forks_,
                "Return when clients can connect, and serve in\nthe background; print URIs and "
                "process id")
      .group(kGroup);
  options.add_flag("-s,--single", single_client_, "Serve one client, on standard input")
      .group(kGroup);
  clients_.add_to(options, kGroup);
  options
      .add_flag("--exit-on-last", exit_on_last_,
                "Stop when the last client is gone, or so many\nseconds later (=SECONDS)")
      .group(kGroup);
  options
      .add_flag("--stats", statistics_,
                "Print request statistics on exit (as one line\nwith =json); SIGUSR1 prints it "
                "at any time")
      .group(kGroup);
  options.add_flag("--exit-with-parent", exit_with_parent_, "Stop when the parent process ends")
      .group(kGroup);
  CommandOption& level =
      options
          .add_value("--log-level", log_level_, "LEVEL",
                     "Report on standard error: error, warning,\ninfo (default), debug")
          .one_of({"error", "warning", "info", "debug"})
          .group(kGroup);
  options.add_flag("-v,--verbose", verbose_, "The same as --log-level=debug")
      .group(kGroup)
      .excludes(level);
  image_.add_to(options);
}

Result<Child> Serve::start_child(const nbd::Server& server, const Listening& listening,
                                 const std::string& name) const {
  const std::vector<std::string> uris = server.uris(name);
  std::string port;
  for (const std::string& uri : uris) {
    if (port.empty()) port = port_in(uri);
  }
  return Child::start(command_, {{"uri", uris.empty() ? std::string() : uris.front()},
                                 {"unixsocket", listening.unix_socket},
                                 {"port", port},
                                 {"exportname", name}});
}

std::vector<KeptPlace> Serve::kept_places() const {
  std::vector<KeptPlace> places = {{"--overlay", overlay_.where(), !overlay_.is_file()}};
  const std::string& unix_path = listen_.unix_path();
  if (!unix_path.empty() && unix_path != "-") places.push_back({"--unix", unix_path});
  if (!control_socket_.empty()) places.push_back({"--ctl", control_socket_});
  if (!pid_file_.empty()) places.push_back({"--pidfile", pid_file_});
  return places;
}

void Serve::print_statistics(const nbd::ServerStatistics& statistics,
                             const Streams& streams) const {
  std::string text;
  try {
    text = statistics_ == "json" ? statistics_json(statistics) : statistics_text(statistics);
  } catch (...) {
    text = fmt::format("mkvirtfs: {}\n", error_of_exception("print statistics").what);
  }
  print(streams.err, text);
}

StopWatcher::Reactions Serve::reactions(Stopper& stopper, const std::string& private_directory,
                                        const Streams& streams) const {
  StopWatcher::Reactions reactions;
  reactions.on_signal = [this, &stopper,
                         &streams](int signal) -> std::optional<std::chrono::milliseconds> {
    if (signal == SIGUSR1) {
      if (const auto statistics = stopper.statistics()) print_statistics(*statistics, streams);
      return std::nullopt;
    }
    // A terminal that closes is no reason to leave clients alone.
    if (signal == SIGHUP) return std::nullopt;
    stopper.stop();
    return stopper.is_hurried() ? std::optional(kHurry) : std::nullopt;
  };
  reactions.on_child_end = [&stopper] { stopper.stop_server(); };
  reactions.on_overdue = [private_directory, &streams] {
    // Something waits for a disk or another machine, and nobody knows how long.
    print(streams.err, "mkvirtfs: ended by a second signal, in the middle of what it did\n");
    boost::system::error_code ignored;
    if (!private_directory.empty()) boost::filesystem::remove_all(private_directory, ignored);
    ::_exit(1);
  };
  return reactions;
}

Result<int> Serve::serve(nbd::Server& server, Stopper& stopper, std::optional<Child>& child,
                         const Streams& streams) const {
  if (Result<void> served = server.run(); !served) return propagate(served);
  if (!statistics_.empty()) print_statistics(server.statistics(), streams);
  notify_service_manager("STOPPING=1");
  int status = 0;
  if (child) {
    std::optional<int> ended = child->wait(kChildGrace);
    if (!ended) {
      child->send(SIGKILL);
      ended = child->wait(kChildGrace);
    }
    status = ended.value_or(128 + SIGKILL);
  }
  if (stopper.is_hurried()) return fail(Errc::io, "ended by a second signal: clients were cut off");
  return status;
}

LogLevel Serve::log_level() const {
  if (verbose_) return LogLevel::debug;
  constexpr std::array kLevels = {std::pair{std::string_view("error"), LogLevel::error},
                                  std::pair{std::string_view("warning"), LogLevel::warning},
                                  std::pair{std::string_view("debug"), LogLevel::debug}};
  for (const auto& [name, level] : kLevels) {
    if (log_level_ == name) return level;
  }
  return LogLevel::info;
}

Result<void> Serve::check(const std::vector<Address>& addresses) const {
  if (!is_valid_export_name(export_name_)) {
    return fail(Errc::usage, fmt::format("--exportname={} cannot be an export's name (no empty, . "
                                         "or .. components, UTF-8, up to {} bytes)",
                                         export_name_, kLongestExportText));
  }
  if (single_client_ && !(listen_.unix_path().empty() && addresses.empty() && command_.empty())) {
    return fail(Errc::usage, "--single serves standard input alone: no -U, -p, --listen or --run");
  }
  if (forks_ && (single_client_ || exit_with_parent_ || !command_.empty())) {
    return fail(Errc::usage,
                "--fork leaves the command that started it: no --single, --run or "
                "--exit-with-parent");
  }
  if (!statistics_.empty() && statistics_ != "true" && statistics_ != "text" &&
      statistics_ != "json") {
    return fail(Errc::usage, fmt::format("--stats={} is neither text nor json", statistics_));
  }
  if (read_only_ && overlay_.wanted()) {
    return fail(Errc::usage,
                "--readonly and writable exports (--rw, --overlay, --clone) exclude each other");
  }
  return {};
}

Result<nbd::ServerOptions> Serve::server_options(LogSink& log) const {
  nbd::ServerOptions options;
  if (Result<void> applied = clients_.apply(options); !applied) {
    return propagate(applied);
  }
  const Result<std::chrono::milliseconds> exit_on_last = parse_grace(exit_on_last_);
  if (!exit_on_last) return propagate(exit_on_last);
  Result<TlsOptions::Tls> tls = tls_.load();
  if (!tls) return propagate(tls);
  const auto extensions = std::make_shared<nbd::Extensions>();
  for (const auto add : {nbd::add_list_hier, nbd::add_allocation_depth}) {
    if (Result<void> added = add(*extensions); !added) {
      return propagate(added);
    }
  }
  options.tls = tls->mode;
  options.tls_credentials = std::move(tls->credentials);
  options.extensions = extensions;
  options.log = &log;
  if (single_client_) options.stop_after_last = std::chrono::milliseconds(0);
  if (!exit_on_last_.empty()) options.stop_after_last = *exit_on_last;
  return options;
}

void Serve::add_outputs(const Streams& streams, RunOutputs& outputs) const {
  if (listen_.unix_path() != "-") outputs.add_path(listen_.unix_path());
  outputs.add_path(control_socket_);
  outputs.add_path(pid_file_);
  outputs.add_descriptor(streams.out, "the file of standard output");
  outputs.add_descriptor(streams.err, "the file of standard error");
}

Result<std::vector<ExportSpec>> Serve::parse_exports() const {
  Result<std::vector<ExportSpec>> exports =
      cli::parse_exports(export_name_, source_, image_, overlay_.is_persistent());
  if (!exports) return exports;
  if (single_client_ && std::ranges::any_of(*exports, reads_input)) {
    return fail(Errc::usage, "--single and the source - both want standard input");
  }
  if (Result<void> checked = overlay_.check(exports->size()); !checked) {
    return propagate(checked);
  }
  if (overlay_.is_persistent()) {
    for (const ExportSpec& each : *exports) {
      Result<void> outside = check_outside_source(all_sources(each.image), kept_places());
      if (!outside) return propagate(outside);
    }
  }
  return exports;
}

void Serve::warn_of_read_only_formats(std::span<const ExportSpec> specs, LogSink& log) const {
  const FormatRegistry& formats = image_.formats();
  for (const ExportSpec& spec : specs) {
    const std::string_view name = formats.resolve(spec.image.format, spec.image.options);
    const Format* const format = spec.image.partitions.empty() ? formats.find(name) : nullptr;
    if (format == nullptr || !format->read_only) continue;
    log.write(
        LogLevel::warning,
        fmt::format("no system writes to {}: a client that is to write wants --fs=ext4, or an "
                    "overlayfs of its own over {} that is served without --rw",
                    format->family, name));
    return;
  }
}

Result<Serve::Exports> Serve::make_exports(std::vector<ExportSpec> specs,
                                           Resources& resources) const {
  LogSink& log = resources.log();
  if (overlay_.wanted()) warn_of_read_only_formats(specs, log);
  Result<std::shared_ptr<ExportTree>> tree = mkvirtfs::make_exports(std::move(specs), resources);
  if (!tree) return propagate(tree);
  Exports exports{.tree = std::move(*tree), .writable = nullptr};
  if (overlay_.wanted()) {
    auto made = overlay_.make_exports(std::move(exports.tree), log);
    if (!made) return propagate(made);
    exports.tree = exports.writable = std::move(*made);
  }
  if (overlay_.is_file()) {
    // A fault of the file is reported to the user who starts the server, not to its first client.
    if (const Result<Export> opened = exports.tree->open(""); !opened) {
      return propagate(opened);
    }
  }
  return exports;
}

Result<std::optional<ControlServer>> Serve::start_control(
    const std::shared_ptr<OverlayExports>& writable, const nbd::Server& server) const {
  if (control_socket_.empty()) return std::nullopt;
  Result<ControlServer> started =
      ControlServer::start(control_socket_, make_control(writable, [&server] {
                             std::string line = statistics_json(server.statistics());
                             if (line.ends_with('\n')) line.pop_back();
                             return line;
                           }));
  if (!started) return propagate(started);
  return std::move(*started);
}

Result<std::optional<Child>> Serve::start_command(const nbd::Server& server,
                                                  const Listening& listening,
                                                  const std::vector<std::string>& names) const {
  if (command_.empty()) return std::nullopt;
  Result<Child> started = start_child(server, listening, names.front());
  if (!started) return propagate(started);
  return std::move(*started);
}

Result<void> Serve::announce(const nbd::Server& server, const CommandLine& line,
                             const Streams& streams) const {
  // The command of --run has the URI; its output shall be its own.
  if (single_client_ || !command_.empty()) return {};
  std::string text;
  for (const std::string& name : line.names) {
    for (const std::string& uri : server.uris(name)) text += uri + "\n";
  }
  if (!background_) {
    print(streams.out, text);
    return {};
  }
  return background_->ready(text, !line.reads_input);
}

Result<Serve::CommandLine> Serve::read_command_line(LogSink& log) const {
  Result<std::vector<Address>> addresses = listen_.addresses();
  if (!addresses) return propagate(addresses);
  if (Result<void> good = check(*addresses); !good) return propagate(good);
  Result<nbd::ServerOptions> options = server_options(log);
  if (!options) return propagate(options);
  Result<std::vector<ExportSpec>> specs = parse_exports();
  if (!specs) return propagate(specs);
  std::vector<std::string> names;
  for (const ExportSpec& each : *specs) names.push_back(each.name);
  const bool with_input = std::ranges::any_of(*specs, reads_input);
  return CommandLine{std::move(*addresses), std::move(*options), std::move(*specs),
                     std::move(names), with_input};
}

Result<void> Serve::open_doors(nbd::Server& server, const std::vector<Address>& addresses,
                               Listening& listening, Resources& resources) const {
  if (Result<void> on = single_client_ ? adopt_standard_input(server, listening.bridge)
                                       : listen_.listen(server, addresses, listening);
      !on) {
    return on;
  }
  // What is not scanned yet is scanned by threads of the server, which has none before it runs.
  if (listening.directory) resources.outputs().add_path(listening.directory->path());
  return {};
}

Result<std::optional<PidFile>> Serve::make_pid_file() const {
  if (pid_file_.empty()) return std::nullopt;
  Result<PidFile> created = PidFile::create(pid_file_);
  if (!created) return propagate(created);
  return std::move(*created);
}

Result<int> Serve::run_server(const Exports& exports, const CommandLine& line, Resources& resources,
                              Stopper& stopper, const BlockedSignals& signals,
                              const Streams& streams) const {
  std::optional<StopWatcher> watcher;  // ends last: it ends what does not end
  Listening listening;  // outlives the server, which removes its socket from the directory
  Result<std::unique_ptr<nbd::Server>> server = nbd::Server::create(exports.tree, line.options);
  if (!server) return propagate(server);
  if (Result<void> on = open_doors(**server, line.addresses, listening, resources); !on) {
    return propagate(on);
  }
  // Ends before the server that it asks.
  Result<std::optional<ControlServer>> control = start_control(exports.writable, **server);
  if (!control) return propagate(control);
  const Result<std::optional<PidFile>> pid_file = make_pid_file();
  if (!pid_file) return propagate(pid_file);
  Result<std::optional<Child>> child = start_command(**server, listening, line.names);
  if (!child) return propagate(child);
  notify_service_manager("READY=1");
  const Stopper::Attachment attachment(stopper, **server, *child ? &**child : nullptr);
  Result<StopWatcher> started = StopWatcher::start(
      signals, *child ? (*child)->poll_fd() : -1,
      reactions(stopper, listening.directory ? listening.directory->path() : "", streams));
  if (!started) return propagate(started);
  watcher.emplace(std::move(*started));
  if (Result<void> announced = announce(**server, line, streams); !announced) {
    return propagate(announced);
  }
  Result<int> status = serve(**server, stopper, *child, streams);
  control->reset();  // what it does is for a server that goes on
  if (status && exports.writable) {
    if (Result<void> flushed = exports.writable->flush(); !flushed) {
      status = propagate(flushed);
    }
  }
  return status;
}

Result<int> Serve::run(const Streams& streams) {
  if (!forks_) return run_here(streams);
  if (!statistics_.empty() && !Background::keeps(streams.err)) {
    return fail(Errc::usage,
                "--stats prints to standard error, which --fork keeps only where it is a file");
  }
  Result<Background::Side> side = Background::divide(streams);
  if (!side) return propagate(side);
  if (side->status) return *side->status;
  background_ = std::move(side->background);
  return run_here(streams);
}

Result<int> Serve::run_here(const Streams& streams) {
  const pid_t parent = ::getppid();
  WordedLog log(streams.err, log_level());
  Result<CommandLine> line = read_command_line(log);
  if (!line) return propagate(line);
  raise_open_file_limit();
  // A request for statistics that comes before there are any is answered as soon as there are.
  const BlockedSignals not_yet{SIGUSR1};
  Stopper stopper;
  Resources resources(program_resources(log, image_.formats(), stopper.cancels_sources()));
  add_outputs(streams, resources.outputs());
  const Result<Exports> exports = make_exports(std::move(line->exports), resources);
  if (!exports) return propagate(exports);
  // From here on there is something to clean up, so a signal must not just end us.
  const BlockedSignals signals;
  if (exit_with_parent_) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) return 0;  // it ended before the kernel was asked for the signal
  }
  return run_server(*exports, *line, resources, stopper, signals, streams);
}

}  // namespace

std::unique_ptr<Command> make_serve(OptionSet& program, const FormatRegistry& formats) {
  return std::make_unique<Serve>(program.add_subcommand("serve", "Serve images to NBD clients"),
                                 formats);
}

}  // namespace mkvirtfs::cli
