#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sees to the real programs that scripts/calibrate/ measures: `ensure-calibration-tools.sh [redis] [jvm] [postgres]`; none named
# is all. Redis 6 or later, OpenJDK with its compiler, PostgreSQL 13 or later with pgbench; their services are not started.
#
# Without a program its measurement cannot run (exit code 3); with --optional that is only said, unless FLEETSIM_REQUIRE_TOOLS=1.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

declare -A PACKAGES_OF=(
    [redis]="redis-server strace"
    [jvm]="openjdk-17-jdk-headless"
    [postgres]="postgresql"
)

postgres_tool() { # NAME: on the PATH, or where Debian keeps one folder for each version
    local candidate
    command -v "$1" >/dev/null && return 0
    for candidate in ${FLEETSIM_POSTGRES_DIRS:-/usr/lib/postgresql/*/bin}; do
        [ -x "$candidate/$1" ] && return 0
    done
    return 1
}

present() { # GROUP
    case "$1" in
        redis) command -v redis-server >/dev/null && command -v strace >/dev/null ;;
        jvm) command -v java >/dev/null && command -v javac >/dev/null ;;
        postgres) postgres_tool initdb && postgres_tool postgres && postgres_tool pgbench ;;
    esac
}

optional=no
groups=()
for argument in "$@"; do
    case "$argument" in
        --optional) optional=yes ;;
        redis | jvm | postgres) groups+=("$argument") ;;
        *) die 2 "'$argument' is no program to calibrate against; there are redis, jvm and postgres" ;;
    esac
done
[ ${#groups[@]} -eq 0 ] && groups=(redis jvm postgres)

absent=()
for group in "${groups[@]}"; do present "$group" || absent+=("$group"); done
[ ${#absent[@]} -eq 0 ] && exit 0

packages=()
for group in "${absent[@]}"; do read -ra of_group <<<"${PACKAGES_OF[$group]}" && packages+=("${of_group[@]}"); done
if can_install && apt_install "${packages[@]}"; then
    hash -r
    still=()
    for group in "${absent[@]}"; do present "$group" || still+=("$group"); done
    absent=("${still[@]}")
    [ ${#absent[@]} -eq 0 ] && exit 0
fi
sentence="not on this machine: ${absent[*]}; install ${packages[*]} (Debian: apt-get install --no-install-recommends ${packages[*]})"
[ "$optional" = yes ] && [ "${FLEETSIM_REQUIRE_TOOLS:-0}" != 1 ] && say "$sentence; nothing is measured against it" && exit 0
die 3 "$sentence"
