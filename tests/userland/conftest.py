# SPDX-License-Identifier: Apache-2.0
"""A private view of the file system, in which a rendered tree can stand for /proc."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.fixture(scope="session")
def require_unshare() -> None:
    """Skip, or fail where FLEETSIM_REQUIRE_TOOLS=1, unless /proc may be mounted over in a namespace of our own."""
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", "mount --bind /tmp /proc"]
    try:
        allowed = subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        sentence = "this user may not mount in a namespace of its own (unshare -m): procps cannot be shown a rendered /proc"
        if os.environ.get("FLEETSIM_REQUIRE_TOOLS") == "1":
            pytest.fail(sentence, pytrace=False)
        pytest.skip(sentence)
