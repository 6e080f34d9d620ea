"""What messages repeat: short, on one line and printable, whatever it was."""

from __future__ import annotations

import pytest

from mlopt.core.errors import ConfigError, InputError, MloptError
from mlopt.core.plugins.registry import load
from mlopt.core.quoting import LINE, LINES, QUOTED, cause, one_line, quoted, several_lines
from mlopt.core.runs.config import load_experiment, override, read_yaml

HARD = "a\nb\x1b[2J\u2028\u202e\x00\ud800\u00a0\tc"
LONG = "x" * 5000


class Mute(Exception):
    """Does not say what it is."""

    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


ANYTHING: list[object] = [HARD, LONG, HARD * 1000, 10**6000, [LONG] * 100, {LONG: [[[[[[[[1]]]]]]]]}]
ANYTHING += [None, 1.5, Mute(), b"\xff" * 9999]


@pytest.mark.parametrize("number", range(len(ANYTHING)))  # pytest would print the values themselves
def test_everything_is_short_and_printable(number: int) -> None:
    value = ANYTHING[number]
    for shown in (quoted(value), one_line(value, QUOTED)):
        assert len(shown) <= QUOTED and shown.isprintable()
    shown.encode("utf-8")


def test_what_is_short_is_left_alone() -> None:
    assert quoted("Cu13") == "'Cu13'" and quoted(3) == "3" and quoted([1, "a"]) == "[1, 'a']"
    assert quoted("  two  blanks ") == "'  two  blanks '" and one_line(" two \n blanks ") == "two blanks"
    assert one_line("Å α 原子") == "Å α 原子"
    assert several_lines("a:  b\n   c") == "a:  b\n   c"
    assert one_line("begin" + LONG + "end", 20) == "beginxxxxxxx...xxend"
    assert cause(ValueError()) == "ValueError" and cause(ValueError(" a\nb")) == "a b"


def test_messages_are_bounded_where_they_are_made() -> None:
    text = str(InputError("\n".join([HARD.replace("\n", " "), LONG] * 100)))
    lines = text.split("\n")
    assert len(lines) == LINES + 1 and lines[-1] == "... and 140 more lines"
    assert all(len(line) <= LINE and line.isprintable() for line in lines)
    error = ConfigError([LONG] * 30, LONG)
    assert len(error.problems) == 21 and error.problems[-1] == "and 10 more mistakes"
    assert max(map(len, str(error).split("\n"))) <= 1000


@pytest.mark.parametrize("odd", [LONG, "\x1b[2J\u2028", "é" * 3000])
def test_configurations_are_quoted_shortened(odd: str) -> None:
    def settings(**more: object) -> dict[str, object]:
        return {"experiment": "search", "system": {"cluster": "Ar7"}, "potential": "lennard-jones"} | more

    tries = [
        lambda: load_experiment({"experiment": odd}),
        lambda: load_experiment(settings(**{odd: 1})),
        lambda: load_experiment(settings(potential=odd)),
        lambda: load_experiment(settings(potential={"name": odd})),
        lambda: load_experiment(settings(potential={"name": "lennard-jones", odd: odd})),
        lambda: load_experiment(settings(system={"cluster": odd})),
        lambda: load_experiment(settings(starts=odd)),
        lambda: load_experiment(settings(optimizer=[odd])),
        lambda: override(settings(), [odd]),
        lambda: override(settings(starts=5), [f"starts.{odd}={odd}"]),
        lambda: override(settings(), [f"{odd}.{odd}=[1"]),
        lambda: override(settings(list=[1]), [f"list.{odd}=1"]),
        lambda: load("potential", odd),
        lambda: load(odd, "fire"),
    ]
    for number, attempt in enumerate(tries):
        with pytest.raises(MloptError) as caught:
            attempt()
        lines = str(caught.value).split("\n")
        assert all(len(line) < 700 and line.isprintable() for line in lines), number
        assert odd not in str(caught.value), number


def test_the_key_and_its_value_are_told_from_each_other() -> None:
    with pytest.raises(ConfigError, match=r"^-s starts\.a: starts is 5, which has no 'a'$"):
        override(read_yaml("starts: 5"), ["starts.a=1"])
