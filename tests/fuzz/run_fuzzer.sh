#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# run_fuzzer.sh TARGET SEEDS [OPTION...]: lets libFuzzer loose for MKVIRTFS_FUZZ_SECONDS (10).
#
# What it finds goes into the build tree: new inputs into corpus-TARGET/, crashes into crash-*. A
# crash is mended, and its input put among the seeds under a name that says what it was.
set -euo pipefail

target=$1 seeds=$2
shift 2
cd "$(dirname "$target")"
corpus=corpus-$(basename "$target")
mkdir -p "$corpus"
exec "$target" -max_total_time="${MKVIRTFS_FUZZ_SECONDS:-10}" -timeout=20 -rss_limit_mb=1024 \
  -max_len=65536 -print_final_stats=1 -verbosity=1 "$@" "$corpus" "$seeds"
