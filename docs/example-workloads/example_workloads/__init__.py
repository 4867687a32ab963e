# SPDX-License-Identifier: Apache-2.0
"""Workloads for fleetsim, written in plain Python: docs/writing-a-workload.md goes through them."""
