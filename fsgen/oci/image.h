// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/host_files.h"
#include "fsgen/oci/document.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/digest.h"
#include "support/error.h"
#include "support/log.h"

// Which layers a container image has, and where their bytes are. docs/oci.md tells what is read.

namespace mkvirtfs::oci {

/// How a source names an image.
struct ImageName {
  enum class Form : std::uint8_t { oci, docker };
  Form form = Form::oci;
  std::string path;  ///< a layout directory, or a tar of one; of `docker save` a tar; "-": a tar on
                     ///< standard input
  std::string reference;  ///< "app:latest", a digest, "@0" (the first one); empty: the only one
};
/// "oci:PATH[:REF]", "oci-archive:PATH[:REF]", "docker-archive:PATH[:REF]"; nullopt for anything
/// else. What stands before the second colon is PATH, unless all of it is a file that is there.
std::optional<ImageName> parse_image_name(std::string_view source);

/// The files of an image by their paths: a layout directory, a tar, a test's memory. Any thread.
class ImageFiles {
 public:
  virtual ~ImageFiles() = default;

  /// nullptr when there is no such file. Nothing outside is ever opened, whatever the path is and
  /// whatever symlinks there are.
  virtual Result<std::shared_ptr<ByteSource>> open(std::string_view path) const = 0;
  /// For messages: "app.tar".
  virtual std::string name() const = 0;
};

/// The files of a host directory; symlinks are not followed. `log` must outlive what was opened.
Result<std::unique_ptr<ImageFiles>> open_directory(const std::string& path, ChangeCheck check,
                                                   LogSink& log);

/// Where the files of a tar lie in it, made by who read its members. Links are followed inside the
/// tar alone.
class TarIndex {
 public:
  void add_file(std::string_view path, Range bytes);
  void add_link(std::string_view path, std::string_view target, bool is_symlink);

  /// nullopt when there is no such file, or links lead nowhere or in a circle.
  std::optional<Range> find(std::string_view path) const;

 private:
  struct Entry {
    std::optional<Range> bytes;
    std::string target;  ///< of a link, from the root
  };
  std::map<std::string, Entry, std::less<>> entries_;
};
std::unique_ptr<ImageFiles> make_tar_files(std::shared_ptr<ByteSource> tar, TarIndex index);

/// One layer's bytes as they lie in the image.
struct LayerBlob {
  std::shared_ptr<ByteSource> bytes;
  /// Of these bytes.
  std::optional<Digest> digest;
  /// Of what they unpack to.
  std::optional<Digest> diff_id;
};

struct Image {
  std::string name;  ///< "app.tar:latest"
  Platform platform;
  std::string id;                 ///< the digest of the configuration
  std::vector<LayerBlob> layers;  ///< the lowest first
};

/// The layers of the image that `name` names. Of an index, the first image for `platform` is taken;
/// without a platform one for this host, or the only one that there is, for whatever it is made.
///
/// Manifests and configurations are read, and their digests verified. Layers are only opened: their
/// sizes are compared.
/// Errors: Errc::usage when the name or the platform leaves no choice or several (the text lists
/// them); Errc::unreadable for what is missing, damaged or contradicts itself; Errc::unsupported
/// for foreign layers and media types that are not known.
Result<Image> find_image(const ImageFiles& files, const ImageName& name,
                         const std::optional<Platform>& platform);

}  // namespace mkvirtfs::oci
