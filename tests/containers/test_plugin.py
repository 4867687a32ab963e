# SPDX-License-Identifier: Apache-2.0
"""Workloads that users have written: how they are found, what of them is refused, and what a scenario can then say."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetsim.containers import plugin
from fleetsim.containers.plugin import Kernel, Needs, Server, Size, load_entry_points, origin_of, unfit
from fleetsim.containers.pod import Pod
from fleetsim.containers.workload import WORKLOADS, Room
from fleetsim.errors import BadInput
from fleetsim.fleet import scenario
from fleetsim.fleet.scenario import load_plugins, load_scenario
from fleetsim.registry import Registry
from fleetsim.units import NS_PER_S
from tests.host.plugin_programs import Cache, Nap, Sorter

MIB = 1 << 20

GOOD = '''
from fleetsim.containers.plugin import Workload
class Good(Workload):
    """It does nothing."""
    def step(self, kernel): kernel.sleep(60)
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path, and registries that this test alone sees."""
    load_plugins()
    mine: Registry = Registry("workload")
    for name in WORKLOADS:
        if origin_of(WORKLOADS[name]) == "fleetsim":
            mine.register(name)(WORKLOADS[name])
    monkeypatch.setattr(plugin, "WORKLOADS", mine)
    monkeypatch.syspath_prepend(str(tmp_path))
    load_entry_points.cache_clear()
    yield tmp_path
    load_entry_points.cache_clear()


def distribution(site: Path, name: str, points: str, **modules: str) -> None:
    """What an installer leaves of a package: its modules, and a folder that says its name and entry points."""
    info = site / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[fleetsim.workloads]\n{points}\n")
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)


def test_workloads_of_installed_packages_are_known_by_the_names_of_their_entry_points(site: Path) -> None:
    distribution(
        site,
        "acme",
        "good = acme_good:Good\nbetter = acme_good:Good.Better",
        acme_good=GOOD + "    class Better(Workload):\n        'B.'\n        def step(self, kernel): pass\n",
    )
    load_entry_points()
    assert {"good", "better", "idle"} <= set(plugin.WORKLOADS)
    assert origin_of(plugin.WORKLOADS["good"]) == "acme 1.2" and origin_of(plugin.WORKLOADS["idle"]) == "fleetsim"
    load_entry_points()  # as every scenario of a process does
    (process,) = plugin.WORKLOADS["good"].model_validate({}).processes("p")
    assert process.work is not None and process.work.plugin is not None
    assert (process.work.plugin.name, process.work.plugin.origin) == ("good", "acme 1.2")


REFUSED = {
    "a name that is built in": ("web = acme_a:Good", GOOD, "has the name of another one, which comes with fleetsim; rename it"),
    "a name that another package has": ("good = acme_a:Good", GOOD, "has the name of another one, which comes with aaa 1.2"),
    "no such module": ("x = acme_gone:X", "", "cannot be loaded: ModuleNotFoundError: No module named 'acme_gone'"),
    "no such class": ("x = acme_a:X", GOOD, "cannot be loaded: AttributeError: module 'acme_a' has no attribute 'X'"),
    "a module that does not run": ("x = acme_a:X", "1 // 0", "cannot be loaded: ZeroDivisionError"),
    "a module that exits": ("x = acme_a:X", "raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
    "no class": ("x = acme_a", GOOD, "not a class derived from fleetsim.containers.plugin.Workload or Server"),
    "another class": ("x = acme_a:X", "class X: pass", "not a class derived from"),
    "no step": ("x = acme_a:X", GOOD + "class X(Workload):\n    'Doc.'", "its class lacks step"),
    "no docstring": ("x = acme_a:X", GOOD + "class X(Workload):\n    def step(self, kernel): pass", "its class has no docstring"),
    "strange arguments": (
        "x = acme_a:X",
        GOOD + "from pydantic import BaseModel\nclass X(Good):\n    'Doc.'\n    class Arguments(BaseModel): pass",
        "its Arguments are not derived from Workload.Arguments or Server.Arguments",
    ),
    "a step that yields": (
        "x = acme_a:X",
        GOOD + "class X(Workload):\n    'Doc.'\n    def step(self, kernel):\n        while True: yield kernel.sleep(1)",
        "its step is a generator or a coroutine",
    ),
    "a step that awaits": (
        "x = acme_a:X",
        GOOD + "class X(Workload):\n    'Doc.'\n    async def step(self, kernel): pass",
        "or a coroutine",
    ),
    "an argument that hides something": (
        "x = acme_a:X",
        GOOD + "class X(Good):\n    'Doc.'\n    class Arguments(Workload.Arguments):\n        files: int = 3",
        "its Arguments have the field 'files', a name that all workloads' arguments use themselves",
    ),
    "arguments without a schema": (
        "x = acme_a:X",
        GOOD + "class X(Good):\n    'Doc.'\n    class Arguments(Workload.Arguments):\n"
        "        model_config = {'arbitrary_types_allowed': True}\n        f: type(len)",
        "its Arguments cannot be described",
    ),
}


@pytest.mark.filterwarnings("ignore:Field name")  # pydantic's own word for one of them
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_says_which_package_and_why(what: str, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points, module, why = REFUSED[what]
    distribution(site, "aaa", "good = aaa_good:Good", aaa_good=GOOD)
    distribution(site, "acme", points, acme_a=module)
    monkeypatch.delitem(__import__("sys").modules, "acme_a", raising=False)
    with pytest.raises(BadInput) as refused:
        load_entry_points()
    text = str(refused.value)
    assert f"of the installed package acme 1.2 (entry point {points.partition(' = ')[2]!r})" in text
    assert why in text and "\n" not in text


class Sized(Server):
    """It takes three quarters of what it sees."""

    class Arguments(Server.Arguments):
        file: str = "/data/x"
        extra: Size = 0

    def needs(self) -> Needs:
        if self.arguments.extra > 64 * MIB:
            raise ValueError("extra is too much")
        half = self.room.visible_bytes * 3 // 4
        return Needs(memory=(half, self.arguments.extra), reads_at_random=(self.arguments.file,), writes={"/tmp/out": 5 * MIB + 1})

    def step(self, kernel: Kernel) -> None:
        """It never runs here."""


class Other(Sized):
    """A class of its own, with arguments of its own."""


def test_what_a_process_needs_is_in_pages_and_follows_the_room_that_it_finds() -> None:
    arguments = Sized.Arguments.model_validate({"load": "10/s", "start": "3s", "extra": "1MiB"})
    (process,) = arguments.processes("p", Room(limit_bytes=400 * MIB))
    work = process.work
    assert work is not None and work.requests is not None and work.requests.rate_milli == 10_000
    assert work.areas == ((300 * 256, False), (256, False))
    assert work.files == (("/data/x", 0, True), ("/tmp/out", 5 * 256 + 1, False))
    assert (process.start_ns, process.restarts) == (3 * NS_PER_S, True)
    assert arguments.files() == ("/data/x",)
    assert not Sorter.Arguments.model_validate({"input": "/a"}).processes("p")[0].restarts, "it ends by itself"


def test_needs_that_cannot_be_said_are_a_sentence() -> None:
    arguments = Sized.Arguments.model_validate({"extra": "65MiB"})
    with pytest.raises(BadInput, match="cannot say its needs: ValueError: extra is too much"):
        arguments.processes("p")


def test_every_class_has_arguments_of_its_own_and_its_docstring_describes_them() -> None:
    assert Other.Arguments is not Sized.Arguments and Other.Arguments.workload is Other and Sized.Arguments.workload is Sized
    assert Other.Arguments.model_fields.keys() == Sized.Arguments.model_fields.keys()
    assert Other.Arguments.model_json_schema()["description"] == "A class of its own, with arguments of its own."
    assert [unfit(cls) for cls in (Other, Sized, Nap, Cache)] == ["", "", "", ""]


def test_what_is_planned_can_be_sent_to_another_process() -> None:
    (process,) = Other.Arguments.model_validate({}).processes("p")
    assert process.work is not None and process.work.plugin is not None
    again = pickle.loads(pickle.dumps(process))
    assert again.work.plugin.name == process.work.plugin.name
    assert type(again.work.plugin.begin()) is Other


def test_a_pod_of_a_plug_in_has_its_files_in_its_own_mounts() -> None:
    pod = Pod("p", "sized", Sized.Arguments.model_validate({"file": "/scratch/x"}), empty_dirs={"/scratch": 0})
    assert pod.files == ()


def test_a_scenario_is_refused_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_plugins()
    monkeypatch.setitem(WORKLOADS._entries, "sized", Sized.Arguments)
    file = tmp_path / "s.yaml"
    lines = ["summary: one", "duration: 1m", "fleet:", "  - hosts: 1", "    name: box", "    memory: 1GiB", "    pods:"]

    def told(pod: str) -> str:
        file.write_text("\n".join([*lines, f"      - {pod}"]))
        with pytest.raises(BadInput) as refused:
            load_scenario(file)
        return str(refused.value).removeprefix(str(tmp_path))

    assert told("{name: a, workload: sizd}").startswith("/s.yaml:8: unknown workload 'sizd'; did you mean 'sized'?; known are batch")
    assert "has no key 'exta'; did you mean 'extra'?" in told("{name: a, workload: sized, exta: 1MiB}")
    assert told("{name: a, workload: sized, extra: 1}").startswith("/s.yaml:8: 'extra' of a pod with workload sized is 1; ")
    assert "pod 'a' reads '/data/x', which is not among the host's files" in told("{name: a, workload: sized}")
    assert "cannot say its needs: ValueError: extra is too much" in told("{name: a, workload: sized, extra: 65MiB}")


def test_an_argument_that_is_a_key_of_pods_would_never_get_its_value(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = "    class Arguments(Workload.Arguments):\n        priority: int = 0\n"
    distribution(site, "acme", "good = acme_p:Good", acme_p=GOOD + arguments)
    monkeypatch.setattr(scenario, "WORKLOADS", plugin.WORKLOADS)
    with pytest.raises(
        BadInput, match=r"workload 'good' of acme 1\.2 has the argument 'priority', which is a key of pods; rename it there"
    ):
        load_plugins()


NONSENSE: dict[str, tuple[str, str]] = {
    "nothing": ("None", r"TypeError: needs\(\) returned 'None', not a Needs"),
    "a number": ("7", r"TypeError: needs\(\) returned '7', not a Needs"),
    "no tuple": ("Needs(memory=5)", r"ValueError: memory of Needs is '5'; write a tuple of whole numbers of bytes"),
    "a share of a byte": ("Needs(memory=(1.5,))", r"ValueError: memory of Needs is '\(1\.5,\)'"),
    "less than nothing": ("Needs(memory_at_random=(-1,))", r"ValueError: memory_at_random of Needs is '\(-1,\)'"),
    "endless": ("Needs(memory=(1 << 80,))", "ValueError: memory of Needs"),
    "a path beside": ("Needs(reads=('data/x',))", r"ValueError: reads of Needs .* absolute paths, such as \('/data/x',\)"),
    "a path for a tuple": ("Needs(reads='/data/x')", "ValueError: reads of Needs is '/data/x'"),
    "a size that is a word": ("Needs(writes={'/x': '1MiB'})", "ValueError: writes of Needs"),
    "a constructor that fails": ("1 // 0", "ZeroDivisionError: integer division or modulo by zero"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_needs_that_make_no_sense_are_told_before_anything_runs(what: str, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    returned, why = NONSENSE[what]
    begin = "    def __init__(self, *a): 1 // 0\n" if what == "a constructor that fails" else ""
    body = f"{begin}    def needs(self): return {returned}\n"
    module = f"acme_{len(what)}_{abs(hash(what))}"
    distribution(site, "acme", f"good = {module}:Good", **{module: GOOD.replace("import Workload", "import Needs, Workload") + body})
    load_entry_points()
    with pytest.raises(BadInput, match=why) as refused:
        plugin.WORKLOADS["good"].model_validate({}).processes("p")
    assert "the workload 'good' of the package acme 1.2 cannot say its needs" in str(refused.value) and "\n" not in str(refused.value)
