# SPDX-License-Identifier: Apache-2.0
"""One verdict per expectation, from evidence alone.

    expectation   met when                                                            verdict otherwise
    impact        the harm is seen on every host meant, within its time; of a         missed
                  Deployment, whose pods move, on any
    alert         the rule fires for every host meant, after the fault, within its    missed
                  time, and before the first harm there if so asked
    silent        it never fires for any of them                                      false_alarm
    false_alarm   it fires for one of them while nobody is hurt or about to be        quiet, or caught if justified

Hosts meant: those of `on` that the fault hit (all of `on` if it hit none). `unknown` is never met: no rule of that name,
metrics that nobody exports, a rule that selects nothing and is expected to be silent, evaluations that failed, or
the judge itself broken.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from fleetsim.rundir.models import Expectation
from fleetsim.verdict.evidence import Evidence, Firing
from fleetsim.verdict.incidents import Fault
from fleetsim.verdict.models import ExpectationVerdict, Word

NS = 1_000_000_000


class Unknown(Exception):
    """This expectation cannot be judged; the sentence says why."""


def judge(evidence: Evidence, expectation: Expectation) -> ExpectationVerdict:
    try:
        return _Judging(evidence, expectation).verdict()
    except Unknown as error:
        return _unknown(expectation, str(error))
    except Exception as error:  # a judge that breaks must say so, and never pass
        return _unknown(expectation, f"the judge failed: {type(error).__name__}: {error}")


def _unknown(expectation: Expectation, explanation: str) -> ExpectationVerdict:
    return _Judging.answer(expectation, "unknown", False, explanation)


class _Judging:
    def __init__(self, evidence: Evidence, expectation: Expectation) -> None:
        self.evidence, self.expectation = evidence, expectation
        self.on = frozenset(evidence.hosts if expectation.on_hosts is None else expectation.on_hosts)

    def verdict(self) -> ExpectationVerdict:
        expectation = self.expectation
        if expectation.kind == "impact":
            return self._worst([self._impact(fault) for fault in self._faults()])
        firings = [firing for firing in self.evidence.of(expectation.name) if firing.names(self.on)]
        self._check_rule(fired=bool(firings))
        if expectation.kind == "alert":
            return self._worst([self._alert(fault, firings) for fault in self._faults()])
        return self._silent(firings) if expectation.kind == "silent" else self._false_alarm(firings)

    # ---- what is being talked about

    def _faults(self) -> list[Fault | None]:
        """The faults whose start counts: the one named, else the harmful ones that touch `on`, else any; [None]: the run's start."""
        faults = self.evidence.faults
        if self.expectation.fault is not None:
            named = [fault for fault in faults if fault.id == self.expectation.fault]
            if not named:
                raise Unknown(f"the history has no fault {self.expectation.fault!r}")
            return list(named)
        touching = [fault for fault in faults if fault.hosts & self.on]
        return list([fault for fault in touching if fault.harmful] or touching or faults[:1]) or [None]

    def _meant(self, fault: Fault | None) -> list[str]:
        return sorted((self.on & fault.hosts if fault else self.on) or self.on)

    def _check_rule(self, fired: bool) -> None:
        name, kind = self.expectation.name, self.expectation.kind
        mine = [status for status in self.evidence.statuses if status.rule.name == name and status.rule.kind == "alert"]
        if not mine:
            known = sorted({status.rule.name for status in self.evidence.statuses if status.rule.kind == "alert"})
            near = difflib.get_close_matches(name, known, 3) or known[:20]
            more = " …" if len(near) < len(known) else ""
            raise Unknown(f"no loaded rule file has an alert {name!r}; known are: {', '.join(near)}{more}")
        lacking = [status for status in mine if status.needs]
        if lacking and (len(lacking) == len(mine) or not fired):
            raise Unknown(f"not_evaluable: needs {', '.join(dict.fromkeys(n for status in lacking for n in status.needs))}")
        broken = [status for status in mine if status.failures]
        if broken and not fired:
            raise Unknown(f"Prometheus could not evaluate it {len(broken[0].failures)} times: {broken[0].failures[0]}")
        blind = next((status.blind for status in mine if status.blind), "")
        if blind and not fired and kind != "alert":
            raise Unknown(f"it was silent because it looks at nothing: {blind}")

    # ---- one kind of expectation each

    def _impact(self, fault: Fault | None) -> ExpectationVerdict:
        start_ns, deadline_ns = self._time(fault)
        wanted = self.expectation.on_subjects
        first: dict[str, int] = {}
        for impact in self.evidence.impacts:
            mine = wanted is None or not impact.subjects.isdisjoint(wanted)
            if impact.kind == self.expectation.name and mine and start_ns <= impact.start_ns:
                first.setdefault(impact.host, impact.start_ns)
        meant = self._meant(fault)
        if self.expectation.anywhere and first:
            meant = [min(first, key=lambda host: (first[host], host))]
        late = [host for host in meant if first.get(host, deadline_ns + 1) > deadline_ns]
        seen_ns = max((first[host] for host in meant if host in first), default=None)
        facts = self._facts(fault, impact_at_s=seconds(seen_ns), fired_at_s=seconds(seen_ns), delay_s=seconds(seen_ns, start_ns))
        since = "into the run" if fault is None else "after the fault"
        if late:
            when = f"{span(first[late[0]] - start_ns)} {since}, too late" if late[0] in first else "never"
            return self.answer(self.expectation, "missed", False, f"{self.expectation.name} came to {some(late)} {when}", **facts)
        assert seen_ns is not None
        return self.answer(self.expectation, "caught", True, f"{some(meant)} hurt {span(seen_ns - start_ns)} {since}", **facts)

    def _alert(self, fault: Fault | None, firings: list[Firing]) -> ExpectationVerdict:
        start_ns, deadline_ns = self._time(fault)
        meant = self._meant(fault)
        fired: dict[str, int] = {}
        for firing in firings:
            for host in firing.named.hosts:
                if firing.at_ns >= start_ns:
                    fired[host] = min(firing.at_ns, fired.get(host, firing.at_ns))
        hurt = self._first_harm(meant, start_ns)
        last_ns = max((fired[host] for host in meant if host in fired), default=None)
        leads = [hurt[host] - fired[host] for host in meant if host in fired and host in hurt]
        facts = self._facts(
            fault,
            fired_at_s=seconds(last_ns),
            delay_s=seconds(last_ns, start_ns),
            impact_at_s=seconds(min(hurt.values(), default=None)),
            lead_s=seconds(min(leads, default=None)),
        )
        wrong = self._too_late(meant, fired, hurt, start_ns, deadline_ns)
        if wrong is not None:
            already = any(firing.at_ns < start_ns <= firing.end_ns and firing.names(meant) for firing in firings)
            wrong += "; it was firing already before the fault" if already and not fired else ""
            return self.answer(self.expectation, "missed", False, wrong + self._blindness(), **facts)
        assert last_ns is not None
        told = f"fired {span(last_ns - start_ns)} after the fault"
        if leads:
            lead = min(leads)
            told += f", {span(lead)} before the harm" if lead > 0 else f", {span(-lead)} after the harm"
        return self.answer(self.expectation, "caught", True, told, **facts)

    def _too_late(self, meant: list[str], fired: dict[str, int], hurt: dict[str, int], start_ns: int, deadline_ns: int) -> str | None:
        if never := [host for host in meant if host not in fired]:
            return f"never fired for {some(never)}"
        if late := [host for host in meant if fired[host] > deadline_ns]:
            at_ns = fired[late[0]]
            return f"fired for {some(late)} only {span(at_ns - start_ns)} after the fault, {span(at_ns - deadline_ns)} too late"
        if self.expectation.before and (after := [host for host in meant if host in hurt and fired[host] >= hurt[host]]):
            return f"fired for {some(after)} {span(fired[after[0]] - hurt[after[0]])} after the harm it should have announced"
        return None

    def _silent(self, firings: list[Firing]) -> ExpectationVerdict:
        start_ns, deadline_ns = self._time(None)
        if self.expectation.within_s is not None:
            start_ns, deadline_ns = self._time(next(iter(self._faults()), None))
        loud = [firing for firing in firings if start_ns <= firing.at_ns <= deadline_ns]
        if not loud:
            return self.answer(self.expectation, "quiet", True, "never fired, and rightly so", **self._facts(None))
        first = min(loud, key=lambda firing: firing.at_ns)
        told = f"fired for {some(sorted(first.named.hosts & self.on))} at {span(first.at_ns)}, {count(len(loud), 'time')} in all"
        return self.answer(self.expectation, "false_alarm", False, told, **self._facts(None, fired_at_s=seconds(first.at_ns)))

    def _false_alarm(self, firings: list[Firing]) -> ExpectationVerdict:
        if not firings:
            return self.answer(self.expectation, "quiet", False, "never fired, though a false alarm was expected", **self._facts(None))
        fault = next(iter(self._faults()), None)
        false = [firing for firing in firings if not self.evidence.justified_by(firing, self.on)]
        first = min(false or firings, key=lambda firing: firing.at_ns)
        facts = self._facts(fault, fired_at_s=seconds(first.at_ns))
        if not false:
            told = "fired, but with good reason: somebody was hurt or about to be"
            return self.answer(self.expectation, "caught", False, told, **facts)
        told = f"fired for {some(sorted(first.named.hosts & self.on))} at {span(first.at_ns)} though nobody was hurt"
        return self.answer(self.expectation, "false_alarm", True, told, **facts)

    # ---- small helpers

    def _time(self, fault: Fault | None) -> tuple[int, int]:
        """From when it counts, and until when."""
        start_ns = fault.start_ns if fault else 0
        within_s = self.expectation.within_s
        return start_ns, self.evidence.end_ns if within_s is None else start_ns + round(within_s * NS)

    def _first_harm(self, hosts: Iterable[str], from_ns: int) -> dict[str, int]:
        first: dict[str, int] = {}
        for impact in self.evidence.impacts:
            if impact.host in hosts and impact.start_ns >= from_ns:
                first.setdefault(impact.host, impact.start_ns)
        return first

    def _blindness(self) -> str:
        blind = [status.blind for status in self.evidence.statuses if status.rule.name == self.expectation.name and status.blind]
        return f"; {blind[0]}" if blind else ""

    def _facts(self, fault: Fault | None, **facts: float | None) -> dict[str, Any]:
        return {"fault": fault.id if fault else None, "fault_at_s": seconds(fault.start_ns) if fault else None, **facts}

    def _worst(self, verdicts: list[ExpectationVerdict]) -> ExpectationVerdict:
        """Several faults: an expectation holds if it holds for each of them."""
        return next((verdict for verdict in verdicts if not verdict.met), verdicts[0])

    @staticmethod
    def answer(expectation: Expectation, word: Word, met: bool, explanation: str, **facts: Any) -> ExpectationVerdict:
        return ExpectationVerdict(
            kind=expectation.kind,
            name=expectation.name,
            on=expectation.on,
            reason=expectation.reason,
            source_line=expectation.source_line,
            verdict=word,
            met=met,
            explanation=explanation,
            **facts,
        )


def seconds(t_ns: int | None, since_ns: int = 0) -> float | None:
    return None if t_ns is None else (t_ns - since_ns) / NS


def span(duration_ns: int) -> str:
    """`1h 02m 03s` without the parts that are not needed."""
    whole = round(duration_ns / NS)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h {minutes:02d}m {rest:02d}s"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
