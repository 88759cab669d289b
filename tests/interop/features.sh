#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Features that are masked: libnbd must find them missing, and get by without.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
"$MKVIRTFS" dump "$work/tree" --fs=ext2 -o "$work/image"

# has FEATURE,... EXPRESSION...: what nbdsh says of a server without these features.
has() {
  local masked=$1 expression
  shift
  start_server "$work/tree" --fs=ext2 -U "$work/sock" "--no=$masked"
  for expression in "$@"; do
    nbdsh --opt-mode -c 'h.add_meta_context("base:allocation")' \
      -c "h.connect_uri('$uri')" -c 'h.opt_go()' -c "assert $expression" ||
      fail "without $masked: not $expression"
  done
  # Whatever is missing, the bytes are there.
  nbdcopy "$uri" "$work/copy"
  same "$work/copy" "$work/image"
  rm "$work/copy"
  stop_server
}

has structured,extended-headers 'not h.get_structured_replies_negotiated()' 'not h.can_df()' \
  'not h.can_meta_context("base:allocation")'
has meta-context 'h.get_structured_replies_negotiated()' 'not h.can_meta_context("base:allocation")'
has extents 'h.get_structured_replies_negotiated()' 'not h.can_meta_context("base:allocation")' \
  'h.can_df()'
has multi-conn 'not h.can_multi_conn()' 'h.can_cache()'
has df 'not h.can_df()' 'h.can_meta_context("base:allocation")'
has cache 'not h.can_cache()' 'h.can_multi_conn()'
has df,cache,multi-conn,extents,extended-headers 'not h.can_df()' 'not h.can_cache()' \
  'not h.can_multi_conn()' 'not h.can_meta_context("base:allocation")'

# A command that was not offered is refused, whatever the client thinks of it.
start_server "$work/tree" --fs=ext2 -U "$work/sock" --no=cache,df
python3 - "$uri" <<'END_OF_PYTHON'
import errno, sys, nbd
handle = nbd.NBD()
handle.set_strict_mode(0)
handle.connect_uri(sys.argv[1])
for request in (lambda: handle.cache(512, 0),
                lambda: handle.pread_structured(512, 0, lambda *_: 0, nbd.CMD_FLAG_DF)):
    try:
        request()
        sys.exit("a masked command was carried out")
    except nbd.Error as error:
        assert error.errnum == errno.EINVAL, error
handle.pread(512, 0)
END_OF_PYTHON
stop_server

# Names are not listed, but a client that knows one may open it.
start_server "$work/tree" --fs=ext2 -U "$work/sock" -e disk --no=list
fails 1 'not list' "$MKVIRTFS" list "nbd+unix://?socket=$work/sock"
! nbdinfo --list "$uri" >"$work/list" 2>&1 || fail "names were listed: $(cat "$work/list")"
equal "$(nbdinfo --size "$uri")" "$(stat -c %s "$work/image")" "size"
stop_server
start_server "$work/tree" --fs=ext2 -U "$work/sock" -e disk --no=hier
contains "$("$MKVIRTFS" list "nbd+unix://?socket=$work/sock")" disk
stop_server
