// SPDX-License-Identifier: BSD-3-Clause
// The decoders of the NBD codec. The first byte chooses one, the rest is its message. What is
// decoded must obey the protocol's limits, lie inside the input and, where we have the encoder too,
// come back as the same bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "exports/export_tree.h"
#include "fuzz_require.h"
#include "nbd/wire/codec.h"
#include "support/text.h"

using namespace mkvirtfs;
using namespace mkvirtfs::nbd;

namespace {

void check_string(std::string_view text, std::span<const std::byte> input) {
  FUZZ_REQUIRE(text.size() <= kLongestString);
  FUZZ_REQUIRE(is_valid_utf8(text));
  FUZZ_REQUIRE(text.find('\0') == std::string_view::npos);
  const auto* begin = reinterpret_cast<const char*>(input.data());
  FUZZ_REQUIRE(text.empty() ||
               (text.data() >= begin && text.data() + text.size() <= begin + input.size()));
}

void decode(std::uint8_t which, std::span<const std::byte> input) {
  switch (which % 5) {
    case 0:
      if (input.size() < kOptionHeaderBytes) return;
      if (const auto header = decode_option_header(input.first<kOptionHeaderBytes>())) {
        FUZZ_REQUIRE(
            std::ranges::equal(encode_option_header(*header), input.first(kOptionHeaderBytes)));
      }
      break;
    case 1:
      if (input.size() < kRequestBytes) return;
      if (const auto request = decode_request(input.first<kRequestBytes>())) {
        FUZZ_REQUIRE(std::ranges::equal(encode_request(*request), input.first(kRequestBytes)));
      }
      break;
    case 2:
      if (const auto request = InfoRequest::decode(input)) {
        check_string(request->name(), input);
        for (const Info item : {Info::export_, Info::name, Info::description, Info::block_size}) {
          static_cast<void>(request->wants(item));
        }
        FUZZ_REQUIRE(input.size() >= 6 + request->name().size());
        FUZZ_REQUIRE((input.size() - 6 - request->name().size()) % 2 == 0);
      }
      break;
    case 3:
      if (const auto request = MetaRequest::decode(input)) {
        check_string(request->name(), input);
        std::uint32_t queries = 0;
        request->for_each_query([&](std::string_view query) {
          check_string(query, input);
          ++queries;
          return true;
        });
        FUZZ_REQUIRE(queries == request->query_count());
        FUZZ_REQUIRE(input.size() >=
                     8 + request->name().size() + std::size_t{4} * request->query_count());
      }
      break;
    default: {
      const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
      const std::size_t most = 4096;
      const std::string shown = wire_text(text, most);
      FUZZ_REQUIRE(shown.size() <= most);
      FUZZ_REQUIRE(is_valid_utf8(shown));
      FUZZ_REQUIRE(std::ranges::none_of(
          shown, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }));
      if (is_valid_export_name(text)) check_string(text, input);
      break;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  decode(data[0], std::as_bytes(std::span(data + 1, size - 1)));
  return 0;
}
