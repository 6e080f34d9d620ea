"""Atoms that are closer than any of the data: the guard below the shortest distance, and the repulsion of nuclei."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from mlopt.core import AtomsLandscape, Driver, InputError, Stop, Systems, problem_keys
from mlopt.core.testing import check_fittable
from mlopt.optimizers import LBFGS, BasinHopping
from mlopt.optimizers.fitting.data import DrawnStructures
from mlopt.optimizers.fitting.least_squares import Weights, solve, triangle
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import Mtp, StillingerWeber
from mlopt.potentials.fitted.mtp.repulsion import Repulsion

pytest.importorskip("numba")

KINDS = pytest.mark.parametrize("repulsion", [None, "zbl"])


def fitted(**settings: Any) -> Mtp:
    """A potential of silicon with coefficients of some size."""
    potential = Mtp(
        shortest=2.0, cutoff=4.0, elements=["Si"], degrees=[7, 6, 6], pair_functions=4, **settings
    )
    noise = torch.randn(potential.basis.n_parameters, generator=torch.Generator().manual_seed(1)).double()
    return potential.with_theta(0.01 * noise)


def cluster(*distances: float) -> Systems:
    """An atom with one neighbour at each distance, on ways of its own."""
    ways = torch.tensor([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.2], [0.1, -0.4, -1.0]], dtype=torch.float64)
    ways = ways[: len(distances)] / ways[: len(distances)].norm(dim=1, keepdim=True)
    pos = torch.cat([torch.zeros(1, 3).double(), ways * torch.tensor(distances).double()[:, None]])
    return Systems.cluster([14] * len(pos)).with_pos(pos)


def packed() -> Systems:
    """A crystal and a slab in which some atoms are nearer than 2 angstrom."""
    images = [bulk("Si", cubic=True), bulk("Si", cubic=True) * (1, 1, 2)]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.1, seed=seed)
        atoms.positions[1] += 0.3 * (atoms.positions[0] - atoms.positions[1])
    images[1].set_pbc([True, True, False])
    return Systems.from_atoms(images)


@KINDS
def test_contract(repulsion: str | None) -> None:
    check_fittable(fitted(repulsion=repulsion), packed().select([0]), scale=0.01)


@KINDS
def test_compiled_and_differentiated_agree(repulsion: str | None) -> None:
    potential, systems = fitted(repulsion=repulsion), Systems.concatenate([packed(), cluster(0.5, 1.9, 2.1)])
    compiled = potential.evaluate(systems)
    differentiated = potential.evaluate(systems.with_pos(systems.pos.clone().requires_grad_(True)))
    torch.testing.assert_close(compiled.energy, differentiated.energy.detach(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(compiled.force, differentiated.force.detach(), rtol=1e-10, atol=1e-10)


@KINDS
@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.3, 4.2), min_size=1, max_size=3))
def test_forces_are_minus_the_gradient_at_any_distance(repulsion: str | None, distances: list[float]) -> None:
    potential, systems, step = fitted(repulsion=repulsion), cluster(*distances), 1e-5
    moves = step * torch.eye(systems.pos.numel(), dtype=torch.float64).reshape(-1, *systems.pos.shape)
    ahead, behind = (
        potential.evaluate(
            systems.repeat(len(moves)).with_pos((systems.pos + sign * moves).reshape(-1, 3))
        ).energy
        for sign in (1.0, -1.0)
    )
    slope = ((behind - ahead) / (2 * step)).reshape(-1, 3)
    force = potential.evaluate(systems).force
    scale = max(1.0, float(force.abs().max()))
    # the second derivative jumps at the shortest distance, and so a difference across it is off by a step times that
    torch.testing.assert_close(force, slope, rtol=0, atol=2e-3 * scale)
    if all(abs(float(one) - 2.0) > 1e-3 for one in torch.pdist(systems.pos)):
        torch.testing.assert_close(force, slope, rtol=0, atol=1e-6 * scale)


@KINDS
def test_the_energy_rises_to_infinity_where_two_atoms_meet(repulsion: str | None) -> None:
    potential = fitted(repulsion=repulsion)
    distances = torch.logspace(math.log10(1.2), -6, 40).tolist()
    energy = potential.evaluate(Systems.concatenate([cluster(one) for one in distances])).energy
    assert bool((energy.diff() > 0).all()) and float(energy[-1]) > 1e8


def test_what_has_been_seen_is_not_touched_by_the_guard(tmp_path: Path) -> None:
    """Down to the shortest distance energies are those of an .mtp file, whose polynomials go on below it."""
    potential = fitted()
    potential.write_mtp(str(tmp_path / "pot.mtp"))
    polynomials = Mtp(file=str(tmp_path / "pot.mtp"), elements=["Si"])
    seen, unseen = cluster(2.0, 2.3, 3.0), cluster(1.5, 2.3, 3.0)
    off = [
        float((potential.evaluate(one).energy - polynomials.evaluate(one).energy).abs())
        for one in (seen, unseen)
    ]
    assert off[0] < 1e-12 and off[1] > 1.0


def test_the_repulsion_is_that_of_ziegler_biersack_and_littmark() -> None:
    """Silicon and gold, by the formula as it is printed; switched off at the outer end with two derivatives."""
    pairs = Repulsion(1.0, 4.0, (14, 79))
    r, zero, one = torch.tensor([0.1, 0.5, 0.9]).double(), torch.zeros(3).long(), torch.ones(3).long()
    length = 0.46850 / (14**0.23 + 79**0.23)
    x = r / length
    universal = (
        0.18175 * (-3.1998 * x).exp()
        + 0.50986 * (-0.94229 * x).exp()
        + 0.28022 * (-0.4029 * x).exp()
        + 0.02817 * (-0.20162 * x).exp()
    )
    wanted = 14.399645 * 14 * 79 / r * universal
    torch.testing.assert_close(pairs.energies(r, zero, one), wanted, rtol=1e-14, atol=0)
    torch.testing.assert_close(pairs.energies(r, one, zero), wanted, rtol=1e-14, atol=0)
    end = torch.tensor([4.0 - 1e-4, 4.0, 5.0]).double().requires_grad_(True)
    value = pairs.energies(end, zero, zero)
    (slope,) = torch.autograd.grad(value.sum(), end, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), end)
    most = [float(one.detach().abs().max()) for one in (value, slope, curvature, value[1:])]
    assert most[0] < 1e-11 and most[1] < 1e-7 and most[2] < 1e-3 and most[3] == 0.0


@given(st.floats(0.05, 5.0))
def test_slopes_of_the_repulsion_are_its_derivative(distance: float) -> None:
    pairs, place = Repulsion(1.0, 4.0, (14, 79)), np.array([1])
    r = torch.tensor([distance], dtype=torch.float64).requires_grad_(True)
    energy = pairs.energies(r, torch.zeros(1).long(), torch.ones(1).long())
    (wanted,) = torch.autograd.grad(energy.sum(), r)
    value, slope = pairs.of_pairs(np.array([distance]), 0 * place, place)
    np.testing.assert_allclose(value, energy.detach().numpy(), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(slope, wanted.numpy(), rtol=1e-10, atol=1e-12)


def test_a_file_cannot_hold_a_repulsion(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"an \.mtp file holds no repulsion of nuclei; fit without `repulsion`"
    ):
        fitted(repulsion="zbl").write_mtp(str(tmp_path / "pot.mtp"))


@pytest.fixture(scope="module", params=[None, "zbl"], ids=["guard", "zbl"])
def learned(request: pytest.FixtureRequest) -> Mtp:
    """Fitted to a crystal of Stillinger and Weber, of which it knows no distance below 2 angstrom."""
    labeller = PotentialLabeller(potential=StillingerWeber())
    data = DrawnStructures(crystal={"element": "Si", "repeat": [1, 1, 1]}, count=30, labeller=labeller).draw(
        0
    )
    potential = Mtp(degrees=[9, 8, 7], cutoff=4.5, repulsion=request.param).prepared(data)
    found = solve(triangle(potential, data, Weights()), potential.roughness())
    return potential.with_theta(found.theta)


def overlapping(seed: int) -> Systems:
    """Eight atoms in a box of two angstrom."""
    pos = 2.0 * torch.rand(8, 3, generator=torch.Generator().manual_seed(seed)).double()
    return Systems.cluster([14] * 8).with_pos(pos)


def shortest(x: torch.Tensor) -> float:
    return float(min(torch.pdist(one).min() for one in x.reshape(-1, 8, 3)))


@pytest.mark.parametrize("optimizer", [LBFGS(), BasinHopping(quench_calls=100)], ids=["relax", "hops"])
def test_overlapping_atoms_do_not_collapse(learned: Mtp, optimizer: Any) -> None:
    systems = Systems.concatenate([overlapping(seed) for seed in range(4)])
    assert shortest(systems.pos) < 0.8
    driver = Driver(AtomsLandscape(systems, learned), optimizer, Stop(400))
    progress = driver.begin(systems.pos, problem_keys(0, torch.arange(4)))
    found = driver.result(driver.advance(progress))
    assert bool(torch.isfinite(found.energy).all()) and shortest(found.x) > 1.5
