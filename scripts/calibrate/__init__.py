# SPDX-License-Identifier: Apache-2.0
"""Measures real programs on this machine: what the workload models are compared with (`make measure`, docs/calibration.md).

Each measuring file has a `measure()` (`redis_memory`, `redis_save`, `redis_evict`, `jvm`, `jvm_memory`, `postgres`); beside them are
the readers of what the programs print, and `table`, which puts the records into the document.
Servers listen on unix sockets only, run as an unprivileged user in a temporary folder, and are ended by their process id.
Nothing of the machine is set: what a measurement would need of it (swap, another overcommit mode) is said to be missing.
"""
