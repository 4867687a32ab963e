# SPDX-License-Identifier: Apache-2.0
"""`fleetsim tlb` as a user meets it."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleetsim.cli.main import execute
from fleetsim.hardware.tlb_profiles import PROFILES

Captured = pytest.CaptureFixture[str]


def said(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    code = execute(["tlb", *(str(argument) for argument in arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def results(capsys: Captured, *arguments: object) -> list[dict[str, Any]]:
    code, out, _ = said(capsys, *arguments, "--json")
    assert code == 0
    return json.loads(out)  # type: ignore[no-any-return]


def test_the_tutorials_sentence_can_be_tried(capsys: Captured) -> None:
    """1536 entries cover 6 MB; huge pages 3 GB or 1.5 TB."""
    by_size = results(capsys, "uniform", "--working-set", "6MiB", "--pages", "4K,2M,1G", "--warm-up", 100_000, "--accesses", 100_000)
    assert [result["reach_bytes"]["l2"] for result in by_size] == [6 << 20, 3 << 30, 1536 << 30]
    assert [result["walks"] for result in by_size] == [0, 0, 0]
    small, huge, giant = results(
        capsys, "uniform", "--working-set", "3GiB", "--pages", "4K,2M,1G", "--warm-up", 100_000, "--accesses", 100_000
    )
    assert small["walks"] > 99_000 and huge["walks"] == giant["walks"] == 0
    assert small["cycles_per_access"] > 10 * huge["cycles_per_access"]


def test_a_table_has_a_column_per_page_size(capsys: Captured) -> None:
    code, out, err = said(capsys, "chase", "--profile", "zen3", "--pages", "4K,2M", "--accesses", 1000)
    assert (code, err) == (0, "")
    for words in (
        "4K pages",
        "2M pages",
        "AMD Zen 3",
        "hits in L1",
        "page walks",
        "loads per walk",
        "cycles per access",
        "8MiB, 4GiB".split(", ")[1],
    ):
        assert words in out


def test_the_profiles_are_listed(capsys: Captured) -> None:
    code, out, _ = said(capsys, "profiles")
    assert code == 0
    for profile in PROFILES:
        assert profile.name in out
    assert [entry["name"] for entry in results(capsys, "profiles")] == [profile.name for profile in PROFILES]


@pytest.mark.parametrize("width", [60, 80, 150])
def test_the_profiles_fit_the_terminal_and_leave_out_nothing(capsys: Captured, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = said(capsys, "profiles")
    assert max(map(len, out.splitlines())) <= width
    words = " ".join(out.split())
    for profile in PROFILES:
        assert f"{profile.name}: {profile.cpu}; cycles {profile.l1d_miss}, {profile.l2_miss}, {profile.load}; L2 reaches " in words
        for part in profile.parts:
            assert f"{part.name}: {part.entries}, " in words or part.roles.startswith(("P", "n"))
    assert width < 80 or len(out.splitlines()) < 60


def test_a_gzipped_trace_is_read_and_a_damaged_one_refused(capsys: Captured, tmp_path: Path) -> None:
    text = "".join(f"{page << 12:x}\n" for page in range(3000)).encode()
    plain, packed, cut, damaged = (tmp_path / name for name in ("plain", "packed.gz", "cut.gz", "damaged.gz"))
    plain.write_bytes(text)
    packed.write_bytes(gzip.compress(text))
    cut.write_bytes(gzip.compress(text)[:-20])
    damaged.write_bytes(gzip.compress(text)[:100] + bytes(50) + gzip.compress(text)[150:])
    assert results(capsys, packed) == results(capsys, plain) != []
    for file, words in ((cut, "truncated: its end is missing"), (damaged, "damaged")):
        code, out, err = said(capsys, file)
        assert (code, out) == (2, "") and words in err and file.name in err


def test_options_reach_the_simulator(capsys: Captured) -> None:
    def one(*arguments: object) -> dict[str, Any]:
        return results(capsys, "uniform", "--working-set", "1GiB", "--accesses", 20_000, *arguments)[0]

    assert one("--vm")["loads_per_walk"] == 24
    assert one("--vm", "--host-pages", "2M")["loads_per_walk"] == 19
    assert one("--levels", 5)["loads_per_walk"] == 5
    assert one("--huge", 100)["walks"] == 512
    assert one("--processes", 3, "--switch-every", 1000)["switches"] == 19
    assert one("--processes", 3, "--switch-every", 1000, "--no-pcid")["flushes"] == 19
    assert one("--shootdown-every", 1000)["shootdowns"] == 19
    assert one("--seed", 2) != one("--seed", 3) and one("--seed", 2) == one("--seed", 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rando"], "'rando' is neither a file nor a pattern; patterns are sequential, stride, uniform, zipf, chase"),
        (["uniform", "--profile", "pentium"], "unknown TLB profile 'pentium'; known are: generic, skylake"),
        (["uniform", "--pages", "4K,8K"], "'8K' is not"),
        (["uniform", "--working-set", "6MB"], "6MB"),
        (["uniform", "--working-set", "1KiB"], "1024 bytes"),
        (["uniform", "--step", "64B"], "--step '64B' is for the patterns stride and chase"),
        (["uniform", "--accesses", "0"], "--accesses"),
        (["zipf", "--skew", "9"], "--skew"),
        (["TRACE", "--working-set", "1GiB"], "--working-set '1GiB' is for patterns"),
        (["TRACE"], ":2: ' L 04222' ends too early"),
        (["FOLDER"], "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], words: str, capsys: Captured, tmp_path: Path) -> None:
    trace = tmp_path / "cut.trace"
    trace.write_bytes(b" L 04222c0,8\n L 04222")
    names = {"TRACE": str(trace), "FOLDER": str(tmp_path)}
    code, out, err = said(capsys, *(names.get(word, word) for word in arguments))
    assert (code, out) == (2, "")
    assert words in err.splitlines()[0] and len(err.splitlines()) == 2


def test_a_trace_of_a_real_program(capsys: Captured, tmp_path: Path) -> None:
    """What lackey itself counts of /bin/true is what is simulated."""
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    trace = tmp_path / "true.trace"
    command = ["valgrind", "--tool=lackey", "--trace-mem=yes", f"--log-file={trace}", "/bin/true"]
    subprocess.run(command, check=True, capture_output=True)
    lines = [line for line in trace.read_text().splitlines() if not line.startswith("==") and line]
    fetches = sum(line.startswith("I") for line in lines)
    [result] = results(capsys, trace)
    across = sum((int(line[3:].split(",")[0], 16) & 4095) + int(line.split(",")[1]) > 4096 for line in lines)
    assert result["accesses"] == len(lines) + across
    assert fetches <= result["code"]["accesses"] <= fetches + across
    pages = {int(line[3:].split(",")[0], 16) >> 12 for line in lines}
    assert 10 < len(pages) <= result["walks"] + 20


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        (("--host-pages", "2M"), "--vm"),
        (("--switch-every", "5"), "--processes 2 or more"),
        (("--shootdown-pages", "5"), "--shootdown-every"),
        (("--huge", "50", "--pages", "2M"), "--pages 4K"),
    ],
)
def test_an_option_without_its_other_half_is_refused(options: tuple[str, ...], needs: str, capsys: Captured) -> None:
    code, _, err = said(capsys, "uniform", *options)
    assert code == 2 and f"means something only with {needs}" in err


def test_a_trace_cut_in_its_last_line_is_refused(tmp_path: Path, capsys: Captured) -> None:
    trace = tmp_path / "cut.txt"
    trace.write_text("0x400000\n0x1234")
    code, _, err = said(capsys, str(trace))
    assert code == 2 and "cut.txt:2: the last line '0x1234' has no end of line" in err
