"""Candidates of a scan: their costs, and those that no other beats in both cost and error."""

from __future__ import annotations

import pytest
import torch

from mlopt.core import Dataset, Evaluation, Systems
from mlopt.optimizers.experiments.fit import candidate
from mlopt.optimizers.experiments.fit.candidate import Candidate, front, with_costs
from mlopt.potentials import LennardJones


def made(error: float | None, seconds: float | None) -> Candidate:
    return Candidate({}, 1, evidence=1.0, left_out=error, seconds=seconds)


def test_the_front_has_what_no_other_beats() -> None:
    both = [made(3.0, 1.0), made(1.0, 3.0), made(2.0, 2.0), made(2.5, 2.5), made(2.0, 4.0), made(1.0, 3.5)]
    assert front(both) == [both[0], both[2], both[1]]
    assert front([made(None, 1.0), made(1.0, None)]) == []
    assert front([made(1.0, 2.0), made(1.0, 1.0), made(2.0, 1.0)]) == [made(1.0, 1.0)]


def test_the_error_of_a_trained_candidate_is_the_root_of_its_loss() -> None:
    assert Candidate({}, 1, held_back=0.25).error == 0.5
    assert made(0.5, None).error == 0.5 and Candidate({}, 1, evidence=1.0).error is None


class Slow(LennardJones):
    """A potential that says what an evaluation of it takes."""

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        CLOCK[0] += self.epsilon * len(systems.pos)
        COUNTS.append(len(systems.pos))
        return super().evaluate(systems, stress=stress)


CLOCK, COUNTS = [0.0], list[int]()


def test_costs_are_those_of_an_atom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate.time, "perf_counter", lambda: CLOCK[0])
    data = Dataset(Systems.cluster([18] * 7).repeat(200))
    potentials = [Slow(epsilon=1e-5), Slow(epsilon=4e-5)]
    found = with_costs([made(1.0, None), made(2.0, None)], potentials, data)
    assert [one.seconds for one in found] == [pytest.approx(1e-5), pytest.approx(4e-5)]
    assert [one.error for one in found] == [1.0, 2.0]
    assert set(COUNTS) == {497} and CLOCK[0] < 1.0  # 71 structures; about 0.2 seconds each


def test_a_structure_larger_than_the_batch_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate.time, "perf_counter", lambda: CLOCK[0])
    COUNTS.clear()
    data = Dataset(Systems.cluster([18] * 600).with_pos(6.0 * torch.randn(600, 3, dtype=torch.float64)))
    (found,) = with_costs([made(1.0, None)], [Slow(epsilon=1.0)], data)
    assert found.seconds == pytest.approx(1.0) and COUNTS == [600, 600]
