# SPDX-License-Identifier: Apache-2.0
"""A small fleet in which everything couples hosts that can: services behind load balancers (one of a
Deployment's pods, which move), Deployments, a kubelet, a leak that returns.

Shared by the tests of checkpoints and of engines; it is cheap enough to be run several times over.
"""

from __future__ import annotations

from pathlib import Path

from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario

COUPLED = """\
summary: A leak is killed and comes back, a service loses replicas, and a Deployment is evicted and rolls.
seed: 5
duration: {duration}
fleet:
  - hosts: 5
    name: shop
    memory: 1GiB
    disk: ssd
    pods:
      - name: checkout
        workload: web
        limits: 300MiB
        working_set: 64MiB
        request_memory: 1MiB
        cpu: 5ms
        workers: 8
        queue: 200
        timeout: 2s
        slo: {{latency: 500ms, share: 99}}
      - {{name: app, workload: script, limits: 64MiB, requests: 32MiB, ops: [mmap_anon a 20, touch a 20 20, sleep 1000]}}
  - hosts: 3
    name: node
    memory: 1GiB
    kubelet: {{}}
    pods: [{{name: agent, workload: idle, memory: 32MiB, limits: 64MiB}}]
    deployments:
      - name: indexer
        replicas: 1
        workload: script
        ops: [mmap_anon a 450, mmap_anon b 450, touch a 450 10, touch b 450 10, sleep 100000]
      - name: web
        replicas: 2
        workload: web
        working_set: 48MiB
        requests: 96MiB
        limits: 128MiB
        readiness: {{period: 5s}}
        max_unavailable: "1"
        max_surge: "1"
        restarts: [70s]
services:
  - {{name: checkout, pods: checkout, load: {{low: 100/s, high: 100/s}}, retries: 1}}
  - {{name: front, pods: web, load: {{low: 20/s, high: 20/s}}}}
timeline:
  - {{at: 15s, fault: leaking_allocator, on: one app, rate: 4MiB/s}}
  - {{at: 30s, fault: memory_spike, on: one checkout, size: 300MiB, for: 20s}}
"""


def coupled_file(folder: Path, duration: str = "2m") -> Path:
    file = folder / "coupled.yaml"
    file.write_text(COUPLED.format(duration=duration), encoding="utf-8")
    return file


def coupled_plan(folder: Path, duration: str = "2m") -> Plan:
    return make_plan(load_scenario(coupled_file(folder, duration)))
