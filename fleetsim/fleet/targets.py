# SPDX-License-Identifier: Apache-2.0
"""Who is meant by `one db`, `a third of web`, `10% of web/cache`, `all`, `the target`, `everyone else`.

    TARGET = all | one X | N X | a third of X | P% of X | X | the target | everyone else
    X      = a host group | a Deployment | a pod | group/pod | a host's name | a host's name/pod | service/NAME (all its replicas)

Rules: a choice takes those with the smallest hash of (seed, purpose, name), so that a host that joins the fleet changes a
choice only by being chosen itself. Shares are rounded to the nearest whole number, and are at least one.
Leaves out: writing the answer down (the plan does, in the run directory).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetsim.fleet.refusal import did_you_mean

_CHOICE = re.compile(
    r"(?:(?P<one>one)|(?P<count>[0-9]{1,9})|(?P<third>a third of)|(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,6})?)% of)\s+(?P<of>\S+)"
)
SERVICE = "service"
FORMS = "all, one X, 3 X, a third of X, 10% of X, X, the target, everyone else"


@dataclass(frozen=True, order=True)
class Subject:
    """A host (`pod` is "") or a pod on it."""

    host: str
    pod: str = ""

    @property
    def name(self) -> str:
        return f"{self.host}/{self.pod}" if self.pod else self.host


@dataclass(frozen=True)
class Chosen:
    """What a target resolved to; `at_random` is true if the seed had a say."""

    subjects: tuple[Subject, ...]
    at_random: bool = False

    @property
    def hosts(self) -> list[str]:
        return list(dict.fromkeys(subject.host for subject in self.subjects))


@dataclass
class Roster:
    """Everybody in the fleet, in the order of the file: group → hosts, group → pods."""

    hosts: dict[str, list[str]] = field(default_factory=dict)
    pods: dict[str, list[str]] = field(default_factory=dict)
    services: dict[str, list[Subject]] = field(default_factory=dict)  # name → replicas
    placed: dict[str, list[Subject]] = field(default_factory=dict)  # deployment → its pods, where the scheduler put them at the beginning

    def everybody(self) -> list[Subject]:
        return [Subject(host) for hosts in self.hosts.values() for host in hosts]

    def named(self, name: str) -> list[Subject]:
        """All that `name` means; ValueError with what is known if it means nobody."""
        if name in self.hosts:
            return [Subject(host) for host in self.hosts[name]]
        if name in self.placed:
            return list(self.placed[name])
        left, slash, pod = name.partition("/")
        if left == SERVICE and pod in self.services:
            return self.services[pod]
        if not slash:
            found = [Subject(host, name) for group, pods in self.pods.items() if name in pods for host in self.hosts[group]]
            found = found or [Subject(host) for hosts in self.hosts.values() for host in hosts if host == name]
        else:
            found = [
                Subject(host, pod)
                for group, pods in self.pods.items()
                if pod in pods
                for host in self.hosts[group]
                if left in (group, host)
            ]
        if not found:
            raise ValueError(f"nobody is called {name!r}{did_you_mean(name, self.names())}; known are {', '.join(self.names())}")
        return found

    def names(self) -> list[str]:
        """What can stand for X, host names excepted (they are too many to list)."""
        pods = sorted({pod for pods in self.pods.values() for pod in pods})
        in_groups = [f"{group}/{pod}" for group, names in self.pods.items() for pod in names]
        return [*self.hosts, *pods, *self.placed, *in_groups, *(f"{SERVICE}/{name}" for name in self.services)]


def resolve(text: str, roster: Roster, seed: int, purpose: str, hit_before: Sequence[Subject]) -> Chosen:
    """The subjects meant by `text`. `hit_before`: those that faults were aimed at so far. ValueError says what is wrong.

    purpose   distinguishes choices of the same seed ("timeline/0"), so that two entries do not always hit the same host
    """
    words = " ".join(text.split())
    if words == "all":
        return Chosen(tuple(roster.everybody()))
    if words in ("the target", "everyone else"):
        if not hit_before:
            raise ValueError(f"{words!r} needs a fault in the timeline before it; name a group, a pod or a host")
        if words == "the target":
            return Chosen(tuple(dict.fromkeys(hit_before)))
        hit = {subject.host for subject in hit_before}
        return Chosen(tuple(subject for subject in roster.everybody() if subject.host not in hit))
    match = _CHOICE.fullmatch(words)
    if match is None:
        if " " in words or not words:
            raise ValueError(f"this is not a target; the forms are {FORMS}")
        return Chosen(tuple(roster.named(words)))
    crowd = roster.named(match["of"])
    count = _count(match, len(crowd))
    if count > len(crowd):
        raise ValueError(f"there are only {len(crowd)} of {match['of']}; name at most so many")
    return Chosen(tuple(choose(crowd, count, seed, purpose)), at_random=count < len(crowd))


def _count(match: re.Match[str], crowd: int) -> int:
    if match["one"]:
        return 1
    if match["count"]:
        if int(match["count"]) == 0:
            raise ValueError("a target is at least one, such as 'one web'")
        return int(match["count"])
    if match["third"]:
        return max(1, (2 * crowd + 3) // 6)  # crowd / 3 to the nearest
    whole, _, fraction = match["percent"].partition(".")
    millionths = int(whole) * 10_000 + int(fraction.ljust(6, "0")[:6] or 0) // 100
    if not 0 < millionths <= 1_000_000:
        raise ValueError("a share is above 0% and at most 100%, such as '10% of web'")
    return max(1, (2 * crowd * millionths + 1_000_000) // 2_000_000)


def choose(crowd: Sequence[Subject], count: int, seed: int, purpose: str) -> list[Subject]:
    """The `count` luckiest, in the order of the crowd."""
    ranked = sorted(crowd, key=lambda subject: (luck(seed, purpose, subject.name), subject.name))
    chosen = set(ranked[:count])
    return [subject for subject in crowd if subject in chosen]


def luck(seed: int, purpose: str, name: str) -> bytes:
    """32 bytes that belong to (seed, purpose, name) alone."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()
