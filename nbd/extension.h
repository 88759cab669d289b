// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "nbd/export_tree.h"
#include "nbd/server/extension.h"

// For embedders: options and metadata contexts that the protocol does not have.
