"""Progress: silent, a line now and then, or a bar."""

from __future__ import annotations

import io
import sys

import pytest

from mlopt.cli.terminal import display


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(display, "time", clock)
    return clock


def test_lines_come_at_most_every_few_seconds(clock, capsys):
    lines = display.Lines()
    for second in range(21):
        clock.now = 100.0 + second
        lines.update(second / 40, f"second {second}")
    lines.close()
    lines.close()
    shown = [line.split("second ")[1] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["0", "5", "10", "15", "20"]


def test_last_line_is_shown(clock, capsys):
    lines = display.Lines()
    lines.update(0.0, "first")
    clock.now += 3725
    lines.update(0.5, "middle")
    clock.now += 1
    lines.update(2.0, "last")
    lines.close()
    assert capsys.readouterr().err.splitlines() == [
        "    0:00    0 %  first",
        " 1:02:05   50 %  middle",
        " 1:02:06  100 %  last",
    ]


def test_nothing_to_show(capsys):
    for one in (display.Lines(), display.Display()):
        one.close()
    display.Display().update(0.5, "unseen")
    display.Display().note("unseen")
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_on_a_terminal(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    bar = display.make(quiet=False)
    assert isinstance(bar, display.Bar)
    bar.update(0.5, "best [-44.3] of [bold]3")
    bar.note("a note in [brackets]")
    bar.close()
    bar.close()
    assert "best [-44.3] of [bold]3" in stderr.getvalue() and "a note in [brackets]" in stderr.getvalue()


@pytest.mark.parametrize(
    ("quiet", "term", "kind"), [(True, "xterm", display.Display), (False, "dumb", display.Lines)]
)
def test_choice(monkeypatch, quiet, term, kind):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", term)
    assert type(display.make(quiet)) is kind
