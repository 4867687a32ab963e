#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sees to what only tests compare against: the real node_exporter, free, vmstat, pmap, unshare, valgrind, java; the libraries
# of jemalloc and tcmalloc; and a C compiler, for those that ask a real malloc.
#
# Without them the tests that need them are skipped and say so; with FLEETSIM_REQUIRE_TOOLS=1 their absence is an error.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

declare -A PACKAGE_OF=(
    [prometheus-node-exporter]=prometheus-node-exporter
    [free]=procps
    [vmstat]=procps
    [pmap]=procps
    [unshare]=util-linux
    [valgrind]=valgrind
    [java]=openjdk-17-jre-headless
    [cc]=build-essential
)

declare -A LIBRARY_OF=(
    [libjemalloc.so.2]=libjemalloc2
    [libtcmalloc_minimal.so.4]=libtcmalloc-minimal4
)

library_present() { # NAME: where tests/allocators/real_library.py looks
    local folder
    for folder in ${FLEETSIM_LIBRARY_DIRS:-/usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib}; do
        [ -e "$folder/$1" ] && return 0
    done
    return 1
}

missing_programs() {
    local name
    for name in "${!PACKAGE_OF[@]}"; do
        command -v "$name" >/dev/null || printf '%s\n' "$name"
    done
    for name in "${!LIBRARY_OF[@]}"; do
        library_present "$name" || printf '%s\n' "$name"
    done
}

mapfile -t missing < <(missing_programs | sort)
[ ${#missing[@]} -eq 0 ] && exit 0

packages=()
for program in "${missing[@]}"; do packages+=("${PACKAGE_OF[$program]:-${LIBRARY_OF[$program]}}"); done
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)

if can_install && apt_install "${packages[@]}"; then
    hash -r
    mapfile -t missing < <(missing_programs | sort)
    [ ${#missing[@]} -eq 0 ] && exit 0
fi
sentence="not on this machine: ${missing[*]}; install ${packages[*]} (Debian: apt-get install --no-install-recommends ${packages[*]})"
[ "${FLEETSIM_REQUIRE_TOOLS:-0}" = 1 ] && die 3 "$sentence"
say "$sentence; the tests that compare with them are skipped"
