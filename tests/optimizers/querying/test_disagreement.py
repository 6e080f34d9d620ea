"""The grade by a committee: what members disagree about, compared with structures that they know."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.optimizers.querying import Disagreement
from mlopt.potentials import BehlerParrinello, Committee

pytest.importorskip("numba")


def shaken(count: int, size: float) -> Systems:
    images = []
    for seed in range(count):
        atoms = bulk("Si", cubic=True) * ((1, 1, 2) if seed % 2 else (1, 1, 1))
        atoms.rattle(size, seed=seed)
        images.append(atoms)
    return Systems.from_atoms(images)


def members() -> tuple[BehlerParrinello, torch.Tensor]:
    potential = BehlerParrinello(elements=["Si"], cutoff=3.8, hidden=[4], functions="amp")
    return potential, torch.stack([potential.start(seed) for seed in range(3)])


def test_the_grade_is_the_spread_of_forces_over_their_size() -> None:
    potential, theta = members()
    known, there = shaken(3, 0.05), shaken(4, 0.2)
    grader = Disagreement.of(potential, theta, known, least=1e-9)
    committee = Committee.of(potential, theta)

    def relative(systems: Systems) -> torch.Tensor:
        return committee.spread(systems).force / (1.0 + committee.evaluate(systems).force.norm(dim=-1))

    torch.testing.assert_close(torch.tensor(grader.unit).double(), relative(known).max())
    grades = grader.grade(there)
    torch.testing.assert_close(grades.row, relative(there) / grader.unit)
    assert torch.equal(grades.system, there.segments.max(grades.row))
    assert float(grader.grade(known).system.max()) == 1.0


def test_agreement_has_a_unit_of_its_own() -> None:
    potential, theta = members()
    known = shaken(3, 0.05)
    grader = Disagreement.of(potential, theta, known, least=0.5)
    assert grader.unit == 0.5 and float(grader.grade(known).system.max()) < 1.0
    nobody = torch.zeros(len(known.pos), dtype=torch.bool)
    assert Disagreement.of(potential, theta, known, least=0.25, among=nobody).unit == 0.25


def test_a_grade_does_not_depend_on_the_batch() -> None:
    potential, theta = members()
    grader = Disagreement(potential, theta, 1.0)
    there = shaken(4, 0.2)
    whole = grader.grade(there)
    alone = [grader.grade(there[index]) for index in range(4)]
    assert torch.equal(whole.row, torch.cat([one.row for one in alone]))
    assert torch.equal(whole.system, torch.cat([one.system for one in alone]))


def test_what_has_no_forces_has_an_infinite_grade() -> None:
    potential, theta = members()
    there = shaken(2, 0.1)
    pos = there.pos.clone()
    pos[0] = torch.nan
    grades = Disagreement(potential, theta, 1.0).grade(there.with_pos(pos))
    assert grades.system.isinf().tolist() == [True, False] and not grades.initialised


def test_a_committee_has_two_members_or_more() -> None:
    potential, theta = members()
    with pytest.raises(
        InputError,
        match=r"disagreement: `theta` must have shape \(k, p\) with k of at least 2, got \(1, 41\)",
    ):
        Disagreement(potential, theta[:1], 1.0)
