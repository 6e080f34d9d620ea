"""Committees: means and spreads against a loop over the members, gradients, and where the spread is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlopt.core import InputError, Systems, minimize
from mlopt.core.errors import ConfigError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.core.testing import PotentialTolerance, check_potential
from mlopt.optimizers import LBFGS
from mlopt.potentials import LennardJones, MloptCalculator, Morse, Mtp, SchNet, StillingerWeber
from mlopt.potentials.fitted import Committee

TRAINING = {
    "task_family": "none",
    "horizon": 0,
    "estimator": "none",
    "seeds": 1,
    "cost": {},
    "results": {},
    "command": "none",
}
NETWORK = SchNet(cutoff=4.0, hidden=6, filters=6, gaussians=7, rounds=1, elements=["Si"])
TENSORS = Mtp(degrees=[6, 5], cutoff=4.0, shortest=1.8, elements=["Si"], pair_functions=4)


def silicon() -> Systems:
    """Cells of unlike sizes."""
    images = [bulk("Si"), bulk("Si", cubic=True), bulk("Si") * (2, 1, 1)]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.1, seed=seed)
    return Systems.from_atoms(images)


def thetas(potential: FittablePotential, k: int = 3) -> torch.Tensor:
    """Parameters of some size."""
    generator = torch.Generator().manual_seed(5)
    start = potential.parameters
    return start + 0.02 * torch.randn(k, len(start), generator=generator, dtype=torch.float64)


POTENTIALS = {"schnet": NETWORK, "mtp": TENSORS}


@pytest.mark.parametrize("name", POTENTIALS)
def test_contract(name: str) -> None:
    potential = POTENTIALS[name]
    committee = Committee.of(potential, thetas(potential))
    check_potential(committee, silicon(), PotentialTolerance(batch=1e-12))


@pytest.mark.parametrize("name", POTENTIALS)
def test_mean_and_spread_are_those_of_a_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    potential, systems = POTENTIALS[name], silicon()
    theta = thetas(potential)
    loop = [potential.with_theta(one).evaluate(systems, stress=True) for one in theta]
    calls = []
    evaluate = type(potential).evaluate

    def counted(self: Any, systems: Systems, *, stress: bool = False) -> Evaluation:
        calls.append(len(systems))
        return evaluate(self, systems, stress=stress)

    monkeypatch.setattr(type(potential), "evaluate", counted)
    committee = Committee.of(potential, theta)
    found = committee.evaluate(systems, stress=True)
    assert calls == [9]  # three members of three systems, in one batch
    for field in ("energy", "force", "row_energy", "stress"):
        wanted = torch.stack([getattr(one, field) for one in loop]).mean(0)
        assert torch.allclose(getattr(found, field), wanted, rtol=1e-12, atol=1e-12), field
    energies = torch.stack([one.energy for one in loop]).numpy()
    forces = torch.stack([one.force for one in loop]).numpy()
    wide = np.sqrt(((forces - forces.mean(0)) ** 2).sum(-1).mean(0))
    spread = committee.spread(systems)
    for energy, force in ((found.energy_spread, found.force_spread), (spread.energy, spread.force)):
        assert energy is not None and force is not None
        assert np.abs(energy.numpy() - energies.std(0)).max() < 1e-11 and energies.std(0).min() > 1e-4
        assert np.abs(force.numpy() - wide).max() < 1e-11 and wide.max() > 1e-4
    for mine, theirs in zip(committee.each(systems), loop, strict=True):
        assert torch.allclose(mine.force, theirs.force, rtol=0, atol=1e-12)


def test_members_that_agree_have_no_spread_and_a_gradient() -> None:
    theta = thetas(NETWORK)[:1].expand(2, -1)
    committee, systems = Committee.of(NETWORK, theta), silicon()
    spread = committee.spread(systems)
    assert float(spread.energy.max()) < 1e-14 and float(spread.force.max()) < 1e-14
    pos = systems.pos.clone().requires_grad_(True)
    found = committee.evaluate(systems.with_pos(pos))
    (slope,) = torch.autograd.grad(found.energy.sum(), pos)
    assert torch.allclose(-slope, found.force.detach(), atol=1e-12) and bool(slope.isfinite().all())


def test_the_parameters_of_each_member_have_their_gradient() -> None:
    systems = silicon()
    theta = thetas(NETWORK).requires_grad_(True)

    def loss(one: torch.Tensor) -> torch.Tensor:
        found = Committee.of(NETWORK, one).evaluate(systems)
        return found.energy.square().sum() + found.force.square().sum()

    (slope,) = torch.autograd.grad(loss(theta), theta)
    way = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (loss(theta + sign * 1e-5 * way) for sign in (1, -1))
    assert float((slope * way).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-6)


def test_members_of_several_kinds_come_in_their_order() -> None:
    systems = silicon()
    ready = TENSORS.with_theta(thetas(TENSORS)[0])
    nets = [NETWORK.with_theta(one) for one in thetas(NETWORK)]
    members = [nets[0], StillingerWeber(), nets[1], ready, nets[2]]
    committee = Committee(members=members)
    each = [member.evaluate(systems) for member in members]
    for mine, theirs in zip(committee.each(systems), each, strict=True):
        assert torch.allclose(mine.energy, theirs.energy, rtol=0, atol=1e-12)
    assert committee.species() == {14}


def test_files_of_weights_are_members(tmp_path: Path) -> None:
    theta, files = thetas(NETWORK, 2), []
    for index, one in enumerate(theta):
        files.append(str(tmp_path / f"{index}.safetensors"))
        NETWORK.with_theta(one).save(files[-1], TRAINING)
    read = build(Committee, {"members": [{"name": "schnet", "weights": file} for file in files]})
    wanted, found = Committee.of(NETWORK, theta).evaluate(silicon()), read.evaluate(silicon())
    assert torch.equal(found.energy, wanted.energy) and torch.equal(found.force, wanted.force)
    assert read._groups == [[0, 1]]  # two files, one batch


def test_parameters_of_each_system_go_with_it() -> None:
    systems = silicon()
    rows = thetas(NETWORK, 6)
    members = [NETWORK.with_theta(rows[:3]), NETWORK.with_theta(rows[3:])]
    committee, chosen = Committee(members=members), torch.tensor([2, 0])
    whole = committee.evaluate(systems)
    part = committee.select(chosen).evaluate(systems.select(chosen))
    assert torch.allclose(part.energy, whole.energy[chosen], rtol=0, atol=1e-12)
    lone = [NETWORK.with_theta(rows[index]).evaluate(systems[2]).energy for index in (2, 5)]
    assert float(whole.energy[2]) == pytest.approx(float(sum(lone)) / 2, abs=1e-12)


def test_it_relaxes_and_tells_ase_its_spread() -> None:
    committee = Committee(members=[LennardJones(), Morse()])
    systems = Systems.cluster([18] * 3).with_pos(torch.eye(3, dtype=torch.float64))
    found = minimize(AtomsLandscape(systems, committee), LBFGS(), systems.pos, fmax=1e-6, force_calls=200)
    assert bool(found.converged.all()) and float(found.energy) == pytest.approx(-3.0)
    atoms = systems.to_atoms()[0]
    atoms.calc = MloptCalculator(committee)
    spread = committee.spread(systems)
    assert atoms.get_potential_energy() == pytest.approx(float(committee.evaluate(systems).energy))
    assert (
        atoms.calc.results["energy_spread"] == pytest.approx(float(spread.energy))
        and float(spread.energy) > 0.01
    )
    assert np.abs(atoms.calc.results["forces_spread"] - spread.force.numpy()).max() < 1e-14


def test_refusals() -> None:
    with pytest.raises(
        InputError, match=re.escape("`theta` must have shape (k, p) with k of at least 2, got (5,)")
    ):
        Committee.of(NETWORK, torch.zeros(5, dtype=torch.float64))
    with pytest.raises(ConfigError, match="at least 2 items"):
        build(Committee, {"members": ["morse"]})
    with pytest.raises(InputError, match="the members have different units"):
        Committee(members=[LennardJones(), StillingerWeber()]).check(silicon())
    with pytest.raises(InputError, match="has no parameters for Cu"):
        Committee.of(NETWORK, thetas(NETWORK)).check(Systems.from_atoms([bulk("Cu")]))
