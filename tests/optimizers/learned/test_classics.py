"""Constants of classics as a vector without constraints."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import minimize, unroll
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.testing.surfaces import lennard_jones
from mlopt.optimizers import Adam, BasinHopping, Fire, GradientDescent, SphereStart, Twist
from mlopt.optimizers.learned.classics import Classic
from mlopt.potentials import LennardJones

FIRE = ("dt", "dt_max / dt", "alpha", "grow", "cut", "fade", "max_step")
BASES: dict[str, tuple[Optimizer, dict[str, float]]] = {
    "adam": (Adam(step_size=0.02), {"step_size": 0.02, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}),
    "fire": (
        Fire(dt=0.01, dt_max=0.03),
        dict(zip(FIRE, (0.01, 3.0, 0.1, 1.1, 0.5, 0.99, 0.1), strict=True)),
    ),
    "fire 2.0": (
        Fire(variant="2.0", max_step=None),
        {"dt": 0.02, "dt_max / dt": 2.0, "alpha": 0.25, "grow": 1.1, "cut": 0.5, "fade": 0.99},
    ),
    "basin-hopping": (
        BasinHopping(temperature=0.5),
        {"temperature": 0.5, "step": 0.36, "quench_tolerance": 1e-2, "quench_calls": 1000.0},
    ),
}


def atoms() -> tuple[AtomsLandscape, torch.Tensor]:
    systems = Systems.cluster([18] * 6, 3)
    landscape = AtomsLandscape(systems, LennardJones())
    return landscape, SphereStart().sample(systems, landscape.diameter, problem_keys(0, torch.arange(3)))


@pytest.mark.parametrize("name", BASES)
def test_it_starts_at_the_base(name: str) -> None:
    base, constants = BASES[name]
    classic = Classic(base=base)
    assert classic.named(classic.start()) == pytest.approx(constants, rel=1e-9)
    landscape, x = atoms()
    calls = 30
    ours = minimize(landscape, classic.optimizer(classic.start()), x, force_calls=calls, engine="eager")
    theirs = minimize(landscape, base, x, force_calls=calls, engine="eager")
    torch.testing.assert_close(ours.energy, theirs.energy, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("engine", ["eager", pytest.param("fused", marks=pytest.mark.slow)])
def test_a_population_is_many_alone(name: str, engine: Any) -> None:
    classic = Classic(
        base=BASES[name][0].replace(quench_calls=7) if name == "basin-hopping" else BASES[name][0]
    )
    landscape, x = atoms()
    noise = torch.randn(
        3, len(classic.start()), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    theta = classic.start() + 0.2 * noise
    together = minimize(landscape, classic.optimizer(theta), x, force_calls=40, engine=engine)
    assert len(set(together.energy.tolist())) == 3
    for p in range(3):
        index = torch.tensor([p])
        _, rows = landscape.segments.select(index)
        alone = minimize(
            landscape.select(index),
            classic.optimizer(theta[p]),
            x[rows],
            force_calls=40,
            engine=engine,
            ids=index,
        )
        torch.testing.assert_close(together.energy[index], alone.energy, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["adam", "fire"])
def test_gradients_reach_theta(name: str) -> None:
    classic = Classic(base=BASES[name][0])
    landscape, x = lennard_jones([4, 5])

    def last(theta: torch.Tensor) -> torch.Tensor:
        return unroll(landscape, classic.optimizer(theta), x, steps=8)[1][-1].sum()

    theta = classic.start().requires_grad_(True)
    (gradient,) = torch.autograd.grad(last(theta), theta, allow_unused=True)
    with torch.no_grad():
        for k in range(3 if name == "adam" else 1):
            h = torch.zeros(len(theta), dtype=torch.float64)
            h[k] = 1e-5
            difference = float(last(theta + h) - last(theta - h)) / 2e-5
            assert float(gradient[k]) == pytest.approx(difference, rel=1e-4, abs=1e-9)
            assert difference != 0.0


def test_refusals() -> None:
    with pytest.raises(
        InputError, match=r"the constants of GradientDescent are not learned; adam, fire and basin"
    ):
        build(Classic, {"base": GradientDescent()})
    with pytest.raises(InputError, match=r"temperature is 0.0, at the edge"):
        build(Classic, {"base": BasinHopping(temperature=0.0)})
    with pytest.raises(InputError, match=r"without a move `displacement`"):
        build(Classic, {"base": BasinHopping(moves=[Twist()])})
    classic = Classic()
    with pytest.raises(
        InputError, match=r"Adam has 4 constants \(step_size, beta1, beta2, epsilon\), but theta has 3"
    ):
        classic.optimizer(torch.zeros(3))
    with pytest.raises(InputError, match=r"theta of Adam is not finite"):
        classic.optimizer(torch.tensor([0.0, 0.0, torch.nan, 0.0]))
