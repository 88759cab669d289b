// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>

namespace mkvirtfs {

/// How often the calling thread has called operator new. Programs that ask must link
/// mkvirtfs_test_allocations, which replaces it.
std::size_t allocations_of_this_thread() noexcept;

/// Has one call of operator new fail, on whatever thread it is: the one after `calls` more. The
/// next call of this function takes that back.
void fail_allocation_after(std::size_t calls) noexcept;
/// Whether that call has come. Takes back what has not failed yet.
bool has_allocation_failed() noexcept;

}  // namespace mkvirtfs
