# SPDX-License-Identifier: BSD-3-Clause
# Headers that most files include, from outside the project, are parsed once for all rooms and once for
# all test programs: three tenths of the time that a build takes. Files go on including what they use;
# the preset `lint` builds without precompiled headers and notices when one does not.
set(precompiled_headers <algorithm> <array> <atomic> <chrono> <cstdint> <expected> <functional> <map> <memory> <mutex>
    <optional> <span> <string> <string_view> <unordered_map> <utility> <variant> <vector> <fmt/format.h>)

if(NOT CMAKE_DISABLE_PRECOMPILE_HEADERS)
  # What ccache needs to keep results that depend on a precompiled header; see scripts/build.
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>
                      "$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")
  # g++ 12 has false warnings about the insides of std::string. It hides those of system headers, but not
  # once these are precompiled. ASan sees what such warnings are for.
  set(false_in_strings -Wno-array-bounds -Wno-stringop-overread -Wno-stringop-overflow -Wno-restrict)
  add_compile_options("$<$<CXX_COMPILER_ID:GNU>:${false_in_strings}>")
endif()

# Compile `target` with the precompiled headers of `owner`, which has the same compiler flags; the owner
# itself makes them.
function(mkvirtfs_precompile target owner)
  if(target STREQUAL owner)
    target_precompile_headers(${target} PRIVATE ${precompiled_headers} ${ARGN})
  else()
    target_precompile_headers(${target} REUSE_FROM ${owner})
  endif()
endfunction()
