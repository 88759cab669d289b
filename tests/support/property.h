// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rapidcheck.h>

#include <catch2/catch.hpp>

#include <cstdlib>
#include <sstream>
#include <string>
#include <utility>

namespace mkvirtfs::testing {

/// Fails the test unless `property`, as for rc::check(), holds for `cases` random inputs of growing
/// size. The message has the smallest input that was found and the seed; RC_PARAMS in the
/// environment ("seed=... max_success=...") overrides both.
template <class Property>
void check_property(int cases, Property&& property) {
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  if (std::getenv("RC_PARAMS") == nullptr) params.maxSuccess = cases;
  const auto result = rc::detail::checkTestable(std::forward<Property>(property),
                                                rc::detail::TestMetadata{}, params);
  if (result.template is<rc::detail::SuccessResult>()) {
    SUCCEED();
    return;
  }
  std::ostringstream message;
  rc::detail::printResultMessage(result, message);
  FAIL(message.str() << "\nagain with RC_PARAMS=seed=" << params.seed);
}

}  // namespace mkvirtfs::testing
