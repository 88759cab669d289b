#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Errors and messages hold names as raw bytes (support/error.h): what prints them escapes them, once. So printable() is
# called only by what writes to a terminal, a log or the wire. An argument is the root of the sources.
set -euo pipefail

cd "$1"
# What prints, and recipes of trees, which are text.
may=(support/{message,text,log}
  cli/{inspect,dump_command,overlay_command,statistics_text,control_server,ctl_command,list_command,ls_command,stat_command,extract_command,inside,run}
  fsgen/tree/{listing,tree_builder}
  compose/exports nbd/wire/codec)
others=$(find . \( -path ./build -o -path ./tests -o -path ./bench -o -path ./examples -o -name '.?*' -o -name testing \) -prune -o \
  -name '*.cpp' ! -name '*_test.cpp' -printf '%P\n' |
  grep -vxF "$(printf '%s.cpp\n' "${may[@]}")" | xargs grep -nE '\<printable(_message)?\(' || true)
[[ ! $others ]] || {
  echo "a message is escaped by what prints it, not here:"
  echo "$others"
  exit 1
} >&2
