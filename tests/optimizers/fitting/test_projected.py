"""Nonlinear parameters of a linear potential: gradients are differences, and a fit of them makes the loss smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlopt.core import Dataset, InputError
from mlopt.core.files.weights import TRAINING
from mlopt.optimizers import Stage, fit
from mlopt.optimizers.fitting import DrawnStructures, Weights
from mlopt.optimizers.fitting import projected as module
from mlopt.optimizers.fitting.least_squares import Solution, prior_factors, solve, solve_bound, triangle
from mlopt.optimizers.fitting.projected import ProjectedLandscape, RadialFit
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.optimizers.local import Adam
from mlopt.potentials import BehlerParrinello, Mtp, StillingerWeber

pytest.importorskip("numba")

SMALL = Mtp(degrees=[5, 4], cutoff=3.8, pair_functions=4, chebyshev=6)
WEIGHTS = Weights(stress=1.0)
#: of a fit that is refused before anything of it is asked
NOTHING = Solution(torch.zeros(0), 1e-6, 0.0, 1.0)


def silicon(count: int = 12) -> Dataset:
    labeller = PotentialLabeller(potential=StillingerWeber())
    return DrawnStructures(
        crystal={"element": "Si", "repeat": [1, 1, 1]}, count=count, labeller=labeller
    ).draw(0)


def landscape(
    data: Dataset, strength: float = 1e-6, problems: int = 1, penalty: float = 0.0
) -> tuple[ProjectedLandscape, Mtp]:
    potential = SMALL.prepared(data)
    rows = triangle(potential, data, WEIGHTS)
    factors = prior_factors(rows, potential.roughness(), strength=strength)
    return ProjectedLandscape(
        potential, data, WEIGHTS, factors, problems=problems, penalty=penalty
    ), potential


def test_a_bound_solution_is_that_of_the_strength_it_was_made_of() -> None:
    data = silicon()
    potential = SMALL.prepared(data)
    rows = triangle(potential, data, WEIGHTS)
    wanted = solve(rows, potential.roughness(), strength=1e-6)
    factors = prior_factors(rows, potential.roughness(), strength=1e-6)
    theta, squares = solve_bound(rows, factors)
    np.testing.assert_allclose(theta, wanted.theta.numpy(), rtol=1e-6, atol=1e-8)
    told = rows.residual(wanted.theta.numpy()) + float(((factors * wanted.theta.numpy()) ** 2).sum())
    assert squares == pytest.approx(told, rel=1e-9)
    assert factors[0] == 0.0 and (factors[1:] > 0).all()


def test_the_gradient_is_that_of_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also through the solution, in blocks, and for two problems side by side."""
    monkeypatch.setattr(module, "_ATOMS", 20)
    surface, potential = landscape(silicon(), problems=2, penalty=0.7)
    start = potential.nonlinear
    assert start is not None
    generator = torch.Generator().manual_seed(0)
    x = (start.repeat(2) + 0.2 * torch.randn(2 * len(start), generator=generator, dtype=torch.float64))[
        :, None
    ]
    way = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    found, step = surface.evaluate(x), 1e-5
    slope = (surface.evaluate(x + step * way).energy - surface.evaluate(x - step * way).energy) / (2 * step)
    told = -surface.segments.sum(found.force * way)
    torch.testing.assert_close(told, slope, rtol=1e-6, atol=1e-9)
    part = surface.select(torch.tensor([1])).evaluate(x[len(start) :])
    assert torch.equal(part.energy, found.energy[1:]) and torch.equal(part.force, found.force[len(start) :])


def test_lower_degrees_change_nothing() -> None:
    """They are not free: each product of radial functions is there with lower ones in their place."""
    data = silicon()
    plain = SMALL.prepared(data)
    (functions,) = {len(one) for row in plain.with_nonlinear(plain.nonlinear).radial for one in row}  # type: ignore[arg-type]
    lower = torch.randn(functions, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tril(
        -1
    )
    mixed = plain.replace(
        radial=(torch.eye(functions, 6, dtype=torch.float64) + 0.3 * lower)[None, None].tolist()
    )
    before, after = (
        triangle(one, data, WEIGHTS).residual(
            solve(triangle(one, data, WEIGHTS), strength=1e-18).theta.numpy()
        )
        for one in (plain, mixed)
    )
    assert after == pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize("optimizer", [None, Adam(step_size=0.02)], ids=["bfgs", "adam"])
def test_the_loss_goes_down(optimizer: Any, tmp_path: Path) -> None:
    data = silicon(20)
    potential = SMALL.prepared(data)
    stage = Stage(optimizer=optimizer, evaluations=25)
    solution = solve(triangle(potential, data, Weights()), potential.roughness(), strength=1e-7)
    search = RadialFit(potential, data, stage, solution=solution, weights=Weights())
    search.advance(until=1)
    first = search.loss
    search.advance()
    assert search.done and search.evaluations == 25 and search.loss < 0.7 * first
    found = fit(data, SMALL, radial=stage)
    plain = fit(data, SMALL)
    rows = [triangle(one, data, Weights()).residual(one.parameters.numpy()) for one in (found, plain)]
    assert rows[0] < 0.7 * rows[1]
    path = str(tmp_path / "fitted.safetensors")
    found.save(path, dict.fromkeys(TRAINING, "a test"))
    again = Mtp(weights=path)
    assert again.radial == found.radial
    for way in (data.systems, data.systems.with_pos(data.systems.pos.clone().requires_grad_(True))):
        torch.testing.assert_close(
            again.evaluate(way).force, found.evaluate(data.systems).force, rtol=0, atol=1e-9
        )
    design = again.design(data.systems)
    told = design.energy @ again.parameters + (0.0 if design.fixed_energy is None else design.fixed_energy)
    torch.testing.assert_close(told, found.evaluate(data.systems).energy, rtol=1e-10, atol=1e-10)
    found.write_mtp(str(tmp_path / "fitted.mtp"))
    read = Mtp(file=str(tmp_path / "fitted.mtp"), elements=["Si"]).evaluate(data.systems).energy
    torch.testing.assert_close(read, found.evaluate(data.systems).energy, rtol=0, atol=1e-9)


def test_a_point_without_sense_has_no_loss() -> None:
    surface, potential = landscape(silicon(4))
    assert potential.nonlinear is not None
    found = surface.evaluate(torch.full_like(potential.nonlinear, torch.nan)[:, None])
    assert bool(found.energy.isnan().all()) and bool(found.force.isnan().all())


def test_the_prior_keeps_shares_of_radial_functions_small() -> None:
    """Without it they grow for little: the fit is hardly better."""
    data = silicon()
    potential = SMALL.prepared(data)
    solution = solve(triangle(potential, data, Weights()), potential.roughness())
    size, deviation = [], []
    for spread in (1e3, 0.03):
        stage, about = Stage(evaluations=30), {"solution": solution, "weights": Weights()}
        search = RadialFit(potential, data, stage, spread=spread, **about)  # type: ignore[arg-type]
        search.advance()
        found = search.result()
        assert found.nonlinear is not None
        size.append(float(found.nonlinear.norm()))
        deviation.append(solve(triangle(found, data, Weights()), found.roughness()).deviation)
    assert size[1] < 0.5 * size[0]
    assert deviation[1] < 1.15 * deviation[0] < 0.8 * solution.deviation


@pytest.mark.parametrize(
    ("potential", "stage", "message"),
    [
        (BehlerParrinello(cutoff=3.8, hidden=[2]), Stage(), "BehlerParrinello has no radial coefficients"),
        (Mtp(level=4, cutoff=3.8), Stage(), "the only radial function of this Mtp is of one degree; raise"),
        (SMALL, Stage(batch=2), r"`radial\.batch`: .* takes all structures"),
    ],
)
def test_refusals(potential: Any, stage: Stage, message: str) -> None:
    data = silicon(4)
    with pytest.raises(InputError, match=message):
        RadialFit(potential.prepared(data), data, stage, solution=NOTHING, weights=Weights())
