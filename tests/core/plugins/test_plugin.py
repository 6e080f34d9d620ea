"""Plugins: the constructor is the configuration, and its mistakes are told one by one."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

import pytest
import torch
from pydantic import ValidationError

from mlopt.core.errors import ConfigError, PluginError
from mlopt.core.plugins import registry
from mlopt.core.plugins.plugin import FromRegistry, Plugin, build, setting, unknown_key


class Local(Plugin):
    """A small one."""

    step: float = setting(0.1, "of a move", unit="angstrom", gt=0)
    count: int = setting(3, "how often", ge=1)


class Other(Plugin):
    pass


class Stranger:
    pass


class Budget(Plugin):
    calls: int = setting(..., "how many")


class Outer(Plugin):
    inner: Annotated[Local, FromRegistry("optimizer")] = setting(Local(), "inside")
    several: list[Annotated[Local, FromRegistry("optimizer")]] = setting([], "a list")
    budget: Budget = setting(Budget(calls=1), "group")


KNOWN: dict[str, type] = {"local": Local, "other": Other, "stranger": Stranger}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(kind: str, name: str) -> type:
        if name not in KNOWN:
            raise PluginError(f"No {kind} is called {name!r}.")
        return KNOWN[name]

    monkeypatch.setattr(registry, "load", load)
    names = {cls: name for name, cls in KNOWN.items()}
    monkeypatch.setattr(registry, "name_of", lambda kind, cls: names.get(cls))


def problems(cls: type, settings: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        build(cls, settings, "here")
    assert str(raised.value).startswith("here: ")
    return raised.value.problems


def test_defaults_and_documentation():
    assert (Local().step, Local().count) == (0.1, 3)
    field = Local.model_fields["step"]
    assert field.description == "of a move"
    assert field.json_schema_extra == {"unit": "angstrom"}
    assert Local.model_fields["count"].json_schema_extra is None


def test_instances_do_not_change():
    with pytest.raises(ValidationError):
        Local().step = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("value", ["1", True, None, [1], float("nan")])
def test_types_are_not_bent(value):
    (line,) = problems(Local, {"step": value})
    assert line.startswith("step: ")


def test_an_integer_is_a_number():
    assert build(Local, {"step": 2}).step == 2


def test_every_mistake_has_a_line():
    lines = problems(Local, {"step": -1.0, "count": "many", "cuont": 3})
    assert lines == [
        "step: input should be greater than 0 (got -1.0)",
        "count: input should be a valid integer (got 'many')",
        "cuont: unknown key 'cuont' in the top level. Did you mean 'count'? Known: step, count.",
    ]


def test_nested_mistakes_have_paths():
    settings = {
        "inner": {"name": "local", "stpe": 1.0, "step": 0.0},
        "budget": {"call": 1},
        "several": ["local", {}],
    }
    lines = problems(Outer, settings)
    text = "\n".join(lines)
    assert "inner.step: input should be greater than 0 (got 0.0)" in lines
    assert "unknown key 'stpe' in inner. Did you mean 'step'?" in text
    assert "unknown key 'call' in budget. Did you mean 'calls'?" in text
    assert "budget.calls: this setting is required" in lines
    assert "several.1: needs a `name`: which optimizer? See `mlopt list optimizer`" in lines


@pytest.mark.parametrize("value", ["local", {"name": "local"}, {"name": "local", "step": 0.1}, Local()])
def test_ways_to_give_a_plugin(value):
    assert build(Outer, {"inner": value}).inner == Local()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("locl", "inner: no optimizer is called 'locl'"),
        (3, "inner: should be the name of a optimizer or a mapping with a `name`"),
        (None, "inner: should be the name of a optimizer"),
        ({"name": 3}, "inner: needs a `name`"),
        ("other", "inner: 'other' is not a Local but a Other"),
        ("stranger", "inner: 'stranger' is not a Local but a Stranger"),
    ],
)
def test_wrong_plugin(value, words):
    (line,) = problems(Outer, {"inner": value})
    assert line.startswith(words)


def test_given_settings_are_left_alone():
    settings = {"inner": {"name": "local", "step": 1.0}}
    build(Outer, settings)
    assert settings == {"inner": {"name": "local", "step": 1.0}}


def test_config_is_plain_and_builds_the_same():
    outer = Outer(inner=Local(step=0.5), several=[Local(), Local(count=9)])
    plain = outer.config()
    assert plain["inner"] == {"name": "local", "step": 0.5, "count": 3}
    assert plain["several"][1] == {"name": "local", "step": 0.1, "count": 9}
    assert plain["budget"] == {"calls": 1}
    assert build(Outer, plain) == outer


def test_replace_does_not_validate_but_knows_its_keys():
    changed = Local().replace(step="a tensor")
    assert changed.step == "a tensor" and changed.count == 3
    assert Local().step == 0.1
    with pytest.raises(ConfigError, match=r"unknown key 'stepp' in Local\. Did you mean 'step'"):
        Local().replace(stepp=1)


def test_equal_are_those_with_equal_settings() -> None:
    """Also where a setting, or what was made of settings, is a tensor."""

    class Heavy(Local):
        theta: Any = setting(None, "numbers")

        @cached_property
        def doubled(self) -> torch.Tensor:
            return 2.0 * torch.as_tensor(self.theta)

    def heavy(*numbers: float) -> Heavy:
        return Heavy(theta=torch.tensor(numbers))

    one, same, other = heavy(1.0, 2.0), heavy(1.0, 2.0), heavy(1.0, 3.0)
    assert one == same and one != other and one != heavy(1.0) and one != Local() and one != "heavy"
    assert one.doubled is not same.doubled and one == same
    assert Local(step=0.2) == Local(step=0.2) != Local() and hash(Local()) == hash(Local())
    assert Outer(inner=Local(step=0.2)) == Outer(inner=Local(step=0.2)) != Outer()


def test_unknown_key_without_a_near_one():
    assert unknown_key("zzz", ["a", "b"], "x") == "unknown key 'zzz' in x. Known: a, b."


class Counted(Plugin):
    one: int = setting(1, "a count", ge=1)
    perhaps: int | None = setting(None, "a count or none")
    many: list[int] = setting([], "counts")
    pair: tuple[int, int] = setting((1, 2), "two counts")
    real: float = setting(1.0, "a number")
    mixed: tuple[int, float] = setting((1, 1.0), "a count and a number")


def test_a_float_that_is_whole_is_an_integer() -> None:
    """``1e4`` is a float in YAML."""
    made = build(Counted, {"one": 1e4, "perhaps": 2e0, "many": [1e1, 3], "real": 1e4, "mixed": (2.0, 2.0)})
    assert (made.one, made.perhaps, made.many, made.mixed) == (10_000, 2, [10, 3], (2, 2.0))
    assert [type(one) for one in (made.one, made.perhaps, *made.many, *made.mixed)] == [int] * 5 + [float]
    assert type(made.real) is float


@pytest.mark.parametrize("value", [1.5, 1e-4, float("nan"), float("inf"), True, "10", -1e4])
def test_no_other_value_becomes_an_integer(value: object) -> None:
    assert problems(Counted, {"one": value})[0].startswith("one: ")


class Grouped(Plugin):
    one: Budget | None = setting(None, "a group or none")
    many: list[Budget] = setting([], "groups")
    inner: Annotated[Local, FromRegistry("optimizer")] = setting(Local(), "inside")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"one": 5}, "one: should be `key: value` settings (calls), got 5"),
        ({"many": [5]}, "many.0: should be `key: value` settings (calls), got 5"),
        ({"calls": 5}, "calls: unknown key 'calls' in the top level. It belongs into `one`."),
        ({"one": {"call": 5}}, "one.call: unknown key 'call' in one. Did you mean 'calls'? Known: calls."),
        ({"many": [{"call": 5}]}, "many.0.call: unknown key 'call' in many.0. Did you mean 'calls'?"),
        (
            {"step": 5.0, "inner": "local"},
            "step: unknown key 'step' in the top level. It belongs into `inner`.",
        ),
        ({"step": 5.0, "inner": "nothing"}, "step: unknown key 'step' in the top level."),
    ],
)
def test_groups_are_told_from_values(settings: dict[str, Any], message: str) -> None:
    assert any(one.startswith(message) for one in problems(Grouped, settings))
