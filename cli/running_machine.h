// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cli/running_server.h"
#include "cli/stop_watcher.h"
#include "cli/streams.h"
#include "support/child_process.h"
#include "support/error.h"
#include "support/log.h"
#include "support/unique_fd.h"
#include "vm/escape_key.h"
#include "vm/machine.h"

namespace mkvirtfs::cli {

/// How a machine ended.
struct MachineEnd {
  enum class How : std::uint8_t {
    powered_off,     ///< QEMU ended by itself, with success
    failed,          ///< QEMU ended with an error, which it has said
    not_started,     ///< no sign of life in the time that a guest has for it
    internal_error,  ///< KVM gave up
    left,            ///< by the key
    stopped,         ///< by a signal
  };
  How how{};
  int number = 0;                   ///< QEMU's exit status where it failed; the signal
  bool has_console_output = false;  ///< there was some, ever
  std::optional<int> status{};      ///< what mkvirtfs-init reported of its command
  std::string failure{};            ///< what it could not do; "": nothing
};

/// What a machine is made of beside itself.
struct MachineSetting {
  /// `that_stop` outlives this.
  MachineSetting(const BlockedSignals& that_stop, const Streams& places)
      : signals(that_stop), streams(places) {}

  std::string qemu;  ///< the program's path
  vm::Machine machine;
  /// Whether it is stopped when it does not start.
  bool is_watched = false;
  const BlockedSignals& signals;  ///< that stop it
  /// Signals go to the command that mkvirtfs-init runs; a second one stops the machine.
  bool passes_signals = false;
  int input = -1;   ///< keys; -1: none. Not owned
  Streams streams;  ///< the console; QEMU's own words
};

/// Runs a machine until it ends. `server` has its disk. Errors: what is wrong with this host.
Result<MachineEnd> run_machine(const MachineSetting& setting, const RunningServer& server);

}  // namespace mkvirtfs::cli
