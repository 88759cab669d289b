// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "block/device.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// An image file in a format of virtual machines, which qemu-img writes.
struct ConvertedDump {
  std::string path;
  std::string format;      ///< as qemu-img calls it: qcow2, vmdk, vhdx
  bool overwrite = false;  ///< replace a regular file that is there
};

/// Has `qemu-img convert` read `device`, over NBD on a private socket, and write the file, which
/// appears whole or not at all. Returns the bytes that the file takes.
///
/// `cancel` can be set from anywhere, even a signal handler: the call fails with ECANCELED then.
/// What clients of the socket hit, such as a source that changed, goes to `log`. Errors:
/// Errc::unsupported without qemu-img; Errc::io when `path` is there and may not be replaced, and
/// when qemu-img fails, which says why on standard error.
Result<std::uint64_t> dump_converted(std::shared_ptr<BlockDevice> device, const ConvertedDump& to,
                                     const std::atomic<bool>& cancel, LogSink& log);

}  // namespace mkvirtfs::cli
