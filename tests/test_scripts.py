# SPDX-License-Identifier: Apache-2.0
"""The set-up scripts: they leave no service behind, change nothing when all is in place, and say one sentence when they cannot go on.

The machine is drawn as a folder of small fake programs that is the whole PATH: what a script calls is written to a log, what
is not in the folder is not installed. Nothing on the real machine is touched. The real installation is what CI does anyway,
being a fresh clone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SCRIPTS = REPO / "scripts"
PLAIN_TOOLS = (
    "bash",
    "env",
    "cat",
    "grep",
    "sed",
    "sort",
    "head",
    "cut",
    "dirname",
    "basename",
    "xargs",
    "tee",
    "chmod",
    "rm",
    "sha256sum",
)

PROMETHEUS = 'echo "prometheus, version {version} (branch: debian)" >&2'
APT = """
echo "apt-get $*" >>"$LOG"
case "$*" in
  *install*) [ -e "$POLICY" ] && echo "starts are forbidden" >>"$LOG"
             for name in prometheus promtool; do printf '#!/bin/bash\\n%s\\n' "$NEW" >"$BIN/$name"; chmod +x "$BIN/$name"; done ;;
esac
"""
DPKG = """
case "$1" in
  -W) exit 1 ;;
  -L) printf '%s\\n' /lib/systemd/system/prometheus.service /etc/init.d/prometheus /usr/bin/prometheus ;;
esac
"""


class Machine:
    """A PATH of its own, and what was called on it."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.log, self.policy = folder / "bin", folder / "log", folder / "policy-rc.d"
        self.bin.mkdir()
        self.log.touch()
        for tool in PLAIN_TOOLS:
            real = shutil.which(tool)
            assert real, tool
            (self.bin / tool).symlink_to(real)

    def program(self, name: str, body: str = "") -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def debian(self, *, root: bool = True) -> None:
        """apt-get that brings Prometheus 2.42, a package that has a service, and the tools that switch services on and off."""
        self.program("id", f"echo {0 if root else 1000}")
        self.program("apt-get", APT)
        self.program("dpkg-query", DPKG)
        for name in ("systemctl", "deb-systemd-helper", "update-rc.d"):
            self.program(name, f'echo "{name} $*" >>"$LOG"')

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The script with this machine's PATH; its policy-rc.d is a file of ours, never the real one."""
        wrapped = (self.bin.parent / "scripts").resolve()
        if not wrapped.exists():
            shutil.copytree(SCRIPTS, wrapped)
            lib = wrapped / "lib.sh"
            text = lib.read_text()
            assert "POLICY=/usr/sbin/policy-rc.d\n" in text
            lib.write_text(text.replace("POLICY=/usr/sbin/policy-rc.d\n", ""))
        env = {
            "PATH": str(self.bin),
            "BIN": str(self.bin),
            "LOG": str(self.log),
            "POLICY": str(self.policy),
            "NEW": PROMETHEUS.format(version="2.42.0+ds"),
        }
        return subprocess.run(
            [str(wrapped / script), *arguments],
            env=env | environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def sentence(result: subprocess.CompletedProcess[str]) -> str:
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert not result.stdout
    return lines[0]


def test_a_prometheus_that_is_there_is_used_and_nothing_is_installed(machine: Machine) -> None:
    machine.debian()
    machine.program("prometheus", PROMETHEUS.format(version="2.53.1"))
    machine.program("promtool")
    result = machine.run("ensure-prometheus.sh")
    assert (result.returncode, result.stderr, machine.calls) == (0, "", [])


def test_installing_prometheus_forbids_starts_meanwhile_and_switches_its_service_off_afterwards(machine: Machine) -> None:
    machine.debian()
    result = machine.run("ensure-prometheus.sh")
    assert result.returncode == 0, result.stderr
    install = next(call for call in machine.calls if "install" in call)
    assert install.endswith("install -y --no-install-recommends prometheus")
    assert machine.calls[machine.calls.index(install) + 1] == "starts are forbidden"
    assert "deb-systemd-helper disable prometheus.service" in machine.calls
    assert "update-rc.d prometheus disable" in machine.calls
    assert not machine.policy.exists()


def test_a_policy_that_was_there_before_stays(machine: Machine) -> None:
    machine.debian()
    machine.policy.write_text("the administrator's own\n")
    assert machine.run("ensure-prometheus.sh").returncode == 0
    assert machine.policy.read_text() == "the administrator's own\n"


def test_the_policy_is_taken_away_when_the_install_fails(machine: Machine) -> None:
    machine.debian()
    machine.program("apt-get", "exit 100")
    result = machine.run("ensure-prometheus.sh")
    assert result.returncode == 3
    assert not machine.policy.exists()


def test_without_the_right_to_install_one_sentence_says_how_and_the_exit_code_is_3(machine: Machine) -> None:
    machine.debian(root=False)
    result = machine.run("ensure-prometheus.sh")
    assert result.returncode == 3
    assert "install Prometheus 2.42 or later" in sentence(result)
    assert machine.calls == []


def test_optional_goes_on_without_prometheus_unless_it_is_required(machine: Machine) -> None:
    machine.debian(root=False)
    assert machine.run("ensure-prometheus.sh", "--optional").returncode == 0
    assert machine.run("ensure-prometheus.sh", "--optional", FLEETSIM_REQUIRE_PROMETHEUS="1").returncode == 3


def test_an_old_prometheus_is_refused_with_its_path(machine: Machine) -> None:
    machine.debian()
    machine.program("prometheus", PROMETHEUS.format(version="2.9.2"))
    machine.program("promtool")
    result = machine.run("ensure-prometheus.sh")
    assert result.returncode == 3
    assert f"{machine.bin}/prometheus is older than 2.42" in sentence(result)


def test_the_folder_that_the_user_names_comes_before_path(machine: Machine, tmp_path: Path) -> None:
    machine.program("prometheus", PROMETHEUS.format(version="2.9.2"))
    machine.program("promtool")
    own = Machine(tmp_path_for(tmp_path, "own"))
    own.program("prometheus", PROMETHEUS.format(version="3.1.0"))
    own.program("promtool")
    assert machine.run("ensure-prometheus.sh", FLEETSIM_PROMETHEUS_DIR=str(own.bin)).returncode == 0


def tmp_path_for(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def test_missing_test_tools_are_said_and_only_an_error_where_required(machine: Machine) -> None:
    result = machine.run("ensure-test-tools.sh", FLEETSIM_LIBRARY_DIRS="/nonexistent")
    assert result.returncode == 0
    for program in ("prometheus-node-exporter", "procps", "unshare", "libjemalloc2", "libtcmalloc_minimal.so.4"):
        assert program in sentence(result)
    assert machine.run("ensure-test-tools.sh", FLEETSIM_REQUIRE_TOOLS="1").returncode == 3


def test_the_programs_to_calibrate_against_are_said_and_only_those_that_were_named(machine: Machine) -> None:
    result = machine.run("ensure-calibration-tools.sh", "redis")
    assert result.returncode == 3
    assert "not on this machine: redis; install redis-server strace" in sentence(result)
    everything = machine.run("ensure-calibration-tools.sh", FLEETSIM_POSTGRES_DIRS="/nonexistent")
    assert "not on this machine: redis jvm postgres" in sentence(everything)
    assert machine.run("ensure-calibration-tools.sh", "--optional", "redis").returncode == 0
    assert machine.run("ensure-calibration-tools.sh", "--optional", "redis", FLEETSIM_REQUIRE_TOOLS="1").returncode == 3
    assert machine.run("ensure-calibration-tools.sh", "mysql").returncode == 2


def test_a_database_to_calibrate_against_is_installed_without_its_service(machine: Machine) -> None:
    machine.debian()
    machine.program("apt-get", APT.replace("prometheus promtool", "redis-server strace"))
    machine.program("dpkg-query", DPKG.replace("prometheus", "redis-server"))
    result = machine.run("ensure-calibration-tools.sh", "redis")
    assert result.returncode == 0, result.stderr
    install = next(call for call in machine.calls if "install" in call)
    assert install.endswith("install -y --no-install-recommends redis-server strace")
    assert machine.calls[machine.calls.index(install) + 1] == "starts are forbidden"
    assert "deb-systemd-helper disable redis-server.service" in machine.calls
    assert not machine.policy.exists()
    before = machine.calls
    assert machine.run("ensure-calibration-tools.sh", "redis").returncode == 0
    assert machine.calls == before


def test_a_python_that_is_too_old_is_refused_with_a_sentence(machine: Machine, tmp_path: Path) -> None:
    machine.program("python3", "exit 1")  # "is it 3.11 or later?": no
    shutil.copytree(SCRIPTS, tmp_path / "scripts", dirs_exist_ok=True)
    result = subprocess.run(
        [str(tmp_path / "scripts" / "ensure-venv.sh")],
        env={"PATH": str(machine.bin)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 3
    assert "Python 3.11 or later" in sentence(result)
    assert not (tmp_path / ".venv").exists()


def test_a_finished_environment_is_left_alone(tmp_path: Path) -> None:
    """The stamp names both files and the interpreter: as long as none changed, nothing runs; a changed pin runs pip again."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    (tmp_path / "pyproject.toml").write_text("a")
    (tmp_path / "constraints.txt").write_text("b")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\necho "python $*" >>"$LOG"\n[ "$1" = -VV ] && echo "Python 3.11.7"\nexit 0\n')
    python.chmod(0o755)
    log = tmp_path / "log"

    def pip_runs() -> int:
        log.write_text("")
        env = {"PATH": os.environ["PATH"], "LOG": str(log)}
        result = subprocess.run(
            [str(tmp_path / "scripts" / "ensure-venv.sh")], env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert result.returncode == 0, result.stderr
        return log.read_text().count("-m pip install")

    assert [pip_runs(), pip_runs()] == [1, 0]
    (tmp_path / "constraints.txt").write_text("c")
    assert [pip_runs(), pip_runs()] == [1, 0]
