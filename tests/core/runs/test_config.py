"""Configurations: what is read, what is refused, and that nothing else can happen."""

from __future__ import annotations

import random
import string
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlopt.core.errors import ConfigError, InputError, PluginError
from mlopt.core.plugins import registry
from mlopt.core.plugins.plugin import FromRegistry, Plugin, setting
from mlopt.core.runs import config
from mlopt.core.runs.config import dump_yaml, load_experiment, override, read_file, read_yaml, resolved
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("1E5", 100000.0),
        ("-2", -2),
        ("1_000", 1000),
        ("yes", True),
        ("no", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("Ar38", "Ar38"),
        ("'1'", "1"),
        ("2020-01-01", "2020-01-01"),
        ("[1, 2.5, x]", [1, 2.5, "x"]),
        ("{b: {c: []}}", {"b": {"c": []}}),
        ("$HOME", "$HOME"),
        ('"\\u00e9"', "é"),
    ],
)
def test_values(text, value):
    read = read_yaml(f"a: {text}")["a"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("[1]", "top level is a list"),
        ("3", "top level is the value 3"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: not valid YAML: found duplicate key a"),
        ("a: [1", "not valid YAML"),
        ("a: b: c", "line 1, column 5: not valid YAML"),
        ("a: &x 1", "line 1: anchors and aliases"),
        ("\na: *x", "line 2: anchors and aliases"),
        ("a: !!float 1", "line 1: tags such as `tag:yaml.org,2002:float`"),
        ("a: !!python/name:os.system x", "tags such as"),
        ("a: !include other.yaml", "tags such as `!include`"),
        ("a: ${b}", "`${...}` is not replaced"),
        ("${b}: 1", "is not replaced"),
        ("a: ???", "`???` stands for a value that is missing"),
        ("a: '???'", "`???` stands for a value that is missing"),
        ("1: 2", "the key 1 is not a word; put it in quotes"),
        ("a: {yes: 2}", "the key True in a is not a word"),
        ("? [a]\n: 1", "not valid YAML"),
        ("a: .inf", "a: should be a finite number, got inf"),
        ("a: [1, .nan]", "a.1: should be a finite number, got nan"),
        ("a: 1e999", "a: should be a finite number"),
        ("a: " + "9" * 5000, "not a valid configuration"),
        ("a: 1\n---\nb: 1", "line 2: a second document"),
        ("a: \ud800", "not a valid configuration"),
        ("a: \x00", "not valid YAML"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 levels deep"),
        ("- " * 100_000, "nested more than 50 levels deep"),
        ("a: " + "{a: " * 20_000, "nested more than 50 levels deep"),
        ("a: '" + "x" * 1_000_000 + "'", "larger than 1,000,000 bytes"),
    ],
)
def test_refused(text, words):
    with pytest.raises(ConfigError) as raised:
        read_yaml(text, "f.yaml")
    assert str(raised.value).startswith("f.yaml: ") and words in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_read_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_file(path)[1] == {"a": 1, "b": 2}


@pytest.mark.parametrize("path", ["nowhere.yaml", ".", "a\0b"])
def test_unreadable_file(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(path)


def test_endless_file():
    with pytest.raises(ConfigError, match="larger than"):
        read_file("/dev/zero")


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("a=1e-3", ["a"], 0.001),
        ("a.b.c=x", ["a", "b", "c"], "x"),
        ("list.1=7", ["list", "1"], 7),
        ("list.0.deep=true", ["list", "0", "deep"], True),
        ("list=[3, 4]", ["list"], [3, 4]),
        ("map={x: 1}", ["map"], {"x": 1}),
        ("map.y=null", ["map", "y"], None),
        ("plugin.step=2", ["plugin"], {"name": "inner", "step": 2}),
        ("url=a=b", ["url"], "a=b"),
        (" spaced = 1 ", ["spaced"], 1),
    ],
)
def test_override(assignment, path, value):
    before = {"list": [{"deep": False}, 2], "map": {"old": 0}, "plugin": "inner", "number": 3}
    after: Any = override(before, [assignment])
    for step in path:
        after = after[int(step)] if isinstance(after, list) else after[step]
    assert after == value
    assert before == {"list": [{"deep": False}, 2], "map": {"old": 0}, "plugin": "inner", "number": 3}


def test_overrides_apply_in_order():
    assert override({}, ["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}
    assert override({"a": {"x": 1}}, ["a={y: 2}"]) == {"a": {"y": 2}}, "a mapping replaces"


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("a", "-s a: should be key=value"),
        ("=1", "should be key=value"),
        ("a..b=1", "should be key=value"),
        ("list.2=1", "-s list.2: list is a list with items 0 to 1, not '2'"),
        ("list.x=1", "list is a list with items 0 to 1, not 'x'"),
        ("list.-1=1", "list is a list with items 0 to 1"),
        ("list.²=1", "list is a list with items 0 to 1"),
        ("number.x=1", "-s number.x: number is 3, which has no 'x'"),
        ("a=[1", "-s a: line"),
        ("a=${b}", "-s a: line 1: `${b}`"),
        ("a=&x 1", "anchors"),
        ("a=.nan", "finite"),
    ],
)
def test_override_refuses(assignment, words):
    with pytest.raises(ConfigError) as raised:
        override({"list": [1, 2], "number": 3}, [assignment])
    assert words in str(raised.value)


def test_override_names_every_mistake():
    with pytest.raises(ConfigError) as raised:
        override({}, ["a", "b=1", "c=[1"])
    assert len(raised.value.problems) == 2


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


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff\u2028\u2029\x85")
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


def acceptable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(acceptable(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(acceptable(part) for part in value)
    return not isinstance(value, str) or ("${" not in value and "???" not in value and "\\" not in value)


@given(st.dictionaries(WORDS, DATA, max_size=4).filter(acceptable))
def test_what_is_written_is_read_back(content):
    if content:
        assert read_yaml(dump_yaml(content)) == content


def test_objects_become_plain(tmp_path):
    import enum

    class Colour(enum.Enum):
        RED = "red"

    assert read_yaml(dump_yaml({"a": tmp_path, "b": (1, 2), "c": Colour.RED})) == {
        "a": str(tmp_path),
        "b": [1, 2],
        "c": "red",
    }
    with pytest.raises(ConfigError, match=r"a\.0: object cannot be written"):
        dump_yaml({"a": [object()]})


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


def test_limits_are_those_promised():
    assert (config.MAX_BYTES, config.MAX_DEPTH) == (1_000_000, 50)
