// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/format.h>

#include <boost/filesystem/operations.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/control_server.h"
#include "cli/json_text.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

/// "inode table, group 3, inodes 1-64" -> "inode table": what a sum is made over.
std::string kind_of(const std::string& what) { return what.substr(0, what.find(',')); }

/// A line of the answer to `diff`: a range that was written, and what it belongs to.
struct Change {
  std::uint64_t offset = 0;
  std::uint64_t length_bytes = 0;
  bool is_zero = false;
  bool is_file = false;
  std::string what;

  static std::optional<Change> parse(const Json& line) {
    const bool is_file = line.has("file");
    const auto offset = line.number("offset");
    const auto length_bytes = line.number("length_bytes");
    const auto is_zero = line.flag("zero");
    auto what = line.text(is_file ? "file" : "what");
    if (!offset || !length_bytes || !is_zero || !what) return std::nullopt;
    return Change{*offset, *length_bytes, *is_zero, is_file, std::move(*what)};
  }
};

/// Bytes that were written: of a file, or of a kind of metadata.
class Sums {
 public:
  void add(const Change& change) {
    sums_[{!change.is_file, change.is_file ? change.what : kind_of(change.what)}] +=
        change.length_bytes;
  }
  /// A line for each.
  bool print_to(int fd, bool as_json) const {
    for (const auto& [what, bytes] : sums_) {
      const auto& [is_metadata, name] = what;
      const std::string line =
          as_json ? Json::object()
                        .set(is_metadata ? "what" : "file", name)
                        .set("changed_bytes", bytes)
                        .one_line()
                  : fmt::format("{:>14}  {}{}", bytes, is_metadata ? "" : "file ", printable(name));
      if (!print(fd, line + '\n')) return false;
    }
    return true;
  }

 private:
  std::map<std::pair<bool, std::string>, std::uint64_t> sums_;
};

/// Asks a running server by its control socket.
class Ctl final : public Command {
 public:
  explicit Ctl(OptionSet& options) : Command(options) {
    options.add_value("SOCKET", socket_, " ", "The socket of serve --ctl").required();
    options
        .add_value("WHAT", what_, " ",
                   "list: exports that were written\n"
                   "diff NAME: what was written, by files\n"
                   "save NAME -o FILE: the disk as it is now\n"
                   "snapshot NAME CHILD: a new export that begins so\n"
                   "discard NAME: begin anew\n"
                   "stats: counters, as JSON")
        .one_of({"list", "diff", "save", "snapshot", "discard", "stats"})
        .required();
    options.add_values("NAME", names_, "...", "The export, and the name of its CHILD")
        .expects(0, 2);
    options.add_value("-o,--output", output_, "FILE", "Where save writes the disk to");
    options.add_flag("--force", force_, "save replaces a file");
    options.add_flag("--all", all_, "discard all");
    options.add_flag("--files", files_, "diff: bytes for each file and kind of metadata");
    options.add_flag("--json", json_, "One JSON object a line");
  }
  Result<int> run(const Streams& streams) override;

 private:
  Result<Json> request() const;
  /// A line of the server's answer, for people or programs; nothing when it is no answer to
  /// `what_`.
  std::optional<std::string> shown(const std::string& line) const;

  std::string socket_;
  std::string what_;
  std::vector<std::string> names_;
  std::string output_;
  bool force_ = false;
  bool all_ = false;
  bool files_ = false;
  bool json_ = false;
};

Result<Json> Ctl::request() const {
  const std::size_t wanted = what_ == "snapshot"                   ? 2
                             : what_ == "list" || what_ == "stats" ? 0
                             : what_ == "discard" && all_          ? 0
                                                                   : 1;
  if (names_.size() != wanted) {
    return fail(Errc::usage, fmt::format("{} takes {}", what_,
                                         wanted == 0   ? "no name"
                                         : wanted == 1 ? "one name: NAME"
                                                       : "two names: NAME CHILD"));
  }
  if ((what_ == "save") == output_.empty()) {
    return fail(Errc::usage, what_ == "save" ? "save needs --output=FILE" : "--output is for save");
  }
  Json object = Json::object();
  if (all_) object.set("all", true);
  if (names_.size() > 1) object.set("child", names_[1]);
  object.set("command", what_);
  if (force_) object.set("force", true);
  if (!names_.empty()) object.set("name", names_[0]);
  if (what_ == "save") object.set("path", boost::filesystem::absolute(output_).string());
  return object;
}

std::optional<std::string> Ctl::shown(const std::string& line) const {
  if (json_ || what_ == "stats") return line + '\n';
  const std::optional<Json> answer = Json::parse_object(line);
  if (!answer) return std::nullopt;
  if (what_ == "list") {
    const auto written_bytes = answer->number("written_bytes");
    const auto name = answer->text("name");
    if (!written_bytes || !name) return std::nullopt;
    return fmt::format("{:>14}  {}\n", *written_bytes, printable(*name));
  }
  const std::optional<Change> change = Change::parse(*answer);
  if (!change) return std::nullopt;
  return fmt::format("{:>14} {:>10}{}  {}{}\n", change->offset, change->length_bytes,
                     change->is_zero ? " zero" : "     ", change->is_file ? "file " : "",
                     printable(change->what));
}

Result<int> Ctl::run(const Streams& streams) {
  const Result<Json> asked = request();
  if (!asked) return propagate(asked);
  const auto no_answer = [] {
    return fail(Errc::bad_peer, "the server answered something that is no answer");
  };
  const auto unwritable = [] { return fail(Errc::io, "standard output cannot be written"); };
  Sums sums;
  bool has_answer = false;
  const auto take = [&](const std::string& line) -> Result<void> {
    has_answer = true;
    if (what_ == "diff" && files_) {
      const std::optional<Json> answer = Json::parse_object(line);
      const std::optional<Change> change = answer ? Change::parse(*answer) : std::nullopt;
      if (!change) return no_answer();
      sums.add(*change);
      return {};
    }
    const std::optional<std::string> text = shown(line);
    if (!text) return no_answer();
    if (!print(streams.out, *text)) return unwritable();
    return {};
  };
  if (Result<void> done = ask_control_server(socket_, asked->one_line(), take); !done) {
    return propagate(done);
  }
  if (what_ == "diff" && !has_answer) {
    // On standard error, where it is no change.
    print(streams.err, fmt::format("mkvirtfs: {}: nothing was written\n", printable(names_[0])));
  }
  if (!sums.print_to(streams.out, json_)) return unwritable();
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_ctl(OptionSet& program) {
  return std::make_unique<Ctl>(
      program.add_subcommand("ctl", "Ask a running server: diff, save, snapshot"));
}

}  // namespace mkvirtfs::cli
