// SPDX-License-Identifier: BSD-3-Clause
// Stands alone: a compiler that sees these definitions beside their callers warns of mixed-up
// allocation functions.
#include "tests/support/allocations.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {
thread_local std::size_t allocations = 0;
/// How many calls there are before the one that fails; negative: none fails any more.
std::atomic<std::int64_t> calls_left = -1;

bool is_to_fail() noexcept {
  return calls_left.load(std::memory_order_relaxed) >= 0 && calls_left.fetch_sub(1) == 0;
}
}  // namespace

void* operator new(std::size_t size) {
  ++allocations;
  if (is_to_fail()) throw std::bad_alloc();
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
// ASan's own nothrow form would not go through ours, and then not fit our delete.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  if (is_to_fail()) return nullptr;
  return std::malloc(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace mkvirtfs {
std::size_t allocations_of_this_thread() noexcept { return allocations; }

void fail_allocation_after(std::size_t calls) noexcept {
  calls_left = static_cast<std::int64_t>(calls);
}
bool has_allocation_failed() noexcept { return calls_left.exchange(-1) < 0; }
}  // namespace mkvirtfs
