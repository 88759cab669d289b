// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fsgen/stream/byte_source.h"

namespace mkvirtfs {

/// The bytes of some sources one behind the other, under a name of their own. At least one; their
/// sizes together fit 63 bits. pin() passes through where there is one source, else there is none.
std::shared_ptr<ByteSource> make_concatenation(std::vector<std::shared_ptr<ByteSource>> parts,
                                               std::string name);

/// The sources that one is made of; empty for any other source.
std::vector<std::shared_ptr<ByteSource>> parts_of(const ByteSource& source);

}  // namespace mkvirtfs
