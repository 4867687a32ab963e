# SPDX-License-Identifier: Apache-2.0
"""A Redis server of our own for the length of a measurement, and the data put into it.

It listens on a unix socket in its own folder (port 0: no TCP at all), keeps nothing it is not asked to keep (`save ""`), and is the
distribution's program with the distribution's jemalloc. The keys are `key:0000000000`… and the values are bytes that do not compress.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.calibrate.process import folder_of_its_own, started, status
from scripts.calibrate.redis_client import Client, command

START_S = 20
MIB = 1 << 20
# MEMORY USAGE and INFO agree on these; RSS comes from the kernel.
MEMORY = "used_memory used_memory_rss allocator_allocated allocator_active allocator_resident mem_fragmentation_ratio".split()


@dataclass
class Redis:
    process: subprocess.Popen[bytes]
    client: Client
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def memory(self) -> dict[str, float]:
        """Redis's own account beside the kernel's. `used_memory_rss` is as old as the last serverCron (100 ms): waited for."""
        time.sleep(0.25)
        info = self.client.info("memory")
        figures = {name if name.endswith("ratio") else f"{name}_bytes": float(info[name]) for name in MEMORY}
        return figures | {"vmrss_bytes": status(self.process.pid)["VmRSS"] * 1024.0}


def version() -> str:
    """As `redis-server --version` says it, without the build's hash: `7.0.15, malloc=jemalloc-5.3.0`."""
    words = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout.split()
    return ", ".join(word.removeprefix("v=") for word in words if word.startswith(("v=", "malloc=")))


@contextlib.contextmanager
def redis(*settings: str, env: Mapping[str, str] | None = None) -> Iterator[Redis]:
    """A server with these settings (`"--maxmemory", "100mb"`)."""
    program = shutil.which("redis-server")
    if not program:
        raise FileNotFoundError("no redis-server on the PATH")
    with folder_of_its_own() as folder:
        own = ["--port", "0", "--unixsocket", f"{folder}/s", "--dir", str(folder), "--logfile", f"{folder}/log", "--save", ""]
        with started([program, *own, *settings], folder, env) as process:
            client = connected(process, folder)
            try:
                yield Redis(process, client, folder)
            finally:
                client.close()


def connected(process: subprocess.Popen[bytes], folder: Path) -> Client:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            return Client(folder / "s")
        time.sleep(0.02)
    said = [(folder / name).read_text(errors="replace") for name in ("log", "output") if (folder / name).exists()]
    raise RuntimeError(f"redis-server did not start: {' '.join(' '.join(said).split())[-500:]}")


def key(number: int) -> bytes:
    return b"key:%010d" % number


def load(client: Client, keys: int, size: int, seed: int = 1) -> None:
    """`keys` keys with values of `size` bytes that do not compress; in order, as a cache warmed from a database is."""
    draw = random.Random(seed)
    pool = draw.randbytes(size + 4096)
    client.pipeline(command(b"SET", key(number), pool[(at := draw.randrange(4096)) : at + size]) for number in range(keys))
