"""From a configuration to an experiment: every mistake is named, and nothing else escapes."""

from __future__ import annotations

import random
import string
from typing import Annotated, Any, ClassVar, Literal

import pytest

from mlopt.core.errors import ConfigError, InputError, PluginError
from mlopt.core.plugins import registry
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.runs.config import dump_yaml, load_experiment, override, read_yaml, resolved
from mlopt.core.runs.experiment import Context, Experiment


class Inner(Plugin):
    step: float = setting(0.1, "step", gt=0)


class Outer(Plugin):
    inner: Annotated[Plugin, FromRegistry("optimizer")] = setting(Inner(), "inside")
    names: list[str] = setting([], "names")


class Group(Plugin):
    calls: int = setting(5, "calls", ge=1)


class Trial(Experiment):
    """An experiment with one setting of each sort."""

    optimizer: Annotated[Plugin, FromRegistry("optimizer")] = setting(..., "which")
    group: Group = setting(Group(), "group")
    mode: Literal["a", "b"] = setting("a", "mode")
    limit: float | None = setting(None, "limit", gt=0)
    table: dict[str, float] = setting({}, "by name")

    def run(self, context: Context | None = None) -> Any:
        raise NotImplementedError


KNOWN = {("experiment", "trial"): Trial, ("optimizer", "inner"): Inner, ("optimizer", "outer"): Outer}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(kind: str, name: str) -> type:
        if (kind, name) not in KNOWN:
            raise PluginError(f"No {kind} is called {name!r}.")
        return KNOWN[kind, name]

    def name_of(kind: str, cls: type) -> str | None:
        return next((name for (one, name), known in KNOWN.items() if one == kind and known is cls), None)

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(registry, "name_of", name_of)


GOOD = {
    "experiment": "trial",
    "optimizer": {"name": "outer", "inner": {"name": "inner", "step": 0.5}, "names": ["x", "y"]},
    "group": {"calls": 3},
    "mode": "b",
    "limit": 1e-3,
    "table": {"Ar": 1.0},
}


def test_load(registered):
    trial = load_experiment(GOOD)
    assert isinstance(trial, Trial)
    assert trial.optimizer.inner.step == 0.5 and trial.group.calls == 3  # type: ignore[attr-defined]
    assert read_yaml(resolved(trial)) == GOOD
    assert load_experiment(read_yaml(resolved(trial))) == trial


def test_defaults_are_written_out(registered):
    trial = load_experiment({"experiment": "trial", "optimizer": "inner"})
    assert read_yaml(resolved(trial)) == {
        "experiment": "trial",
        "optimizer": {"name": "inner", "step": 0.1},
        "group": {"calls": 5},
        "mode": "a",
        "limit": None,
        "table": {},
    }


def test_every_mistake_is_named(registered):
    wrong = override(
        GOOD,
        ["group.calls=0", "mode=c", "limit=-1", "grup=1", "optimizer.inner.stp=1", "optimizer.names=[1]"],
    )
    with pytest.raises(ConfigError) as raised:
        load_experiment(wrong, "f.yaml")
    problems = {line.partition(": ")[0]: line for line in raised.value.problems}
    assert set(problems) == {
        "group.calls",
        "mode",
        "limit",
        "grup",
        "optimizer.inner.stp",
        "optimizer.names.0",
    }
    assert "Did you mean 'group'?" in problems["grup"]
    assert "Did you mean 'step'?" in problems["optimizer.inner.stp"]
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "experiment: is required"),
        ({"experiment": 3}, "experiment: should be a word, got 3"),
        ({"experiment": ["trial"]}, "should be a word"),
        ({"experiment": "trail"}, "experiment: No experiment is called 'trail'"),
    ],
)
def test_which_experiment(registered, content, words):
    with pytest.raises(ConfigError) as raised:
        load_experiment(content)
    assert words in str(raised.value)


class Odd(Trial):
    error: ClassVar[Exception]

    def __init__(self, **values: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("do this instead"), "do this instead"),
        (KeyError("x"), "a plugin failed while it checked its settings"),
    ],
)
def test_constructor_that_raises(monkeypatch, error, words):
    monkeypatch.setattr(registry, "load", lambda kind, name: Odd)
    monkeypatch.setattr(Odd, "error", error, raising=False)
    with pytest.raises(ConfigError) as raised:
        load_experiment({"experiment": "odd"}, "f.yaml")
    assert words in str(raised.value)


@pytest.mark.parametrize("cls", [Group, dict])
def test_not_an_experiment(monkeypatch, cls):
    monkeypatch.setattr(registry, "load", lambda kind, name: cls)
    with pytest.raises(ConfigError, match="not an Experiment"):
        load_experiment({"experiment": "odd"})


SNIPPETS = """: |- |[|]|{|}|&a |*a|!!int |${x}|???|'|"|#|>|%|---|null|.nan|1e999|é|name|step: 1""".split("|")


SNIPPETS += ["<<: ", "? ", "=", "0x_", "1:2", "\n", "\n---\n", "  ", "\t", "|", "\x00", "\ufeff"]


def mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(text) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            text = text[:at] + chance.choice(SNIPPETS) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + chance.randint(1, 8) :]
        elif kind == 2:
            text = text[:at] + chance.choice(string.printable) + text[at + 1 :]
        elif kind == 3:
            lines = text.split("\n")
            chance.shuffle(lines)
            text = "\n".join(lines)
        else:
            text = text[:at] + text[at : at + 30] * 2 + text[at + 30 :]
    return text


def test_fuzz(registered):
    """2,000 mutated configurations: each is valid or a ConfigError, nothing else, and what is valid can be resumed."""
    text, chance = dump_yaml(GOOD), random.Random(0)
    valid = 0
    for _ in range(2000):
        try:
            trial = load_experiment(read_yaml(mutated(text, chance), "f.yaml"), "f.yaml")
        except ConfigError as error:
            assert error.problems and "Traceback" not in str(error)
            continue
        assert load_experiment(read_yaml(resolved(trial))) == trial
        valid += 1
    assert 20 < valid < 1000, "the mutations should be neither harmless nor hopeless"


def test_fuzz_overrides(registered):
    chance = random.Random(1)
    paths = [
        "optimizer",
        "optimizer.inner.step",
        "optimizer.names.0",
        "group.calls",
        "table.Ar",
        "limit",
        "experiment",
    ]
    for _ in range(1000):
        assignment = mutated(
            f"{chance.choice(paths)}={chance.choice(['1', 'x', '[1]', '{name: inner}', '1e-3'])}", chance
        )
        try:
            load_experiment(override(GOOD, [assignment]))
        except ConfigError as error:
            assert error.problems
