# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: how to say a sentence, become root, and install a Debian package without its service.
#
# Rules: never ask a question (no terminal is assumed); never leave a service running or enabled that was not there
# before; touch nothing that is installed already; a second call that finds everything in place does nothing.

say() { printf 'fleetsim: %s\n' "$*" >&2; }

die() { # die EXIT_CODE SENTENCE
    local code=$1
    shift
    say "$*"
    exit "$code"
}

# Sets SUDO to what makes us root without a question; fails if nothing does.
become_root() {
    SUDO=()
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null && sudo -n true 2>/dev/null && SUDO=(sudo -n) && return 0
    return 1
}

can_install() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null && become_root; }

package_installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

apt_get() {
    "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -qq -o DPkg::Lock::Timeout=300 -o APT::Acquire::Retries=3 "$@" </dev/null >&2
}

# A package's own scripts start and enable its service. Two locks against that: a policy-rc.d that forbids starts while
# we install (put there only if there is none, and taken away again), and switching off afterwards what got enabled.
POLICY=/usr/sbin/policy-rc.d
OUR_POLICY=no

forbid_service_starts() {
    [ -e "$POLICY" ] && return 0
    printf '#!/bin/sh\n# put here by fleetsim for the time of one package install\nexit 101\n' | "${SUDO[@]}" tee "$POLICY" >/dev/null
    "${SUDO[@]}" chmod 755 "$POLICY"
    OUR_POLICY=yes
    trap allow_service_starts EXIT
}

allow_service_starts() {
    [ "$OUR_POLICY" = yes ] && "${SUDO[@]}" rm -f "$POLICY"
    OUR_POLICY=no
}

disable_services_of() { # PACKAGE: every unit and init script it brought
    local unit name
    for unit in $(dpkg-query -L "$1" | grep -E '/systemd/system/[^/]+\.(service|timer|socket)$' | xargs -r -n1 basename); do
        if [ -d /run/systemd/system ]; then
            "${SUDO[@]}" systemctl disable --now "$unit" >/dev/null 2>&1 || true
        fi
        if command -v deb-systemd-helper >/dev/null; then
            "${SUDO[@]}" deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
        fi
    done
    for name in $(dpkg-query -L "$1" | grep -E '^/etc/init\.d/[^/]+$' | xargs -r -n1 basename); do
        "${SUDO[@]}" update-rc.d "$name" disable >/dev/null 2>&1 || true
    done
}

apt_install() { # PACKAGE…: those not installed yet, without services; the caller has checked can_install
    local package missing=()
    for package in "$@"; do
        package_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "installing ${missing[*]} (no service will be left running)"
    forbid_service_starts
    if ! apt_get install -y --no-install-recommends "${missing[@]}" 2>/dev/null; then
        apt_get update || return 1 # the package lists of a fresh machine are empty or old
        apt_get install -y --no-install-recommends "${missing[@]}" || return 1
    fi
    for package in "${missing[@]}"; do
        disable_services_of "$package"
    done
    allow_service_starts
}
