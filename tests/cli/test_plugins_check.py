"""`mlopt plugins --check`: whatever a plugin does when it is imported is one line about that plugin."""

from __future__ import annotations

import json

import pytest

from mlopt.cli.configs.loading import problems
from mlopt.core.plugins import registry


def test_everything_that_can_go_wrong(mlopt, plugins):
    result = mlopt("plugins", "--check", "--json")
    told = json.loads(result.out)
    problems = {(row["kind"], row["name"], row["distribution"]): row["problem"] for row in told["plugins"]}
    assert len(problems) == len(registry.entries())
    ours = {
        name: text
        for (kind, name, owner), text in problems.items()
        if owner == "mlopt-test-plugins" and kind == "experiment"
    }
    assert result.code == 1 and told["status"] == "error"
    assert ours["sines"] is None
    for name, words in {
        "broken": "OSError: no such [library]",
        "leaving": "SystemExit",
        "missing": "No module named 'mlopt_test_nowhere'",
        "number": "not a class",
        "stranger": "not an mlopt Plugin",
        "chatty": "prints 'hello' when imported",
        "gone": "ended the process with exit code 0 while it was imported",
        "crashing": "crashed while it was imported (SIGSEGV)",
        "colourful": r"OSError: \x1b[2Jred\x07",
    }.items():
        assert words in ours[name] and ours[name].isprintable(), ours[name]
    assert "Two distributions" in problems["move", "twice", "mlopt-test-rival"]
    built_in = [text for (_, _, owner), text in problems.items() if not owner.startswith("mlopt-test")]
    assert built_in == [None] * len(built_in)


def test_a_plugin_that_hangs(plugins):
    """It costs its time limit; those after it, and those of other distributions, are loaded all the same."""
    entries = [
        registry.Entry("move", name, f"mlopt_test_{module}:X", owner, "1.0")
        for name, module, owner in (
            ("first", "small", "one"),
            ("second", "hangs", "one"),
            ("third", "small", "one"),
            ("fourth", "gone", "two"),
            ("fifth", "small", "two"),
        )
    ]
    told = problems(entries, 3.0)
    assert told[0] is told[2] is told[4] is None
    assert told[1] == (
        "move 'second' (mlopt_test_hangs:X) was not imported within 3 s. Tell the authors of one."
    )
    assert "'fourth' (mlopt_test_gone:X) ended the process with exit code 0" in told[3]


def test_one_line_each(mlopt, plugins, monkeypatch):
    from mlopt.cli.configs import loading

    monkeypatch.setattr(loading, "problems", lambda entries, limit: [None] * len(entries))
    result = mlopt("plugins", "--check")
    assert result.code == 1, "two share a name"
    assert len(result.out.splitlines()) == len(registry.entries())


def test_the_loading_process_itself_fails(mlopt, plugins, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    result = mlopt("plugins", "--check")
    assert (
        result.code == 1
        and "plugins could not be loaded: the process that does it ended with 1" in result.err
    )


def test_prints_at_import_leave_the_json_alone(mlopt, plugins, quick):
    """A plugin that prints when it is imported prints to standard error."""
    import sys

    sys.modules.pop("mlopt_test_prints", None)
    result = mlopt("info", "chatty", "--json")
    assert result.code == 0 and json.loads(result.out)["name"] == "chatty"
    assert "hello" in result.err


@pytest.mark.parametrize("limit", ["0", "-1", "soon"])
def test_limits(refuse, limit):
    refuse(["plugins", "--check", "--limit", limit], "--limit")
