"""How far atoms of fitted potentials reach: beyond it no atom changes the row of another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.potentials import BehlerParrinello, Mtp, SchNet

pytest.importorskip("numba")


@pytest.mark.parametrize(
    ("potential", "reach"),
    [
        (BehlerParrinello(elements=["Si"], cutoff=3.0, hidden=[3]), 3.0),
        (SchNet(elements=["Si"], cutoff=1.5, hidden=3, filters=3, gaussians=4, rounds=2), 3.0),
        (Mtp(elements=["Si"], cutoff=3.0, level=4, shortest=1.0, pair_functions=0), 3.0),
    ],
)
def test_reach(potential: Any, reach: float) -> None:
    """Of a chain, whose last atom is far from the first by other atoms alone."""
    assert potential.reach == reach

    def first_row(last: float) -> torch.Tensor:
        x = torch.tensor([0.0, 1.4, last], dtype=torch.float64)
        systems = Systems(
            torch.stack([x, 0.0 * x, 0.0 * x], 1),
            torch.tensor([14] * 3),
            torch.tensor([0, 3]),
            torch.zeros(1, 3, 3, dtype=torch.float64),
            torch.zeros(1, 3, dtype=torch.bool),
            torch.zeros(3, dtype=torch.bool),
        )
        found: torch.Tensor = potential.row_gradients(systems)[0]
        return found

    assert torch.equal(first_row(reach + 0.01), first_row(reach + 0.5))
    assert not torch.equal(first_row(2.8), first_row(2.7))
