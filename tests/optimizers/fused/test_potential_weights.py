"""A potential with many coefficients: the fused engine takes them as weights, which are not compiled in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlopt.core import AtomsLandscape, Driver, Potential, Stop, Systems, problem_keys, setting
from mlopt.core.kernels import PotentialKernel
from mlopt.core.kernels.lanes import lane, lanes, theta_of, total
from mlopt.optimizers import Adam, BasinHopping
from mlopt.optimizers.fused import engine
from mlopt.optimizers.fused.written import written

pytest.importorskip("numba")


def polynomial(
    n: int,
    x: Any,
    force: Any,
    row_energy: Any,
    kinds: Any,
    runs: Any,
    table: Any,
    cell: Any,
    reals: Any,
    integers: Any,
    settings: Any,
) -> float:
    """Each component feels ``sum_k w_k x^(k + 2)``."""
    w = theta_of(settings)
    energy = 0.0
    for i in range(lane(), n, lanes()):
        row_energy[i] = 0.0
        for c in range(3):
            at = x[c * n + i]
            power, slope, value = at * at, 0.0, 0.0
            for k in range(len(w)):
                value += w[k] * power
                slope += w[k] * float(k + 2) * power / at
                power *= at
            row_energy[i] += value
            force[c * n + i] = -slope
        energy += row_energy[i]
    return total(energy)


class Polynomial(Potential):
    """Atoms in a well of their own, whose coefficients are one vector, or one a system."""

    w: Any = setting(..., "coefficients, (p,) or (n_systems, p)")

    def energy(self, systems: Systems) -> torch.Tensor:
        """(n_systems,)"""
        return systems.segments.sum(self._rows(systems)[:, None])

    def _rows(self, systems: Systems) -> torch.Tensor:
        w = self.w if self.w.ndim == 1 else systems.segments.rows_of(self.w)[:, None, :]
        k = torch.arange(self.w.shape[-1])
        return (w * systems.pos[..., None] ** (k + 2)).sum((-1, -2))

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Any:
        """With the share of each atom."""
        from dataclasses import replace

        return replace(super().evaluate(systems, stress=stress), row_energy=self._rows(systems).detach())

    def select(self, problems: torch.Tensor) -> Polynomial:
        return self if self.w.ndim == 1 else self.replace(w=self.w[problems])

    def diameter(self, z: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(z), dtype=torch.float64)

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        return PotentialKernel(polynomial, (((0.0,),),), theta=self.w)


def run(w: torch.Tensor, name: Any, optimizer: Any) -> torch.Tensor:
    pos = 0.5 + torch.rand(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    systems = Systems(pos, torch.full((9,), 18), torch.tensor([0, 3, 6, 9]))
    landscape = AtomsLandscape(systems, Polynomial(w=w))
    driver = Driver(landscape, optimizer, Stop(30), 3, name)
    progress = driver.begin(pos, problem_keys(0, torch.arange(3)))
    return driver.result(driver.advance(progress)).x


W = torch.tensor([1.0, 0.1, 0.3, 0.0, 0.05], dtype=torch.float64)


@pytest.mark.parametrize("own", [False, True], ids=["one for all", "one each"])
@pytest.mark.parametrize(
    "optimizer",
    [Adam(step_size=0.01), pytest.param(BasinHopping(quench_calls=10), marks=pytest.mark.slow)],
    ids=lambda o: type(o).__name__,
)
def test_fused_equals_eager(own: bool, optimizer: Any) -> None:
    w = torch.stack([W, 2.0 * W, 0.5 * W]) if own else W
    fused, eager = (run(w, name, optimizer) for name in ("fused", "eager"))
    torch.testing.assert_close(fused, eager, rtol=0, atol=1e-9)
    if own:
        alone = run(W, "fused", optimizer)
        torch.testing.assert_close(fused[:3], alone[:3], rtol=0, atol=0)


def test_other_coefficients_are_not_compiled_anew() -> None:
    texts = {
        written(engine._rollout(Polynomial(w=w).kernel(()), Adam().kernel(), {})).text
        for w in (W, 3.0 * W, W.repeat(3, 1))
    }
    assert len(texts) == 1
