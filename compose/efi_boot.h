// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/joined_contents.h"
#include "bootsect/boot_loader.h"
#include "bootsect/pe.h"
#include "compose/boot_files.h"
#include "compose/read_sources.h"
#include "support/error.h"

// What UEFI starts, out of files of sources. Of an executable nothing but its headers is read.

namespace mkvirtfs {

/// A kernel that a loader starts under UEFI. Errors: Errc::unsupported for one that UEFI does not
/// start, that is for another machine, that is a unified kernel image, or that nobody has signed
/// where each file must be; Errc::unreadable.
Result<bootsect::PeImage> check_efi_kernel(const ReadSources& read, NodeNo node,
                                           const bootsect::BootLoader& loader);

/// The version in a kernel's own header; "" where there is none that can be read.
std::string version_in_kernel(const ReadSources& read, NodeNo node);

/// `os-release` of the first of the sources that has one; "" for none, and for one that is too big
/// to be it.
std::string os_release_of(std::span<const ReadSources* const> sources);

/// Adds a loader of the user's under the name of its machine. Errors: as those of read_pe();
/// Errc::unsupported for a machine that has no such name.
Result<void> add_given_loader(const ReadSources& read, NodeNo node, const SourceTree& tree,
                              BootFiles& files);

/// The loaders that a tree has where firmware looks for them, each under the name of its machine.
/// Errors: the same, and for one that has the name of another machine.
Result<std::vector<NodeNo>> find_efi_loaders(const ReadSources& read);

}  // namespace mkvirtfs
