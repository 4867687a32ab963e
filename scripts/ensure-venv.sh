#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes .venv with the pinned dependencies and fleetsim itself (editable). Does nothing if that was done already.
#
# "Already" is a stamp in .venv that names pyproject.toml, constraints.txt and the interpreter by their hash, so an edit
# of either installs again, and an interrupted install is not taken for a finished one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

VENV=.venv
STAMP=$VENV/.fleetsim-stamp

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null && is_new_enough "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

wanted_stamp() { # PYTHON
    { cat pyproject.toml constraints.txt && "$1" -VV; } | sha256sum | cut -d' ' -f1
}

finished() { [ -x $VENV/bin/python ] && [ -f $STAMP ] && [ "$(cat $STAMP)" = "$(wanted_stamp $VENV/bin/python)" ]; }

finished && exit 0

python=$(find_python) || die 3 "fleetsim needs Python 3.11 or later${PYTHON:+ ($PYTHON is not)}: install python3 (3.11+) or say PYTHON=/path/to/python3 make …"

# Debian keeps the part of Python that makes environments in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    can_install || die 3 "$python cannot make virtual environments: install the package $version (Debian: apt-get install $version)"
    apt_install "$version" || die 3 "installing the package $version failed; it is needed to make .venv"
fi

if [ -x $VENV/bin/python ] && is_new_enough $VENV/bin/python; then
    say "pyproject.toml or constraints.txt changed: installing again into $VENV"
else
    say "making $VENV with $("$python" -V)"
    "$python" -m venv --clear $VENV || die 3 "$python -m venv $VENV failed"
fi
rm -f $STAMP
say "installing the pinned dependencies (a minute or two the first time)"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
$VENV/bin/python -m pip install -qq --progress-bar off -c constraints.txt --editable '.[test]' </dev/null >&2 ||
    die 3 "installing the pinned dependencies failed: pip's own words are above"
wanted_stamp $VENV/bin/python >$STAMP
