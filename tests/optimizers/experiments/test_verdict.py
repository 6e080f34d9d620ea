"""What a search says that it came to: each outcome in one sentence, and the numbers that a reader sees first."""

from __future__ import annotations

from typing import Any

import pytest

from mlopt.core.reporting.statistics import Estimate, mean_calls_to_hit
from mlopt.optimizers.experiments.search.verdict import Verdict

HITS = [250.0, None, 750.0]
CALLS = [250, 1000, 750]


def verdict(**changes: Any) -> Verdict:
    given: dict[str, Any] = {
        "energies": [-16.5, -15.9, -16.5],
        "first_hits": HITS,
        "calls": CALLS,
        "lowest": -16.5,
        "target": -16.5,
        "force_calls": 2100,
    }
    return Verdict(**(given | changes))


def test_the_target_was_reached() -> None:
    told = verdict()
    expected = mean_calls_to_hit(HITS, CALLS)
    assert told.hits == 2 and told.cost == expected and expected.mean == 1000.0
    assert told.headline.startswith(
        "reached the target -16.500000 in 2 of 3 starts; mean 1,000 force calls to first hit [95% "
    )
    beaten = verdict(lowest=-16.75, unit="eV").headline
    assert "reached the target -16.500000, and -16.750000 eV, 0.25 below it in 2 of 3 starts" in beaten


def test_the_target_was_not_reached() -> None:
    told = verdict(first_hits=[None] * 3, lowest=-16.0, energies=[-16.0, -15.0, None])
    assert told.headline.startswith(
        "did not reach the target -16.500000 in 3 starts; lowest -16.000000, 0.5 above; a hit takes more than "
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "lowest energy -16.500000 in 3 starts, found by 2 of them"),
        ({"unit": "eV"}, "lowest energy -16.500000 eV in 3 starts, found by 2 of them"),
        ({"energies": [-16.5], "first_hits": [None], "calls": [9]}, "lowest energy -16.500000 in 1 start"),
        ({"lowest": -17.0}, "lowest energy -17.000000 in 3 starts"),
        ({"energies": [None] * 3, "lowest": None}, "no finite energy in 3 starts"),
    ],
)
def test_without_a_target(changes: dict[str, Any], sentence: str) -> None:
    told = verdict(**({"target": None, "first_hits": [None] * 3} | changes))
    assert told.headline == sentence and told.cost is None


def test_cards() -> None:
    shown = {card.label: card for card in verdict(failed=1, minima=4, unit="eV").cards}
    assert shown["lowest energy"].value == "-16.500000" and shown["lowest energy"].unit == "eV"
    assert shown["lowest energy"].note == "the target"
    assert shown["starts"].value == 3 and shown["starts"].note == "1 failed (not finite)"
    assert shown["reached the target"].value == "2 of 3"
    assert isinstance(shown["mean calls to first hit"].value, Estimate)
    assert (shown["force calls in all"].value, shown["distinct minima"].value) == (2100, 4)
    above = {card.label: card.note for card in verdict(lowest=-16.25).cards}
    assert above["lowest energy"] == "+0.250000 from the target"
    plain = [card.label for card in verdict(target=None, minima=0, force_calls=None).cards]
    assert plain == ["lowest energy", "starts"]
