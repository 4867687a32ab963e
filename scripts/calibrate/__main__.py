# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts.calibrate [MEASUREMENT…]` runs measurements (all of them if none is named) and writes their records.

Then `python -m scripts.calibrate.table` puts the records into docs/calibration.md.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time

from scripts.calibrate.record import write

MEASUREMENTS = ("redis_memory", "redis_save", "redis_evict", "jvm", "jvm_memory", "postgres")


def main(arguments: list[str]) -> int:
    for name in arguments:
        if name not in MEASUREMENTS:
            print(f"'{name}' is no measurement; there are {', '.join(MEASUREMENTS)}", file=sys.stderr)
            return 2
    for name in arguments or MEASUREMENTS:
        began = time.monotonic()
        try:
            records = importlib.import_module(f"scripts.calibrate.{name}").measure()
        except FileNotFoundError as error:
            missing = f"no {error.filename}" if error.filename else str(error)
            print(f"{name}: {missing}; scripts/ensure-calibration-tools.sh installs what is missing", file=sys.stderr)
            return 3
        except (RuntimeError, TimeoutError, ProcessLookupError, subprocess.SubprocessError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        path = write(name, records)
        print(f"{path.name}: written after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
