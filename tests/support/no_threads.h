// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <pthread.h>

#include <catch2/catch.hpp>
#include <cstddef>

namespace mkvirtfs::testing {

/// While it lives the host starts no thread for this process: their stacks would be larger than an
/// address space. It fails with EAGAIN, as at the limit of RLIMIT_NPROC, which root does not have.
class NoThreads {
 public:
  NoThreads() {
    REQUIRE(::pthread_getattr_default_np(&before_) == 0);
    pthread_attr_t huge;
    REQUIRE(::pthread_attr_init(&huge) == 0);
    REQUIRE(::pthread_attr_setstacksize(&huge, std::size_t{1} << 47) == 0);
    REQUIRE(::pthread_setattr_default_np(&huge) == 0);
    ::pthread_attr_destroy(&huge);
  }
  ~NoThreads() {
    ::pthread_setattr_default_np(&before_);
    ::pthread_attr_destroy(&before_);
  }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  pthread_attr_t before_;
};

}  // namespace mkvirtfs::testing
