"""YAML as mlopt reads and writes it: data alone, within limits, and settings of the command line on top."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlopt.core.errors import ConfigError
from mlopt.core.runs import config
from mlopt.core.runs.config import dump_yaml, override, read_file, read_yaml


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


def test_limits_are_those_promised():
    assert (config.MAX_BYTES, config.MAX_DEPTH) == (1_000_000, 50)
