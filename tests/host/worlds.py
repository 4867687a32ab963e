# SPDX-License-Identifier: Apache-2.0
"""The small host of `scripts/worlds/host.py` under the name by which the tests know it."""

from scripts.worlds.host import FAST_DISK, MIB, PAGES, DiskSpec, World, host_spec, task_spec, world

__all__ = ["FAST_DISK", "MIB", "PAGES", "DiskSpec", "World", "host_spec", "task_spec", "world"]
