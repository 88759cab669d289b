// SPDX-License-Identifier: BSD-3-Clause
#include "compose/formats.h"

#include "compose/disk_options.h"
#include "fsgen/erofs/format.h"
#include "fsgen/ext2/format.h"
#include "fsgen/fat32/format.h"
#include "fsgen/iso9660/format.h"

namespace mkvirtfs {

const FormatRegistry& all_formats() {
  static const Format* const formats[] = {
      &ext2::format(),
      &fat32::format(),
      &iso9660::format(),
      &erofs::format(),
  };
  static const FormatRegistry registry(formats, disk_options());
  return registry;
}

}  // namespace mkvirtfs
