# SPDX-License-Identifier: BSD-3-Clause
# Installs the NBD server core as a library for others: headers below include/mkvirtfs, the static
# libraries, and what find_package(mkvirtfs-nbd) and pkg-config need. The program is installed by cli/.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(library_rooms support block overlay exports net nbd_wire nbd_server nbd_client nbd)
set(headers_dir ${CMAKE_INSTALL_INCLUDEDIR}/mkvirtfs)
set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mkvirtfs-nbd)

foreach(room ${library_rooms})
  set_target_properties(mkvirtfs_${room} PROPERTIES EXPORT_NAME ${room})
  # <mkvirtfs/nbd/server.h>; among themselves the headers say "nbd/server.h", which the file set's own
  # directory is for.
  target_include_directories(mkvirtfs_${room}
                             INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(mkvirtfs_${room} INTERFACE cxx_std_23)
  install(TARGETS mkvirtfs_${room} EXPORT mkvirtfs-nbd-targets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
          FILE_SET HEADERS DESTINATION ${headers_dir} COMPONENT development)
endforeach()
install(EXPORT mkvirtfs-nbd-targets NAMESPACE mkvirtfs:: DESTINATION ${config_dir}
        COMPONENT development)

configure_package_config_file(cmake/mkvirtfs-nbd-config.cmake.in mkvirtfs-nbd-config.cmake
                              INSTALL_DESTINATION ${config_dir})
# Before 1.0 every minor version may change the interface.
write_basic_package_version_file(mkvirtfs-nbd-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mkvirtfs-nbd-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/mkvirtfs-nbd-config-version.cmake
        DESTINATION ${config_dir} COMPONENT development)

# The file finds its prefix from where it stands, so that the whole may be moved.
file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/mkvirtfs-nbd.pc.in mkvirtfs-nbd.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mkvirtfs-nbd.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
