# SPDX-License-Identifier: Apache-2.0
"""Ops of the script that go over names instead of pages: stat_missing, stat_files, mkfiles, and pipes.

A program's names have numbers: each op that asks for or makes names goes on where the last one of the program ended.
Source: the recordings' driver.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import lookup_files, lookup_missing, make_files, make_pipes

STAT_MISSING, STAT_FILES, MKFILES = 0, 1, 2  # in the order of the ops' codes; then pipes


@law
def do_names(row, th, program, op, kind, files):
    """Look up or make up to `files` files, or pipes.

    returns  int64  how many were done; 0: come back

    Source: the recordings' driver.
    """
    if kind == STAT_MISSING:
        done = lookup_missing(row, th, op["handle"], program["names"] + program["done"], files)
    elif kind == STAT_FILES:
        done = lookup_files(row, th, op["handle"], program["done"], files)
    elif kind == MKFILES:
        done = make_files(row, th, op["handle"], program["names"] + program["done"], files)
    else:
        return make_pipes(row, th, files)
    program["counted"] += done
    if kind != STAT_FILES and program["done"] + done >= op["pages"]:
        program["names"] += op["pages"]
    return done
