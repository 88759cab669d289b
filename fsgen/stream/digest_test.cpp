// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/digest.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fsgen/stream/testing/stream_data.h"
#include "fsgen/stream/verified_source.h"

namespace mkvirtfs {

using testing::MemorySource;

TEST_CASE("digests are checked to the letter") {
  const std::string empty =
      "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  CHECK(to_string(digest_of("")) == empty);
  CHECK(parse_digest(empty).value() == digest_of(""));
  const std::string longer =
      "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
      "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
  const Digest sha512 = digest_of("", DigestAlgorithm::sha512);
  CHECK(to_string(sha512) == longer);
  CHECK(parse_digest(longer).value() == sha512);
  CHECK(sha512 != digest_of(""));
  const std::vector<std::string> all_wrong = {
      "",
      "sha256:",
      empty + "0",
      empty.substr(0, 70),
      "sha256:E3B0C44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "sha256:../../../../etc/passwd" + std::string(64, '0'),
      "sha512:" + std::string(64, '0'),
      "sha256:" + std::string(128, '0'),
      "sha384:" + std::string(96, '0')};
  for (const std::string& wrong : all_wrong) {
    CAPTURE(wrong);
    CHECK_FALSE(parse_digest(wrong));
  }
}

TEST_CASE("bytes are hashed as they go by, in any order") {
  std::string bytes(700'000, 'x');
  bytes[123'456] = 'y';
  const auto source = [&] { return std::make_shared<MemorySource>(bytes, "layer"); };
  const std::vector<std::pair<std::size_t, std::size_t>> reads = {
      {0, 1000}, {500, 1000}, {100'000, 50'000}, {1500, 300'000}, {0, 10}, {699'999, 1}};
  for (const auto& [right, algorithm] :
       {std::pair(true, DigestAlgorithm::sha256), std::pair(false, DigestAlgorithm::sha256),
        std::pair(true, DigestAlgorithm::sha512), std::pair(false, DigestAlgorithm::sha512)}) {
    const auto verified = make_verified(source(), digest_of(right ? bytes : "other", algorithm));
    for (const auto& [offset, length] : reads) {
      std::string out(length, '?');
      REQUIRE(verified->read(offset, std::as_writable_bytes(std::span(out))));
      CHECK(out == bytes.substr(offset, length));
    }
    const Result<void> result = verified->verify();
    CHECK(result.has_value() == right);
    CHECK(verified->verify().has_value() == right);
    if (!right) {
      CHECK(result.error().what == fmt::format("layer is damaged: it has the digest {}, not {}",
                                               to_string(digest_of(bytes, algorithm)),
                                               to_string(digest_of("other", algorithm))));
    }
    std::string out(5, '?');
    REQUIRE(verified->read(123'454, std::as_writable_bytes(std::span(out))));
    CHECK(out == "xxyxx");
  }
  CHECK(make_verified(std::make_shared<MemorySource>("", "empty"), digest_of(""))->verify());
}

}  // namespace mkvirtfs
