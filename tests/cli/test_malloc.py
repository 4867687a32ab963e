# SPDX-License-Identifier: Apache-2.0
"""`fleetsim malloc` as its user meets it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fleetsim.allocators.patterns import PATTERNS
from fleetsim.cli.main import execute

Captured = pytest.CaptureFixture[str]


def said(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    code = execute(["malloc", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def told(capsys: Captured, *arguments: object) -> Any:
    code, out, _ = said(capsys, *arguments, "--json")
    assert code == 0
    return json.loads(out)["allocators"][0]


def test_without_a_trace_the_patterns_are_listed(capsys: Captured) -> None:
    code, out, _ = said(capsys)
    assert code == 0 and all(name in out for name in PATTERNS)


def test_a_trace_becomes_a_table_graphs_and_an_account(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "two.trace"
    file.write_text("malloc a 1MiB\nmalloc b 100\nfree a\nsleep 2\n")
    code, out, _ = said(capsys, file)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].endswith("two.trace: 4 ops, 1 thread, glibc as it comes")
    assert "live" in lines[2] and "resident" in lines[2]
    table = [line.split() for line in lines[3:7]]
    assert [row[0] for row in table] == ["1", "2", "3", "4"] and table[3][1:3] == ["2.0", "s"]
    assert table[0][3:5] == ["1.0", "MiB"] and table[3][3:5] == ["100", "B"]
    assert "malloc_trim(0) now would give back" in out


def test_each_way_to_lose_memory_is_told_apart(capsys: Captured) -> None:
    """A real leak, fragmentation, a pinned top, arenas times threads, malloc_trim not called: the same RSS, other accounts."""
    leak, scattered, pinned = (told(capsys, name, "--blocks", 20_000) for name in ("leak", "random-free", "pinned-top"))
    assert leak["fragmentation"][-1] < 0.05 and leak["malloc_trim_would_return"] < leak["samples"][-1]["resident"] // 20
    end = scattered["samples"][-1]
    assert scattered["fragmentation"][-1] > 0.85, "nearly all that is resident is free"
    assert 0.5 * end["resident"] < scattered["malloc_trim_would_return"] < 0.85 * end["resident"], "but not in whole pages"
    end = pinned["samples"][-1]
    assert end["live"] == 4096 and end["resident"] == pinned["peak_resident"], "one block holds all"
    assert pinned["malloc_trim_would_return"] > 0.95 * end["resident"], "in whole pages: a call of malloc_trim is missing"
    many, one = (told(capsys, "threads", "--blocks", 20_000, "--tunables", text) for text in ("", "glibc.malloc.arena_max=1"))
    assert many["samples"][-1]["arenas"] == 16 and one["samples"][-1]["arenas"] == 1
    assert many["samples"][-1]["resident"] > 4 * one["samples"][-1]["resident"]


def test_the_same_seed_is_the_same_answer_and_another_is_not(capsys: Captured) -> None:
    first, again, other = (told(capsys, "random-free", "--blocks", 2000, "--seed", seed) for seed in (7, 7, 8))
    assert first == again and first != other


def test_samples_as_a_table_and_as_a_page(capsys: Captured, tmp_path: Path) -> None:
    table, page = tmp_path / "samples.csv", tmp_path / "samples.html"
    for file in (table, page):
        assert said(capsys, "leak", "--blocks", 900, "--every", 100, "--plot", file)[0] == 0
    rows = list(csv.DictReader(table.open()))
    answer = told(capsys, "leak", "--blocks", 900, "--every", 100)
    assert [int(row["resident"]) for row in rows] == [s["resident"] for s in answer["samples"]]
    assert "<title>fleetsim malloc</title>" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "'nonsense' is neither a file nor a built-in pattern: there are growth"),
        (["none.trace"], "none.trace: no such file"),
        (["leak", "--allocator", "dlmalloc"], "unknown allocator 'dlmalloc'"),
        (["leak", "--tunables", "glibc.malloc.arenas=1"], "unknown tunable 'arenas'"),
        (["leak", "--tunables", "glibc.malloc.mxfast=161"], "the tunable glibc.malloc.mxfast is 161: it must be 0 to 160"),
        (["leak", "--tunables", "arena_max=one"], "the tunable glibc.malloc.arena_max is 'one'"),
        (["leak", "--tunables", "arena_max"], "it must be a whole number"),
        (["leak", "--tunables", "glibc.malloc.hugetlb=1"], "is not simulated"),
        (["leak", "--allocator", "glibc", "--allocator", "glibc", "--tunables", "arena_max=1"], "are one allocator's"),
        (["leak", "--sizes", "9-3"], "the sizes are '9-3'"),
        (["leak", "--blocks", "0"], "--blocks"),
        (["leak", "--blocks", "100", "--plot", "x.png"], "its name must end in .html"),
        (["leak", "--blocks", "100", "--plot", "nowhere/x.csv"], "there is no such folder"),
        (["bad.trace"], "bad.trace:2: free of block 'b', which was never allocated"),
        (["good.trace", "--seed", "3"], "--seed draws a pattern"),
    ],
)
def test_bad_input_is_exit_2_and_one_sentence(
    arguments: list[str], words: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.trace").write_text("malloc a 1\nfree b\n")
    Path("good.trace").write_text("malloc a 1\n")
    code, out, err = said(capsys, *arguments)
    assert (code, out) == (2, "")
    sentence, _ = err.strip().splitlines()
    assert words in sentence


def test_more_address_space_than_is_simulated_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "large.trace"
    trace.write_text("malloc a 16GiB\n")
    assert execute(["malloc", str(trace), "--allocator", "tcmalloc"]) == 2
    assert "op 1 needs more than the 4 GiB of address space simulated here" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--plot", "x.html"), ("--threads", "4"), ("--every", "9"), ("--sizes", "8-16")])
def test_loops_refuse_what_they_would_ignore(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["malloc", "malloc 1000 64", *option]) == 2
    assert f"{option[0]} is not for loops" in capsys.readouterr().err


def test_what_is_no_file_is_not_read_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["malloc", "/dev/zero"]) == 2
    assert "it is no file" in capsys.readouterr().err


def test_where_a_plot_goes_is_checked_before_the_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["malloc", "pinned-top", "--plot", str(tmp_path / "no" / "x.html")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("allocator", ["glibc", "jemalloc", "tcmalloc"])
@pytest.mark.parametrize("trace", ["few.trace", "random-free"])
def test_a_narrow_terminal_loses_no_figure(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allocator: str, trace: str
) -> None:
    (tmp_path / "few.trace").write_text("malloc a 100\nmalloc b 1MiB\nfree b\nsleep 2\nmalloc c 5000\n")
    monkeypatch.chdir(tmp_path)
    options = ["--blocks", "2000"] if trace == "random-free" else []
    _, wide, _ = said(capsys, trace, "--allocator", allocator, *options)
    monkeypatch.setenv("COLUMNS", "80")
    _, narrow, _ = said(capsys, trace, "--allocator", allocator, *options)
    assert max(map(len, narrow.splitlines())) <= 80

    def words(text: str) -> list[str]:
        return sorted(word for word in text.split() if not set(word) <= set("▁▂▃▄▅▆▇█"))

    assert words(narrow) == words(wide)


def test_a_trace_may_come_through_a_pipe_gzipped_or_not(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"malloc a 100\nfree a\n"
    (tmp_path / "t").write_bytes(text)
    expected = told(capsys, tmp_path / "t")
    for piped in (text, gzip.compress(text)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(piped))))
        assert told(capsys, "-")["samples"] == expected["samples"]
    for piped, words in (
        (b"", "stdin: the file is empty"),
        (b"free a\n", "stdin:1"),
        (gzip.compress(text)[:-9], "the gzipped file"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(piped))))
        code, out, err = said(capsys, "-")
        assert (code, out) == (2, "") and words in err


@pytest.mark.parametrize("allocator", ["glibc", "jemalloc", "tcmalloc"])
def test_what_is_resident_is_mapped_and_metadata_is_a_part_of_it(capsys: Captured, allocator: str) -> None:
    for pattern in ("growth", "random-free", "big-blocks"):
        for s in told(capsys, pattern, "--blocks", 2000, "--allocator", allocator)["samples"]:
            assert s["metadata"] <= s["resident"] <= s["mapped"] <= s["reserved"]
            assert (s["metadata"] > 0) == (allocator != "glibc")
            assert s["allocated"] + s["cached"] + s["free"] + s["metadata"] <= s["reserved"]
    _, out, _ = said(capsys, "leak", "--blocks", 2000, "--allocator", allocator)
    assert ("in its tables" in out) == (allocator != "glibc") and "unused: the share of resident that is in no live block" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["leak", "--sizes", "10GiB-20GiB"], "1 byte to 8 GiB, the least first"),
        (["leak", "--sizes", "4096"], "must be least and most bytes"),
        (["leak", "--sizes", "4KB-8KB"], "sizes are binary: write KiB"),
        (["malloc 9 10GiB-200GiB"], "of 1 to 68,719,476,736 bytes"),
        (["malloc 99999999999 64"], "at most 2,000,000 blocks"),
        (["malloc 9 64 | wait 99999999999"], "at most 10,000,000 seconds"),
        (["malloc 9 64 | free first 1000%"], "at most 100%"),
        (["malloc 9 4KB"], "sizes are binary: write KiB"),
    ],
)
def test_what_is_out_of_range_is_told_the_range(capsys: Captured, arguments: list[str], sentence: str) -> None:
    code, out, err = said(capsys, *arguments)
    assert (code, out) == (2, "") and sentence in err


def test_sizes_have_units_or_are_bytes(capsys: Captured) -> None:
    sizes = [told(capsys, "leak", "--blocks", 500, "--sizes", text)["samples"] for text in ("4096-8192", "4KiB-8KiB", "4096B-8Ki")]
    assert sizes[0] == sizes[1] == sizes[2]
    assert said(capsys, "malloc 500 4096-8192")[1].split()[-2:] == said(capsys, "malloc 500 4KiB-8KiB")[1].split()[-2:]
