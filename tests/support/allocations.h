// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>

namespace mkvirtfs {

/// How often the calling thread has called operator new. Programs that ask must link
/// mkvirtfs_test_allocations, which replaces it.
std::size_t allocations_of_this_thread() noexcept;

}  // namespace mkvirtfs
