// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "block/host_files.h"
#include "fsgen/stream/byte_source.h"
#include "support/error.h"
#include "support/log.h"
#include "support/unique_fd.h"

namespace mkvirtfs {

/// A regular file of the host, kept open. After every read it is checked that the file has not
/// changed, so all reads come from one version of it; pin() works.
///
/// A decoder needs OnChange::error: with the others it would decode zeroes, or a mixture. `log`
/// must outlive the source. Errors: Errc::unreadable when it cannot be opened, Errc::unsupported
/// when it is no regular file.
Result<std::shared_ptr<ByteSource>> open_file_source(const std::string& path, ChangeRules rules,
                                                     LogSink& log);

/// The same of a file that was opened for reading; `name` is for messages.
Result<std::shared_ptr<ByteSource>> open_file_source(UniqueFd file, std::string name,
                                                     ChangeRules rules, LogSink& log);

/// The bytes of `range` of another source, under a name of their own. pin() passes through.
/// Errors: Errc::unreadable when the range does not lie in the source.
Result<std::shared_ptr<ByteSource>> make_window(std::shared_ptr<ByteSource> below, Range range,
                                                std::string name);

}  // namespace mkvirtfs
