// SPDX-License-Identifier: BSD-3-Clause
// The one translation unit that holds Catch2's main: it is slow to compile, so every test program
// links it.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
