# SPDX-License-Identifier: Apache-2.0
"""The vm.* knobs: a real host's names and defaults, the kernel's bounds, and a sentence for everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetsim.errors import BadInput
from fleetsim.linux.sysctl import LOWMEM_RESERVE_RATIO, SYSCTLS, counterpart, defaults, validate

NOT_OURS = {  # in the kernel's folder, but about hardware or address-space layout a simulated host has not
    "hugetlb_optimize_vmemmap", "lowmem_reserve_ratio", "mmap_min_addr", "mmap_rnd_bits", "mmap_rnd_compat_bits",
    "nr_hugepages_mempolicy", "numa_zonelist_order", "stat_refresh", "unprivileged_userfaultfd",
}  # fmt: skip


def recorded(shared_dir: Path) -> dict[str, str]:
    return json.loads((shared_dir / "recordings" / "e01_idle" / "start.json").read_text())["sysctl_vm"]


def test_every_knob_of_a_real_host_is_known_and_no_other(shared_dir: Path) -> None:
    readable = {name.removeprefix("vm.") for name, knob in SYSCTLS.items() if name.startswith("vm.") and not knob.write_only}
    assert readable == set(recorded(shared_dir)) - NOT_OURS


def test_defaults_are_those_of_a_real_host(shared_dir: Path) -> None:
    real = recorded(shared_dir)
    ours = {name.removeprefix("vm."): str(value) for name, value in defaults().items() if name.startswith("vm.")}
    assert {name: real[name] for name in ours} == ours
    assert tuple(int(word) for word in real["lowmem_reserve_ratio"].split()) == LOWMEM_RESERVE_RATIO


@pytest.mark.parametrize("name", sorted(SYSCTLS))
def test_bounds_are_inclusive(name: str) -> None:
    knob = SYSCTLS[name]
    assert validate(name, knob.low) == knob.low
    assert validate(name, knob.high) == knob.high
    for outside in (knob.low - 1, knob.high + 1):
        if outside == 0 and knob.also_zero:
            continue
        with pytest.raises(BadInput):
            validate(name, outside)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("vm.swappiness", 201, "vm.swappiness must be 0 to 200; it is 201"),
        ("vm.watermark_scale_factor", 0, "vm.watermark_scale_factor must be 1 to 3000 1/10000; it is 0"),
        ("vm.dirty_bytes", 0, "vm.dirty_bytes must be 8192 or more bytes; it is 0"),
        ("vm.percpu_pagelist_high_fraction", 7, "vm.percpu_pagelist_high_fraction must be 0 (off) or 8 or more; it is 7"),
        ("vm.swappiness", "ten", "vm.swappiness must be a whole number, 0 to 200; it is 'ten'"),
        ("vm.swappiness", True, "vm.swappiness must be a whole number, 0 to 200; it is True"),
        ("vm.swapiness", 10, "unknown sysctl 'vm.swapiness'; did you mean 'vm.swappiness'?"),
    ],
)
def test_a_refusal_says_what_would_be_right(name: str, value: object, sentence: str) -> None:
    with pytest.raises(BadInput) as refused:
        validate(name, value)
    assert refused.value.sentence == sentence


def test_a_name_like_none_lists_what_there_is() -> None:
    with pytest.raises(
        BadInput,
        match=r"scenario\.yaml:7: unknown sysctl 'kernel\.pid_max'; known are: kernel\.randomize_va_space, vm\.admin_reserve_kbytes, ",
    ):
        validate("kernel.pid_max", 1, file="scenario.yaml", line=7)


def test_off_is_a_value_of_the_pcp_fraction() -> None:
    assert validate("vm.percpu_pagelist_high_fraction", 0) == 0


def test_writing_one_face_of_a_limit_clears_the_other() -> None:
    pairs = {name: counterpart(name) for name in SYSCTLS if counterpart(name)}
    assert len(pairs) == 6
    assert all(pairs[other] == name for name, other in pairs.items())
    assert counterpart("vm.swappiness") is None
