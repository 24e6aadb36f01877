#!/bin/sh
# Makes the secrets that compose.yaml names, in the folder `secrets` beside it: a token for the trainer, one for an app
# and one for whoever operates the engine, the file by which the engine knows them, and a password for Grafana's user
# `admin`. What is there already stays.
#
# ENGINE_COMMAND is how `ousel-engine` is run; without it the image does.
set -eu
cd "$(dirname "$0")"
image=$(sed -n 's/^OUSEL_IMAGE=//p' .env 2>/dev/null || true)
engine=${ENGINE_COMMAND:-docker run --rm --network none ${image:-ousel:latest} ousel-engine}

umask 077
mkdir -p secrets
touch secrets/tokens

# token NAME ROLE...: prints nothing; the token goes to secrets/NAME-token and its line to secrets/tokens.
token() {
    name=$1
    shift
    [ ! -s "secrets/$name-token" ] || return 0
    roles=
    for role; do roles="$roles --role $role"; done
    # Both hold words that are split on purpose.
    # shellcheck disable=SC2086
    made=$($engine token "$name" $roles 2>/dev/null)
    printf '%s\n' "$made" | sed -n 1p >"secrets/$name-token"
    printf '%s\n' "$made" | sed -n 2p >>secrets/tokens
    echo "secrets/$name-token: may $*"
}

token trainer push
token app recommend track
token admin admin

if [ ! -s secrets/grafana-password ]; then
    head -c 18 /dev/urandom | base64 | tr -d '\n' >secrets/grafana-password
    echo "secrets/grafana-password: for http://127.0.0.1:3000"
fi

# The containers run as a user of their own, which must be able to read these; nobody else can enter the folder.
chmod 0644 secrets/tokens secrets/*-token secrets/grafana-password
