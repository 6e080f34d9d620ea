"""Which minima a saddle joins: known pairs, in batches, on spheres, symmetric descents, and bad input."""

from __future__ import annotations

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.testing.surfaces import Watched
from mlopt.optimizers.saddles.connect import Same, connect
from mlopt.optimizers.saddles.modes import lowest_modes
from mlopt.potentials.classical.lennard_jones import LennardJones


def wells(n: int) -> FunctionLandscape:
    """``(x^2 - 1)^2 + 2 y^2``: minima at x = +-1, saddle at the origin."""
    return FunctionLandscape(
        lambda x, s: s.sum((x[:, 0] ** 2 - 1) ** 2 + 2 * x[:, 1] ** 2), Segments.uniform(n, 1)
    )


def test_double_well_batch_equals_loop() -> None:
    saddle = torch.zeros(3, 2, dtype=torch.float64)
    mode = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [0.2, 0.01]], dtype=torch.float64)
    right = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(3, 1)
    found = connect(wells(3), saddle, mode, minima=torch.stack([right, -right]))
    assert bool(found.joins.all()) and bool(found.converged.all()) and not found.negative.any()
    assert float(found.energy.abs().max()) < 1e-8
    signs = found.x[:, :, 0].sign().T.tolist()
    assert signs == [[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]]
    assert found.matches[:, 0, 0].tolist() == [True, False, True]
    wrong = connect(wells(3), saddle, mode, minima=torch.stack([right, right]))
    assert not wrong.joins.any()
    for i in range(3):
        one = connect(wells(1), saddle[i : i + 1], mode[i : i + 1])
        assert torch.allclose(one.x[:, 0], found.x[:, i], rtol=0, atol=1e-12)
        assert not one.joins.any(), "nothing was given to compare with"


def test_spins_join_both_ends() -> None:
    weights = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    landscape = FunctionLandscape(lambda x, s: s.sum(x * x * weights), Segments.uniform(1, 1), UnitSphere())
    x, y = torch.eye(3, dtype=torch.float64)[:2].split(1)
    found = connect(landscape, y, lowest_modes(landscape, y, 1).vectors[0], minima=torch.stack([x, -x]))
    assert bool(found.joins.all())
    assert found.energy.tolist() == [[pytest.approx(-1.0)] * 2]


def test_a_descent_that_ends_on_a_saddle_is_pushed_off() -> None:
    """``(x^2 - 1)^2 + (y^2 - 1)^2``: from the top along x alone one comes to saddles, by symmetry."""
    landscape = FunctionLandscape(lambda x, s: s.sum((x * x - 1) ** 2), Segments.uniform(1, 1))
    top = torch.zeros(1, 2, dtype=torch.float64)
    mode = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    held = connect(landscape, top, mode, verify=False)
    assert held.energy.tolist() == [[pytest.approx(1.0)] * 2] and held.negative.tolist() == [[-1, -1]]
    found = connect(landscape, top, mode)
    assert found.energy.tolist() == [[pytest.approx(0.0, abs=1e-8)] * 2] and not found.negative.any()


def test_clusters_match_up_to_rotation_and_exchange() -> None:
    """The straight trimer joins two triangles, told apart only by the names of the atoms; calls are counted."""
    line = torch.tensor([[-0.99918, 0, 0], [0, 0, 0], [0.99918, 0, 0]], dtype=torch.float64)
    triangle = torch.tensor([[5, 5, 5], [6, 5, 5], [5.5, 5 + 0.75**0.5, 5]], dtype=torch.float64)
    landscape = AtomsLandscape(Systems(line, torch.full((3,), 18), torch.tensor([0, 3])), LennardJones())
    mode = torch.tensor([[0.0, 1, 0], [0, -2, 0], [0, 1, 0]], dtype=torch.float64)
    found = connect(landscape, line, mode, minima=torch.stack([triangle, triangle]))
    assert bool(found.joins.all()) and bool(found.matches.all())
    assert found.energy.tolist() == [[pytest.approx(-3.0)] * 2]
    watched = Watched(landscape)  # no atoms to it: compared as points of flat space
    plain = connect(watched, line, mode, minima=torch.stack([triangle, triangle]))
    assert not plain.matches.any()
    assert watched.calls[0] == int(plain.calls.sum())


def test_bad_input() -> None:
    x = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(
        InputError, match=r"must both have shape \(2, d\) to fit the landscape, got \(2, 2\) and \(1, 2\)"
    ):
        connect(wells(2), x, x[:1])
    mode = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(InputError, match="`mode` of problem 1 is zero or not a number"):
        connect(wells(2), x, mode)
    with pytest.raises(InputError, match="`displacement` must be positive, got 0"):
        connect(wells(2), x, mode, displacement=0.0)
    with pytest.raises(InputError, match=r"`minima` must have shape \(2, 2, 2\), got \(2, 2\)"):
        connect(wells(2), x, mode, minima=x)
    with pytest.raises(InputError, match=r"Same\(distance=...\) must be positive and finite, got 0"):
        Same(distance=0.0)
