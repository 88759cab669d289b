# SPDX-License-Identifier: BSD-3-Clause
# Installs two packages for others: mkvirtfs-nbd, the NBD server core, and mkvirtfs, that and the library
# which makes images. Headers below include/mkvirtfs, the static libraries, and what find_package() and
# pkg-config need. The program is installed by cli/.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(nbd_rooms support block overlay exports net nbd_wire nbd_server nbd_client nbd)
set(image_rooms stream helper tree host archive disk oci image erofs ext2 fat32 iso9660 bootsect compose)
set(headers_dir ${CMAKE_INSTALL_INCLUDEDIR}/mkvirtfs)
set(packages_dir ${CMAKE_INSTALL_LIBDIR}/cmake)

# A room of a package, exported under a name of its own.
function(install_room room package export_name)
  set_target_properties(mkvirtfs_${room} PROPERTIES EXPORT_NAME ${export_name})
  # <mkvirtfs/nbd/server.h>; among themselves the headers say "nbd/server.h", which the file set's own
  # directory is for.
  target_include_directories(mkvirtfs_${room}
                             INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(mkvirtfs_${room} INTERFACE cxx_std_23)
  install(TARGETS mkvirtfs_${room} EXPORT ${package}-targets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
          FILE_SET HEADERS DESTINATION ${headers_dir} COMPONENT development)
endfunction()

# What pkg-config links: rooms are listed behind those that they use, so a linker wants them backwards.
function(linked_rooms out)
  set(libraries ${ARGN})
  list(REMOVE_ITEM libraries nbd)  # headers alone
  list(REVERSE libraries)
  list(TRANSFORM libraries PREPEND -lmkvirtfs_)
  list(JOIN libraries " " libraries)
  set(${out} "${libraries}" PARENT_SCOPE)
endfunction()
linked_rooms(nbd_libraries ${nbd_rooms})
linked_rooms(image_libraries ${image_rooms})

# What find_package() and pkg-config want of a package. The .pc file finds its prefix from where it
# stands, so that the whole may be moved.
file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
file(RELATIVE_PATH reader_from_prefix / /${CMAKE_INSTALL_LIBEXECDIR}/mkvirtfs/mkvirtfs-reader)
macro(install_package package)
  install(EXPORT ${package}-targets NAMESPACE mkvirtfs:: DESTINATION ${packages_dir}/${package}
          COMPONENT development)
  configure_package_config_file(cmake/${package}-config.cmake.in ${package}-config.cmake
                                INSTALL_DESTINATION ${packages_dir}/${package}
                                PATH_VARS reader_from_prefix)
  # Before 1.0 every minor version may change the interface.
  write_basic_package_version_file(${package}-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${package}-config.cmake
                ${CMAKE_CURRENT_BINARY_DIR}/${package}-config-version.cmake
          DESTINATION ${packages_dir}/${package} COMPONENT development)
  configure_file(cmake/${package}.pc.in ${package}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${package}.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
endmacro()

foreach(room ${nbd_rooms})
  install_room(${room} mkvirtfs-nbd ${room})
endforeach()
foreach(room ${image_rooms})
  install_room(${room} mkvirtfs fsgen_${room})
endforeach()
# The front door stands for all that is behind it.
set_target_properties(mkvirtfs_compose PROPERTIES EXPORT_NAME image)
install_package(mkvirtfs-nbd)
install_package(mkvirtfs)

# What people read, and the units of systemd. A distribution may have its units elsewhere.
set(MKVIRTFS_UNIT_DIR lib/systemd/system CACHE STRING "Where systemd's units are installed")
set(MKVIRTFS_PROGRAM ${CMAKE_INSTALL_FULL_BINDIR}/mkvirtfs)
configure_file(systemd/mkvirtfs@.service.in mkvirtfs@.service @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mkvirtfs@.service systemd/mkvirtfs@.socket DESTINATION ${MKVIRTFS_UNIT_DIR})
install(FILES README.md CHANGELOG.md SECURITY.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES systemd/open-to-network.conf DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)
