# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster to run on: found, or started for this run and ended with it.

    local            one of our own on this machine, with nothing left of it afterwards
    HOST:PORT        the one that is there; `auto`: the one that RAY_ADDRESS or `ray start` on this machine says, else as `local`

Rules: whatever is wrong is told before anything is started there; a cluster that we have not started stays as it is. One of our own
listens on loopback only; what a driver that was killed has left of its own is cleared away by the next (`own_folder.py`).
Leaves out: ray:// (Ray's client): such a run belongs on the cluster itself, as a job.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants

from fleetsim import law
from fleetsim.errors import BadInput, ToolFailed
from fleetsim.fleet.own_folder import OwnFolder
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.room import available_here, check_fits

REACH_S = 5.0
OBJECT_STORE_BYTES = 512 << 20
"""Of a cluster of our own: epochs are small, a checkpoint is some tens of KiB for each host."""
HANDED_ON = ("FLEETSIM_SIZE_CLASS", "FLEETSIM_CHECKED", "NUMBA_DISABLE_JIT")
"""Variables that decide how laws are compiled: actors must go by the driver's."""


class RayCluster:
    """Entered by being made: `leave` ends what was begun. Of one process there can be one."""

    def __init__(self, address: str, threads: int | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the new behaviour; Ray warns of the old one
        self.size_class = law.size_class()
        self._own_folder: OwnFolder | None = None
        if address == "auto":
            said = os.environ.get("RAY_ADDRESS", "")
            address = said if said not in ("", "auto") else "auto" if self._join("auto") else "local"
        if address == "local":
            self._start(threads)
        elif not ray.is_initialized():
            check_reachable(address)
            self._join(address)

    def _start(self, threads: int | None) -> None:
        self._own_folder = OwnFolder("fleetsim-ray-")
        try:
            with on_loopback():
                ray.init(
                    address="local",
                    num_cpus=threads or len(os.sched_getaffinity(0)),
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(self._own_folder.path),
                    **QUIET,
                )
        except BaseException as error:  # a Ctrl-C too: nothing half started stays behind
            self.leave()
            if isinstance(error, (RuntimeError, OSError, ValueError)):
                raise ToolFailed(f"Ray does not start on this machine: {one_line(error)}") from None
            raise

    def _join(self, address: str) -> bool:
        """Become a driver of a cluster that is there; False: with `auto` none was found."""
        try:
            ray.init(address=address, **QUIET)
            return True
        except ConnectionError as error:
            if address == "auto":
                return False
            raise BadInput(f"--ray {address}: no Ray cluster answers there ({one_line(error)})") from None
        except (RuntimeError, ValueError, OSError) as error:
            ray.shutdown()
            raise BadInput(f"--ray {address}: this cluster cannot be joined: {one_line(error)}") from None

    def leave(self) -> None:
        """End a cluster of our own; let go of another."""
        ray.shutdown()
        if self._own_folder is not None:
            self._own_folder.remove()
            self._own_folder = None

    @property
    def is_own(self) -> bool:
        """It was started for this, on this machine."""
        return self._own_folder is not None

    # --- what there is ---------------------------------------------------------------------------------------------------

    def actors_for(self, hosts: int, hosts_per_actor: int | None) -> int:
        """How many actors: one for each CPU that is free, or as many as `hosts_per_actor` makes."""
        free = int(ray.available_resources().get("CPU", 0))
        if free < 1:
            raise BadInput(f"the Ray cluster has no CPU for an actor: it has {self.describe()}, none free; wait, or add a machine")
        return min(hosts, free) if hosts_per_actor is None else -(-hosts // hosts_per_actor)

    def check_room(self, plan: Plan, hosts_per_actor: int | None) -> None:
        """BadInput if the cluster has not the CPUs or not the memory for the plan."""
        self.check_fits(plan.scenario.name, len(plan.hosts), hosts_per_actor)

    def check_fits(self, name: str, hosts: int, hosts_per_actor: int | None) -> None:
        """The same of so many hosts, before there is a plan."""
        whose = "this machine" if self._own_folder is not None else "the Ray cluster"
        check_fits(name, hosts, self.actors_for(hosts, hosts_per_actor), self.memory() or None, whose)

    def memory(self) -> int:
        """Bytes that are free for actors; 0: nobody says."""
        memory = int(ray.available_resources().get("memory", 0))
        if self._own_folder is not None:
            memory = available_here() or memory  # Ray keeps a third of it back, for programs that we do not have
        return memory

    def describe(self) -> str:
        alive = sum(bool(node["Alive"]) for node in ray.nodes())
        total = ray.cluster_resources()
        return f"{alive} machine{'' if alive == 1 else 's'} with {int(total.get('CPU', 0))} CPUs together"

    def actor_options(self, name: str) -> dict[str, Any]:
        """How an actor is placed and what becomes of it when it dies."""
        options: dict[str, Any] = {"name": name, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": "SPREAD"}
        variables = {name: os.environ[name] for name in HANDED_ON if os.environ.get(name)}
        if variables and self._own_folder is None:  # a cluster of our own has them already
            options["runtime_env"] = {"env_vars": variables}
        return options


QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""The variable by which Ray's processes know whether others may join (ray/_private/ray_constants.py); with 0 they bind to 127.0.0.1."""


@contextmanager
def on_loopback() -> Iterator[None]:
    """A cluster that is started meanwhile is this machine's alone. `_node_ip_address` does not do it: Ray takes 127.0.0.1 for another
    name of the machine's address and binds to all of them."""
    before, known = os.environ.get(ONE_MACHINE), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[ONE_MACHINE], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known
        os.environ.pop(ONE_MACHINE)
        if before is not None:
            os.environ[ONE_MACHINE] = before


HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""What a client of gRPC says first: the connection preface and an empty SETTINGS frame, which are answered by such a frame (RFC 9113)."""
FRAME_HEADER, SETTINGS = 9, 4


def check_reachable(address: str) -> None:
    """BadInput, within seconds, if nobody listens there, or somebody who cannot be a cluster's head: Ray itself would try for a minute
    and print what it finds strange."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise BadInput(f"--ray is {address!r}; write auto, local, or HOST:PORT of a cluster's head, such as 10.0.0.5:6379")
    try:
        there = socket.create_connection((host.strip("[]"), int(port)), REACH_S)
    except OSError as error:
        raise BadInput(
            f"--ray {address}: nobody answers there ({error.strerror or 'no answer in 5 s'}); is the cluster's head up?"
        ) from None
    with there:
        if os.environ.get("RAY_USE_TLS", "0") in ("", "0") and not speaks_grpc(there):
            raise BadInput(
                f"--ray {address}: something listens there, but not the head of a Ray cluster; its port is 6379 unless it was set"
            )


def speaks_grpc(there: socket.socket) -> bool:
    """Whether the other side of a new connection answers as a server of gRPC does."""
    answer = b""
    try:
        there.settimeout(REACH_S)
        there.sendall(HTTP2_HELLO)
        while len(answer) < FRAME_HEADER and (more := there.recv(FRAME_HEADER - len(answer))):
            answer += more
    except OSError:
        return False
    return len(answer) == FRAME_HEADER and answer[3] == SETTINGS


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
