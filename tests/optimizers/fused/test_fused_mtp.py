"""Moment tensor potentials in the fused engine: eager energies in cells of every kind, coefficients as weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlopt.core import AtomsLandscape, Driver, Result, Stop, Systems, problem_keys
from mlopt.optimizers import BasinHopping, GradientDescent
from mlopt.optimizers.fused import engine
from mlopt.optimizers.fused.written import written
from mlopt.potentials import Mtp

pytest.importorskip("numba")


def silicon() -> Systems:
    """A cell smaller than the cutoff, a skewed one, a slab, and a cluster with two atoms that nearly overlap."""
    images = [bulk("Si", cubic=True), bulk("Si") * (2, 2, 2), bulk("Si", cubic=True), bulk("Si") * (1, 2, 2)]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.1, seed=seed)
    strain = 0.05 * np.random.default_rng(0).normal(size=(3, 3))
    images[1].set_cell(images[1].cell.array @ (np.eye(3) + strain), scale_atoms=True)
    images[2].set_pbc([True, True, False])
    images[3].set_pbc(False)
    images[3].positions[0] += 0.4 * (images[3].positions[1] - images[3].positions[0])
    return Systems.from_atoms(images)


def fitted(systems: int = 0, **settings: Any) -> Mtp:
    """Coefficients of some size; one set, or one for each of ``systems``."""
    potential = Mtp(shortest=1.8, cutoff=4.0, **settings)
    shape = (systems, potential.basis.n_parameters) if systems else (potential.basis.n_parameters,)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return potential.with_theta(0.002 * noise)


def run(potential: Mtp, systems: Systems, name: Any, optimizer: Any, calls: int = 6) -> Result:
    driver = Driver(AtomsLandscape(systems, potential), optimizer, Stop(calls), 3, name)
    progress = driver.begin(systems.pos, problem_keys(0, torch.arange(len(systems))))
    return driver.result(driver.advance(progress))


STEPS = GradientDescent(step_size=1e-3)
SETTINGS: dict[str, Any] = {"elements": ["Si"], "degrees": [7, 6, 6], "pair_cutoff": 5.0, "pair_functions": 4}


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["one for all", "one each"])
def test_fused_equals_eager(own: bool) -> None:
    systems = silicon()
    potential = fitted(len(systems) if own else 0, **SETTINGS)
    assert potential.nonlinear is not None
    potential = potential.with_nonlinear(potential.nonlinear + 0.2)
    fused, eager = (run(potential, systems, name, STEPS) for name in ("fused", "eager"))
    torch.testing.assert_close(fused.energy, eager.energy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused.x, eager.x, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_species_have_functions_and_a_repulsion_of_their_own() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[1:3] = "Au"
    atoms.rattle(0.1, seed=1)
    potential = fitted(elements=["Au", "Cu"], degrees=[5, 4], pair_functions=3, repulsion="zbl")
    systems = Systems.from_atoms(atoms)
    fused, eager = (run(potential, systems, name, STEPS) for name in ("fused", "eager"))
    torch.testing.assert_close(fused.x, eager.x, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_a_search_on_a_fitted_potential_is_that_of_the_eager_engine() -> None:
    systems = silicon().select([3]).repeat(3)
    hops = BasinHopping(quench_calls=8, quench_tolerance=0.5)
    fused, eager = (run(fitted(**SETTINGS), systems, name, hops, 20) for name in ("fused", "eager"))
    torch.testing.assert_close(fused.energy, eager.energy, rtol=1e-9, atol=1e-9)


def test_another_fit_of_a_basis_is_not_compiled_anew() -> None:
    one = fitted(**SETTINGS)
    others = (one, one.with_theta(torch.ones(one.basis.n_parameters, dtype=torch.float64)))
    texts = {written(engine._rollout(each.kernel((14,)), STEPS.kernel(), {})).text for each in others}
    assert len(texts) == 1
