// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs {

/// Something worth saying about an image that is made all the same.
struct Remark {
  enum class About : std::uint8_t {
    unreadable,          ///< entries were left out because they could not be read
    vanished,            ///< entries were gone when they were looked at
    mounts_not_entered,  ///< SourceSpec::one_file_system
    archive_changes,   ///< an archive that changes gives errors, whatever SourceSpec::changes says
    container_image,   ///< the files of a container image are shown, and not what they hold
    spool,             ///< a source was unpacked into a spool
    not_written_back,  ///< SourceSpec::sync_within can do nothing for a file system
    output,            ///< what the run itself writes lies in a source
    file_source,       ///< a source that is no archive stands as a file
    unmatched_rule,    ///< no entry matches a pattern of SourceSpec::rules or of the format
    seed_file,         ///< a file that is not read stands beside the place of one that would be
    boot,              ///< which configuration counts
    named_id,          ///< a file names a file system that is not there
    differences,       ///< the image does not show all as the source has it
    switched_on,       ///< the source needs what the format does not have by default
    gave_way,          ///< the given size has no room for all that the format has by default
  };
  About about{};
  LogLevel level = LogLevel::warning;
  /// One line; names in it are raw bytes.
  std::string what{};
  /// The option that `what` speaks of, as in Error::at_fault; no option: none.
  Setting at_fault{};
  /// What would help, as in Error::hints.
  std::vector<Setting> hints{};
};

}  // namespace mkvirtfs
