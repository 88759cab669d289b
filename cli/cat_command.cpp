// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "cli/error_text.h"
#include "cli/inside.h"

namespace mkvirtfs::cli {
namespace {

class Cat final : public Command {
 public:
  Cat(OptionSet& options, const FormatRegistry& formats) : Command(options), inside_(formats) {
    inside_.add_to(options);
  }

  Result<int> run(const Streams& streams) override {
    WordedLog log(streams.err, LogLevel::warning);
    const Result<Inside> inside = inside_.open(log, true);
    if (!inside) return propagate(inside);
    const Node& node = inside->read.tree->node(inside->node);
    if (!node.is_regular()) {
      return fail(Errc::unreadable,
                  fmt::format("{}: /{} is a {}", inside->source,
                              inside->read.tree->path(inside->node), type_text(node.mode)));
    }
    constexpr std::uint64_t kPieceBytes = 256U << 10;  // what lies in the processor's cache
    std::vector<std::byte> piece(std::min(node.size_bytes, kPieceBytes));
    for (std::uint64_t at = 0; at < node.size_bytes; at += piece.size()) {
      piece.resize(std::min(node.size_bytes - at, kPieceBytes));
      const Result<void> read = inside->read.contents->read(content_no(inside->node), at, piece);
      if (!read) return std::unexpected(with_context(inside->source, read.error()));
      if (!print(streams.out, {reinterpret_cast<const char*>(piece.data()), piece.size()})) {
        return fail(Errc::io, "the file cannot be written to standard output");
      }
    }
    return 0;
  }

 private:
  InsideOptions inside_;
};

}  // namespace

std::unique_ptr<Command> make_cat(OptionSet& program, const FormatRegistry& formats) {
  return std::make_unique<Cat>(program.add_subcommand("cat", "Print a file of a source"), formats);
}

}  // namespace mkvirtfs::cli
