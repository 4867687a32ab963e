# SPDX-License-Identifier: Apache-2.0
"""`python -m fleetsim`: the same as the console script `fleetsim`."""

from __future__ import annotations

from fleetsim.cli.main import main

if __name__ == "__main__":
    main()
