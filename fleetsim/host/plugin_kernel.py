# SPDX-License-Identifier: Apache-2.0
"""What a workload written in Python may ask of the simulated kernel: one object, `Kernel`, handed to its `step`.

Bytes and seconds here; pages are 4 KiB, and what is not a whole page is rounded up. A call does as much as it can at once and
returns how much that was; what it cost is on the process' bill, which is paid between two steps. A call that did nothing wants to
be made again in the next step: that is how a process waits for memory or a disk. No call says why it was slow.

Rules: a refusal of the kernel is a `Refused` (an OSError with its errno); a call that kills the process does not return.
Leaves out: fork, shared memory, threads. How a call reaches the kernel: `fleetsim/workloads/plugin.py`.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fleetsim.host.spec import PlugIn
from fleetsim.linux.syscalls import MADVICE, OP_END, OP_START, ORDERED, PART_FIRST, PART_LAST, SYNC_DATA, SYNC_DONE, UNIFORM
from fleetsim.workloads import plugin as calls

PAGE = 4096
NS_PER_S = 1_000_000_000
MIB = 1 << 20
STEP_BYTES = 8 * MIB
"""What one call touches, reads or writes unless it is told otherwise: some milliseconds of work."""
CALLS_MAX = 10_000  # in one step
FREE_STEPS_MAX = 10_000  # steps on end that cost nothing and let no time pass
PARTS = {"first": PART_FIRST, "last": PART_LAST}


class Refused(OSError):
    """The kernel refused a call. A program that does not catch it exits with code 1, as a Python program does."""


class Ended(BaseException):
    """The process is gone: it exited, or was killed in a call. Raised through the program, past its `except Exception`."""


class Misuse(Exception):
    """A program has called what it may not call there."""


@dataclass(eq=False)
class Area:
    """A mapping of a process; sizes in bytes."""

    number: int  # row of the kernel's table
    bytes: int
    touched: int = 0  # so much from its begin was ever written to (all of it, of a file)
    mapped: bool = True

    @property
    def is_full(self) -> bool:
        return self.touched >= self.bytes


@dataclass
class Process:
    """One process of a plug-in: its program, and what its side of the kernel's door remembers. All of it is in a checkpoint."""

    plug: PlugIn
    name: str  # of the task
    row: int  # of the table of works
    files: dict[str, int]  # path in its container → row of the file
    pid: int = 0  # of its present life
    program: Any = None
    fresh: dict[int, int] = field(default_factory=dict)  # file → pages of the slice under way that came from the disk
    syncing: dict[int, int] = field(default_factory=dict)  # file → stage of the fsync under way
    batch: int = 0  # requests under way
    missed: int = 0  # … of them so many waited for a disk in a read
    free_steps: int = 0
    drawn: int = 0  # numbers of its luck

    def begin(self, pid: int) -> None:
        """It is started (again) and knows nothing of what was before."""
        self.pid, self.program = pid, self.plug.begin()
        self.fresh, self.syncing = {}, {}
        self.batch = self.missed = self.free_steps = self.drawn = 0


def pages_of(size: int) -> int:
    if not isinstance(size, int) or size < 0:
        raise Misuse(f"a size is a whole number of bytes, not {size!r}")
    return -(-size // PAGE)


def ns_of(seconds: float) -> int:
    if not 0 <= seconds < 1e9:
        raise Misuse(f"a time is a number of seconds, not {seconds!r}")
    return round(seconds * NS_PER_S)


class Kernel:
    """The kernel as a process sees it for the length of one step. It is not to be kept."""

    __slots__ = ("_call", "_calls", "_cost", "_end", "_mail", "_process", "_row")

    def __init__(self, row: Any, process: Process, call: Callable[[], None]) -> None:
        """`call` lets the host make the call that is in the slots of the process' work, and stop again."""
        self._row, self._mail, self._process, self._call = row, row["works"][process.row]["slots"], process, call
        self._cost = self._calls = 0
        self._end: tuple[int, int] | None = None

    def __reduce__(self) -> NoReturn:
        raise Misuse("the kernel is handed to each step anew; do not keep it")

    def _ask(self, call: int, *arguments: int) -> int:
        if self._end is not None:
            raise Misuse(f"{calls.CALLS[call]} after sleep, sleep_until or rest: that was the end of the step, return from it")
        self._calls += 1
        if self._calls > CALLS_MAX:
            raise Misuse(f"more than {CALLS_MAX} calls in one step; return from it and go on in the next one, so that time can pass")
        mail = self._mail
        mail[0] = call
        for place, value in enumerate(arguments, calls.ARGUMENT):
            mail[place] = value
        self._call()
        self._cost = int(mail[calls.COST])
        if mail[calls.GONE]:
            raise Ended
        return int(mail[calls.RESULT])

    def _in(self, area: Area) -> int:
        if not isinstance(area, Area) or not area.mapped:
            raise Misuse(f"{area!r} is no mapped area of this process")
        return area.number

    def _file(self, path: str) -> int:
        if path not in self._process.files:
            known = ", ".join(self._process.files) or "none"
            raise Misuse(f"file {path!r} is not among those that needs() says ({known})")
        return self._process.files[path]

    def _refuse(self, number: int, what: str = "") -> NoReturn:
        raise Refused(number, os.strerror(number), *((what,) if what else ()))

    # --- time and luck -----------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the boot of the host, when this step began (CLOCK_BOOTTIME)."""
        return int(self._row["now_ns"]) / NS_PER_S

    @property
    def tick(self) -> float:
        """Seconds: how much work is best done in one step, and how often a server looks for requests."""
        return int(self._row["tick_ns"]) / NS_PER_S

    def compute(self, seconds: float) -> None:
        """Use the processor for so long, in user mode."""
        self._ask(calls.COMPUTE, ns_of(seconds))

    def sleep(self, seconds: float) -> None:
        """The next step begins so long after this one's bill is paid. The last call of a step, as are `sleep_until` and `rest`; without
        any of them the next step begins when the bill is paid."""
        self._finish_with(calls.AFTER, ns_of(seconds))

    def sleep_until(self, when: float) -> None:
        """The next step begins at `when`, seconds since the boot of the host, or later if the bill is not paid by then."""
        self._finish_with(calls.UNTIL, ns_of(when))

    def _finish_with(self, how: int, ns: int) -> None:
        if self._end is not None:
            raise Misuse("a step sleeps once, at its end")
        self._end = (how, ns)

    def luck(self, below: int) -> int:
        """A number from 0 to `below` − 1, the same in every run with this seed. Python's own random module is not."""
        process = self._process
        key = f"{int(self._row['host_key'])} {process.name} {process.pid} {process.drawn}"
        process.drawn += 1
        return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "big") % below

    def exit(self, code: int = 0) -> NoReturn:
        """exit_group(2): it does not return. The container's restart policy says what is next."""
        self._ask(calls.EXIT_GROUP, code)
        raise Ended

    def tell(self, begin: bool) -> None:
        """The history says that a job begins (`op_start`) or ends (`op_end`)."""
        self._ask(calls.TELL, OP_START if begin else OP_END)

    # --- memory ------------------------------------------------------------------------------------------------------

    def mmap(self, size: int, *, at_random: bool = False, hot: int = 0, reserve: bool = True) -> Area:
        """Private anonymous memory of `size` bytes; Refused (ENOMEM) if the kernel does not promise it.

        at_random  how it is going to be used: anywhere, or from the begin to the end
        hot        bytes at its begin that are used more than the rest (see `access`)
        reserve    False: MAP_NORESERVE
        """
        kind = UNIFORM if at_random else ORDERED
        a = self._ask(calls.MAP_ANONYMOUS, pages_of(size), kind, pages_of(hot), int(reserve))
        return Area(a, pages_of(size) * PAGE) if a >= 0 else self._refuse(errno.ENOMEM)

    def mmap_file(self, path: str, *, at_random: bool = False, private: bool = False) -> Area:
        """A whole file, mapped to be read and written; Refused (ENOMEM) if it is empty or cannot be mapped."""
        f = self._file(path)
        a = self._ask(calls.MAP_FILE, f, UNIFORM if at_random else ORDERED, 0, int(private))
        if a < 0:
            self._refuse(errno.ENOMEM, path)
        size = self.file_size(path)
        return Area(a, size, size)

    def touch(self, area: Area, size: int = STEP_BYTES) -> int:
        """Write to the next `size` bytes of `area` that were never written to. Returns the bytes done; 0: none is left, or come again."""
        if area.is_full:
            return 0
        return self._on(area, self._ask(calls.TOUCH, self._in(area), pages_of(size)))

    def access(self, area: Area, size: int, *, at: int = 0, write: bool = False, hot: float = 0.0) -> int:
        """Read or overwrite `size` bytes of what was touched of `area`: from byte `at` on, or pages anywhere if it is used at random.

        hot      share of the accesses (0 to 1) that go to the hot part
        returns  bytes done; less than `size`: come again
        """
        hot_q = round(hot * (1 << 20))
        return self._on(area, self._ask(calls.ACCESS, self._in(area), at // PAGE, pages_of(size), hot_q, int(write)))

    def _on(self, area: Area, pages: int) -> int:
        area.touched = int(self._mail[calls.TOUCHED]) * PAGE
        return max(0, pages) * PAGE

    def munmap(self, area: Area) -> bool:
        """Give `area` back. False: it is large, come again."""
        area.mapped = not self._ask(calls.MUNMAP, self._in(area))
        return not area.mapped

    def madvise(self, area: Area, advice: str) -> bool:
        """madvise(2) over all of `area`: normal, willneed, dontneed, free, hugepage, nohugepage, cold, pageout. False: come again."""
        if advice not in MADVICE:
            raise Misuse(f"advice {advice!r} is none of {', '.join(MADVICE)}")
        done = self._ask(calls.MADVISE, self._in(area), MADVICE[advice])
        self._on(area, 0)
        return done > 0

    def discard(self, area: Area, part: str, size: int) -> None:
        """MADV_DONTNEED of the `first` or `last` bytes of `area`: the pages go, the addresses stay."""
        if part not in PARTS:
            raise Misuse(f"part {part!r} is none of {', '.join(PARTS)}")
        self._ask(calls.FREE_RANGE, self._in(area), 0, PARTS[part], pages_of(size))
        self._on(area, 0)

    def mlock(self, area: Area, *, onfault: bool = False) -> bool:
        """mlock2(2) over all of `area`. False: come again."""
        return self._ask(calls.MLOCK, self._in(area), int(onfault)) > 0

    def is_resident(self, area: Area) -> bool:
        """mincore(2): all that was touched of `area` is in memory and nobody reclaims."""
        return self._ask(calls.IS_RESIDENT, self._in(area)) > 0

    # --- files -------------------------------------------------------------------------------------------------------

    def file_size(self, path: str) -> int:
        """Bytes; 0: it is empty, or not there."""
        return self._ask(calls.FILE_SIZE, self._file(path)) * PAGE

    def creat(self, path: str, *, truncate: bool = True) -> bool:
        """Open a file to write to it, empty if `truncate`. False: come again."""
        opened = self._ask(calls.CREAT, self._file(path), ORDERED, int(truncate))
        return opened > 0 if opened >= 0 else self._refuse(errno.ENFILE, path)

    def read(self, path: str, at: int, size: int = STEP_BYTES) -> int:
        """Read up to `size` bytes from byte `at` on. Returns the bytes done; 0 before the end of the file: come again."""
        f, process = self._file(path), self._process
        pages = min(pages_of(size), self._ask(calls.FILE_SIZE, f) - at // PAGE)
        if pages <= 0:
            return 0
        done = self._ask(calls.READ_FILE, f, at // PAGE, pages, process.fresh.get(f, 0), ORDERED)
        process.fresh[f] = int(self._mail[calls.MORE])
        return done * PAGE if done >= 0 else self._refuse(errno.EIO, path)

    def pread(self, path: str, blocks: int, *, block: int = PAGE, at_once: int = 1) -> int:
        """Read `blocks` blocks of `block` bytes at random places of a file, `at_once` at a time. Returns the bytes done; less than that:
        come again."""
        pages = pages_of(block)
        done = self._ask(calls.PREAD, self._file(path), 0, blocks * pages, pages, at_once)
        self._process.missed += int(self._mail[calls.MORE]) // max(1, pages)
        return done * PAGE if done >= 0 else self._refuse(errno.EIO, path)

    def write(self, path: str, at: int, size: int = STEP_BYTES) -> int:
        """Write up to `size` bytes from byte `at` on; who writes faster than the disk is held up. Returns the bytes done; 0: come again."""
        done = self._ask(calls.WRITE_FILE, self._file(path), at // PAGE, pages_of(size))
        return done * PAGE if done >= 0 else self._refuse(errno.ENOSPC, path)

    def fsync(self, path: str) -> bool:
        """Wait until what was written is on the disk. False: not yet, come again."""
        f, syncing = self._file(path), self._process.syncing
        stage = self._ask(calls.FSYNC, f, syncing.pop(f, SYNC_DATA))
        if stage != SYNC_DONE:
            syncing[f] = stage
        return stage == SYNC_DONE

    def unlink(self, path: str) -> bool:
        """Remove a file. False: come again."""
        return self._ask(calls.UNLINK, self._file(path)) > 0

    # --- users' requests (of a workload that has them) ---------------------------------------------------------------

    @property
    def batch(self) -> int:
        """Requests under way: taken, not finished."""
        return self._process.batch

    @property
    def present(self) -> int:
        """Requests that were there when the last batch was taken, waiting or served."""
        return int(self._row["works"][self._process.row]["server"]["present"])

    @property
    def service(self) -> float:
        """Seconds that a request took last, on average: how much work a batch of so many would be. 0: none was finished yet."""
        return int(self._row["works"][self._process.row]["server"]["service_ns"]) / NS_PER_S

    def come_up(self) -> None:
        """From now on it answers; who came before was refused."""
        self._ask(calls.COME_UP)

    def take(self, most: int) -> int:
        """Begin a batch: the up to `most` requests that wait longest. Returns how many; 0: nobody waits."""
        if self._process.batch:
            raise Misuse("take: finish the batch under way first")
        self._process.batch, self._process.missed = self._ask(calls.TAKE, most), 0
        return self._process.batch

    def finish(self) -> int:
        """The batch is answered, with all that is on the bill. Its requests did it side by side, on so many workers as there are.

        returns  requests that wait
        """
        if not self._process.batch:
            raise Misuse("finish: no batch is under way, take one first")
        self._process.batch = 0
        return self._ask(calls.FINISH, self._process.missed)

    def fail(self, requests: int) -> None:
        """So many of the requests just finished were answered with an error."""
        self._ask(calls.FAIL, requests)

    def pause(self, seconds: float) -> None:
        """The whole process stands still for so long from now, whatever its workers do: who arrives meanwhile waits."""
        self._ask(calls.PAUSE, ns_of(seconds))

    def rest(self, seconds: float) -> None:
        """The next step begins when the bill is paid, and not before so long from the begin of this one: the next batch gathers until
        then. For servers: a delay beyond that is a delay of those who came meanwhile."""
        self._finish_with(calls.REST, ns_of(seconds))

    # --- the end of a step -------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """The program has returned from its step (the host calls this): put the end of the turn into the slots."""
        how, ns = self._end or (calls.AFTER, 0)
        idles = self._cost == 0 and (ns == 0 if how != calls.UNTIL else ns <= int(self._row["now_ns"]))
        self._process.free_steps = self._process.free_steps + 1 if idles else 0
        if self._process.free_steps > FREE_STEPS_MAX:
            raise Misuse(f"{FREE_STEPS_MAX} steps on end that cost nothing and did not sleep: it would go on for ever; end with sleep")
        self._mail[0], self._mail[calls.ARGUMENT], self._mail[calls.ARGUMENT + 1] = calls.END, how, ns
