"""cli/options.py, cli/format.py and the moments of cli/logs.py: words and text, no engine."""

from __future__ import annotations

from typing import Any

import pytest

from pynetns.cli import format as fmt
from pynetns.cli import logs
from pynetns.cli.options import Option, UsageError, parse_options
from pynetns.errors import InvalidParameter

# ---- options ----

_OPTIONS = (
    Option("-i --interactive", "i", "", ""),
    Option("-t --tty", "t", "", ""),
    Option("-p --publish", "p", "PORT", "", many=True),
    Option("-m --memory", "m", "SIZE", ""),
)


@pytest.mark.parametrize(
    ("words", "values", "rest"),
    [
        ("-it x -m 1", {"i": True, "t": True}, "x -m 1"),
        ("-itm1 x", {"i": True, "t": True, "m": "1"}, "x"),
        ("-m=1 --tty=false x", {"m": "1", "t": False}, "x"),
        ("-p 1 -p2 --publish=3 --publish 4", {"p": ["1", "2", "3", "4"]}, ""),
        ("-m -1 x", {"m": "-1"}, "x"),
        ("--memory= x", {"m": ""}, "x"),
        ("-i -- -t", {"i": True}, "-t"),
        ("-", {}, "-"),
        ("-i=false", {"i": False}, ""),
    ],
)
def test_options_are_read_as_docker_reads_them(words: str, values: Any, rest: str) -> None:
    assert parse_options(_OPTIONS, words.split(), stop_early=True) == (values, rest.split())


def test_options_may_follow_words_where_the_verb_takes_only_words() -> None:
    assert parse_options(_OPTIONS, ["a", "-i", "b"], stop_early=False) == ({"i": True}, ["a", "b"])


@pytest.mark.parametrize("words", ["-x", "--frob", "-m", "--memory", "--tty=maybe", "-ix", "-i=2"])
def test_usage_errors(words: str) -> None:
    with pytest.raises(UsageError):
        parse_options(_OPTIONS, words.split(), stop_early=True)


# ---- text ----


@pytest.mark.parametrize(
    "bad", ["{{", "{{.A", "{{A}}", "{{range .A}}", "{{.A | x}}", "{{..}}", "{{}}"]
)
def test_templates_that_are_not_supported_are_errors(bad: str) -> None:
    with pytest.raises(InvalidParameter, match="--format"):
        fmt.template(bad)


def test_a_field_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(InvalidParameter, match=r"no field \.A\.C"):
        fmt.template("{{.A.C}}")({"A": {"B": 1}})


def test_whole_object() -> None:
    assert fmt.template("{{json .}}")({"A": [1, None]}) == '{"A":[1,null]}'
    assert fmt.template("x {{ .A }} y")({"A": {"b": 1, "a": False}}) == "x map[a:false b:1] y"


_ROWS = ({"A": "one", "B": "x"}, {"A": "longer than ten", "B": ""})


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (None, ["HEAD              B", "one               x", "longer than ten"]),
        ("table", ["HEAD              B", "one               x", "longer than ten"]),
        (r"table {{.B}}\t{{.A}}", ["B         HEAD", "x         one", "          longer than ten"]),
        ("table {{.A}} {{.B}}", ["HEAD B", "one x", "longer than ten"]),
        (r"table {{.A | upper}}", ["HEAD", "ONE", "LONGER THAN TEN"]),
        ("{{.A}}-{{upper .B}}", ["one-X", "longer than ten-"]),
    ],
)
def test_rows_by_a_format(text: str | None, lines: list[str]) -> None:
    assert fmt.show_rows(text, _ROWS, {"A": "HEAD", "B": "B"}).splitlines() == lines


def test_a_table_without_rows_has_headers() -> None:
    assert fmt.show_rows(r"table {{.A}}\t{{.Other}}", [], {"A": "HEAD"}) == "HEAD      OTHER\n"


def test_bytes_that_are_no_utf8_are_valid_json_and_come_back() -> None:
    import json

    text = fmt.to_json({"A": "x\udcffé😀"})
    assert text == '{"A":"x\\udcffé😀"}'
    text.encode()  # nothing in it that cannot be written
    assert json.loads(text) == {"A": "x\udcffé😀"}


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (72_800_000, "72.8MB"), (5e20, "500000PB")],
)
def test_sizes(size: float, text: str) -> None:
    assert fmt.human_size(size) == text


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10m", 10_000 * 10**9 - 600 * 10**9),
        ("1h30m", 10_000 * 10**9 - 5400 * 10**9),
        ("1.5s", 9_998_500_000_000),
        ("250ms", 9_999_750_000_000),
        ("3ns", 9_999_999_999_997),
        ("1700000000", 1700000000 * 10**9),
        ("1700000000.5", 1700000000_500000000),
        ("2023-11-14T22:13:20Z", 1700000000 * 10**9),
        ("2023-11-14T22:13:20.123456789Z", 1700000000_123456789),
        ("2023-11-14T23:13:20.5+01:00", 1700000000_500000000),
    ],
)
def test_moments(text: str, moment: int) -> None:
    """To the nanosecond: what `logs -t` has shown can be given to --since."""
    assert logs.parse_moment(text, "--since", 10_000 * 10**9) == moment


@pytest.mark.parametrize(
    "bad", ["", "10x", "m", "1..5s", "yesterday", "2023-13-01", "1_0", "²", "."]
)
def test_no_moments(bad: str) -> None:
    with pytest.raises(InvalidParameter, match="--until"):
        logs.parse_moment(bad, "--until", 0)
