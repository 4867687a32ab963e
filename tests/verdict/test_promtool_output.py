# SPDX-License-Identifier: Apache-2.0
"""promtool's words are read exactly, quotes and all; what cannot be read raises. The real promtool is asked too."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.errors import ToolFailed
from fleetsim.verdict.promtool_output import Alert, Sample, duration_ms, parse, parse_labels, unquote
from fleetsim.verdict.render import Request, render

OUTPUT = r"""Unit Testing:  t.yml
  FAILED:
    alertname: Low, time: 4m15s, 
        exp:[], 
        got:[
            0:
              Labels:{alertname="Low", b="}, {x=\"1\"}", inst="a\"b"}
              Annotations:{summary="v 5 of a\"b \n \\ é \u00a0"}, 
            1:
              Labels:{alertname="Low", b="c"}
              Annotations:{}
            ]
    expr: "ALERTS{x=\"y\"}", time: 1m,
        exp: nil
        got: {__name__="ALERTS", b="}, {x=\"1\"} 3"} 1E+00, {} +Inf, up{a="b"} -2.5E-07
    expr: "nothing", time: 1m,
        exp: nil
        got: nil
"""  # noqa: W291


def test_alerts_and_samples_are_read() -> None:
    assert list(parse(OUTPUT)) == [
        Alert("Low", 255_000, {"alertname": "Low", "b": '}, {x="1"}', "inst": 'a"b'}, {"summary": 'v 5 of a"b \n \\ é \u00a0'}),
        Alert("Low", 255_000, {"alertname": "Low", "b": "c"}, {}),
        Sample('ALERTS{x="y"}', 60_000, {"__name__": "ALERTS", "b": '}, {x="1"} 3'}, 1.0),
        Sample('ALERTS{x="y"}', 60_000, {}, float("inf")),
        Sample('ALERTS{x="y"}', 60_000, {"__name__": "up", "a": "b"}, -2.5e-07),
    ]


@pytest.mark.parametrize(
    ("text", "ms"), [("0s", 0), ("1m", 60_000), ("1h2m3s4ms", 3_723_004), ("15ms", 15), ("1d", 86_400_000), ("2w", 1_209_600_000)]
)
def test_durations(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize("broken", ["", "5", "1x", "m"])
def test_a_duration_that_cannot_be_read_raises(broken: str) -> None:
    with pytest.raises(ToolFailed):
        duration_ms(broken)


def test_labels_that_cannot_be_read_raise() -> None:
    with pytest.raises(ToolFailed, match="cannot be read"):
        parse_labels('{a="b", c=d}')


def test_go_quoting() -> None:
    assert unquote(r'"\a\t\n\"\\\x07\u2028\U0001f600"') == '\a\t\n"\\\x07\u2028\U0001f600'


NAMES = st.from_regex(r"[a-z]{1,5}", fullmatch=True).filter(lambda name: name not in ("alertname",))
# no lone surrogates (they are not text); no "{{" (that would be a template)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda text: "{{" not in text)


@settings(max_examples=15)
@given(labels=st.lists(st.dictionaries(NAMES, TEXTS, max_size=3), min_size=1, max_size=20), value=st.floats(width=64))
def test_the_real_promtool_renders_whatever_labels_say(prometheus: object, labels: list[dict[str, str]], value: float) -> None:
    templates = {"told": "{{ range $k, $v := $labels }}{{ $k }}={{ $v }};{{ end }}", "value": '{{ $value | printf "%.17g" }}', "plain": "x"}
    requests = [Request.of(templates, metric, value) for metric in labels]
    for request, rendered in render(requests).items():
        assert rendered["told"] == "".join(f"{k}={v};" for k, v in request.metric)
        assert rendered["plain"] == "x"
        got = float(rendered["value"])
        assert got == value or (got != got and value != value)


def test_a_metric_name_is_seen_by_the_template_only_if_the_element_has_one(prometheus: object) -> None:
    named = Request.of({"a": "[{{ $labels.__name__ }}]"}, {"__name__": "up", "job": "x"}, 1.0)
    unnamed = Request.of({"a": "[{{ $labels.__name__ }}]"}, {"job": "x"}, 1.0)
    rendered = render([named, unnamed, named])
    assert (rendered[named]["a"], rendered[unnamed]["a"]) == ("[up]", "[]")


def test_many_values_of_one_metric_are_told_apart(prometheus: object) -> None:
    requests = [Request.of({"a": "{{ $value }}"}, {"job": "x"}, float(n)) for n in range(50)]
    rendered = render(requests)
    assert [rendered[request]["a"] for request in requests] == [str(n) for n in range(50)]
