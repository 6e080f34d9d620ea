"""Training of networks: the loss and its gradient, seeds as a batch, parts of the data, and resumes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlopt.core import Dataset, InputError, Systems
from mlopt.core.errors import ConfigError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.plugins import build
from mlopt.optimizers import LBFGS, Adam, SimulatedAnnealing
from mlopt.optimizers.fitting.least_squares import Weights
from mlopt.optimizers.fitting.levenberg_marquardt import LevenbergMarquardt
from mlopt.optimizers.fitting.loss import Loss, LossLandscape
from mlopt.optimizers.fitting.training import Stage, Trained, Trainer, Training
from mlopt.potentials import BehlerParrinello, StillingerWeber

pytest.importorskip("numba")


def silicon(count: int = 12) -> Dataset:
    """Strained and shaken cells of unlike sizes; every third without forces, the first without an energy."""
    images = []
    for seed in range(count):
        atoms = bulk("Si", cubic=True) * ((1, 1, 2) if seed % 4 == 1 else (1, 1, 1))
        atoms.rattle(0.15, seed=seed)
        strain = 0.03 * np.random.default_rng(seed).normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        images.append(atoms)
    systems = Systems.from_atoms(images)
    found = StillingerWeber().evaluate(systems, stress=True)
    energy, force = found.energy.clone(), found.force.clone()
    energy[0] = torch.nan
    force[systems.segments.rows_of(torch.arange(count) % 3 == 2)] = torch.nan
    return Dataset(systems, energy, force, found.stress, torch.linspace(0.5, 1.5, count).double())


def network(data: Dataset, **settings: Any) -> BehlerParrinello:
    return BehlerParrinello(**{"cutoff": 3.8, "hidden": [4], "functions": "amp", **settings}).prepared(data)


LOSSES = {
    "weighted": Loss(weights=Weights(energy=3.0, stress=0.7), decay=0.01),
    "amp": Loss(kind="amp", force_coefficient=0.1),
    "energies": Loss(weights=Weights(force=0.0)),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_the_loss_is_the_sum_that_it_stands_for(kind: str) -> None:
    data, loss = silicon(), LOSSES[kind]
    potential = network(data)
    theta = potential.start(3)
    found = potential.with_theta(theta).evaluate(data.systems, stress=True)
    assert found.stress is not None
    total, rows = 0.0, 0
    for index in range(len(data)):
        atoms = slice(int(data.systems.ptr[index]), int(data.systems.ptr[index + 1]))
        n, w = atoms.stop - atoms.start, float(data.weight[index])
        off = float(found.energy[index] - data.energy[index])
        force = (found.force - data.force)[atoms]
        stress = (found.stress - data.stress)[index]
        volume = float(data.systems.volume[index])
        if kind == "amp":
            energy, forces = off**2 / n**2, 0.1 / (3 * n) * float((force**2).sum())
        else:
            energy = loss.weights.energy**2 * off**2 / n
            forces = loss.weights.force**2 * float((force**2).sum())
            total += w * (loss.weights.stress * volume) ** 2 / n * float((stress**2).sum())
            rows += 9 * (loss.weights.stress > 0)
        total += 0.0 if math.isnan(energy) else w * energy
        rows += not math.isnan(energy)
        if loss.kind == "amp" or loss.weights.force > 0:
            total += 0.0 if math.isnan(forces) else w * forces
            rows += 0 if math.isnan(forces) else 3 * n
    wanted = total / (len(data) if kind == "amp" else rows) + loss.decay * float((theta**2).sum())
    landscape = LossLandscape(potential, [data.select([0, 1, 2]), data.select(range(3, 12))], loss, 1)
    assert float(landscape.evaluate(theta[:, None]).energy[0]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_force_is_minus_the_gradient(kind: str) -> None:
    data = silicon()
    potential = network(data)
    landscape = LossLandscape(potential, [data], LOSSES[kind], 2)
    x = torch.cat([potential.start(0), potential.start(1)])[:, None]
    found = landscape.evaluate(x)
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead, behind = (landscape.evaluate(x + sign * 1e-5 * way).energy for sign in (1, -1))
    slope = -landscape.segments.dot(found.force, way)
    torch.testing.assert_close((ahead - behind) / 2e-5, slope, rtol=1e-6, atol=1e-8)


def test_seeds_in_a_batch_are_each_alone() -> None:
    data = silicon()
    potential = network(data)
    x = torch.cat([potential.start(seed) for seed in range(3)])[:, None]
    together = LossLandscape(potential, [data], Loss(), 3).evaluate(x)
    for index in range(3):
        p = len(x) // 3
        own = x[index * p : (index + 1) * p]
        alone = LossLandscape(potential, [data], Loss(), 1).evaluate(own)
        torch.testing.assert_close(together.energy[index], alone.energy[0], rtol=1e-12, atol=0)
        torch.testing.assert_close(
            together.force[index * p : (index + 1) * p], alone.force, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("kind", LOSSES)
def test_the_curvature_is_the_hessian_where_residuals_are_small(kind: str) -> None:
    """On labels that the potential itself gives, the matrix of Gauss and Newton is the Hessian."""
    data = silicon(4)
    potential = network(data)
    theta = potential.start(2)
    own = potential.with_theta(theta).evaluate(data.systems, stress=True)
    exact = Dataset(data.systems, own.energy, own.force, own.stress, data.weight)
    landscape = LossLandscape(potential, [exact], LOSSES[kind], 1)
    way = torch.randn((len(theta), 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead, behind = (landscape.evaluate(theta[:, None] + sign * 1e-5 * way).force for sign in (1, -1))
    product = (landscape.curvature(theta[:, None])[0] @ way).flatten()
    size = float(product.abs().max())
    torch.testing.assert_close(product, (behind - ahead).flatten() / 2e-5, rtol=0, atol=2e-4 * size)


def test_levenberg_marquardt_needs_the_fewest_evaluations() -> None:
    data = silicon(12)
    wanted = trained(Training(stages=[Stage(evaluations=60)], validation=0.0), data)
    stages = [Stage(optimizer=LevenbergMarquardt(), evaluations=20)]
    found = trained(Training(stages=stages, validation=0.0), data)
    assert float(found.loss[0]) < float(wanted.loss[0])
    losses = [one.loss[0] for one in found.looks]
    assert losses == sorted(losses, reverse=True)
    atoms = AtomsLandscape(data.systems, StillingerWeber())
    with pytest.raises(
        InputError, match="minimises sums of squares, and the potential StillingerWeber is none"
    ):
        LevenbergMarquardt().init(atoms, data.systems.pos, torch.arange(12))


def trained(training: Training, data: Dataset, seed: int = 0) -> Trained:
    trainer = Trainer(training, network(data), data, seed)
    while not trainer.done:
        trainer.advance()
    return trainer.result()


STAGES: dict[str, list[Stage]] = {
    "bfgs": [Stage(evaluations=40)],
    "lbfgs": [Stage(optimizer=LBFGS(max_step=0.5, scale=0.05), evaluations=40)],
    "annealing first": [
        Stage(optimizer=SimulatedAnnealing(steps=40, calibration=10, step_size=0.02), evaluations=30),
        Stage(evaluations=25),
    ],
    "levenberg-marquardt": [Stage(optimizer=LevenbergMarquardt(), evaluations=12)],
    "minibatches": [Stage(optimizer=Adam(step_size=0.01), evaluations=33, batch=4), Stage(evaluations=10)],
}


@pytest.mark.parametrize("name", STAGES)
def test_training_lowers_the_loss_and_counts_its_evaluations(name: str) -> None:
    data = silicon(20)
    training = Training(stages=STAGES[name], seeds=2, every=7, validation=0.2)
    found = trained(training, data)
    potential = network(data)
    start = torch.stack([potential.start(0), potential.start(1)])
    first = LossLandscape(potential, [data], Loss(), 2).losses(start)
    assert bool((found.loss < 0.3 * first).all())
    assert found.evaluations == sum(one.evaluations for one in STAGES[name])
    assert [one.evaluations for one in found.looks] == sorted({one.evaluations for one in found.looks})
    looks = torch.tensor([one.held_back for one in found.looks], dtype=torch.float64)
    assert torch.equal(found.held_back, looks.amin(0))
    assert found.best == int(found.held_back.argmin())


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("after", [1, 9, 31])
def test_a_training_goes_on_bit_for_bit(name: str, after: int) -> None:
    data = silicon(14)
    training = Training(stages=STAGES[name], seeds=2, every=7, validation=0.25)
    whole = trained(training, data)
    trainer = Trainer(training, network(data), data, 0)
    while trainer.evaluations < after and not trainer.done:
        trainer.advance(lambda: trainer.evaluations >= after)
    tensors, meta = trainer.to_checkpoint()
    again = Trainer(training, network(data), data, 0)
    again.load_checkpoint({name: one.clone() for name, one in tensors.items()}, meta)
    while not again.done:
        again.advance()
    found = again.result()
    assert torch.equal(found.theta, whole.theta) and torch.equal(found.held_back, whole.held_back)
    assert found.looks == whole.looks


def test_a_seed_is_the_same_in_any_batch() -> None:
    data = silicon(12)
    two = trained(Training(stages=STAGES["annealing first"], seeds=2, validation=0.0), data)
    one = trained(Training(stages=STAGES["annealing first"], seeds=1, validation=0.0), data)
    torch.testing.assert_close(two.theta[0], one.theta[0], rtol=1e-6, atol=1e-8)


def test_patience_ends_a_stage() -> None:
    data = silicon(14)
    stages = [Stage(optimizer=Adam(step_size=3.0), evaluations=400)]
    found = trained(Training(stages=stages, every=5, patience=3, validation=0.2), data)
    assert found.evaluations < 400
    last = [one.held_back[0] for one in found.looks]
    assert min(last[:-3]) <= min(last[-3:])


def test_a_training_goes_on_from_given_parameters() -> None:
    data = silicon(8)
    potential, training = network(data), Training(seeds=2, validation=0.0, stages=[Stage(evaluations=30)])
    first = trained(training, data)
    trainer = Trainer(training, potential, data, 0, first.theta)
    while not trainer.done:
        trainer.advance()
    more = trainer.result()
    assert bool((more.loss < first.loss).all()) and more.evaluations == 30
    still = Trainer(training.replace(stages=[Stage(evaluations=1)]), potential, data, 0, first.theta)
    still.advance()
    assert torch.equal(still.result().theta, first.theta) and torch.equal(still.result().loss, first.loss)


def test_each_atom_counts_whose_force_is_known() -> None:
    data = silicon(4)
    potential = network(data)
    theta = potential.start(0)[:, None]
    some = data.force.clone()
    some[[1, 4]] = torch.nan
    part = Dataset(data.systems, data.energy, some, weight=data.weight)
    loss = Loss(weights=Weights(energy=0.0))
    whole, less = (
        LossLandscape(potential, [one], loss, 1).evaluate(theta).energy * loss.size(one)
        for one in (data, part)
    )
    force = potential.evaluate(data.systems).force[[1, 4]] - data.force[[1, 4]]
    assert loss.size(data) - loss.size(part) == 6.0
    torch.testing.assert_close(whole - less, 0.5 * force.square().sum()[None], rtol=1e-6, atol=0)


def test_what_cannot_be_trained_is_refused() -> None:
    data = silicon(3)
    with pytest.raises(
        InputError, match=r"a share of 0\.1 of 3 structures is 0 of them; give more structures"
    ):
        Trainer(Training(), network(data), data, 0)
    with pytest.raises(ConfigError, match="ScipyBasinHopping owns its loop and cannot train"):
        build(Stage, {"optimizer": "scipy-basinhopping"})
    data.force[:] = torch.inf
    data = Dataset(data.systems, torch.full((3,), 1e200, dtype=torch.float64))
    with pytest.raises(InputError, match="the loss is no number wherever training went"):
        trained(Training(validation=0.0, loss=Loss(kind="amp")), data)
