// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "cli/command.h"
#include "cli/error_text.h"
#include "cli/inside.h"
#include "cli/progress.h"
#include "compose/extract.h"
#include "fsgen/tree/source_differences.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

class Extract final : public Command {
 public:
  Extract(OptionSet& options, const FormatRegistry& formats) : Command(options), inside_(formats) {
    inside_.add_to(options);
    options.add_value("DIR", directory_, " ", "Where to; it is made when it is not there")
        .required();
  }

  Result<int> run(const Streams& streams) override {
    if (directory_.empty()) return fail(Errc::usage, "DIR is empty");
    WordedLog log(streams.err, LogLevel::warning);
    const Result<Inside> inside = inside_.open(log, false);
    if (!inside) return propagate(inside);
    ExtractOptions options;
    options.log = &log;
    std::optional<ProgressBar> bar;
    if (::isatty(streams.err) == 1) {
      options.progress = [&bar = bar.emplace(streams.err)](const ExtractProgress& progress) {
        bar.update({progress.done_bytes, progress.data_bytes, progress.data_bytes});
      };
    }
    const Result<ExtractSummary> done =
        extract(*inside->read.tree, *inside->read.contents, inside->node, directory_, options);
    bar.reset();
    if (!done) return propagate(done);
    if (done->other_owner_count != 0) {
      log.write(LogLevel::warning, counted(done->other_owner_count, "entry has not the owner",
                                           "entries have not the owner") +
                                       " that the source says: only root can give files away");
    }
    print(streams.out, fmt::format("{}: {}, {}\n", printable(directory_),
                                   counted(done->entry_count, "entry", "entries"),
                                   human_size(done->data_bytes)));
    return done->failure_count != 0 || inside->read.is_damaged ? 1 : 0;
  }

 private:
  InsideOptions inside_;
  std::string directory_;
};

}  // namespace

std::unique_ptr<Command> make_extract(OptionSet& program, const FormatRegistry& formats) {
  return std::make_unique<Extract>(
      program.add_subcommand("extract", "Write what is in a source to a directory"), formats);
}

}  // namespace mkvirtfs::cli
