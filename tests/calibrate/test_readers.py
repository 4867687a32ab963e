# SPDX-License-Identifier: Apache-2.0
"""What the real programs print is read as it is meant: INFO, the protocol, GC logs, native memory, flags, pgbench, sorts, /proc.

The samples are short and of our own making, in the programs' forms.
"""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.calibrate.gc_log import parse, slope
from scripts.calibrate.jvm_memory import parse_flags, parse_native_memory
from scripts.calibrate.postgres import parse_pgbench, parse_sort
from scripts.calibrate.process import kib_fields
from scripts.calibrate.redis_client import Client, ErrorReply, command, parse_info

G1_LOG = """\
[0.010s][gc,init] Heap Region Size: 2M
[1.100s][gc,start    ] GC(0) Pause Young (Normal) (G1 Evacuation Pause)
[1.120s][gc,heap     ] GC(0) Eden regions: 18->0(15)
[1.120s][gc,heap     ] GC(0) Survivor regions: 1->3(3)
[1.120s][gc,heap     ] GC(0) Old regions: 10->16
[1.120s][gc          ] GC(0) Pause Young (Normal) (G1 Evacuation Pause) 58M->39M(380M) 19.500ms
[1.121s][gc,cpu      ] GC(0) User=0.02s Sys=0.01s Real=0.02s
[2.000s][gc          ] GC(1) Concurrent Mark Cycle
[2.050s][gc          ] GC(1) Pause Remark 200M->190M(380M) 2.250ms
[2.050s][gc,cpu      ] GC(1) User=0.00s Sys=0.00s Real=0.00s
[2.060s][gc          ] GC(1) Pause Cleanup 190M->190M(380M) 0.100ms
[3.000s][gc,heap     ] GC(2) Survivor regions: 3->2(3)
[3.000s][gc,heap     ] GC(2) Old regions: 90->70
[3.000s][gc          ] GC(2) Pause Young (Mixed) (G1 Evacuation Pause) 300M->190M(380M) 40.000ms
[4.000s][gc          ] GC(3) Pause Full (System.gc()) 190M->100M(380M) 900.000ms
[4.001s][gc,cpu      ] GC(3) User=1.10s Sys=0.10s Real=0.90s
[5.000s][gc,start    ] GC(4) Pause Young (Normal) (G1 Evacuation Pause)
"""

SERIAL_LOG = """\
[1.500s][gc,start    ] GC(0) Pause Young (Allocation Failure)
[1.800s][gc,heap     ] GC(0) DefNew: 204800K(219648K)->20480K(274368K) Eden: 175293K(195264K)->0K(243904K) From: 18932K(24384K)->0K(30464K)
[1.800s][gc,heap     ] GC(0) Tenured: 102400K(488000K)->112640K(609552K)
[1.800s][gc          ] GC(0) Pause Young (Allocation Failure) 300M->130M(864M) 300.500ms
"""


def test_a_g1_log_is_its_pauses_with_what_was_copied() -> None:
    young, remark, cleanup, mixed, full = parse(G1_LOG.splitlines())
    assert [pause.kind for pause in (young, remark, cleanup, mixed, full)] == ["young", "remark", "cleanup", "mixed", "full"]
    assert (young.at_s, young.ms, young.before_mib, young.after_mib, young.committed_mib) == (1.12, 19.5, 58, 39, 380)
    assert young.processor_ms == pytest.approx(30)
    assert young.copied_mib == (3 + 6) * 2  # three survivor regions and six more old ones, of 2 MiB
    assert mixed.copied_mib == 2 * 2  # the old generation shrank: what was copied into it cannot be seen
    assert full.copied_mib is None
    assert full.processor_ms == pytest.approx(1200)


def test_a_serial_log_counts_in_kib() -> None:
    (pause,) = parse(SERIAL_LOG.splitlines())
    assert (pause.kind, pause.ms, pause.copied_mib) == ("young", 300.5, 20 + 10)


def test_a_log_without_pauses_or_cut_in_the_middle_gives_what_is_whole() -> None:
    assert parse([]) == []
    assert parse(["not a log", "[0.005s][gc] Using G1"]) == []
    cut = G1_LOG[: G1_LOG.index("[2.050s][gc,cpu")]
    assert [pause.kind for pause in parse(cut.splitlines())] == ["young", "remark"]


@given(st.integers(-50, 50), st.integers(-50, 50), st.lists(st.integers(-1000, 1000), min_size=5, max_size=30, unique=True))
def test_the_fitted_line_is_found_again_though_a_fifth_of_the_points_was_stretched(a: int, b: int, xs: list[int]) -> None:
    stretched = len(xs) // 5
    points = [(float(x), float(a + b * x + (10_000 if at < stretched else 0))) for at, x in enumerate(xs)]
    steep, rest = slope(points)
    assert steep == pytest.approx(b, abs=1e-6)  # more than half of all pairs are not of one stretched and one other
    assert rest == pytest.approx(a, abs=1e-6)


def test_a_line_through_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="two points"):
        slope([(1.0, 2.0), (1.0, 3.0)])


def test_info_is_names_and_values() -> None:
    text = "# Memory\r\nused_memory:899416\r\nused_memory_human:878.34K\r\n\r\n# Stats\r\nlatest_fork_usec:17762\r\nexecutable:/a:b\r\n"
    assert parse_info(text) == {"used_memory": "899416", "used_memory_human": "878.34K", "latest_fork_usec": "17762", "executable": "/a:b"}


def test_a_command_is_an_array_of_bulk_strings() -> None:
    assert command("SET", b"k\r\n", 12) == b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$2\r\n12\r\n"


def client_that_hears(answer: bytes) -> tuple[Client, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    client = Client.__new__(Client)
    client.socket, client.replies = ours, ours.makefile("rb")
    sender = threading.Thread(target=theirs.sendall, args=(answer,))
    sender.start()
    sender.join()
    return client, theirs


def test_every_kind_of_reply_is_read_and_an_error_keeps_the_pipeline_in_step() -> None:
    client, server = client_that_hears(b"+OK\r\n-ERR no\r\n:7\r\n$4\r\na\r\nb\r\n$-1\r\n*2\r\n:1\r\n$0\r\n\r\n")
    ok, error, number, text, nothing, several = client.batch([command("PING")] * 6)
    assert (ok, number, text, nothing, several) == (b"OK", 7, b"a\r\nb", None, [1, b""])
    assert isinstance(error, ErrorReply) and str(error) == "ERR no"
    server.close()
    with pytest.raises(ConnectionError):
        client.reply()
    client.close()


def test_an_error_is_raised_by_whoever_asks_for_one_thing() -> None:
    client, server = client_that_hears(b"-OOM command not allowed\r\n")
    with pytest.raises(ErrorReply, match="OOM"):
        client.ask("SET", "a", "b")
    server.close()
    client.close()


def test_native_memory_is_what_is_committed_by_category() -> None:
    text = """\
Total: reserved=2515MB, committed=101MB
-                 Java Heap (reserved=1048576KB, committed=14336KB)
                            (mmap: reserved=1048576KB, committed=14336KB)
-                        GC (reserved=98765KB, committed=38758KB)
-        Shared class space (reserved=16384KB, committed=12060KB)
"""
    assert parse_native_memory(text) == {
        "committed_java_heap_kib": 14336,
        "committed_gc_kib": 38758,
        "committed_shared_class_space_kib": 12060,
    }


def test_flags_are_names_and_values() -> None:
    text = """\
[Global flags]
     bool UseG1GC                                  = true                                      {product} {ergonomic}
   size_t MaxHeapSize                              = 134217728                                 {product} {ergonomic}
    ccstr HeapDumpPath                             =                                        {manageable} {default}
"""
    flags = parse_flags(text)
    assert (flags["UseG1GC"], flags["MaxHeapSize"]) == ("true", "134217728")


def test_pgbenchs_summary() -> None:
    text = """\
number of transactions actually processed: 81234
number of failed transactions: 0 (0.000%)
latency average = 0.246 ms
initial connection time = 12.345 ms
tps = 16234.567890 (without initial connection time)
"""
    assert parse_pgbench(text) == {
        "transactions_count": 81234,
        "failed_count": 0,
        "latency_average_ms": 0.246,
        "transactions_per_s": 16234.56789,
    }
    with pytest.raises(ValueError, match="no summary"):
        parse_pgbench("pgbench: error: connection refused")


def test_how_a_sort_was_done() -> None:
    assert parse_sort([" Sort", "   Sort Method: external merge  Disk: 23088kB"]) == ("external merge", 23088)
    assert parse_sort(["   Sort Method: quicksort  Memory: 51351kB"]) == ("quicksort", 51351)
    with pytest.raises(ValueError, match="no sort"):
        parse_sort(["Seq Scan"])


def test_fields_of_proc() -> None:
    text = "Name:\tredis-server\nVmRSS:\t  180900 kB\nThreads:\t5\nVmPTE:\t 412 kB\n55d-7ff ---p 00000000 00:00 0 [rollup]\nPss:  12 kB\n"
    assert kib_fields(text) == {"VmRSS": 180900, "VmPTE": 412, "Pss": 12}
