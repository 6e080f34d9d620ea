"""The depth of a text, measured without a parser, against the events of one."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlopt.core.runs.yaml_depth import too_deep

DEEP = "[" * 60


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: " + DEEP, 1),
        ("a: " + "[" * 5_000, 1),
        ("a: 1\nb: " + "{a: " * 60, 2),
        ("- " * 60 + "1", 1),
        ("? " * 60 + "1", 1),
        (DEEP, 1),
        ("a:\n  " + DEEP, 2),
        ("a: [\n" + "[\n" * 60, 51),
        ("- - x: " + DEEP, 1),
    ],
)
def test_line_of_the_first_level_too_deep(text, line):
    assert too_deep(text, 50) == line


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 50 + "]" * 50,
        "a: " + "[" * 50 + "]" * 50 + "\nb: " + "[" * 50 + "]" * 50,
        "a: [" + "[], " * 60 + "]",
        f'a: "{DEEP}"',
        f"a: '{DEEP}'",
        f"a: ['{DEEP}', \"{DEEP}\", it's]",
        f"a: x{DEEP}",
        f"# {DEEP}\na: 1 # {DEEP}",
        f"# a: {DEEP}",
        f"a: [1, # {DEEP}\n 2]",
        f"a: |\n  {DEEP}\n\n  {DEEP}\nb: 1",
        f"- >-\n  {DEEP}\n- 2",
        "- - - 1",
        "a: " + "- " * 60,
    ],
)
def test_words_and_comments_are_no_levels(text):
    assert too_deep(text, 50) is None


NESTED = st.recursive(
    st.none() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=30,
)


@given(NESTED, st.booleans())
def test_never_deeper_than_what_a_parser_sees(value, flow):
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    depth = deepest = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        deepest = max(deepest, depth)
    assert too_deep(text, deepest) is None
    if flow and deepest:
        assert too_deep(text, deepest - 1) is not None
