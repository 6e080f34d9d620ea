"""Extrapolation grades: their definition, what the batch must not change, and states that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mlopt.core import InputError, Systems
from mlopt.core.protocols import FittablePotential
from mlopt.optimizers.querying import ActiveSet, Grader
from mlopt.potentials import BehlerParrinello, Mtp, SchNet

pytest.importorskip("numba")


def alloys(count: int, shake: float = 0.15, seed: int = 0, share: float = 0.5) -> list[Atoms]:
    """Skewed cells of copper and gold, some partly periodic, of several sizes."""
    images = []
    for index in range(count):
        draw = np.random.default_rng(1000 * seed + index)
        atoms = bulk("Cu", cubic=True, a=3.8).repeat((1, 1, 1 + index % 2))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.15 * draw.normal(size=(3, 3))), scale_atoms=True)
        atoms.symbols[draw.random(len(atoms)) < share] = "Au"
        atoms.symbols[0] = "Cu"
        atoms.rattle(shake, seed=1000 * seed + index)
        if index % 5 == 4:
            atoms.set_pbc([True, False, True])
        images.append(atoms)
    return images


def potential(**settings: object) -> Mtp:
    found = Mtp(
        **{"elements": ["Cu", "Au"], "level": 4, "pair_functions": 2, "shortest": 1.5, "cutoff": 4.5}
        | settings
    )
    theta = torch.linspace(-1.0, 1.0, len(found.parameters), dtype=torch.float64)
    return found.with_theta(theta)


def test_an_atoms_row_lies_in_the_block_of_its_species() -> None:
    model, systems = potential(), Systems.from_atoms(alloys(60))
    grader = Grader.of(model, systems)
    rows = model.row_gradients(systems)
    wanted = model.design(systems, force=False, row_energy=True).row_energy
    torch.testing.assert_close(rows, wanted, rtol=1e-11, atol=1e-11)
    c = np.linalg.lstsq(grader.active_set.rows.T, rows.numpy().T, rcond=1e-13)[0].T
    found = grader.grade(systems)
    np.testing.assert_allclose(found.row.numpy(), np.abs(c).max(1), rtol=1e-6)
    # under the rows of one species alone those of the other have no grade
    copper = (systems.z == 29).numpy()
    half = Grader(model, ActiveSet.of(rows.numpy()[copper]))
    some = half.grade(systems)
    assert bool(torch.isinf(some.row[~torch.from_numpy(copper)]).all())
    assert bool(torch.isfinite(some.row[torch.from_numpy(copper)]).all()) and not some.initialised


@pytest.mark.parametrize("by", ["neighbourhoods", "configurations"])
def test_known_structures_have_grades_of_at_most_one(by: str) -> None:
    model, systems = potential(), Systems.from_atoms(alloys(60))
    grader = Grader.of(model, systems, by)
    found = grader.grade(systems)
    assert found.initialised and float(found.system.max()) <= 1.001 + 1e-9
    pressed = alloys(5, seed=9)
    for image in pressed:
        image.set_cell(0.75 * image.cell.array, scale_atoms=True)
    far = grader.grade(Systems.from_atoms(pressed)).system
    assert float(far.max()) > 5.0 and float(far.min()) > 1.1
    whole = torch.stack([found.row[systems.batch == index].max() for index in range(len(systems))])
    assert torch.equal(found.system, whole)


@pytest.mark.parametrize("by", ["neighbourhoods", "configurations"])
def test_a_grade_does_not_depend_on_the_batch(by: str) -> None:
    model, systems = potential(), Systems.from_atoms(alloys(40))
    grader = Grader.of(model, systems.select(torch.arange(20)), by)
    found = grader.grade(systems)
    for index in (0, 3, 24, 39):
        alone = grader.grade(systems[index])
        assert torch.equal(alone.system[0], found.system[index])
        assert torch.equal(alone.row, found.row[systems.batch == index])
    evaluation, grades = grader.evaluate(systems, stress=True)
    torch.testing.assert_close(grades.row, found.row, rtol=1e-9, atol=1e-9)
    assert torch.equal(evaluation.force, model.evaluate(systems).force) and evaluation.stress is not None


def test_a_larger_cell_of_the_same_neighbourhoods_has_the_same_grade() -> None:
    model = potential(elements=["Cu"])
    images = [bulk("Cu", cubic=True, a=3.5 + 0.05 * index) for index in range(8)]
    for by in ("neighbourhoods", "configurations"):
        grader = Grader.of(model, Systems.from_atoms(images), by)
        both = grader.grade(Systems.from_atoms([images[2], images[2].repeat((2, 1, 3))]))
        assert float((both.system[0] - both.system[1]).abs()) < 1e-8


def test_what_is_not_determined_is_infinite_and_never_nan() -> None:
    model, systems = potential(), Systems.from_atoms(alloys(3))
    for empty in (Grader.of(model, systems.select([])), Grader(model, ActiveSet.empty(0))):
        found = empty.grade(systems)
        assert not found.initialised and bool(
            torch.isinf(found.row).all() and torch.isinf(found.system).all()
        )
        assert len(empty.grade(systems.select([])).system) == 0
    few = Grader.of(model, systems.select([0]), "configurations")
    found = few.grade(systems)
    assert float(found.system[0]) == pytest.approx(1.0) and bool(torch.isinf(found.system[1:]).all())
    lost = systems.with_pos(torch.where(systems.batch[:, None] == 1, torch.nan, systems.pos))
    found = Grader.of(model, Systems.from_atoms(alloys(60))).grade(lost)
    assert torch.isinf(found.system).tolist() == [False, True, False]


def test_functions_that_depend_on_others_do_not_stand_in_the_way() -> None:
    """Pair functions with the cutoff of the moments hold the moments of rank 0."""
    model = potential(elements=["Cu"], pair_functions=4)
    images = alloys(60, share=0.0)
    grader = Grader.of(model, Systems.from_atoms(images))
    assert not grader.active_set.initialised and grader.active_set.rank == len(model.parameters) - 1
    found = grader.grade(Systems.from_atoms(images[:9]))
    assert found.initialised and float(found.system.max()) <= 1.001 + 1e-9


def test_sets_grow_and_say_who_entered() -> None:
    model, systems = potential(), Systems.from_atoms(alloys(60))
    grader = Grader.of(model, systems.select(torch.arange(30)))
    more, entered, left = grader.extended(systems.select(torch.arange(30, 60)), 30)
    assert entered and all(30 <= one < 60 for one in entered) and all(one < 30 for one in left)
    assert float(more.grade(systems.select(torch.arange(30, 60))).system.max()) <= 1.001 + 1e-9
    same, entered, left = more.extended(systems.select([]), 60)
    assert same is more and not entered and not left


def networks() -> list[FittablePotential]:
    schnet = SchNet(elements=["Cu", "Au"], cutoff=4.0, hidden=4, rounds=1)
    network = BehlerParrinello(
        elements=["Cu", "Au"],
        hidden=[3],
        radial=[[0.1, 0.0], [0.5, 1.0]],
        angular=[[0.05, 1.0, 1.0]],
        cutoff=4.0,
    )
    return [network.with_theta(network.start(1)), schnet.with_theta(schnet.start(1))]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("by", ["neighbourhoods", "configurations"])
def test_networks_are_graded_by_their_gradients(place: int, by: str) -> None:
    model = networks()[place]
    systems = Systems.from_atoms(alloys(4))
    grader = Grader.of(model, systems, by)
    found = grader.grade(systems)
    assert 0 < grader.active_set.rank <= len(model.parameters)
    assert found.initialised and float(found.system.max()) <= 1.001 + 1e-6


def test_fitted_radial_functions_count_where_asked_for() -> None:
    model = potential(elements=["Cu"], chebyshev=4, level=6)
    images = alloys(6, share=0.0)
    systems = Systems.from_atoms(images)
    rows, plain = model.row_gradients(systems, nonlinear=True), model.row_gradients(systems)
    assert torch.equal(rows[:, : plain.shape[1]], plain)
    values = model.nonlinear + 0.1
    moved = model.with_nonlinear(values)
    rows = moved.row_gradients(systems, nonlinear=True)[:, plain.shape[1] :]
    for column in range(len(values)):
        shift = torch.zeros_like(values)
        shift[column] = 1e-5
        ahead, behind = (
            model.with_nonlinear(values + s * shift).evaluate(systems).row_energy for s in (1, -1)
        )
        torch.testing.assert_close(rows[:, column], (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-6)
    grades = Grader.of(moved, systems, nonlinear=True).grade(systems)
    assert grades.initialised


def test_sets_of_another_potential_are_refused() -> None:
    model, systems = potential(), Systems.from_atoms(alloys(30))
    grader = Grader(potential(level=6), Grader.of(model, systems).active_set)
    with pytest.raises(InputError, match="it is of another potential"):
        grader.grade(systems)
