# SPDX-License-Identifier: BSD-3-Clause
# One CMake target a room (folder). The link lines are the architecture: an include of a room that is
# not linked does not compile, because each room brings its own include root.

# mkvirtfs_room(NAME HEADERS h... SOURCES cpp... USES target... PRIVATE_USES target... TESTS x_test.cpp...
#               [OPTIMISE_TESTS] [NO_THREADS])
#
# Makes the static library `mkvirtfs_NAME` (without SOURCES an interface over USES), its public header set, and the test program `NAME_test`
# from the tests that stand beside the sources. OPTIMISE_TESTS is for tests that compute much
# themselves. The tests are a part of the target `threaded_tests`, which TSan runs, unless NO_THREADS
# says that nothing in the room has threads. TSan also leaves out long tests with the tag [one-thread].
function(mkvirtfs_room name)
  cmake_parse_arguments(ROOM "OPTIMISE_TESTS;NO_THREADS" "" "HEADERS;SOURCES;USES;PRIVATE_USES;TESTS;TEST_USES" ${ARGN})
  set(target mkvirtfs_${name})
  if(ROOM_SOURCES)
    set(seen PUBLIC)
    add_library(${target} STATIC ${ROOM_SOURCES})
    mkvirtfs_precompile(${target} mkvirtfs_support)
  else()
    set(seen INTERFACE)
    add_library(${target} INTERFACE)
  endif()
  # Every room is seen through a private directory of links, so that only linked rooms resolve.
  file(RELATIVE_PATH room_path ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  set(include_root ${PROJECT_BINARY_DIR}/include/${name})
  set(folder ${include_root}/${room_path})
  file(REMOVE_RECURSE ${folder})
  file(GLOB inner_rooms RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} */CMakeLists.txt)
  if(inner_rooms)
    # A room inside this one is linked by its own users: all else of the folder is named one by one.
    list(TRANSFORM inner_rooms REPLACE "/CMakeLists.txt" "")
    file(GLOB entries RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} CONFIGURE_DEPENDS *)
    list(REMOVE_ITEM entries ${inner_rooms})
    file(MAKE_DIRECTORY ${folder})
    foreach(entry IN LISTS entries)
      file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR}/${entry} ${folder}/${entry} SYMBOLIC)
    endforeach()
  else()
    get_filename_component(room_parent ${folder} DIRECTORY)
    file(MAKE_DIRECTORY ${room_parent})
    file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${folder} SYMBOLIC)
  endif()
  # The base directory of the headers is that of the links, not this one: an include of <error.h> must
  # not find ours.
  list(TRANSFORM ROOM_HEADERS PREPEND ${include_root}/${room_path}/)
  target_sources(${target} ${seen} FILE_SET HEADERS BASE_DIRS ${include_root} FILES ${ROOM_HEADERS})
  set_target_properties(${target} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
  target_link_libraries(${target} ${seen} ${ROOM_USES})
  if(ROOM_PRIVATE_USES)
    target_link_libraries(${target} PRIVATE ${ROOM_PRIVATE_USES})
  endif()
  if(MKVIRTFS_TESTS AND ROOM_TESTS)
    set(tests_to_run "")
    if(MKVIRTFS_SANITIZE STREQUAL "thread")
      set(tests_to_run TEST_SPEC "~[one-thread]")
    endif()
    add_executable(${name}_test ${ROOM_TESTS})
    if(NOT ROOM_OPTIMISE_TESTS)
      # Half of the time that a file of Catch2 assertions takes to compile goes into optimising it.
      target_compile_options(${name}_test PRIVATE -O0)
      mkvirtfs_precompile(${name}_test mkvirtfs_test_precompiled)
    endif()
    target_link_libraries(${name}_test PRIVATE ${target} ${ROOM_TEST_USES} mkvirtfs_test_main)
    catch_discover_tests(${name}_test ${tests_to_run} TEST_PREFIX "${name}: " PROPERTIES LABELS unit)
    if(NOT ROOM_NO_THREADS)
      add_dependencies(threaded_tests ${name}_test)
    endif()
  endif()
endfunction()

add_custom_target(threaded_tests)

# Catch2's main is slow to compile: once for all test programs.
if(MKVIRTFS_TESTS)
  add_library(mkvirtfs_test_main STATIC ${PROJECT_SOURCE_DIR}/tests/support/catch_main.cpp)
  find_package(Catch2 2 REQUIRED)
  target_compile_options(mkvirtfs_test_main PRIVATE -O0)
  target_link_libraries(mkvirtfs_test_main PUBLIC Catch2::Catch2)
  # Owns the precompiled headers of the tests, so it has their compiler flags.
  add_library(mkvirtfs_test_precompiled OBJECT ${PROJECT_SOURCE_DIR}/tests/support/precompiled.cpp)
  set_target_properties(mkvirtfs_test_precompiled PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(mkvirtfs_test_precompiled PRIVATE -fPIE -O0)
  target_link_libraries(mkvirtfs_test_precompiled PRIVATE Catch2::Catch2 fmt::fmt)
  mkvirtfs_precompile(mkvirtfs_test_precompiled mkvirtfs_test_precompiled <catch2/catch.hpp>)
  # Helpers that tests of several rooms share: #include "tests/support/temp_dir.h"
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include/test_support/tests)
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/tests/support
       ${PROJECT_BINARY_DIR}/include/test_support/tests/support SYMBOLIC)
  target_include_directories(mkvirtfs_test_main PUBLIC ${PROJECT_BINARY_DIR}/include/test_support)
  add_library(mkvirtfs_test_allocations OBJECT
              ${PROJECT_SOURCE_DIR}/tests/support/allocations.cpp)
  target_link_libraries(mkvirtfs_test_allocations PUBLIC mkvirtfs_test_main)
endif()
