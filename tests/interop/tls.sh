#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# TLS with foreign clients (libnbd, QEMU, nbdkit, Python's own TLS): certificates and pre-shared keys, good
# and bad ones, and what a man in the middle would try.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/lib.sh"

small_tree "$work/tree"
"$MKVIRTFS" dump "$work/tree" --fs=ext4 -o "$work/dump"
size=$(stat -c %s "$work/dump")

# --- Certificates and keys -----------------------------------------------------------------------

pki=$work/pki
mkdir "$pki"
quietly() { "$@" >"$work/out" 2>&1 || fail "$*: $(cat "$work/out")"; }

# authority NAME: $pki/NAME-cert.pem and -key.pem
authority() {
  printf 'cn = %s\nca\ncert_signing_key\ncrl_signing_key\nexpiration_days = 10\n' "$1" >"$pki/template"
  quietly certtool --generate-privkey --key-type=ecdsa --outfile "$pki/$1-key.pem"
  quietly certtool --generate-self-signed --load-privkey "$pki/$1-key.pem" --template "$pki/template" \
    --outfile "$pki/$1-cert.pem"
}

# issue AUTHORITY DIR ROLE: DIR/ROLE-cert.pem and -key.pem, and DIR/ca-cert.pem
issue() {
  mkdir -p "$2"
  cp "$pki/$1-cert.pem" "$2/ca-cert.pem"
  {
    printf 'cn = %s\ntls_www_%s\nsigning_key\nexpiration_days = 10\n' "$3" "$3"
    printf 'dns_name = localhost\nip_address = 127.0.0.1\nip_address = ::1\n'
  } >"$pki/template"
  quietly certtool --generate-privkey --key-type=ecdsa --outfile "$2/$3-key.pem"
  quietly certtool --generate-certificate --load-privkey "$2/$3-key.pem" --template "$pki/template" \
    --load-ca-certificate "$pki/$1-cert.pem" --load-ca-privkey "$pki/$1-key.pem" \
    --outfile "$2/$3-cert.pem"
}

authority good
authority evil
issue good "$pki/server" server
issue good "$pki/client" client
issue evil "$pki/stranger" client                # believes another authority, and has its certificate
issue evil "$pki/impostor" client                # only has the other authority's certificate
cp "$pki/good-cert.pem" "$pki/impostor/ca-cert.pem"
mkdir "$pki/nobody" && cp "$pki/good-cert.pem" "$pki/nobody/ca-cert.pem"
issue good "$pki/revoked" client
cp -r "$pki/server" "$pki/revoking"
printf 'expiration_days = 10\ncrl_next_update = 10\ncrl_number = 1\n' >"$pki/template"
quietly certtool --generate-crl --load-ca-privkey "$pki/good-key.pem" --template "$pki/template" \
  --load-ca-certificate "$pki/good-cert.pem" --load-certificate "$pki/revoked/client-cert.pem" \
  --outfile "$pki/revoking/ca-crl.pem"

mkdir "$pki/psk"
quietly psktool -u alice -p "$pki/psk/keys.psk"
quietly psktool -u bob -p "$pki/psk/keys.psk"
{ quietly psktool -u alice -p "$pki/wrong.psk"; quietly psktool -u mallory -p "$pki/wrong.psk"; }

# refused COMMAND...: the client fails, and the server lives.
refused() {
  if "$@" >"$work/out" 2>&1 </dev/null; then fail "was not refused: $*"; fi
  kill -0 "$server_pid" || fail "the server died of: $*"
}
# Somebody else's URI for the server's socket: uri_with DIR
uri_with() { echo "nbds+unix:///?socket=$work/sock&tls-certificates=$1"; }
plain="nbd+unix:///?socket=$work/sock"
serve() { start_server "$work/tree" --fs=ext4 -U "$work/sock" "$@"; }

# --- Certificates --------------------------------------------------------------------------------

serve --tls=require --tls-certificates="$pki/server"
contains "$uri" '^nbds\+unix:///\?socket=.*&tls-certificates=.*/server$'
contains "$(nbdinfo "$uri")" 'with TLS'
equal "$(nbdinfo --size "$uri")" "$size" "the size through TLS"
for options in --connections=1 --connections=4 '--connections=4 --request-size=4096' --synchronous; do
  # shellcheck disable=SC2086  # words
  nbdcopy $options "$uri" - | cmp - "$work/dump" || fail "nbdcopy $options through TLS"
done
nbdinfo --map --json "$uri" | python3 -c '
import json, sys
assert any(extent["type"] == 3 for extent in json.load(sys.stdin)), "no hole"'
equal "$(nbdinfo --size "$(uri_with "$pki/nobody")")" "$size" "a client without a certificate"
refused nbdinfo "$plain"
refused nbdinfo --list "$plain"
python3 "$here/tls.py" "$work/sock" "$work/dump" "$pki/client" require
x509=tls-creds-x509,id=tls,endpoint=client,dir=$pki
image=driver=nbd,server.type=unix,server.path=$work/sock,tls-creds=tls,tls-hostname=localhost
contains "$(qemu-img info --object "$x509/client" --image-opts "$image")" "virtual size: .*\($size bytes\)"
quietly qemu-img convert --object "$x509/client" --image-opts "$image" -O raw "$work/converted"
same "$work/converted" "$work/dump"
refused qemu-img info --object "$x509/stranger" --image-opts "$image"
refused qemu-img info -f raw "$plain"
# nbdkit as our client.
# shellcheck disable=SC2016  # nbdkit gives $uri to its command
nbdkit -r -U - nbd socket="$work/sock" tls=require tls-certificates="$pki/nobody" \
  --run 'nbdcopy "$uri" -' | cmp - "$work/dump" || fail "through nbdkit nbd"
nbdcopy "$uri" - | cmp - "$work/dump" || fail "after all that"
stop_server

# Clients are verified, too.
serve --tls=require --tls-certificates="$pki/revoking" --tls-verify-peer
equal "$(nbdinfo --size "$(uri_with "$pki/client")")" "$size" "a client with a certificate"
refused nbdinfo "$(uri_with "$pki/nobody")"
refused nbdinfo "$(uri_with "$pki/stranger")"
refused nbdinfo "$(uri_with "$pki/impostor")"
refused nbdinfo "$(uri_with "$pki/revoked")"
# Our own client is known by the same files.
described='""  ext4 image of tree'
equal "$("$MKVIRTFS" list "$(uri_with "$pki/client")")" "$described" "mkvirtfs list with a certificate"
fails 1 'TLS: ' "$MKVIRTFS" list "$(uri_with "$pki/nobody")"
fails 1 'TLS: .*NOT trusted' "$MKVIRTFS" list "$(uri_with "$pki/stranger")"
fails 1 'TLS: ' "$MKVIRTFS" list "$(uri_with "$pki/impostor")"
fails 1 'TLS: ' "$MKVIRTFS" list "$(uri_with "$pki/revoked")"
fails 1 'name in the certificate does not match' "$MKVIRTFS" list "$(uri_with "$pki/client")&tls-hostname=elsewhere"
equal "$("$MKVIRTFS" list "$(uri_with "$pki/client")&tls-hostname=localhost")" "$described" "a name that is right"
fails 1 'server ' "$MKVIRTFS" list "$plain"
quietly qemu-img info --object "$x509/client" --image-opts "$image"
refused qemu-img info --object "$x509/impostor" --image-opts "$image"
nbdcopy "$(uri_with "$pki/client")" - | cmp - "$work/dump" || fail "after the refusals"
stop_server

# Over TCP, where the name in the certificate counts; TLS is offered, not required.
start_server "$work/tree" --fs=ext4 -p 0 --tls-certificates="$pki/server"
contains "$uri" '^nbds://[^@]*:[0-9]+/\?tls-certificates='
nbdcopy "$uri" - | cmp - "$work/dump" || fail "through TLS over TCP"
contains "$(nbdinfo "${uri/nbds:/nbd:}")" 'without TLS'
quietly nbdinfo "${uri%=*}=$pki/nobody"
refused nbdinfo "${uri%=*}=$pki/stranger"  # it does not believe the server
stop_server

# --- Pre-shared keys -----------------------------------------------------------------------------

serve --tls=require --tls-psk="$pki/psk/keys.psk"
contains "$uri" '^nbds\+unix://alice@/\?socket=.*&tls-psk-file='
contains "$(nbdinfo "$uri")" 'with TLS'
nbdcopy "$uri" - | cmp - "$work/dump" || fail "through TLS with a key"
nbdcopy "${uri/alice/bob}" - | cmp - "$work/dump" || fail "through TLS with the second key"
wrong=${uri%tls-psk-file=*}tls-psk-file=$pki/wrong.psk
refused nbdinfo "$wrong"
equal "$("$MKVIRTFS" list "$uri")" '""  ext4 image of tree' "mkvirtfs list with a key"
fails 1 'TLS: ' "$MKVIRTFS" list "$wrong"
refused nbdinfo "${wrong/alice/mallory}"
refused nbdinfo "$(uri_with "$pki/client")"
refused nbdinfo "$plain"
psk=tls-creds-psk,id=tls,endpoint=client,dir=$pki/psk,username
image=driver=nbd,server.type=unix,server.path=$work/sock,tls-creds=tls
contains "$(qemu-img info --object "$psk=bob" --image-opts "$image")" "virtual size: .*\($size bytes\)"
quietly qemu-img compare --object "$psk=alice" --image-opts "$image" \
  "driver=raw,file.driver=file,file.filename=$work/dump"
# shellcheck disable=SC2016
nbdkit -r -U - nbd socket="$work/sock" tls=require tls-username=bob tls-psk="$pki/psk/keys.psk" \
  --run 'nbdcopy "$uri" -' | cmp - "$work/dump" || fail "through nbdkit nbd with a key"
stop_server

# Clients are verified by their keys where there are keys alone, as nbdkit has it.
serve --tls=require --tls-psk="$pki/psk/keys.psk" --tls-verify-peer
quietly nbdinfo "$uri"
refused nbdinfo "${uri%tls-psk-file=*}tls-psk-file=$pki/wrong.psk"
refused nbdinfo "$(uri_with "$pki/client")"
stop_server

# Both at once: the client chooses, and a key does where a certificate is asked for.
serve --tls=require --tls-psk="$pki/psk/keys.psk" --tls-certificates="$pki/server" --tls-verify-peer
quietly nbdinfo "$uri"
quietly nbdinfo "$(uri_with "$pki/client")"
refused nbdinfo "$(uri_with "$pki/nobody")"
stop_server

# TLS 1.2 only: by our own priority string.
serve --tls-certificates="$pki/server" --tls-priority=NORMAL:-VERS-ALL:+VERS-TLS1.2
nbdcopy "$uri" - | cmp - "$work/dump" || fail "through TLS 1.2"
nbdcopy "$plain" - | cmp - "$work/dump" || fail "without TLS where it is offered"
python3 "$here/tls.py" "$work/sock" "$work/dump" "$pki/client" on
stop_server

# Off is off.
serve --tls=off --tls-certificates="$pki/server"
equal "$uri" "$plain" "the URI without TLS"
contains "$(nbdinfo "$uri")" 'without TLS'
refused nbdinfo "$(uri_with "$pki/client")"
stop_server

# --- mkvirtfs list and other servers ---------------------------------------------------------------

mkdir "$work/files"
touch "$work/files"/{one,two}
other() {
  rm -f "$work/other"
  nbdkit -r -U "$work/other" --tls=require "$@"
}
listed="nbds+unix://alice@/?socket=$work/other"
equal "$(other --tls-certificates="$pki/server" --tls-verify-peer file dir="$work/files" \
  --run "'$MKVIRTFS' list '$listed&tls-certificates=$pki/client'")" "one
two" "nbdkit's exports through TLS, with a certificate"
equal "$(other --tls-psk="$pki/psk/keys.psk" file dir="$work/files" \
  --run "'$MKVIRTFS' list '$listed&tls-psk-file=$pki/psk/keys.psk'")" "one
two" "nbdkit's exports through TLS, with a key"
qemu-nbd -r -f raw -x one/disk -k "$work/qemu" --fork --pid-file="$work/qemu.pid" \
  --object "tls-creds-x509,id=tls,endpoint=server,dir=$pki/server,verify-peer=off" --tls-creds tls "$work/dump"
equal "$("$MKVIRTFS" list -R "nbds+unix:///?socket=$work/qemu&tls-certificates=$pki/nobody&tls-hostname=localhost")" \
  "one/
one/disk" "QEMU's exports through TLS"
kill "$(cat "$work/qemu.pid")"
# Over TCP the certificate must be the host's.
start_server "$work/tree" --fs=ext4 -p 0 --tls=require --tls-certificates="$pki/server"
port=$(grep -oE ':[0-9]+' <<<"$uri" | head -n 1)
equal "$("$MKVIRTFS" list "nbds://127.0.0.1$port/?tls-certificates=$pki/nobody")" "$described" "an address in a certificate"
stop_server

# --- The program ---------------------------------------------------------------------------------

# shellcheck disable=SC2016
contains "$("$MKVIRTFS" serve "$work/tree" --tls-psk="$pki/psk/keys.psk" --run 'nbdinfo "$uri"')" 'with TLS'
cp -r "$pki/server" "$pki/broken"
echo garbage >"$pki/broken/server-key.pem"
fails 1 'broken/server-key.pem holds no key' "$MKVIRTFS" serve "$work/tree" --tls-certificates="$pki/broken"
fails 1 'client/server-cert.pem: No such file' "$MKVIRTFS" serve "$work/tree" --tls-certificates="$pki/client"
fails 1 'keys: No such file' "$MKVIRTFS" serve "$work/tree" --tls=require --tls-psk="$pki/keys"
fails 2 'needs --tls-certificates' "$MKVIRTFS" serve "$work/tree" --tls=require
fails 2 'needs --tls-certificates' "$MKVIRTFS" serve "$work/tree" --tls-verify-peer
fails 2 'TLS priority' "$MKVIRTFS" serve "$work/tree" --tls-psk="$pki/psk/keys.psk" --tls-priority=NOTHING
for option in --tls --tls-psk --tls-certificates --tls-priority; do
  fails 2 "$option" "$MKVIRTFS" serve "$work/tree" --tls-psk="$pki/psk/keys.psk" "$option="
  fails 2 "$option" timeout 20 "$MKVIRTFS" serve "$work/tree" "$option" ""
done
