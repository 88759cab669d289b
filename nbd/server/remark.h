// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::nbd {

/// Something about a client that the log should have.
struct Remark {
  LogLevel level = LogLevel::info;
  std::string text;
  std::vector<Setting> hints = {};
};

/// The remarks of one session. It has no log of its own: its driver takes them. A client
/// cannot make more than kMost of them. Belongs to one thread.
class Remarks {
 public:
  static constexpr std::size_t kMost = 16;

  void add(LogLevel level, std::string text, std::vector<Setting> hints = {}) {
    if (made_ == kMost) return;
    ++made_;
    waiting_.push_back({level, std::move(text), std::move(hints)});
  }
  bool empty() const noexcept { return waiting_.empty(); }
  std::vector<Remark> take() noexcept { return std::exchange(waiting_, {}); }

 private:
  std::vector<Remark> waiting_;
  std::size_t made_ = 0;
};

/// What an exception that came from a device becomes: an error of the request alone.
inline Error error_of(const std::exception& exception) {
  if (dynamic_cast<const std::bad_alloc*>(&exception) != nullptr) {
    return {Errc::io, 0, "out of memory"};
  }
  return {Errc::io, 0, exception.what()};
}

/// Calls what a device, a store or a context has, and makes an error of an exception, with a remark
/// that says so. `call` returns a Result; `what` says what it does: "read".
template <class Call>
auto guarded(Remarks& remarks, std::string_view what, Call&& call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::exception& exception) {
    Error error = error_of(exception);
    remarks.add(LogLevel::error,
                std::string(what) + " failed by an exception, and was answered EIO: " + error.what);
    return std::unexpected(std::move(error));
  }
}

}  // namespace mkvirtfs::nbd
