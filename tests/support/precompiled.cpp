// SPDX-License-Identifier: BSD-3-Clause
// A library has to have a source: this one exists for its precompiled headers (cmake/house.cmake).
