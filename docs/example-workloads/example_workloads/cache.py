# SPDX-License-Identifier: Apache-2.0
"""A cache in front of a database, as memcached is one: what was asked for and was not there is put in, until its memory is full."""

from fleetsim.containers.plugin import MIB, Field, Kernel, Needs, PositiveSize, Server

PAGE = 4096


class Cache(Server):
    """A cache: it answers from its memory, fills it with what was missed, and overwrites the least used when it is full."""

    class Arguments(Server.Arguments):
        memory: PositiveSize = Field(64 * MIB, description="room for items")
        item: PositiveSize = Field(1024, description="size of an item")
        keys: int = Field(1_000_000, description="different keys that clients ask for, each as often", ge=1)
        cpu_us: int = Field(20, description="processor time of a request, microseconds", ge=1)

    area = None  # its memory
    items = 0  # that are in it
    hits = misses = 0
    to_read = to_overwrite = 0  # bytes, in the batch under way

    def needs(self) -> Needs:
        return Needs(memory_at_random=(self.arguments.memory,))

    def step(self, kernel: Kernel) -> None:
        if self.area is None:
            self.area = kernel.mmap(self.arguments.memory, at_random=True)
            kernel.come_up()
            return
        if not kernel.batch:
            requests = kernel.take(100 * self.arguments.workers)
            if not requests:
                kernel.rest(kernel.tick)
                return
            kernel.compute(requests * self.arguments.cpu_us / 1e6)
            self.look_up(requests)
        if self.go_on(kernel):
            waiting = kernel.finish()
            kernel.rest(0 if waiting else kernel.tick)

    def look_up(self, requests: int) -> None:
        """Every key is asked for as often: the share of them that is here is the share of hits."""
        hits = requests * self.items // self.arguments.keys
        misses = requests - hits
        room = min(self.arguments.keys, self.arguments.memory // self.arguments.item) - self.items
        self.items += min(misses, room)
        self.to_read = hits * PAGE
        self.to_overwrite = max(0, misses - room) * PAGE
        self.hits, self.misses = self.hits + hits, self.misses + misses

    def go_on(self, kernel: Kernel) -> bool:
        """Do the memory's part of the batch; what is not done in this step is done in the next one."""
        filled = self.items * self.arguments.item
        while self.area.touched < filled and not self.area.is_full:
            if not kernel.touch(self.area, filled - self.area.touched):
                return False
        if self.to_read > 0:
            self.to_read -= kernel.access(self.area, self.to_read)
        if self.to_overwrite > 0:
            self.to_overwrite -= kernel.access(self.area, self.to_overwrite, write=True)
        return self.to_read <= 0 and self.to_overwrite <= 0
