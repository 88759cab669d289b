// SPDX-License-Identifier: BSD-3-Clause
#include "cli/option_manual.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "compose/source_options.h"

namespace mkvirtfs::cli {
namespace {

/// Plain text as roff has it: no character is taken for a request, an escape or a hyphen.
std::string roff_text(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '\\':
        escaped += "\\(rs";
        break;
      case '-':
        escaped += "\\-";
        break;
      case '"':
        escaped += "\\(dq";
        break;
      case '\'':
        escaped += "\\(aq";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

/// Breaks lines at blanks, as man pages have it; a line never begins with what roff takes for a
/// request.
std::string wrapped(std::string_view text) {
  constexpr std::size_t kColumns = 100;
  std::string lines;
  std::size_t line_start = 0;
  std::size_t last_blank = std::string::npos;
  for (const char c : text) {
    if (c == ' ') last_blank = lines.size();
    if (c == '\n') {
      line_start = lines.size() + 1;
      last_blank = std::string::npos;
    }
    lines += c;
    if (lines.size() - line_start <= kColumns || last_blank == std::string::npos) continue;
    const char next = last_blank + 1 < lines.size() ? lines[last_blank + 1] : ' ';
    if (next == '.' || next == ' ') continue;
    lines[last_blank] = '\n';
    line_start = last_blank + 1;
    last_blank = std::string::npos;
  }
  return lines;
}

/// Text with `bold` and _italic_ words, one sentence a line as man pages have it; a line end begins
/// a paragraph.
std::string roff_sentences(std::string_view text) {
  std::string page;
  bool bold = false;
  bool italic = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '`') {
      bold = !bold;
      page += bold ? "\\fB" : "\\fP";
    } else if (c == '_' && !bold) {
      italic = !italic;
      page += italic ? "\\fI" : "\\fP";
    } else if (c == ' ' && !bold && at > 0 && text[at - 1] == '.') {
      page += '\n';
    } else if (c == '\n') {
      page += "\n.IP\n";
    } else {
      page += roff_text(text.substr(at, 1));
    }
  }
  return wrapped(page) + "\n";
}

std::string heading(const OptionRow& row) {
  const std::string name = roff_text(fmt::format("--{}", row.name));
  if (row.kind == OptionKind::flag) return fmt::format(".TP\n.B {}\n", name);
  return fmt::format(".TP\n.BI {} \" {}\"\n", name, roff_text(row.value_name));
}

/// What disks and each of its formats say of an option; what another one said first, once.
std::string sentences(const FormatRegistry& formats, const FormatRegistry::Option& option) {
  std::vector<std::string_view> said;
  std::string page;
  if (formats.is_of_disk(option.row.name)) page = roff_sentences(option.row.manual);
  for (const Format* format : option.formats) {
    const auto own = std::ranges::find(format->options, option.row.name, &OptionRow::name);
    const auto is_said = [&](std::string_view text) { return text.starts_with(own->manual); };
    if (std::ranges::any_of(said, is_said)) continue;
    said.push_back(own->manual);
    page += roff_sentences(own->manual);
  }
  return page;
}

std::string lacks(const Format& format) {
  const FormatHolds& holds = format.holds;
  std::vector<std::string_view> missing;
  for (const auto& [held, what] : {std::pair<bool, std::string_view>{holds.owners, "owners, modes"},
                                   {holds.symlinks, "symbolic links"},
                                   {holds.hard_links, "hard links"},
                                   {holds.devices, "devices, FIFOs, sockets"},
                                   {holds.xattrs, "extended attributes"}}) {
    if (!held) missing.push_back(what);
  }
  if (missing.empty()) return {};
  std::string text = "It does not hold: ";
  for (const std::string_view what : missing) text += fmt::format("{}, ", what);
  text.resize(text.size() - 2);
  return roff_sentences(text + ".");
}

}  // namespace

std::string source_options_manual() {
  std::string source =
      ".SH SOURCE OPTIONS\n"
      "For all subcommands that have a source: what is read, and whose it will be.\n"
      "Several sources become one image, as if they were copied to one directory one after the "
      "other:\n"
      "directories are merged, anything else of a later one replaces what was there.\n"
      ".B docs/layers.md\n"
      "has the rules.\n";
  std::string archive =
      ".SH ARCHIVE OPTIONS\n"
      "For the same subcommands: how a source that is an archive is read, and what it may cost.\n";
  for (const SourceOption& option : source_options()) {
    std::string& page = option.group == SourceOptionGroup::archive ? archive : source;
    page += heading(option.row) + roff_sentences(option.row.manual);
  }
  return source + archive;
}

std::string image_options_manual(const FormatRegistry& formats) {
  std::string page =
      ".SH IMAGE OPTIONS\n"
      "For the same subcommands: what is made of it.\n"
      ".TP\n.BI \\-\\-fs \" FORMAT\"\n";
  page += roff_sentences(fmt::format("The file system, `{}` by default.", formats.default_name()));
  for (const Format* format : formats.formats()) {
    page += roff_sentences(format->manual) + lacks(*format);
  }
  const Format* of = nullptr;
  bool of_disk = false;
  for (const FormatRegistry::Option& option : formats.options()) {
    if (formats.is_of_disk(option.row.name)) {
      if (!std::exchange(of_disk, true))
        page += ".SH DISK OPTIONS\nFor the same subcommands: the disk around images.\n";
      page += heading(option.row) + sentences(formats, option);
      continue;
    }
    if (option.formats.size() == 1 && option.formats.front() != of) {
      of = option.formats.front();
      page += ".PP\n" + roff_sentences(fmt::format("Of {} only:", of->family));
    }
    page += heading(option.row) + sentences(formats, option);
  }
  return page;
}

}  // namespace mkvirtfs::cli
