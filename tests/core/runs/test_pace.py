"""How long a run will take: measured, told once, and told of whom it is slow."""

from __future__ import annotations

from mlopt.core.runs.experiment import Context
from mlopt.core.runs.pace import Pace, spelled


class Surroundings(Context):
    follow = 0

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.now = 100.0

    def log(self, message: str) -> None:
        self.lines.append(message)

    @property
    def calls_to_follow(self) -> int:
        return self.follow

    def clock(self) -> float:
        return self.now


def walked(pace: Pace, around: Surroundings, seconds: float, calls: int, n: int, total: int) -> None:
    """Look before and after each of ``n`` steps, each of so many calls and seconds."""
    for step in range(n + 1):
        pace.look(calls * step, total - calls * step)
        around.now += seconds


def test_it_is_told_once_after_the_first_seconds() -> None:
    around = Surroundings()
    pace = Pace(around, "the potential Morse", clock=around.clock)
    walked(pace, around, seconds=1.0, calls=1_000, n=2, total=100_000)
    assert not around.lines and pace.rest == ""
    pace.look(3_000, 97_000)
    assert around.lines == ["a force call takes 1 ms; at most 97,000 are left: at most 97 s"]
    around.now += 96.0
    pace.look(99_000, 1_000)
    assert len(around.lines) == 1 and pace.rest == "at most 1 s left"
    pace.look(100_000, 0)
    assert pace.rest == ""


def test_what_is_slow_is_named() -> None:
    around = Surroundings()
    walked(Pace(around, "the calculator 'emt'", clock=around.clock), around, 51.2, 64, n=1, total=12_064)
    assert around.lines == [
        "the calculator 'emt' takes 0.8 s a call; at most 12,000 are left: at most 2 h 40 min"
    ]


def test_what_was_done_before_a_resume_is_not_measured() -> None:
    around = Surroundings()
    pace = Pace(around, clock=around.clock)
    pace.look(1_000_000, 50)
    around.now += 10.0
    pace.look(1_000_010, 40)
    assert around.lines == ["a force call takes 1 s; at most 40 are left: at most 40 s"]


def test_what_follows_a_part_counts() -> None:
    around = Surroundings()
    around.follow = 60
    pace = Pace(around, clock=around.clock)
    walked(pace, around, 1.0, 1, n=3, total=43)
    assert around.lines == ["a force call takes 1 s; at most 100 are left: at most 2 min"]


def test_epochs_are_told_after_the_first() -> None:
    around = Surroundings()
    pace = Pace(around, unit="epoch", bounded=False, after=0.0, clock=around.clock)
    walked(pace, around, 12.0, 1, n=1, total=200)
    assert around.lines == ["an epoch takes 12 s; 199 are left: about 40 min"]
    assert pace.rest == "about 40 min left"


def test_nothing_is_told_of_what_has_not_moved() -> None:
    around = Surroundings()
    pace = Pace(around, clock=around.clock)
    for _ in range(5):
        pace.look(7, 100)
        around.now += 10.0
    assert not around.lines and pace.rest == ""


def test_times_keep_two_digits_and_never_grow_shorter() -> None:
    times = [10.0 ** (k / 7.0) for k in range(-45, 50)]
    said = [spelled(one) for one in times]
    units = ["µs", "ms", "s", "min", "h", "days"]
    order = [units.index(one.split()[1]) for one in said]
    assert order == sorted(order) and all(len(one) <= 12 for one in said[:-10])
    assert (spelled(99.6), spelled(3_600.0), spelled(7_200.0), spelled(47.5 * 3600)) == (
        "2 min",
        "60 min",
        "2 h",
        "47 h 30 min",
    )
