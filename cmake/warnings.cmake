# SPDX-License-Identifier: BSD-3-Clause
# Warnings are errors in the project's own presets, which ./run, ./test and CI build. Elsewhere they are
# not: another compiler, or another level of optimisation, has false ones (g++ 12 at -O3 has some).
# Sanitizers are a cache variable so that a preset is nothing but a set of values.
add_compile_options(-Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Wold-style-cast)
if(MKVIRTFS_WERROR)
  add_compile_options(-Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options(-Wthread-safety)
endif()
if(MKVIRTFS_SANITIZE)
  add_compile_options(-fsanitize=${MKVIRTFS_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${MKVIRTFS_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND MKVIRTFS_SANITIZE MATCHES "undefined")
    # It looks at memory through a pipe, and takes every object for a wrong one when there are no
    # descriptors left, which tests of ours see to.
    add_compile_options(-fno-sanitize=vptr)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # g++ 12 sees uninitialised members in libstdc++'s <regex> (so in Catch2) once it instruments.
    add_compile_options(-Wno-maybe-uninitialized)
  endif()
endif()
