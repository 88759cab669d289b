// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/filesystem/operations.hpp>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/control_server.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

using nlohmann::json;

/// "inode table, group 3, inodes 1-64" -> "inode table": what a sum is made over.
std::string kind_of(const std::string& what) { return what.substr(0, what.find(',')); }

/// Asks a running server by its control socket.
class Ctl final : public Command {
 public:
  explicit Ctl(CLI::App& ctl_app) : Command(ctl_app) {
    ctl_app.add_option("SOCKET", socket_, "The socket of serve --ctl")
        ->option_text(" ")
        ->required();
    ctl_app
        .add_option("WHAT", what_,
                    "list: exports that were written\n"
                    "diff NAME: what was written, and what it belongs to\n"
                    "save NAME -o FILE: the disk as it is now\n"
                    "snapshot NAME CHILD: a new export that begins so\n"
                    "discard NAME: begin anew\n"
                    "stats: counters, as JSON")
        ->check(CLI::IsMember({"list", "diff", "save", "snapshot", "discard", "stats"}))
        ->option_text(" ")
        ->required();
    ctl_app.add_option("NAME", names_, "The export, and the name of its CHILD")
        ->option_text("...")
        ->expected(0, 2);
    add_value(ctl_app, "-o,--output", output_, "FILE", "Where save writes the disk to");
    ctl_app.add_flag("--force", force_, "save replaces a file");
    ctl_app.add_flag("--all", all_, "discard all");
    ctl_app.add_flag("--files", files_, "diff: bytes for each file and kind of metadata");
    ctl_app.add_flag("--json", json_, "One JSON object a line");
  }
  Result<int> run(const Streams& streams) override;

 private:
  Result<json> request() const;
  std::string told(const json& answer) const;

  std::string socket_;
  std::string what_;
  std::vector<std::string> names_;
  std::string output_;
  bool force_ = false;
  bool all_ = false;
  bool files_ = false;
  bool json_ = false;
};

Result<json> Ctl::request() const {
  const std::size_t wanted = what_ == "snapshot"                   ? 2
                             : what_ == "list" || what_ == "stats" ? 0
                             : what_ == "discard" && all_          ? 0
                                                                   : 1;
  if (names_.size() != wanted) {
    return fail(Errc::usage, fmt::format("{} takes {} names", what_, wanted));
  }
  if ((what_ == "save") == output_.empty()) {
    return fail(Errc::usage, "--output=FILE is for save, which needs it");
  }
  json object = {{"command", what_}};
  if (!names_.empty()) object["name"] = names_[0];
  if (names_.size() > 1) object["child"] = names_[1];
  if (what_ == "save") object["path"] = boost::filesystem::absolute(output_).string();
  if (force_) object["force"] = true;
  if (all_) object["all"] = true;
  return object;
}

std::string Ctl::told(const json& answer) const {
  if (what_ == "list") {
    return fmt::format("{:>14}  {}\n", answer.at("written_bytes").get<std::uint64_t>(),
                       printable(answer.at("name").get<std::string>()));
  }
  const bool is_file = answer.contains("file");
  const auto what = answer.at(is_file ? "file" : "what").get<std::string>();
  return fmt::format("{:>14} {:>10}{}  {}{}\n", answer.at("offset").get<std::uint64_t>(),
                     answer.at("length_bytes").get<std::uint64_t>(),
                     answer.at("zero").get<bool>() ? " zero" : "     ", is_file ? "file " : "",
                     printable(what));
}

Result<int> Ctl::run(const Streams& streams) {
  const Result<json> asked = request();
  if (!asked) return std::unexpected(asked.error());
  std::map<std::pair<bool, std::string>, std::uint64_t> sums;
  bool has_answer = false;
  const auto show = [&](const std::string& line) -> Result<void> {
    const json answer = json::parse(line, nullptr, false);
    std::string text;
    has_answer = true;
    try {
      if (what_ == "diff" && files_) {
        const bool is_file = answer.contains("file");
        const auto what = answer.at(is_file ? "file" : "what").get<std::string>();
        sums[{!is_file, is_file ? what : kind_of(what)}] +=
            answer.at("length_bytes").get<std::uint64_t>();
      } else {
        text = json_ || what_ == "stats" ? line + '\n' : told(answer);
      }
    } catch (const json::exception&) {
      return fail(Errc::bad_peer, "the server answered something that is no answer");
    }
    if (!print(streams.out, text)) return fail(Errc::io, "standard output can not be written");
    return {};
  };
  const std::string request_line = asked->dump(-1, ' ', false, json::error_handler_t::replace);
  if (Result<void> done = ask_control_server(socket_, request_line, show); !done) {
    return std::unexpected(std::move(done.error()));
  }
  if (what_ == "diff" && !has_answer) {
    // On standard error, where it is no change.
    print(streams.err, fmt::format("mkvirtfs: {}: nothing was written\n", printable(names_[0])));
  }
  for (const auto& [what, bytes] : sums) {
    const auto& [is_metadata, name] = what;
    const nlohmann::ordered_json object = {{is_metadata ? "what" : "file", name},
                                           {"changed_bytes", bytes}};
    const std::string text =
        json_ ? object.dump(-1, ' ', false, json::error_handler_t::replace) + '\n'
              : fmt::format("{:>14}  {}{}\n", bytes, is_metadata ? "" : "file ", printable(name));
    if (!print(streams.out, text)) return fail(Errc::io, "standard output can not be written");
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_ctl(CLI::App& program) {
  return std::make_unique<Ctl>(
      *program.add_subcommand("ctl", "Ask a running server: diff, save, snapshot"));
}

}  // namespace mkvirtfs::cli
