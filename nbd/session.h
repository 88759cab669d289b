// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "nbd/export_tree.h"
#include "nbd/extension.h"
#include "nbd/server/session.h"

// For embedders with a transport of their own: the protocol alone.
