// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mkvirtfs::guest {

/// What the host wrote into the initrd (vm/initrd.cpp): records "key=value", each ended by NUL.
struct Settings {
  std::vector<std::string> modules;  ///< files, in the order of loading
  std::string root_device;
  std::string root_type;
  bool has_overlay = false;            ///< a tmpfs lies over the root
  bool is_read_only = false;           ///< of the device
  bool has_network = false;            ///< give it an address
  bool has_port = false;               ///< the host listens for a status
  std::string share;                   ///< where the host's directory stands; "": none
  std::vector<std::string> arguments;  ///< of the command; none: the root has an init
  std::vector<std::string> environment;
  std::string user;  ///< "user", "user:group", names or numbers; "": root
  std::string directory = "/";
  bool has_terminal = false;
  unsigned short rows = 0;
  unsigned short columns = 0;
};

/// Unknown keys are passed over.
Settings parse_settings(std::string_view text);

/// The bytes of a file; "" when there is none.
std::string read_file(const char* path);

}  // namespace mkvirtfs::guest
