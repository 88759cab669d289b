// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <string>
#include <utility>

#include "cli/command.h"
#include "cli/json_text.h"
#include "nbd/client/dial.h"
#include "nbd/client/export_lister.h"
#include "nbd/client/server_address.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::chrono::seconds kPatience{30};

/// Output that is written when it is worth it. Somebody who has read enough ends the listing.
class Lines {
 public:
  explicit Lines(int fd) : fd_(fd) {}
  bool add(std::string_view text) {
    text_ += text;
    return text_.size() < kEnough || flush();
  }
  bool flush() {
    const std::string text = std::exchange(text_, {});
    return print(fd_, text);
  }

 private:
  static constexpr std::size_t kEnough = 32U << 10;
  const int fd_;
  std::string text_;
};

std::string json_of(const ExportEntry& entry) {
  return Json::object()
      .set("name", entry.name)
      .set("export", entry.is_export)
      .set("directory", entry.is_directory)
      .set("description", entry.description)
      .one_line();
}

/// "tools/", "tools/b  ext2 image of b"; the default export without a name is "".
std::string line_of(const ExportEntry& entry) {
  const std::string name = entry.name.empty() ? R"("")" : printable(entry.name);
  std::string line;
  if (entry.is_export) {
    line = name;
    if (!entry.description.empty()) line += "  " + printable(entry.description);
    line += '\n';
  }
  if (entry.is_directory) line += name + "/\n";
  return line;
}

class List final : public Command {
 public:
  explicit List(OptionSet& options) : Command(options) {
    options.add_value("URI", uri_, " ", "The server, and what to list: nbd://HOST/PATH").required();
    options.add_flag("-R,--recursive", recursive_, "List all levels below, too");
    options.add_flag("--json", json_, "An array of JSON objects, one a line");
  }
  Result<int> run(const Streams& streams) override;

 private:
  std::string uri_;
  bool recursive_ = false;
  bool json_ = false;
};

Result<int> List::run(const Streams& streams) {
  const Result<nbd::ServerAddress> server = nbd::parse_uri(uri_);
  if (!server) return propagate(server);
  std::shared_ptr<const net::TlsCredentials> credentials;
  if (server->tls) {
    auto loaded = net::TlsCredentials::load_client(*server->tls);
    if (!loaded) return propagate(loaded);
    credentials = *std::move(loaded);
  }
  nbd::ExportLister lister([&] { return nbd::connect_to(*server, kPatience); }, kPatience,
                           credentials);
  Lines lines(streams.out);
  const auto unwritable = [] { return fail(Errc::io, "the list cannot be written"); };
  bool first = true;
  const auto show = [&](const ExportEntry& entry) -> Result<void> {
    const bool written =
        json_ ? lines.add((first ? "[\n" : ",\n") + json_of(entry)) : lines.add(line_of(entry));
    first = false;
    if (!written) return unwritable();
    return {};
  };
  const Result<void> listed = lister.list(
      server->name,
      recursive_ ? nbd::ExportLister::Depth::subtree : nbd::ExportLister::Depth::directory, show);
  if (json_ && listed) lines.add(first ? "[]\n" : "\n]\n");
  if (!lines.flush()) return unwritable();
  if (!listed) return propagate(listed);
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_list(OptionSet& program) {
  return std::make_unique<List>(
      program.add_subcommand("list", "List the exports of an NBD server"));
}

}  // namespace mkvirtfs::cli
