// SPDX-License-Identifier: BSD-3-Clause
// Stands alone: a compiler that sees these definitions beside their callers warns of mixed-up
// allocation functions.
#include "tests/support/allocations.h"

#include <cstdlib>
#include <new>

namespace {
thread_local std::size_t allocations = 0;
}  // namespace

void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
// ASan's own nothrow form would not go through ours, and then not fit our delete.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace mkvirtfs {
std::size_t allocations_of_this_thread() noexcept { return allocations; }
}  // namespace mkvirtfs
