# SPDX-License-Identifier: Apache-2.0
"""The workload that does nothing: all there is to fill in."""

from fleetsim.containers.plugin import Field, Kernel, Needs, Size, Workload

DAY = 86_400


class Nap(Workload):
    """A process that takes some memory and sleeps."""

    class Arguments(Workload.Arguments):
        memory: Size = Field(1 << 20, description="how much it writes to when it starts")

    area = None

    def needs(self) -> Needs:
        return Needs(memory=(self.arguments.memory,))

    def step(self, kernel: Kernel) -> None:
        if self.area is None and self.arguments.memory > 0:
            self.area = kernel.mmap(self.arguments.memory)
        if self.area is None or self.area.is_full:
            kernel.sleep(DAY)
        else:
            kernel.touch(self.area)
