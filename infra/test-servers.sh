#!/bin/sh
# Installs what the tests need from the distribution and pip cannot bring: redis-server,
# Postgres, Chromium and curl, or those of them that are named: test-servers.sh [redis] [postgres]
# [chromium] [curl]. Installs only what is missing; safe to run again.
set -eu

say() { printf 'test-servers: %s\n' "$*"; }
fail() { printf 'test-servers: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

have_postgres() {
    have initdb && return 0
    for bin in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$bin" ] && return 0
    done
    return 1
}

have_chromium() { have chromium || have chromium-browser || have google-chrome; }

[ "$#" -gt 0 ] || set -- redis postgres chromium curl
missing=""
for wanted in "$@"; do
    case "$wanted" in
        redis) have redis-server || missing="$missing redis-server" ;;
        postgres) have_postgres || missing="$missing postgresql" ;;
        chromium) have_chromium || missing="$missing chromium" ;;
        curl) have curl || missing="$missing curl" ;;
        *) fail "there is no $wanted: name redis, postgres, chromium or curl" ;;
    esac
done

if [ -z "$missing" ]; then
    say "here already: $*"
    exit 0
fi

have apt-get || fail "missing:$missing. There is no apt-get here: install them with this system's own package manager, then run again"

root=""
if [ "$(id -u)" -ne 0 ]; then
    have sudo || fail "missing:$missing. Run as root, or install sudo: apt-get install -y$missing"
    root="sudo"
fi

apt() {
    $root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 \
        -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@"
}

say "installing:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The packages' own services must not start: the tests start their own, on sockets and
# free ports. policy-rc.d is Debian's switch for that; an existing one is respected.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
    $root chmod 755 "$policy"
    trap 'rm -f "$log"; $root rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086  # a list of package names
{ apt update && apt install -y --no-install-recommends $missing; } >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "apt-get could not install:$missing"
}
say "installed:$missing"
