"""Surfaces of two coordinates: where their stationary points are, and what the energy is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.landscape import FunctionLandscape
from mlopt.potentials.models.formulas import leps, leps_harmonic, muller_brown

Energy = Callable[[torch.Tensor, Segments], torch.Tensor]
#: surface, x, y, energy, eigenvalues of the second derivatives, and the error that the digits given leave
POINTS: list[tuple[Energy, float, float, float, tuple[float, float], float]] = [
    (muller_brown, -0.558223635, 1.441725842, -146.69951721, (410.53, 4068.20), 1e-8),
    (muller_brown, -0.822001559, 0.624312803, -40.66484351, (-750.86, 490.24), 1e-8),
    (muller_brown, -0.050010823, 0.466694105, -80.76781813, (221.04, 1479.20), 1e-8),
    (muller_brown, 0.212486582, 0.292988325, -72.24894011, (-735.25, 510.89), 1e-8),
    (muller_brown, 0.623499405, 0.028037759, -108.16672412, (543.84, 3005.40), 1e-8),
    (leps, 1.1494, 0.8625, -3.176913, (-6.0932, 13.6954), 1e-6),
    (leps_harmonic, 0.7415, 1.3034, -4.509176, (0.0, 0.0), 1e-6),
    (leps_harmonic, 3.0013, -1.3043, -2.620287, (0.0, 0.0), 1e-6),
    (leps_harmonic, 2.0208, -0.1729, -0.875225, (-8.0027, 0.66545), 1e-6),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[0].__name__} {point[3]}")
def test_stationary_points(point: tuple[Energy, float, float, float, tuple[float, float], float]) -> None:
    surface, x, y, energy, curvatures, digits = point
    one = Segments.uniform(1, 1)

    def value(flat: torch.Tensor) -> torch.Tensor:
        return surface(flat.reshape(1, 2), one)[0]

    place = torch.tensor([x, y], dtype=torch.float64)
    for _ in range(6):  # Newton, from the digits of the reference
        hessian = torch.autograd.functional.hessian(value, place)
        place = place - torch.linalg.solve(hessian, torch.autograd.functional.jacobian(value, place))
    assert torch.autograd.functional.jacobian(value, place).abs().max() < 1e-10
    assert (place - torch.tensor([x, y], dtype=torch.float64)).abs().max() < (
        1e-8 if digits == 1e-8 else 1e-4
    )
    assert abs(float(value(place)) - energy) < digits
    if any(curvatures):
        found = torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, place))
        assert torch.allclose(found, torch.tensor(curvatures, dtype=torch.float64), rtol=2e-5, atol=0)


def test_valleys_of_leps_are_flat_far_away() -> None:
    x = torch.tensor([[0.742, 4.0], [4.0, 0.742]], dtype=torch.float64)
    energy = leps(x, Segments.uniform(2, 1))
    assert torch.allclose(energy, torch.tensor([-4.5180, -3.6484], dtype=torch.float64), atol=5e-5)


@pytest.mark.parametrize("surface", [muller_brown, leps, leps_harmonic])
def test_rows_of_a_problem_add_up(surface: Energy) -> None:
    x = torch.rand(5, 2, dtype=torch.float64) + 0.7
    alone = surface(x, Segments.uniform(5, 1))
    together = FunctionLandscape(surface, Segments(torch.tensor([0, 2, 5]))).evaluate(x).energy
    assert torch.allclose(together, torch.stack([alone[:2].sum(), alone[2:].sum()]))
