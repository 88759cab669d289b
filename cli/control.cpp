// SPDX-License-Identifier: BSD-3-Clause
#include "cli/control.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "block/dump.h"
#include "cli/json_text.h"
#include "cli/overlay_changes.h"

namespace mkvirtfs::cli {
namespace {

std::string text_of(const Json& request, const char* key) {
  return request.text(key).value_or(std::string());
}

bool flag_of(const Json& request, const char* key) { return request.flag(key).value_or(false); }

std::unexpected<Error> client_gone() { return fail(Errc::bad_peer, "the client has gone"); }

class Control {
 public:
  Control(std::shared_ptr<OverlayExports> writable, std::function<std::string()> statistics)
      : writable_(std::move(writable)), statistics_(std::move(statistics)) {}

  Result<void> answer(const std::string& text, const ControlServer::Tell& tell,
                      const std::atomic<bool>& ending) const {
    const std::optional<Json> parsed = Json::parse_object(text);
    if (!parsed) return fail(Errc::usage, "the request is not a JSON object");
    const Json& request = *parsed;
    const std::string command = text_of(request, "command");
    if (command == "stats") {
      if (!tell(statistics_())) return client_gone();
      return {};
    }
    if (!writable_)
      return fail(Errc::usage, "nothing can be written to this server (--rw, --clone)");
    const std::string name = text_of(request, "name");
    if (command == "list") return list(tell);
    if (command == "diff") return diff(name, tell);
    if (command == "save") {
      return save(name, text_of(request, "path"), flag_of(request, "force"), ending);
    }
    if (command == "snapshot") return writable_->snapshot(name, text_of(request, "child"));
    if (command == "discard") {
      return flag_of(request, "all") ? discard_all() : writable_->discard(name);
    }
    return fail(Errc::usage, fmt::format("there is no command '{}'", command));
  }

 private:
  Result<void> list(const ControlServer::Tell& tell) const {
    for (const OverlayExports::Named& named : writable_->overlays()) {
      const Json object =
          Json::object().set("name", named.name).set("written_bytes", named.overlay->used_bytes());
      if (!tell(object.one_line())) return client_gone();
    }
    return {};
  }

  Result<void> diff(const std::string& name, const ControlServer::Tell& tell) const {
    const Result<std::shared_ptr<Overlay>> overlay = writable_->overlay(name);
    // An export that nobody wrote to yet has no changes; that is no error.
    if (!overlay && writable_->is_unwritten(name)) return {};
    if (!overlay) return propagate(overlay);
    bool is_client_there = true;
    for_each_change(**overlay, [&](const OverlayChange& change) {
      const Json object = Json::object()
                              .set("offset", change.offset)
                              .set("length_bytes", change.length_bytes)
                              .set("zero", change.is_zero)
                              .set(change.is_file ? "file" : "what", change.what);
      return is_client_there = tell(object.one_line());
    });
    if (!is_client_there) return client_gone();
    return {};
  }

  Result<void> save(const std::string& name, const std::string& path, bool overwrite,
                    const std::atomic<bool>& ending) const {
    const Result<std::shared_ptr<Overlay>> overlay = writable_->overlay(name);
    if (!overlay) return propagate(overlay);
    if (path.empty()) return fail(Errc::usage, "save needs a file");
    DumpOptions options;
    options.output = DumpFile{path, overwrite};
    options.cancel = &ending;
    const Result<DumpSummary> dumped = dump(**overlay, options);
    if (!dumped) return propagate(dumped);
    return {};
  }

  Result<void> discard_all() const {
    for (const std::string& name : writable_->written_names()) {
      if (Result<void> discarded = writable_->discard(name); !discarded) return discarded;
    }
    return {};
  }

  const std::shared_ptr<OverlayExports> writable_;
  const std::function<std::string()> statistics_;
};

}  // namespace

ControlServer::Handler make_control(std::shared_ptr<OverlayExports> writable,
                                    std::function<std::string()> statistics) {
  return [control = Control(std::move(writable), std::move(statistics))](
             const std::string& request, const ControlServer::Tell& tell,
             const std::atomic<bool>& ending) { return control.answer(request, tell, ending); };
}

}  // namespace mkvirtfs::cli
