# SPDX-License-Identifier: Apache-2.0
"""Faults that change a kernel setting of a host; ending one writes the value back that the host had booted with.

Leaves out: settings outside vm.* and settings whose booted value the kernel computes itself (they cannot be put back).
"""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field, model_validator

from fleetsim.errors import BadInput
from fleetsim.faults.base import FAULTS, Fault, Target
from fleetsim.host.spec import Command
from fleetsim.linux import sysctl


class _Setting(Fault):
    @abstractmethod
    def _knob(self) -> tuple[str, int]:
        """The setting's name and what is written to it."""

    @model_validator(mode="after")
    def _in_range(self) -> _Setting:
        try:
            sysctl.validate(*self._knob())
        except BadInput as error:
            raise ValueError(error.sentence) from None
        return self

    def inject(self, target: Target, at_ns: int) -> list[Command]:
        name, value = self._knob()
        return [Command(at_ns, target.host, "sysctl", {"name": name, "value": value})]

    def clear(self, target: Target, at_ns: int) -> list[Command]:
        name, _ = self._knob()
        return [Command(at_ns, target.host, "sysctl", {"name": name, "value": target.settings[name]})]

    def refuse(self, target: Target) -> str | None:
        if target.pod is not None:
            return "a kernel setting belongs to a host; name a host group or a host"
        name, _ = self._knob()
        return None if name in target.settings else f"{name} is computed by the kernel at boot; set it in the fleet's sysctl"


@FAULTS.register("sysctl")
class Sysctl(_Setting):
    """Somebody writes another value to a kernel setting."""

    name: str = Field(description="the setting, such as vm.swappiness")
    value: int = Field(description="its new value")

    def _knob(self) -> tuple[str, int]:
        return self.name, self.value


@FAULTS.register("swappiness")
class Swappiness(_Setting):
    """vm.swappiness is set to another value: how the kernel weighs swapping against dropping page cache."""

    value: int = Field(description="0 to 200; the default of Linux is 60")

    def _knob(self) -> tuple[str, int]:
        return "vm.swappiness", self.value
