"""Least squares by triangles: equal to dense algebra, whatever the blocks; evidence and cross validation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlopt.core import Dataset, InputError, Systems
from mlopt.optimizers.fitting.least_squares import Triangle, Weights, left_out, solve, triangle
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import LennardJones, Mtp

pytest.importorskip("numba")


def copper(count: int = 12) -> Dataset:
    """Strained and shaken cells and clusters, labelled by pairs."""
    images = []
    for seed in range(count):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.15, seed=seed)
        strain = 0.03 * np.random.default_rng(seed).normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        if seed % 4 == 3:
            atoms.set_pbc(False)
            atoms.set_cell(None)
        images.append(atoms)
    potential = LennardJones(epsilon=0.2, r0=2.6, cutoff=4.5)
    data = PotentialLabeller(potential=potential).label(Systems.from_atoms(images))
    weight = torch.linspace(0.5, 2.0, count, dtype=torch.float64)
    return Dataset(
        data.systems, data.energy, data.force, data.stress, weight, group=("a", "b") * (count // 2)
    )


POTENTIAL = Mtp(elements=["Cu"], level=4, pair_functions=6, shortest=1.5, cutoff=4.5)


def dense(data: Dataset, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """All weighted rows and their right-hand side, written down one by one."""
    design = POTENTIAL.design(data.systems, stress=True)
    assert design is not None and design.force is not None and design.stress is not None
    rows, side = [], []
    for index in range(len(data)):
        n, share = int(data.systems.segments.counts[index]), math.sqrt(float(data.weight[index]))
        rows.append(weights.energy * share / math.sqrt(n) * design.energy[index])
        side.append(weights.energy * share / math.sqrt(n) * float(data.energy[index]))
        for atom in range(int(data.systems.ptr[index]), int(data.systems.ptr[index + 1])):
            for c in range(3):
                rows.append(weights.force * share * design.force[atom, c])
                side.append(weights.force * share * float(data.force[atom, c]))
        if bool(data.with_stress[index]):
            factor = weights.stress * share * float(data.systems.volume[index]) / math.sqrt(n)
            rows += [factor * row for row in design.stress[index].reshape(9, -1)]
            side += [factor * float(one) for one in data.stress[index].flatten()]
    return torch.stack(rows).numpy(), np.array(side)


def test_a_triangle_stands_for_all_rows() -> None:
    data, weights = copper(), Weights(energy=10.0, force=1.0, stress=0.5)
    rows, side = dense(data, weights)
    both = np.concatenate([rows, side[:, None]], 1)
    for memory in (1.0, 1e-6):
        found = triangle(POTENTIAL, data, weights, memory)
        np.testing.assert_allclose(found.upper.T @ found.upper, both.T @ both, rtol=1e-10, atol=1e-10)
        assert found.rows == len(rows) and found.n_forces == 3 * len(data.systems.pos)
    parts = [triangle(POTENTIAL, data.select(range(k, k + 3)), weights) for k in range(0, 12, 3)]
    merged = Triangle.merged(parts)
    np.testing.assert_allclose(merged.upper.T @ merged.upper, both.T @ both, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(merged.squares, found.squares, rtol=1e-12)
    theta = np.linspace(-1.0, 1.0, rows.shape[1])
    assert merged.residual(theta) == pytest.approx(((rows @ theta - side) ** 2).sum(), rel=1e-9)


def test_coefficients_are_those_of_ridge_regression() -> None:
    """Under a given strength: the normal equations with the prior written out, the constant free."""
    data, weights = copper(), Weights(energy=10.0)
    rows, side = dense(data, Weights(energy=10.0, stress=0.0))
    degrees = POTENTIAL.roughness()
    found = solve(triangle(POTENTIAL, data, weights), degrees, strength=1e-6, smooth=2.0)
    scale = np.sqrt((rows[_forces(data)] ** 2).mean(0))
    scale = np.where(scale > 1e-12 * np.median(scale[scale > 0]), scale, np.median(scale[scale > 0]))
    prior = np.where(degrees.numpy() > 0, scale * degrees.numpy() ** 2, 0.0)
    free = rows[:, :1]
    projected = rows[:, 1:] - free @ np.linalg.lstsq(free, rows[:, 1:], rcond=None)[0]
    top = np.linalg.svd(projected / prior[1:], compute_uv=False)[0] ** 2
    wanted = np.linalg.solve(rows.T @ rows + 1e-6 * top * np.diag(prior**2), rows.T @ side)
    np.testing.assert_allclose(rows @ found.theta.numpy(), rows @ wanted, atol=1e-7 * np.abs(side).max())


def _forces(data: Dataset) -> np.ndarray:
    """Which rows of `dense` without stresses are forces."""
    found = []
    for index in range(len(data)):
        found += [False] + [True] * (3 * int(data.systems.segments.counts[index]))
        found += [False] * 9 if bool(data.with_stress[index]) else []
    return np.array(found)


def test_the_evidence_is_that_of_the_marginal_likelihood() -> None:
    """Against the determinant of the covariance of all labels, for a potential without free columns."""
    rng = np.random.default_rng(0)
    rows, truth = rng.normal(size=(40, 5)), rng.normal(size=5)
    side = rows @ truth + 0.1 * rng.normal(size=40)
    upper = np.linalg.qr(np.concatenate([rows, side[:, None]], 1), mode="r")
    made = Triangle(upper, (rows**2).sum(0), 40, 40)
    scale = np.sqrt((rows**2).mean(0))
    top = np.linalg.svd(rows / scale, compute_uv=False)[0] ** 2
    values = []
    for strength in (1e-6, 1e-3, 1e-1):
        covariance = np.eye(40) + (rows / scale) @ (rows / scale).T / (strength * top)
        fit = side @ np.linalg.solve(covariance, side)
        wanted = -0.5 * (40 * math.log(fit / 40) + np.linalg.slogdet(covariance)[1])
        values.append(solve(made, None, strength=strength).evidence - wanted)
    assert max(values) - min(values) < 1e-8


@pytest.mark.parametrize("how", ["evidence", "folds"])
def test_the_strength_is_nearly_the_best_there_is(how: str) -> None:
    """Of noisy rows with singular values over twelve decades: the truth is met nearly as well as by any strength."""
    ratios = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        columns = rng.normal(size=(200, 40)) @ np.diag(np.logspace(0, -12, 40)) @ rng.normal(size=(40, 40))
        truth = columns @ rng.normal(size=40)
        side = truth + 0.1 * truth.std() * rng.normal(size=200)
        both = np.concatenate([columns, side[:, None]], 1)
        parts = [
            Triangle(np.linalg.qr(part, mode="r"), (part[:, :-1] ** 2).sum(0), 50, 50)
            for part in np.split(both, 4)
        ]
        whole = Triangle.merged(parts)

        folds = parts if how == "folds" else ()
        found = [solve(whole, None, strength=float(one)) for one in np.logspace(-20, 0, 41)]
        found.append(solve(whole, None, folds=folds))
        off = [float(np.linalg.norm(columns @ one.theta.numpy() - truth)) for one in found]
        ratios.append(off[-1] / min(off[:-1]))
    assert float(np.mean(ratios)) < 1.15 and max(ratios) < 1.6


@pytest.mark.parametrize("count", [2, 3, 5])
def test_cross_validation_leaves_out_each_fold_in_turn(count: int) -> None:
    rng = np.random.default_rng(count)
    rows = rng.normal(size=(60, 8)) @ np.diag(np.logspace(0, -3, 8))
    side = rows @ rng.normal(size=8) + 0.3 * rng.normal(size=60)
    folds = [
        Triangle(np.linalg.qr(one, mode="r"), (one[:, :-1] ** 2).sum(0), len(one), len(one))
        for one in np.array_split(np.concatenate([rows, side[:, None]], 1), count)
    ]
    chosen = solve(Triangle.merged(folds), None, folds=folds).strength
    tried = [chosen * 10.0**power for power in range(-6, 7) if chosen * 10.0**power <= 1.0]
    off = []
    for strength in tried:
        left = [Triangle.merged([*folds[:k], *folds[k + 1 :]]) for k in range(count)]
        found = [solve(one, None, strength=strength).theta.numpy() for one in left]
        off.append(sum(fold.residual(theta) for fold, theta in zip(folds, found, strict=True)))
    assert off[tried.index(chosen)] == min(off)


def test_there_must_be_something_to_fit_to() -> None:
    data = copper(4)
    nothing = Dataset(data.systems)
    with pytest.raises(InputError, match="there is nothing to fit to"):
        solve(triangle(POTENTIAL, nothing, Weights()))
    with pytest.raises(InputError, match="_NotLinear is not linear in its parameters"):
        triangle(_NotLinear(), data, Weights())


class _NotLinear(LennardJones):
    """A potential without rows."""

    @property
    def parameters(self) -> torch.Tensor:
        return torch.zeros(2, dtype=torch.float64)

    def design(self, systems: Systems, **asked: bool) -> None:
        return None


def test_energies_may_be_counted_from_anything() -> None:
    """A constant for each element changes the constants alone: forces and errors stay, no references are needed."""
    images = []
    for seed in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols[: 1 + seed % 3] = "Au"
        atoms.rattle(0.1, seed=seed)
        images.append(atoms)
    data = PotentialLabeller(potential=LennardJones(epsilon=0.2, r0=2.6, cutoff=4.5)).label(
        Systems.from_atoms(images)
    )
    gold = data.systems.segments.sum((data.systems.z == 79).double()[:, None])
    copper_atoms = data.systems.segments.counts - gold
    moved = Dataset(data.systems, data.energy - 3000.0 * gold + 700.0 * copper_atoms, data.force, data.stress)
    potential = Mtp(level=4, pair_functions=4, shortest=1.5, cutoff=4.5).prepared(data)
    found = [solve(triangle(potential, one, Weights()), potential.roughness()).theta for one in (data, moved)]
    assert potential.elements == ["Cu", "Au"]
    np.testing.assert_allclose((found[1] - found[0])[:2].numpy(), [700.0, -3000.0], rtol=1e-9)
    force = [potential.with_theta(one).evaluate(data.systems).force for one in found]
    torch.testing.assert_close(force[0], force[1], rtol=0, atol=1e-8)


def test_what_is_left_out_is_predicted_from_the_rest() -> None:
    """Each part's rows, under a fit to all others, written down one by one."""
    data, weights = copper(), Weights(energy=10.0)
    parts = [data.select(range(k, 12, 4)) for k in range(4)]
    folds = [triangle(POTENTIAL, one, weights) for one in parts]
    degrees, squares, count = POTENTIAL.roughness(), 0.0, 0
    for left, part in enumerate(parts):
        others = Triangle.merged([one for k, one in enumerate(folds) if k != left])
        theta = solve(others, degrees, strength=1e-7).theta.numpy()
        rows, side = dense(part, Weights(energy=10.0, stress=0.0))
        kept = (rows != 0).any(1)
        squares, count = (
            squares + float(((rows[kept] @ theta - side[kept]) ** 2).sum()),
            count + int(kept.sum()),
        )
    found = left_out(folds, degrees, strength=1e-7)
    assert found == pytest.approx((squares / count) ** 0.5, rel=1e-6)
