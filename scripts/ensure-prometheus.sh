#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sees to the real Prometheus: `prometheus` and `promtool`, 2.42 or later, in $FLEETSIM_PROMETHEUS_DIR or on PATH.
#
#   ensure-prometheus.sh              fails (exit 3) with one sentence if there is none and none may be installed
#   ensure-prometheus.sh --optional   says the sentence and goes on, unless FLEETSIM_REQUIRE_PROMETHEUS=1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PATH="${FLEETSIM_PROMETHEUS_DIR:+$FLEETSIM_PROMETHEUS_DIR:}$PATH"
OLDEST=2.42
HOW="install Prometheus $OLDEST or later (Debian: apt-get install --no-install-recommends prometheus), or unpack a release and set FLEETSIM_PROMETHEUS_DIR to its folder"

present() { command -v prometheus >/dev/null && command -v promtool >/dev/null; }

new_enough() {
    local found
    found=$(prometheus --version 2>&1 | sed -n 's/^prometheus, version v\{0,1\}\([0-9][0-9.]*\).*/\1/p')
    [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$OLDEST" "$found" | sort -V | head -n1)" = "$OLDEST" ]
}

give_up() {
    if [ "${1:-}" = --optional ] && [ "${FLEETSIM_REQUIRE_PROMETHEUS:-0}" != 1 ]; then
        say "$2; what needs it is skipped"
        exit 0
    fi
    die 3 "$2"
}

mode=${1:-}
if ! present; then
    can_install || give_up "$mode" "no prometheus and promtool on this machine, and no right to install them: $HOW"
    apt_install prometheus || give_up "$mode" "installing the package prometheus failed: $HOW"
    hash -r
fi
present || give_up "$mode" "the package prometheus brought no prometheus and promtool: $HOW"
new_enough || give_up "$mode" "$(command -v prometheus) is older than $OLDEST: $HOW"
