// SPDX-License-Identifier: BSD-3-Clause
// A whole connection over memory: the input is what the client sends, behind one byte that chooses
// how it arrives. However the bytes are cut, the server must take them, answer within bounds, and
// come to the same end.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "fuzz_require.h"
#include "nbd/server/list_hier.h"
#include "nbd/server/session.h"
#include "nbd/server/testing/memory_driver.h"
#include "nbd_fuzz_exports.h"

using namespace mkvirtfs;
using namespace mkvirtfs::nbd;

namespace {

struct Outcome {
  std::size_t unused = 0;
  bool finished = false;
  bool device_failed = false;
};

Outcome run(ExportTree& exports, const TransmissionTuning& tuning, std::span<const std::byte> input,
            TlsMode tls, std::size_t step) {
  static const Extensions extensions = [] {
    Extensions added;
    FUZZ_REQUIRE(add_list_hier(added));
    return added;
  }();
  Session session(exports, tuning, tls, extensions);
  nbd::testing::MemoryDriver driver(session, step);
  Outcome outcome;
  driver.exchange(input);
  outcome.finished = session.finished();
  outcome.device_failed =
      outcome.finished && session.end_reason().find("changed") != std::string_view::npos;
  // A full LIST is the largest single answer, or else a batch with a status in it.
  FUZZ_REQUIRE(driver.largest_batch <= (2U << 20));
  // What an ended session left lying is its own business; a live one has taken all whole messages.
  outcome.unused = outcome.finished ? 0 : driver.unused_input();
  FUZZ_REQUIRE(outcome.finished || outcome.unused < session.wanted_bytes());
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::shared_ptr<ExportTree> exports = nbd::testing::fuzz_exports();
  if (size == 0) return 0;
  constexpr std::array<std::size_t, 4> kSteps = {1, 7, 28, 4096};
  TransmissionTuning tuning;
  tuning.batch_bytes = 128U << 10;
  tuning.file_runs = (data[0] & 4) != 0;
  // Nobody puts TLS between here: a session that was asked for it may only wait, or end.
  const TlsMode tls = (data[0] & 8) == 0    ? TlsMode::off
                      : (data[0] & 16) == 0 ? TlsMode::on
                                            : TlsMode::require;
  const auto input = std::as_bytes(std::span(data + 1, size - 1));
  const Outcome at_once = run(*exports, tuning, input, tls, SIZE_MAX);
  // Cutting costs time: not of long inputs into single bytes.
  const std::size_t step = std::max<std::size_t>(kSteps[data[0] & 3], size / 2000);
  // How answers are cut into chunks depends on what else is in the batch, so they are not compared:
  // nbd_requests does that.
  const Outcome in_pieces = run(*exports, tuning, input, tls, step);
  // A simple reply cannot take back an OK that was sent; when it is sent depends on the batches.
  if (at_once.device_failed || in_pieces.device_failed) return 0;
  FUZZ_REQUIRE(at_once.finished == in_pieces.finished);
  FUZZ_REQUIRE(at_once.unused == in_pieces.unused);
  return 0;
}
